"""Every rule about tokens: who gets one, and what it says."""

from dataclasses import dataclass
from uuid import UUID

import jwt
from uuid6 import uuid7

from aarokya.identity.v1.platform_pb2 import Platform, PlatformStatus
from aarokya.identity.v1.user_pb2 import User, UserStatus
from identity.auth.errors import PlatformNotActive
from identity.platforms.service import PlatformService
from identity.settings import IdentitySettings
from identity.users.errors import UserDeactivated, UserRuleBroken
from identity.users.profile import PROFILE_FIELDS, broken_rules, missing_fields
from identity.users.repository import StoredUser, UserRepository
from servicekit.audit import AuditLog, changes_between
from servicekit.calendar_days import day_in
from servicekit.database import Transaction
from servicekit.enum_text import text_of
from servicekit.errors import Detail
from servicekit.messages import apply_mask, has
from servicekit.phone_numbers import NotMobile, to_country_code, to_e164

ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, the user that it is for, and what the platform still wants to know of the user."""

    access_token: str
    expires_in: int
    is_new_user: bool
    stored: StoredUser
    missing_fields: list[str]


class AuthService:
    """Decides who gets a token."""

    def __init__(
        self,
        users: UserRepository,
        platforms: PlatformService,
        audit: AuditLog,
        settings: IdentitySettings,
    ) -> None:
        self._users = users
        self._platforms = platforms
        self._audit = audit
        self._kid, self._secret = settings.jwt_key_ring.first
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._timezone = settings.timezone

    async def issue_token(
        self, tx: Transaction, platform_id: UUID, phone_number: str, phone_country_code: str, prefill: User
    ) -> IssuedToken:
        """Find or create the user of a phone number and sign a token.

        What is sent along fills a new user's profile as far as it keeps the rules, and never an existing one's.

        Raises:
            PlatformUnknown: there is no such platform, or the caller may not know.
            PlatformNotActive: the platform is suspended or archived.
            UserRuleBroken: no country has this code, or no mobile phone can have this number.
            UserDeactivated: the user of the number has left the platform.
        """
        platform = await self._platforms.get_platform(tx, platform_id)
        if platform.status != PlatformStatus.PLATFORM_STATUS_ACTIVE:
            raise PlatformNotActive
        number = _to_e164(phone_number, phone_country_code or platform.default_phone_country_code)
        stored = await self._users.find_by_phone(tx, platform_id, number)
        is_new = stored is None
        if stored is None:
            stored, is_new = await self._find_or_create(tx, platform, number, prefill)
        if stored.user.status == UserStatus.USER_STATUS_DEACTIVATED:
            raise UserDeactivated
        return IssuedToken(
            self._sign(tx, stored, platform.token_ttl_seconds),
            platform.token_ttl_seconds,
            is_new,
            stored,
            missing_fields(stored.user, platform.required_profile_fields),
        )

    async def _find_or_create(
        self, tx: Transaction, platform: Platform, number: str, prefill: User
    ) -> tuple[StoredUser, bool]:
        """Return the number's user and whether it is new, however many calls for the number come at once."""
        platform_id = UUID(platform.id)
        # Against an operator who archives the platform at this moment because it has no users.
        if not await self._platforms.hold_active(tx, platform_id):
            raise PlatformNotActive
        await self._users.hold_phone(tx, platform_id, number)
        found = await self._users.find_by_phone(tx, platform_id, number)
        if found is not None:
            return found, False
        user = User(
            id=str(uuid7()),
            platform_id=platform.id,
            phone_number=number,
            status=UserStatus.USER_STATUS_ONBOARDING,
            version=1,
        )
        user.created_at.FromDatetime(tx.now)
        user.updated_at.FromDatetime(tx.now)
        self._prefill(tx, platform, user, prefill)
        stored = StoredUser(user)
        if await self._users.insert_unless_taken(tx, stored):
            await self._audit.record(
                tx,
                "user.create",
                "user",
                user.id,
                user_id=UUID(user.id),
                platform_id=platform_id,
                changes=changes_between(None, user, self._users.rows.clear_fields),
            )
            return stored, True
        # At this moment an operator gave the number to another user, who is committed by now.
        return await self._find_or_create(tx, platform, number, prefill)

    def _prefill(self, tx: Transaction, platform: Platform, user: User, prefill: User) -> None:
        today = day_in(self._timezone, tx.now)
        for field in PROFILE_FIELDS:
            if not has(prefill, field):
                continue
            if not broken_rules(prefill, (field,), today=today, min_age=platform.min_user_age):
                user.MergeFrom(apply_mask(User(), prefill, (field,)))

    def _sign(self, tx: Transaction, stored: StoredUser, ttl_seconds: int) -> str:
        user = stored.user
        issued_at = int(tx.now.timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user.id,
            "platform_id": user.platform_id,
            "status": text_of(UserStatus.DESCRIPTOR, user.status),
            "iat": issued_at,
            "exp": issued_at + ttl_seconds,
            # The generation makes a token of before a deactivation known whatever the clocks say.
            "jti": f"{stored.token_generation}.{uuid7()}",
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM, headers={"kid": self._kid, "typ": "JWT"})


def _to_e164(phone_number: str, country_code: str) -> str:
    try:
        code = to_country_code(country_code)
    except NotMobile as error:
        raise UserRuleBroken(Detail("phone_country_code", "No country has this code.")) from error
    try:
        return to_e164(phone_number, code)
    except NotMobile as error:
        raise UserRuleBroken(Detail("phone_number", "No mobile phone can have this number.")) from error
