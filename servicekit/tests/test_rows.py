"""Rows and messages: what is clear, what is sealed, and what a change to the sealed part does."""

import json
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    insert,
)
from sqlalchemy.dialects.postgresql import JSONB
from uuid6 import uuid7

from aarokya.catalogue.v1.benefit_pb2 import Benefit, BenefitTranslation
from aarokya.identity.v1.platform_pb2 import Platform
from aarokya.records.v1.dependant_pb2 import Dependant
from servicekit.crypto import SealBroken
from servicekit.migrations import owner_engine
from servicekit.rows import RowMapper

MOMENT = datetime(2026, 11, 20, 9, 30, 0, 123456, UTC)


def dependant_of(kit, user_id=None, **fields):
    message = Dependant(
        id=str(uuid7()),
        version=1,
        user_id=str(user_id or uuid7()),
        platform_id=str(kit.platform_id),
        relationship="RELATIONSHIP_SON",
        status="DEPENDANT_STATUS_ACTIVE",
        first_name="Ravi",
        gender="GENDER_MALE",
        date_of_birth="2019-02-28",
        created_by={"type": "ACTOR_TYPE_USER", "id": "u"},
        **fields,
    )
    message.created_at.FromDatetime(MOMENT)
    return message


@pytest.fixture
def mapper(kit):
    return RowMapper(kit.dependants, Dependant, kit.data_keys, owner_column="user_id", computed=("first_created_at",))


async def store(kit, mapper, message):
    async with kit.database.transaction(kit.partner) as tx:
        key = await kit.data_keys.for_owner(tx, UUID(message.user_id))
        values = mapper.values(message, key=key, version=message.version)
        await tx.connection.execute(insert(kit.dependants).values(values))


async def load(kit, mapper, message_id):
    async with kit.database.transaction(kit.partner) as tx:
        statement = mapper.select().where(kit.dependants.c.id == UUID(message_id)).order_by(kit.dependants.c.version)
        return [mapper.message(row) for row in await tx.connection.execute(statement)]


class TestSealedTable:
    async def test_gives_back_what_was_stored(self, kit, mapper):
        message = dependant_of(kit, last_name="\u0930\u0935\u093f")
        await store(kit, mapper, message)
        assert await load(kit, mapper, message.id) == [message]

    async def test_stores_nothing_personal_in_clear(self, kit, mapper):
        message = dependant_of(kit, phone_number="+919876543210")
        await store(kit, mapper, message)
        with kit.superuser() as connection:
            (row,) = connection.execute("SELECT dependants::text FROM dependants").fetchone()
        for text in ("Ravi", "2019", "+91", "MALE", b"Ravi".hex(), b"+91".hex()):
            assert text not in row

    async def test_stores_no_computed_field(self, kit, mapper):
        message = dependant_of(kit)
        message.first_created_at.FromDatetime(MOMENT)
        await store(kit, mapper, message)
        (found,) = await load(kit, mapper, message.id)
        assert not found.HasField("first_created_at")

    async def test_tells_the_clear_fields_of_an_erased_owner(self, kit, mapper):
        message = dependant_of(kit)
        await store(kit, mapper, message)
        async with kit.database.transaction(kit.admin) as tx:
            await kit.data_keys.destroy(tx, UUID(message.user_id))
        (found,) = await load(kit, mapper, message.id)
        assert found.relationship == message.relationship
        assert found.created_at == message.created_at
        assert not found.HasField("first_name")
        assert not found.HasField("gender")

    async def test_reads_a_field_from_the_sealed_part_when_its_column_came_later(self, kit, mapper):
        message = dependant_of(kit)
        await store(kit, mapper, message)
        with kit.superuser() as connection:
            connection.execute("ALTER TABLE dependants ADD COLUMN gender text")
        wider = kit.dependants.to_metadata(MetaData())
        wider.append_column(Column("gender", Text))
        later = RowMapper(wider, Dependant, kit.data_keys, owner_column="user_id")
        async with kit.database.transaction(kit.partner) as tx:
            assert later.message((await tx.connection.execute(later.select())).one()) == message

    def test_needs_a_key_and_a_version(self, kit, mapper):
        with pytest.raises(TypeError):
            mapper.values(dependant_of(kit))


def _swap(column):
    return (
        f"UPDATE dependants a SET {column} = b.{column} FROM dependants b "
        "WHERE a.version = 1 AND b.version = 1 AND a.id <> b.id"
    )


