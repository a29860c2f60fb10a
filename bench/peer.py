"""What a user would write instead of Aarokya: one FastAPI process on SQLAlchemy's ORM, with the same rules.

It has no mTLS, no row-level security, no encryption and no audit log. It is written as FastAPI's and SQLAlchemy's own
documentation has it, and is not made slower on purpose: everything in it is asynchronous.
"""

import os
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID, uuid4

import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, joinedload, mapped_column, relationship

AUDIENCE = "peer"
ALGORITHM = "HS256"
MOST_DEPENDANTS = 20


class Gender(StrEnum):
    MALE = "MALE"
    FEMALE = "FEMALE"
    OTHER = "OTHER"


class Relationship(StrEnum):
    SELF = "SELF"
    FATHER = "FATHER"
    MOTHER = "MOTHER"
    SPOUSE = "SPOUSE"
    SON = "SON"
    DAUGHTER = "DAUGHTER"
    OTHER = "OTHER"


PARENTS = (Relationship.FATHER, Relationship.MOTHER)
CHILDREN = (Relationship.SON, Relationship.DAUGHTER)


class Base(DeclarativeBase):
    """The tables."""


class Platform(Base):
    __tablename__ = "platforms"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    status: Mapped[str]


class User(Base):
    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    platform_id: Mapped[UUID] = mapped_column(ForeignKey("platforms.id"), index=True)
    phone_number: Mapped[str]
    status: Mapped[str]
    token_generation: Mapped[int]
    first_name: Mapped[str]
    last_name: Mapped[str | None]
    gender: Mapped[str]
    date_of_birth: Mapped[date]
    created_at: Mapped[datetime]
    version: Mapped[int]
    platform: Mapped[Platform] = relationship()


class Dependant(Base):
    """One version of a person; nothing is ever overwritten."""

    __tablename__ = "dependants"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(index=True)
    relationship: Mapped[str]
    first_name: Mapped[str]
    last_name: Mapped[str | None]
    gender: Mapped[str]
    date_of_birth: Mapped[date]
    status: Mapped[str]
    first_created_at: Mapped[datetime]
    created_at: Mapped[datetime]


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    platform_id: UUID
    phone_number: str
    status: str
    first_name: str
    last_name: str | None
    gender: str
    date_of_birth: date
    created_at: datetime
    version: int


class DependantIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    relationship: Relationship
    first_name: str = Field(min_length=1, max_length=100)
    last_name: str | None = Field(None, min_length=1, max_length=100)
    gender: Gender
    date_of_birth: date


class DependantPatch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    relationship: Relationship | None = None
    first_name: str | None = Field(None, min_length=1, max_length=100)
    last_name: str | None = Field(None, min_length=1, max_length=100)
    gender: Gender | None = None
    date_of_birth: date | None = None


class DependantOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    version: int
    user_id: UUID
    relationship: str
    first_name: str
    last_name: str | None
    gender: str
    date_of_birth: date
    status: str
    first_created_at: datetime
    created_at: datetime


class Page(BaseModel):
    items: list[DependantOut]


engine = create_async_engine(os.environ.get("PEER_DSN", "postgresql+psycopg://"), pool_size=10, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()
bearer = HTTPBearer()


async def open_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session, session.begin():
        yield session


# It commits before the answer goes out.
Session = Annotated[AsyncSession, Depends(open_session, scope="function")]


async def signed_in(
    user_id: UUID, session: Session, credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]
) -> User:
    try:
        claims = jwt.decode(credentials.credentials, os.environ["PEER_KEY"], [ALGORITHM], audience=AUDIENCE)
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    user = await session.get(User, UUID(claims["sub"]), options=[joinedload(User.platform)])
    if user is None or user.token_generation != claims["generation"]:
        raise HTTPException(401)
    if user.platform.status != "active" or user.status != "ACTIVE" or user.id != user_id:
        raise HTTPException(403)
    return user


Self = Annotated[User, Depends(signed_in)]


