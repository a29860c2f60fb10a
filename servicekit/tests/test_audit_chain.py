"""The chain: nothing is left out, nobody waits, and whatever a superuser does to it is found."""

import asyncio
import fcntl
import json
import random
import time
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from servicekit import audit_chain, audit_heads, line_file
from servicekit.audit_chain import CHAINED
from servicekit.audit_heads import Head, HeadFile
from tests.database_server import waits_for_standby, without_standby


async def verify(kit, from_sequence=1, chain=None, **more):
    async with kit.database.transaction(kit.admin) as tx:
        return await (chain or kit.chain).verify(tx, from_sequence, **more)


def chained(kit):
    with kit.superuser() as connection:
        return connection.execute(
            "SELECT sequence, entity_id FROM audit_chain LEFT JOIN audit_log ON id = audit_id ORDER BY sequence"
        ).fetchall()


def test_every_column_is_chained(kit):
    assert set(kit.chain._log.c.keys()) == set(CHAINED)


class TestSeal:
    async def test_numbers_without_gaps_in_batches(self, kit, monkeypatch):
        monkeypatch.setattr(audit_chain, "BATCH", 3)
        await kit.record(10)
        assert [await kit.chain.seal() for _ in range(5)] == [3, 3, 3, 1, 0]
        assert chained(kit) == [(n + 1, f"n-{n}") for n in range(10)]
        assert (await verify(kit)).intact

    @pytest.mark.parametrize(
        "line", ['{"hash": "00"}', '{"sequence": "1", "hash": "00"}', '{"sequence": 1, "hash": "no"}', "[1]"]
    )
    async def test_goes_on_beside_a_damaged_line_of_the_head_file(self, kit, line):
        await kit.record(2)
        await kit.seal_all()
        with kit.head_file.open("a") as file:
            file.write(f"{line}\n")
        kit.chain = kit.new_chain()
        await kit.record(2)
        await kit.seal_all()
        assert len(chained(kit)) == 4
        assert (await verify(kit)).intact

    async def test_splits_a_transaction_that_is_larger_than_a_batch(self, kit, monkeypatch):
        monkeypatch.setattr(audit_chain, "BATCH", 3)
        async with kit.database.transaction(kit.worker) as tx:
            for number in range(7):
                await kit.audit_log.record(tx, "n", "n", f"{number}")
        await kit.record(2)
        await kit.seal_all()
        assert [sequence for sequence, _ in chained(kit)] == list(range(1, 10))
        assert (await verify(kit)).intact

    async def test_misses_no_row_that_is_committed_late(self, kit):
        rng = random.Random(5)
        stop = asyncio.Event()
        written = []

        async def write(number):
            async with kit.database.transaction(kit.worker) as tx:
                await kit.audit_log.record(tx, "n", "n", f"{number}")
                await asyncio.sleep(rng.choice([0, 0, 0.01, 0.3]))
                if number % 10 == 3:
                    await tx.connection.execute(text("SAVEPOINT a"))
                    await kit.audit_log.record(tx, "n", "n", f"{number} undone")
                    await tx.connection.execute(text("ROLLBACK TO a"))
                if number % 7 == 0:
                    raise ZeroDivisionError
            written.append(f"{number}")

        async def seal():
            while not stop.is_set():
                await kit.chain.seal()
                await asyncio.sleep(0.005)

        sealing = [asyncio.create_task(seal()) for _ in range(2)]
        for start in range(0, 120, 6):
            results = await asyncio.gather(*(write(start + n) for n in range(6)), return_exceptions=True)
            assert all(result is None or isinstance(result, ZeroDivisionError) for result in results)
        stop.set()
        await asyncio.gather(*sealing)
        await kit.seal_all()
        rows = chained(kit)
        assert [sequence for sequence, _ in rows] == list(range(1, len(written) + 1))
        assert sorted(entity for _, entity in rows) == sorted(written)
        assert (await verify(kit)).intact

    async def test_seals_a_row_whose_transaction_outlived_a_restart(self, kit):
        async with kit.database.transaction(kit.worker) as tx:
            await kit.audit_log.record(tx, "n", "n", "late")
            await kit.record(3)
            await kit.seal_all()
            kit.chain = kit.new_chain()
            await kit.record(1)
            await kit.seal_all()
            assert len(chained(kit)) == 4
        kit.chain = kit.new_chain()
        await kit.seal_all()
        assert chained(kit)[-1] == (5, "late")

    async def test_writers_wait_for_nobody(self, kit):
        async with kit.database.transaction(kit.worker) as slow:
            await kit.audit_log.record(slow, "n", "n", "slow")
            await slow.connection.execute(text(f"SELECT pg_advisory_xact_lock({audit_chain.LOCK})"))
            began = time.monotonic()
            await asyncio.gather(*(kit.record(5) for _ in range(5)))
            # Another sealer is at work, so that this one only looks.
            assert await kit.chain.seal() == 0
            assert time.monotonic() - began < 1

    async def test_sealers_of_several_replicas_make_one_chain(self, kit):
        replicas = [kit.new_chain() for _ in range(4)]
        for _ in range(10):
            await asyncio.gather(kit.record(3), *(replica.seal() for replica in replicas))
        await kit.seal_all()
        assert [sequence for sequence, _ in chained(kit)] == list(range(1, 31))
        assert (await verify(kit, chain=replicas[2])).intact

    async def test_keeps_no_head_that_a_standby_may_lack(self, kit):
        await kit.record(1)
        other = kit.new_chain()
        with without_standby(kit.superuser_dsn):
            assert await waits_for_standby(kit.chain.seal())
            # Everybody sees what was given up, so there is nothing left to seal.
            assert len(chained(kit)) == 1
            assert await waits_for_standby(other.seal())
            assert HeadFile(kit.head_file).last() is None
        await other.seal()
        assert HeadFile(kit.head_file).last().sequence == 1

    async def test_seals_everything_after_a_restore_into_a_younger_server(self, kit):
        await kit.record(3)
        await kit.seal_all()
        with kit.superuser() as connection:
            # Transactions of the old server had far higher numbers. (The chain is made anew, as it would be there.)
            connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL; ALTER TABLE audit_chain DISABLE TRIGGER ALL")
            connection.execute("TRUNCATE audit_chain")
            connection.execute("UPDATE audit_log SET transaction_id = transaction_id + 1000000000000")
        kit.head_file.unlink()
        kit.chain = kit.new_chain()
        with kit.superuser() as connection:
            connection.execute("ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_change")
        await kit.seal_all()
        with kit.superuser() as connection:
            connection.execute("UPDATE audit_chain SET horizon = horizon + 1000000000000")
        kit.chain = kit.new_chain()
        await kit.record(2)
        await kit.seal_all()
        assert len(chained(kit)) == 5

    async def test_looks_once_for_what_an_older_server_wrote(self, kit):
        await kit.record(3)
        await kit.seal_all()
        with kit.superuser() as connection:
            connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL; ALTER TABLE audit_chain DISABLE TRIGGER ALL")
            connection.execute("UPDATE audit_log SET transaction_id = transaction_id + 1000000000000")
            connection.execute("UPDATE audit_chain SET horizon = horizon + 1000000000000")
            await kit.record(1)
            kit.chain = kit.new_chain()
            await kit.seal_all()
            assert len(chained(kit)) == 4
            # Nobody looks through the whole log for this one, and who verifies it finds it.
            highest = "SELECT * FROM audit_log ORDER BY transaction_id DESC LIMIT 1"
            connection.execute(f"CREATE TEMP TABLE slipped_in AS {highest}")
            connection.execute("UPDATE slipped_in SET id = gen_random_uuid()")
            connection.execute("INSERT INTO audit_log SELECT * FROM slipped_in")
        await kit.record(1)
        await kit.seal_all()
        assert len(chained(kit)) == 5
        kit.chain = kit.new_chain()
        await kit.seal_all()
        assert len(chained(kit)) == 6

    async def test_seals_rows_of_transactions_whose_numbers_are_given_for_the_second_time(self, kit):
        await kit.record(1)
        await kit.seal_all()
        with kit.superuser() as connection:
            (horizon,) = connection.execute("SELECT max(horizon) FROM audit_chain").fetchone()
            for _ in range(5):
                # A number that nothing on the disk tells of.
                connection.execute("SELECT pg_current_xact_id()")
            assert await kit.chain.seal() == 0
            await kit.record(1)
            # As after a crash.
            connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
            newest = "SELECT id FROM audit_log ORDER BY transaction_id DESC LIMIT 1"
            connection.execute(f"UPDATE audit_log SET transaction_id = {horizon} WHERE id = ({newest})")
            connection.execute("ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_change")
        await kit.seal_all()
        assert len(chained(kit)) == 2
        assert (await verify(kit)).intact

    async def test_a_replica_that_stands_still_does_not_keep_the_others_from_sealing(self, kit, monkeypatch):
        monkeypatch.setattr(line_file, "PATIENCE_S", 0.1)
        await kit.record(1)
        with kit.head_file.with_name(f"{kit.head_file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(OSError):  # it says nothing but that
                await kit.chain.seal()
        await kit.record(1)
        await kit.seal_all()
        assert len(chained(kit)) == 2
        assert HeadFile(kit.head_file).last().sequence == 2

    async def test_is_done_within_a_second(self, kit):
        running = asyncio.create_task(kit.chain.run())
        await kit.record(3)
        await asyncio.sleep(1)
        assert len(chained(kit)) == 3
        running.cancel()

    async def test_tells_of_rows_that_wait_too_long(self, kit, monkeypatch):
        monkeypatch.setattr(audit_chain, "OVERDUE_S", 0.1)
        await kit.record(2)
        await asyncio.sleep(0.2)
        with kit.superuser() as other_sealer:
            other_sealer.execute("SELECT pg_advisory_lock(%s)", (audit_chain.LOCK,))
            await kit.chain.seal()
            assert kit.chain.overdue_rows() == 2
            # A session that is only closed may keep its locks for a moment.
            other_sealer.execute("SELECT pg_advisory_unlock(%s)", (audit_chain.LOCK,))
        await kit.chain.seal()
        assert kit.chain.overdue_rows() == 0
        await asyncio.sleep(0.2)
        assert kit.chain.overdue_rows() == float("inf")

    async def test_says_so_when_the_head_cannot_be_kept(self, kit, monkeypatch):
        monkeypatch.setattr(audit_chain, "OVERDUE_S", 0.1)
        await kit.record(1)
        await kit.chain.seal()
        kit.head_file.unlink()
        kit.head_file.mkdir()
        await kit.record(1)
        await asyncio.sleep(0.2)
        with pytest.raises(OSError, match="directory"):
            await kit.chain.seal()
        assert kit.chain.overdue_rows() == float("inf")

    async def test_survives_a_database_that_is_away(self, kit):
        name = kit.database_name
        with psycopg.connect(kit.superuser_dsn, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            running = asyncio.create_task(kit.chain.run())
            await asyncio.sleep(0.6)
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await kit.record(1)
        await asyncio.sleep(1)
        assert not running.done()
        running.cancel()
        assert len(chained(kit)) == 1


class TestVerify:
    async def test_an_empty_chain_holds(self, kit):
        await kit.chain.seal()
        answer = await verify(kit)
        assert (answer.service, answer.rows, answer.intact) == ("kit", 0, True)
        assert not answer.HasField("head_hash")
        assert not answer.HasField("next_from_sequence")

    async def test_goes_on_in_parts(self, kit, monkeypatch):
        monkeypatch.setattr(audit_chain, "PAGE", 2)
        await kit.record(10)
        await kit.seal_all()
        parts = []
        place = 1
        while place:
            answer = await verify(kit, place, limit=4)
            assert answer.intact
            parts.append(answer.rows)
            place = answer.next_from_sequence
        assert parts == [4, 4, 2]
        head = json.loads(kit.head_file.read_text().strip().splitlines()[-1])
        assert (answer.head_hash, head["sequence"]) == (head["hash"], 10)

    async def test_holds_whatever_the_session_is_set_to(self, kit):
        await kit.record(3)
        await kit.seal_all()
        async with kit.database.transaction(kit.admin) as tx:
            for setting in ("TimeZone='Asia/Kolkata'", "DateStyle='German'", "bytea_output='escape'"):
                await tx.connection.execute(text(f"SET LOCAL {setting}"))
            assert (await kit.chain.verify(tx, 1)).intact

    async def test_rows_that_wait_to_be_sealed_are_no_tampering(self, kit):
        await kit.record(3)
        await kit.seal_all()
        async with kit.database.transaction(kit.worker) as tx:
            await kit.audit_log.record(tx, "n", "n", "1", occurred_at=tx.now - timedelta(days=3))
        assert (await verify(kit)).intact

    async def test_beyond_the_end_there_is_nothing(self, kit):
        await kit.record(3)
        await kit.seal_all()
        answer = await verify(kit, 1000)
        assert (answer.rows, answer.intact) == (0, True)

    async def test_another_key_fits_nowhere(self, kit):
        await kit.record(3)
        await kit.seal_all()
        kit.audit_key = bytes(32)
        answer = await verify(kit, chain=kit.new_chain())
        assert (answer.intact, answer.first_broken_sequence) == (False, 1)


def _begin_anew(kit, connection):
    connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL; ALTER TABLE audit_chain DISABLE TRIGGER ALL")
    connection.execute("TRUNCATE audit_log, audit_chain")
    kit.head_file.unlink(missing_ok=True)
    kit.chain = kit.new_chain()


def tamper(connection, rng, count):
    """Do one random thing to the log of `count` sealed rows, as someone who may do anything; return what it was."""
    n = rng.randint(1, count)
    row = f"id = (SELECT audit_id FROM audit_chain WHERE sequence = {n})"
    column, value = rng.choice(
        [
            ("occurred_at", "occurred_at + '1 microsecond'"),
            ("actor_type", "'SYSTEM '"),
            ("actor_id", "actor_id || 'x'"),
            ("action", "''"),
            ("entity_id", "null"),
            ("entity_type", "'user'"),
            ("user_id", "gen_random_uuid()"),
            ("platform_id", "gen_random_uuid()"),
            ("changes", """'{"status": ["draft", "active"]}'"""),
            ("sealed", "'\\x01'"),
            ("request_id", "'r-2'"),
            ("source_address", "'::1'"),
            ("user_agent", "''"),
            ("count", "count + 1"),
            ("transaction_id", "transaction_id - 1"),
            ("id", "gen_random_uuid()"),
        ]
    )
    tail = rng.randint(1, count)
    statements = rng.choice(
        [
            # Edit a row; twice as likely as the others, as there are so many columns.
            [f"UPDATE audit_log SET {column} = {value} WHERE {row}"],
            [f"UPDATE audit_log SET {column} = {value} WHERE {row}"],
            # Take a row out of the log, out of the chain, out of both, and close the gap.
            [f"DELETE FROM audit_log WHERE {row}"],
            [f"DELETE FROM audit_chain WHERE sequence = {n}"],
            [f"DELETE FROM audit_log WHERE {row}", f"DELETE FROM audit_chain WHERE sequence = {n}"],
            [
                f"DELETE FROM audit_log WHERE {row}",
                f"DELETE FROM audit_chain WHERE sequence = {n}",
                f"UPDATE audit_chain SET sequence = -sequence WHERE sequence > {n}",
                "UPDATE audit_chain SET sequence = -sequence - 1 WHERE sequence < 0",
            ],
            # Cut the end off.
            [f"DELETE FROM audit_chain WHERE sequence > {count - tail}"],
            [
                f"DELETE FROM audit_log WHERE id IN (SELECT audit_id FROM audit_chain WHERE sequence > {count - tail})",
                f"DELETE FROM audit_chain WHERE sequence > {count - tail}",
            ],
            ["TRUNCATE audit_chain"],
            ["TRUNCATE audit_log, audit_chain"],
            ["TRUNCATE audit_log"],
            # Change the chain.
            [f"UPDATE audit_chain SET hash = sha256('x') WHERE sequence = {n}"],
            [f"UPDATE audit_chain SET horizon = horizon + {rng.choice([-1, 1, 10**6])} WHERE sequence = {n}"],
            [f"UPDATE audit_chain SET sequence = {rng.choice([-n, count + n, 0])} WHERE sequence = {n}"],
            [f"UPDATE audit_chain SET audit_id = gen_random_uuid() WHERE sequence = {n}"],
            # Slip a row in, below what the sealer looks at, with and without a place in front of the chain.
            [
                "INSERT INTO audit_log (id, occurred_at, actor_type, actor_id, action, entity_type, changes, count, "
                "transaction_id) VALUES (gen_random_uuid(), now(), 'ADMIN', 'a', 'b', 'c', '{}', 1, 3)"
            ],
            [
                "INSERT INTO audit_log (id, occurred_at, actor_type, actor_id, action, entity_type, changes, count, "
                "transaction_id) VALUES (gen_random_uuid(), now(), 'ADMIN', 'a', 'b', 'c', '{}', 1, 3)",
                "INSERT INTO audit_chain SELECT -1, id, '\\x00', 0 FROM audit_log WHERE transaction_id = 3",
            ],
        ]
    )
    assert connection.execute(statements[0]).rowcount != 0
    for statement in statements[1:]:
        connection.execute(statement)
    return statements


class TestTampering:
    @pytest.mark.parametrize("goes_on", [False, True], ids=["then nothing", "then the service goes on"])
    async def test_is_found_a_hundred_times_out_of_a_hundred(self, kit, goes_on, monkeypatch):
        monkeypatch.setattr(audit_chain, "BATCH", 4)
        with kit.superuser() as connection:
            for seed in range(100):
                rng = random.Random(seed)
                _begin_anew(kit, connection)
                count = rng.randint(1, 15)
                await kit.record(count)
                await kit.seal_all()
                assert (await verify(kit)).intact
                done = tamper(connection, rng, count)
                if goes_on:
                    kit.chain = kit.new_chain() if rng.random() < 0.5 else kit.chain
                    await kit.record(rng.randint(0, 20))
                    await kit.seal_all()
                answer = await verify(kit)
                assert not answer.intact, done
                assert 1 <= answer.first_broken_sequence <= count + 21, done

    async def test_of_the_end_is_told_at_once(self, kit):
        await kit.record(5)
        await kit.seal_all()
        with kit.superuser() as connection:
            connection.execute(
                "ALTER TABLE audit_chain DISABLE TRIGGER ALL; DELETE FROM audit_chain WHERE sequence > 3"
            )
        with capture_logs() as logs:
            await kit.chain.seal()
        assert [entry["sequence"] for entry in logs if entry["event"] == "audit chain lost its head"] == [5]

    async def test_names_the_first_broken_place(self, kit):
        await kit.record(9)
        await kit.seal_all()
        with kit.superuser() as connection:
            connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
            connection.execute("UPDATE audit_log SET action = 'x' WHERE entity_id IN ('n-5', 'n-7')")
        answer = await verify(kit)
        assert (answer.intact, answer.first_broken_sequence, answer.rows) == (False, 6, 9)
        assert (await verify(kit, 7)).first_broken_sequence == 8
        assert (await verify(kit, 9)).intact


class TestHeadFile:
    def test_stays_small_and_keeps_old_and_lost_heads(self, tmp_path, monkeypatch):
        monkeypatch.setattr(audit_heads, "LARGEST_BYTES", 20_000)
        monkeypatch.setattr(audit_heads, "NEWEST_KEPT", 20)
        heads = HeadFile(tmp_path / "new folder" / "heads")
        lost = Head(77, bytes(32))
        for sequence in range(1, 2001):
            heads.append(Head(sequence, sequence.to_bytes(32)), lost=lost if sequence == 100 else None)
            assert (tmp_path / "new folder" / "heads").stat().st_size < 20_500
        kept = heads.read()
        assert heads.last() == Head(2000, (2000).to_bytes(32))
        assert lost in kept
        assert [head.sequence for head in kept[-20:]] == list(range(1981, 2001))
        assert min(head.sequence for head in kept) == 1

    def test_survives_half_a_line(self, tmp_path):
        heads = HeadFile(tmp_path / "heads")
        heads.append(Head(1, bytes(32)))
        with (tmp_path / "heads").open("a") as file:
            file.write('{"sequence": 2, "ha')
        heads.append(Head(3, bytes(32)))
        assert [head.sequence for head in heads.read()] == [1, 3]

    def test_is_empty_before_the_first_head(self, tmp_path):
        assert HeadFile(tmp_path / "heads").last() is None


async def test_verifies_more_rows_than_one_read_fetches(kit):
    with kit.superuser() as connection:
        connection.execute(
            "INSERT INTO audit_log SELECT gen_random_uuid(), now(), 'ADMIN', 'a', 'note.change', 'note', n::text, "
            "gen_random_uuid(), gen_random_uuid(), '{\"status\": [1, 2]}', null, 'r', 'a', 'u', 1 "
            "FROM generate_series(1, 20000) n"
        )
    await kit.seal_all()
    answer = await verify(kit)
    assert (answer.rows, answer.intact) == (20_000, True)
