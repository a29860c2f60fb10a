"""Data keys: made once, destroyed for ever, wrapped anew beside traffic."""

import asyncio
import contextlib

import pytest
from sqlalchemy import text, update
from uuid6 import uuid7

from servicekit.crypto import KeyRing, MasterKeyMissing, SealBroken, generate_key
from servicekit.data_keys import DataKeys, OwnerErased
from servicekit.migrations import owner_engine


async def key_of(kit, owner_id, call=None):
    async with kit.database.transaction(call or kit.partner) as tx:
        return await kit.data_keys.for_owner(tx, owner_id)


class TestForOwner:
    async def test_makes_one_key_for_many_at_once(self, kit):
        owner_id = uuid7()
        keys = await asyncio.gather(*(key_of(kit, owner_id) for _ in range(20)))
        assert len({key.id for key in keys}) == 1
        sealed = keys[0].seal(b"Ravi", b"place")
        assert all(key.open(sealed, b"place") == b"Ravi" for key in keys)

    async def test_makes_different_keys_for_different_owners(self, kit):
        one, other = await key_of(kit, uuid7()), await key_of(kit, uuid7())
        with pytest.raises(SealBroken):
            other.open(one.seal(b"Ravi", b"place"), b"place")

    async def test_does_not_make_a_second_key_for_an_owner_of_another_platform(self, kit):
        owner_id = uuid7()
        await key_of(kit, owner_id)
        with pytest.raises(LookupError):
            await key_of(kit, owner_id, kit.other_partner)

    async def test_keeps_nothing_when_the_transaction_fails(self, kit):
        owner_id = uuid7()
        with contextlib.suppress(ZeroDivisionError):
            async with kit.database.transaction(kit.partner) as tx:
                await kit.data_keys.for_owner(tx, owner_id)
                raise ZeroDivisionError
        async with kit.database.transaction(kit.partner) as tx:
            assert await kit.data_keys.find(tx, owner_id) is None


class TestDestroy:
    async def test_leaves_no_key_and_lets_none_be_made(self, kit):
        owner_id = uuid7()
        await key_of(kit, owner_id)
        for _ in range(2):
            async with kit.database.transaction(kit.admin) as tx:
                await kit.data_keys.destroy(tx, owner_id, kit.platform_id)
        async with kit.database.transaction(kit.partner) as tx:
            assert await kit.data_keys.find(tx, owner_id) is None
        with pytest.raises(OwnerErased):
            await key_of(kit, owner_id)
        with kit.superuser() as connection:
            row = connection.execute("SELECT wrapped, master_key_id FROM data_keys WHERE owner_id = %s", (owner_id,))
            assert row.fetchone() == (None, None)

    async def test_leaves_none_to_the_transaction_that_wrote_with_it(self, kit):
        owner_id = uuid7()
        async with kit.database.transaction(kit.admin) as tx:
            first = await kit.data_keys.for_owner(tx, owner_id, kit.platform_id)
            assert await kit.data_keys.for_owner(tx, owner_id) is first
            await kit.data_keys.destroy(tx, owner_id, kit.platform_id)
            with pytest.raises(OwnerErased):
                await kit.data_keys.for_owner(tx, owner_id)

    async def test_keeps_a_key_from_being_made_where_there_was_none(self, kit):
        owner_id = uuid7()
        async with kit.database.transaction(kit.worker) as tx:
            await kit.data_keys.destroy(tx, owner_id, kit.platform_id)
        with pytest.raises(OwnerErased):
            await key_of(kit, owner_id)

    async def test_wins_against_keys_being_made(self, kit):
        async def destroy(owner_id):
            async with kit.database.transaction(kit.admin) as tx:
                await kit.data_keys.destroy(tx, owner_id, kit.platform_id)

        for _ in range(20):
            owner_id = uuid7()
            await asyncio.gather(
                key_of(kit, owner_id), destroy(owner_id), key_of(kit, owner_id), return_exceptions=True
            )
            with pytest.raises(OwnerErased):
                await key_of(kit, owner_id)

    async def test_waits_for_who_writes_with_the_key(self, kit):
        owner_id = uuid7()
        await key_of(kit, owner_id)

        async def destroy():
            async with kit.database.transaction(kit.admin) as tx:
                await kit.data_keys.destroy(tx, owner_id, kit.platform_id)
                return (await tx.connection.execute(text("SELECT count(*) FROM dependants"))).scalar_one()

        async with kit.database.transaction(kit.partner) as tx:
            await kit.data_keys.for_owner(tx, owner_id)
            destroying = asyncio.create_task(destroy())
            await tx.connection.execute(
                text(
                    "INSERT INTO dependants VALUES (gen_random_uuid(), 1, :user, :platform, 'SON', 'active', now(), '')"
                ).bindparams(user=owner_id, platform=kit.platform_id)
            )
            await asyncio.sleep(0.1)
        assert await destroying == 1