class TestTampering:
    """A superuser who changes the rows behind the service's back."""

    @pytest.mark.parametrize(
        "change",
        [
            _swap("sealed"),
            _swap("user_id"),
            "UPDATE dependants SET sealed = set_byte(sealed, 0, get_byte(sealed, 0) # 1)",
            "UPDATE dependants SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)",
            "UPDATE dependants SET sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1)",
            "UPDATE dependants SET sealed = substring(sealed for length(sealed) - 1)",
            "UPDATE dependants SET sealed = ''",
            "UPDATE dependants SET version = 7 WHERE version = 1",
            "UPDATE dependants SET id = gen_random_uuid()",
            # An older version's ciphertext is put back.
            "UPDATE dependants n SET sealed = o.sealed FROM dependants o WHERE n.version = 2 AND o.version = 1",
        ],
    )
    async def test_is_noticed(self, kit, mapper, change):
        user_id = uuid7()
        messages = [dependant_of(kit), dependant_of(kit, user_id), dependant_of(kit, user_id)]
        messages[2].id = messages[1].id
        messages[2].version = 2
        for message in messages:
            await store(kit, mapper, message)
        with kit.superuser() as connection:
            connection.execute("ALTER TABLE dependants DISABLE TRIGGER ALL")
            assert connection.execute(change).rowcount > 0
        async with kit.database.transaction(kit.partner) as tx:
            rows = (await tx.connection.execute(mapper.select())).all()
        with pytest.raises(SealBroken):
            list(map(mapper.message, rows))

    async def test_a_ciphertext_of_another_table_is_noticed(self, kit, mapper):
        message = dependant_of(kit)
        await store(kit, mapper, message)
        other_table = kit.dependants.to_metadata(MetaData(), name="relatives")
        other = RowMapper(other_table, Dependant, kit.data_keys, owner_column="user_id")
        async with kit.database.transaction(kit.partner) as tx:
            row = (await tx.connection.execute(mapper.select())).one()
        with pytest.raises(SealBroken):
            other.message(row)


BENEFITS = Table(
    "benefits",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("benefit_provider_id", Uuid, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("short_description", Text),
    Column("description", Text),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("valid_from", Date),
    Column("valid_to", Date),
    Column("price_paise", BigInteger, nullable=False),
    Column("coverage_paise", BigInteger),
    Column("eligible_relationships", ARRAY(Text), nullable=False),
    Column("min_age", Integer),
    Column("max_age", Integer),
    Column("platform_ids", ARRAY(Uuid), nullable=False),
    Column("terms_url", Text),
    Column("translations", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)


class TestClearTable:
    mapper = RowMapper(BENEFITS, Benefit, computed=("provider",))

    def benefit(self):
        message = Benefit(
            id=str(uuid7()),
            benefit_provider_id=str(uuid7()),
            code="eye",
            name="Eye test",
            type="BENEFIT_TYPE_DIAGNOSTICS",
            status="BENEFIT_STATUS_DRAFT",
            valid_from="2026-01-31",
            price_paise=0,
            coverage_paise=2**53 + 1,
            min_age=0,
            eligible_relationships=["RELATIONSHIP_SON", "RELATIONSHIP_SELF"],
            platform_ids=[str(uuid7()), str(uuid7())],
            translations={
                "hi": BenefitTranslation(name="आँख", short_description=""),
                "ta": BenefitTranslation(name="x"),
            },
            version=3,
        )
        message.created_at.FromDatetime(MOMENT)
        message.updated_at.FromDatetime(MOMENT)
        return message

    async def test_gives_back_what_was_stored(self, kit):
        message = self.benefit()
        values = self.mapper.values(message)
        assert values["valid_from"] == date(2026, 1, 31)
        assert values["type"] == "DIAGNOSTICS"
        assert values["status"] == "draft"
        assert values["description"] is None
        assert values["created_at"] == MOMENT
        engine = owner_engine(kit.owner_dsn)
        BENEFITS.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(insert(BENEFITS).values(values))
            found = self.mapper.message(connection.execute(self.mapper.select()).one())
        engine.dispose()
        assert found == message

    def test_stores_no_computed_field(self):
        message = self.benefit()
        message.provider.display_name = "x"
        assert "provider" not in self.mapper.values(message)

    def test_takes_columns_that_are_no_fields_and_a_new_version(self):
        values = self.mapper.values(self.benefit(), version=4, search="eye")
        assert (values["version"], values["search"]) == (4, "eye")

    def test_refuses_a_field_that_would_be_lost(self):
        with pytest.raises(TypeError, match="provider"):
            RowMapper(BENEFITS, Benefit)

    @pytest.mark.parametrize("kind", [Integer, LargeBinary, ARRAY(Text), DateTime])
    def test_refuses_a_column_that_cannot_hold_its_field(self, kind):
        with pytest.raises(TypeError, match="cannot hold"):
            RowMapper(Table("t", MetaData(), Column("name", kind)), Benefit)


def test_json_text_travels_through_jsonb():
    fields = [field.name for field in Platform.DESCRIPTOR.fields if field.name != "metadata"]
    table = Table("t", MetaData(), Column("id", Uuid, primary_key=True), Column("metadata", JSONB))
    mapper = RowMapper(table, Platform, computed=[name for name in fields if name != "id"])
    message = Platform(id=str(uuid7()), metadata='{"a": [1, 1.5, "\u0930"]}')
    values = mapper.values(message)
    assert values["metadata"] == json.loads(message.metadata)
    assert mapper.message(values) == message