async def newest(session: AsyncSession, user: User, dependant_id: UUID) -> Dependant:
    query = select(Dependant).where(Dependant.id == dependant_id).order_by(Dependant.version.desc()).limit(1)
    dependant = (await session.scalars(query)).one_or_none()
    if dependant is None or dependant.user_id != user.id:
        raise HTTPException(404)
    return dependant


async def family_of(session: AsyncSession, user: User) -> list[Dependant]:
    other = aliased(Dependant)
    last = select(func.max(other.version)).where(other.id == Dependant.id).scalar_subquery()
    query = (
        select(Dependant)
        .where(Dependant.user_id == user.id, Dependant.version == last, Dependant.status != "removed")
        .order_by(Dependant.first_created_at.desc(), Dependant.id.desc())
    )
    return list(await session.scalars(query))


async def lock_family(session: AsyncSession, user: User) -> None:
    await session.execute(select(User.id).where(User.id == user.id).with_for_update())


def require_rules(user: User, person: Dependant, family: list[Dependant]) -> None:
    if person.relationship == Relationship.SELF:
        raise HTTPException(409, "SELF is the user")
    today = datetime.now(UTC).date()
    if person.date_of_birth > today or today.year - person.date_of_birth.year > 120:
        raise HTTPException(422, "age")
    if person.relationship in PARENTS and person.date_of_birth >= user.date_of_birth:
        raise HTTPException(422, "a parent is older than the user")
    if person.relationship in CHILDREN and person.date_of_birth <= user.date_of_birth:
        raise HTTPException(422, "a child is younger than the user")
    others = [member for member in family if member.id != person.id]
    if person.relationship in PARENTS and any(member.relationship == person.relationship for member in others):
        raise HTTPException(422, "a second parent")

    def who(member: Dependant) -> tuple[object, ...]:
        names = (member.first_name, member.last_name or "")
        return (member.relationship, member.date_of_birth, *(name.casefold() for name in names))

    if any(who(member) == who(person) for member in others):
        raise HTTPException(409, "a duplicate")


@app.get("/users/{user_id}", response_model=UserOut)
async def get_user(user: Self) -> User:
    return user


@app.get("/users/{user_id}/dependants", response_model=Page)
async def list_dependants(user: Self, session: Session) -> dict[str, list[Dependant]]:
    return {"items": await family_of(session, user)}


@app.get("/users/{user_id}/dependants/{dependant_id}", response_model=DependantOut)
async def get_dependant(user: Self, session: Session, dependant_id: UUID) -> Dependant:
    return await newest(session, user, dependant_id)


@app.post("/users/{user_id}/dependants", response_model=DependantOut, status_code=201)
async def create_dependant(user: Self, session: Session, wanted: DependantIn) -> Dependant:
    await lock_family(session, user)
    family = await family_of(session, user)
    if len(family) > MOST_DEPENDANTS:
        # SELF does not count.
        raise HTTPException(409, "the family is full")
    now = datetime.now(UTC).replace(tzinfo=None)
    dependant = Dependant(
        id=uuid4(),
        version=1,
        user_id=user.id,
        status="active",
        first_created_at=now,
        created_at=now,
        **wanted.model_dump(),
    )
    require_rules(user, dependant, family)
    session.add(dependant)
    await session.flush()
    return dependant


@app.patch("/users/{user_id}/dependants/{dependant_id}", response_model=DependantOut)
async def update_dependant(user: Self, session: Session, dependant_id: UUID, wanted: DependantPatch) -> Dependant:
    await lock_family(session, user)
    before = await newest(session, user, dependant_id)
    said = {name: getattr(before, name) for name in DependantOut.model_fields}
    changed = {**said, **wanted.model_dump(exclude_unset=True)}
    if changed == said:
        return before
    after = Dependant(**changed)
    after.version = before.version + 1
    after.created_at = datetime.now(UTC).replace(tzinfo=None)
    require_rules(user, after, await family_of(session, user))
    session.add(after)
    await session.flush()
    return after


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PEER_PORT"]), access_log=False, log_level="warning")