class TestTampering:
    @pytest.mark.parametrize("column", ["id", "owner_id", "wrapped"])
    async def test_notices_swapped_columns(self, kit, column):
        owners = [uuid7(), uuid7()]
        for owner_id in owners:
            await key_of(kit, owner_id)
        with kit.superuser() as connection:
            connection.execute("ALTER TABLE data_keys DROP CONSTRAINT data_keys_owner_id_key")
            connection.execute("ALTER TABLE data_keys DROP CONSTRAINT data_keys_pkey")
            connection.execute(
                f"UPDATE data_keys a SET {column} = b.{column} FROM data_keys b WHERE a.owner_id <> b.owner_id"
            )
        with pytest.raises(SealBroken):
            await key_of(kit, owners[0])


class TestRewrap:
    async def make_keys(self, kit, count):
        owners = [uuid7() for _ in range(count)]
        return {owner_id: await key_of(kit, owner_id) for owner_id in owners}

    async def test_wraps_every_key_in_batches(self, kit):
        made = await self.make_keys(kit, 25)
        new = DataKeys(kit.data_keys.table, KeyRing({"second": generate_key(), "first": kit.master_key}))
        told = []
        engine = owner_engine(kit.owner_dsn)
        count = await asyncio.to_thread(
            new.rewrap, engine, batch_size=10, progress=lambda done, total: told.append((done, total))
        )
        assert count == 25
        assert told == [(10, 25), (20, 25), (25, 25)]
        assert await asyncio.to_thread(new.rewrap, engine) == 0
        engine.dispose()
        async with kit.database.transaction(kit.partner) as tx:
            for owner_id, key in made.items():
                found = await new.find(tx, owner_id)
                assert found.open(key.seal(b"Ravi", b"place"), b"place") == b"Ravi"
            with pytest.raises(MasterKeyMissing):
                await kit.data_keys.find(tx, owner_id)

    async def test_goes_on_where_it_ended(self, kit):
        await self.make_keys(kit, 25)
        new = DataKeys(kit.data_keys.table, KeyRing({"second": generate_key(), "first": kit.master_key}))

        def die(done, total):
            if done == 10:
                raise KeyboardInterrupt

        engine = owner_engine(kit.owner_dsn)
        with pytest.raises(KeyboardInterrupt):
            new.rewrap(engine, batch_size=5, progress=die)
        assert new.rewrap(engine, batch_size=5) == 15
        engine.dispose()

    async def test_leaves_a_key_that_somebody_writes_with_for_later(self, kit):
        first, *_ = await self.make_keys(kit, 5)
        new = DataKeys(kit.data_keys.table, KeyRing({"second": generate_key(), "first": kit.master_key}))
        told = []
        engine = owner_engine(kit.owner_dsn)
        async with kit.database.transaction(kit.partner) as tx:
            await kit.data_keys.for_owner(tx, first)
            rewrapping = asyncio.create_task(
                asyncio.to_thread(new.rewrap, engine, progress=lambda done, total: told.append((done, total)))
            )
            while not told:  # noqa: ASYNC110  # progress comes from another thread
                await asyncio.sleep(0.01)
            assert told == [(4, 5)]
        assert await rewrapping == 5
        assert told == [(4, 5), (5, 5)]
        engine.dispose()

    async def test_brings_no_destroyed_key_back_and_goes_beside_traffic(self, kit):
        made = await self.make_keys(kit, 60)
        ring = KeyRing({"second": generate_key(), "first": kit.master_key})
        new = DataKeys(kit.data_keys.table, ring)
        kit.data_keys = new
        erased = list(made)[::3]

        async def erase(owner_id):
            async with kit.database.transaction(kit.admin) as tx:
                await new.destroy(tx, owner_id)

        async def read(owner_id):
            async with kit.database.transaction(kit.partner) as tx:
                return await new.find(tx, owner_id)

        engine = owner_engine(kit.owner_dsn)
        rewrapping = asyncio.to_thread(new.rewrap, engine, batch_size=3)
        await asyncio.gather(
            rewrapping, *map(erase, erased), *map(read, made), *(key_of(kit, uuid7()) for _ in range(9))
        )
        engine.dispose()
        for owner_id in made:
            assert (await read(owner_id) is None) == (owner_id in erased)
        with kit.superuser() as connection:
            left = connection.execute("SELECT count(*) FROM data_keys WHERE master_key_id = 'first'").fetchone()
        assert left == (0,)


async def test_the_database_refuses_half_a_tombstone(kit):
    owner_id = uuid7()
    await key_of(kit, owner_id)
    with pytest.raises(Exception, match="wrapped_until_destroyed"):
        async with kit.database.transaction(kit.admin) as tx:
            await tx.connection.execute(update(kit.data_keys.table).values(wrapped=None))
    async with kit.database.transaction(kit.admin) as tx:
        assert (await tx.connection.execute(text("SELECT count(*) FROM data_keys"))).scalar_one() == 1
