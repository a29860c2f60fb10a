"""Generated from protos/ by gateway/generate_schemas.py: never edit, run `make generate`."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from gateway import fields


class CreatePlatformBody(fields.Body):
    """A business whose workers get benefits through Aarokya, such as a ride-hailing app."""

    id: fields.Uuid = Field(default_factory=fields.absent, description="The platform's id. An operator who moves an existing partner in may name it.")
    name: fields.PlatformName = Field(description="The platform's name, unique whatever the letter case.")
    default_phone_country_code: fields.CountryCode = Field(default_factory=fields.absent, description="The country code of phone numbers that come without one.")
    token_ttl_seconds: fields.TokenTtlSeconds = Field(default_factory=fields.absent, description="How long a user's token lives, in seconds.")
    min_user_age: fields.MinUserAge = Field(default_factory=fields.absent, description="The age in years that a user must have reached.")
    required_profile_fields: Annotated[list[fields.ProfileFieldName], Field(max_length=fields.MAX_ITEMS)] = Field(default_factory=fields.absent, description="The profile fields a user must have filled to complete onboarding. first_name, gender and date_of_birth are always among them.")
    max_dependants: fields.MaxDependants = Field(default_factory=fields.absent, description="How many dependants a user may have besides SELF.")
    contact_email: fields.EmailText | None = Field(default_factory=fields.absent, description="Where the platform's people can be reached.")
    metadata: fields.JsonObject | None = Field(default_factory=fields.absent, description="Free data of the operator's own, at most 8 KiB of JSON.")


PlatformStatus = TypeAliasType("PlatformStatus", Annotated[Literal["active", "suspended", "archived"], Field(description="What a platform may do at the moment.\n\n- `active`: The platform's credentials and its users' tokens work.\n- `suspended`: The platform's credentials and its users' tokens are refused until it is activated again.\n- `archived`: The platform has left for good: it is listed, but can no longer be changed.")])


class Platform(fields.Answer):
    """A business whose workers get benefits through Aarokya, such as a ride-hailing app."""

    id: fields.Uuid = Field(description="The platform's id. An operator who moves an existing partner in may name it.")
    name: fields.PlatformName = Field(description="The platform's name, unique whatever the letter case.")
    default_phone_country_code: fields.CountryCode = Field(description="The country code of phone numbers that come without one.")
    token_ttl_seconds: fields.TokenTtlSeconds = Field(description="How long a user's token lives, in seconds.")
    min_user_age: fields.MinUserAge = Field(description="The age in years that a user must have reached.")
    required_profile_fields: list[fields.ProfileFieldName] = Field(description="The profile fields a user must have filled to complete onboarding. first_name, gender and date_of_birth are always among them.")
    max_dependants: fields.MaxDependants = Field(description="How many dependants a user may have besides SELF.")
    contact_email: fields.EmailText | None = Field(description="Where the platform's people can be reached.")
    metadata: fields.JsonObject | None = Field(description="Free data of the operator's own, at most 8 KiB of JSON.")
    status: PlatformStatus = Field(description="What the platform may do at the moment.")
    status_reason: fields.Reason | None = Field(description="Why an operator set the present status.")
    version: int = Field(description="Grows by one with every change.")
    created_at: fields.Rfc3339 = Field(description="When the platform was created.")
    updated_at: fields.Rfc3339 = Field(description="When the platform was last changed.")


class ListPlatformsQuery(fields.PageQuery):
    """Which page of the platforms to answer."""


class PlatformList(fields.Answer):
    """One page of platforms."""

    items: list[Platform] = Field(description="The platforms, newest first.")
    next_page_token: fields.NextPageToken


class UpdatePlatformBody(fields.Body):
    """A business whose workers get benefits through Aarokya, such as a ride-hailing app."""

    name: fields.PlatformName = Field(default_factory=fields.absent, description="The platform's name, unique whatever the letter case.")
    default_phone_country_code: fields.CountryCode = Field(default_factory=fields.absent, description="The country code of phone numbers that come without one.")
    token_ttl_seconds: fields.TokenTtlSeconds = Field(default_factory=fields.absent, description="How long a user's token lives, in seconds.")
    min_user_age: fields.MinUserAge = Field(default_factory=fields.absent, description="The age in years that a user must have reached.")
    required_profile_fields: Annotated[list[fields.ProfileFieldName], Field(max_length=fields.MAX_ITEMS)] = Field(default_factory=fields.absent, description="The profile fields a user must have filled to complete onboarding. first_name, gender and date_of_birth are always among them.")
    max_dependants: fields.MaxDependants = Field(default_factory=fields.absent, description="How many dependants a user may have besides SELF.")
    contact_email: fields.EmailText | None = Field(default_factory=fields.absent, description="Where the platform's people can be reached.")
    metadata: fields.JsonObject | None = Field(default_factory=fields.absent, description="Free data of the operator's own, at most 8 KiB of JSON.")


class SuspendPlatformBody(fields.Body):
    """Which platform to suspend, and why."""

    reason: fields.Reason = Field(description="Why the operator does this.")


class ActivatePlatformBody(fields.Body):
    """Which platform to activate, and why."""

    reason: fields.Reason = Field(description="Why the operator does this.")


class CreateApiKeyBody(fields.Body):
    """A partner's static credential. Its secret is stored only as a keyed hash."""

    name: fields.Title = Field(description="What the operator calls the key.")
    secret: fields.Secret | None = Field(default_factory=fields.absent, description="The whole secret: answered once, when Aarokya made it, and null ever after. An operator who moves an existing partner in may bring it; it is then never answered.")
    expires_at: fields.Rfc3339 | None = Field(default_factory=fields.absent, description="When the key stops being accepted.")


ApiKeyStatus = TypeAliasType("ApiKeyStatus", Annotated[Literal["active", "expired", "revoked"], Field(description="Whether a partner's key is accepted at the moment.\n\n- `active`: The key is accepted.\n- `expired`: The key's time is over.\n- `revoked`: An operator withdrew the key.")])


class ApiKey(fields.Answer):
    """A partner's static credential. Its secret is stored only as a keyed hash."""

    id: fields.Uuid = Field(description="The key's id.")
    platform_id: fields.Uuid = Field(description="The platform that the key speaks for.")
    name: fields.Title = Field(description="What the operator calls the key.")
    prefix: fields.SecretPrefix = Field(description="The part of the secret that may be shown, to tell keys apart; `(brought)` for one that was brought.")
    secret: fields.Secret | None = Field(description="The whole secret: answered once, when Aarokya made it, and null ever after. An operator who moves an existing partner in may bring it; it is then never answered.")
    expires_at: fields.Rfc3339 | None = Field(description="When the key stops being accepted.")
    last_used_at: fields.Rfc3339 | None = Field(description="When the key was last used, exact to a minute.")
    status: ApiKeyStatus = Field(description="Whether the key is accepted at the moment.")
    created_at: fields.Rfc3339 = Field(description="When the key was created.")


class ListApiKeysQuery(fields.PageQuery):
    """Which page of which platform's keys to answer."""


class ApiKeyList(fields.Answer):
    """One page of keys."""

    items: list[ApiKey] = Field(description="The keys, newest first, never with a secret.")
    next_page_token: fields.NextPageToken


class RotateApiKeyBody(fields.Body):
    """Which key gets a new secret."""

    overlap_seconds: fields.OverlapSeconds = Field(description="How long the secrets given out before still work, in seconds.")


UserStatus = TypeAliasType("UserStatus", Annotated[Literal["onboarding", "active", "deactivated"], Field(description="Where a user stands.\n\n- `onboarding`: The user has a token but has not completed the profile.\n- `active`: The user has completed onboarding.\n- `deactivated`: The user has left; tokens are dead.")])


Gender = TypeAliasType("Gender", Annotated[Literal["MALE", "FEMALE", "OTHER"], Field(description="A person's gender.\n\n- `MALE`: Male.\n- `FEMALE`: Female.\n- `OTHER`: Neither of the two.")])


IdProofType = TypeAliasType("IdProofType", Annotated[Literal["DRIVING_LICENSE", "PAN", "VOTER_ID", "PASSPORT"], Field(description="The document that proves who a user is.\n\n- `DRIVING_LICENSE`: A driving licence.\n- `PAN`: The Permanent Account Number of the income tax department.\n- `VOTER_ID`: The voter's identity card.\n- `PASSPORT`: A passport.")])


class User(fields.Answer):
    """A worker of a platform."""

    id: fields.Uuid = Field(description="The user's id.")
    platform_id: fields.Uuid = Field(description="The platform that the user works for.")
    phone_number: fields.PhoneNumber | None = Field(description="The user's mobile number in E.164; null once released or erased. Only operators may change it.")
    status: UserStatus = Field(description="Where the user stands.")
    first_name: fields.PersonName | None = Field(description="The given name.")
    middle_name: fields.MiddleName | None = Field(description="The middle name.")
    last_name: fields.FamilyName | None = Field(description="The family name; null for the many people who have a single name.")
    gender: Gender | None = Field(description="The gender.")
    date_of_birth: fields.IsoDate | None = Field(description="The birth date.")
    email: fields.EmailText | None = Field(description="The mail address.")
    preferred_language: fields.LanguageTag | None = Field(description="The language that the user prefers, as a BCP 47 tag such as hi or ta-IN.")
    address_line: fields.AddressLine | None = Field(description="Street and house.")
    city: fields.PlaceName | None = Field(description="City, town or village.")
    state_code: fields.StateCode | None = Field(description="The state's two-letter code, such as KA.")
    pincode: fields.Pincode | None = Field(description="The six-digit postal code.")
    id_proof_type: IdProofType | None = Field(description="Which document is on file.")
    id_proof_masked: fields.Masked | None = Field(description="The end of the document's number.")
    abha_number: fields.AbhaNumber | None = Field(description="The fourteen digits of the Ayushman Bharat Health Account.")
    abha_address: fields.AbhaAddress | None = Field(description="The address of the Ayushman Bharat Health Account, such as ravi@abdm.")
    metadata: fields.JsonObject | None = Field(description="Free data of the app's own, at most 8 KiB of JSON.")
    version: int = Field(description="Grows by one with every change.")
    created_at: fields.Rfc3339 = Field(description="When the user was first seen.")
    updated_at: fields.Rfc3339 = Field(description="When the user was last changed.")
    onboarded_at: fields.Rfc3339 | None = Field(description="When onboarding was completed.")
    deactivated_at: fields.Rfc3339 | None = Field(description="When the user was deactivated.")
    erased_at: fields.Rfc3339 | None = Field(description="When the personal data was erased for good.")


class ListUsersQuery(fields.PageQuery):
    """Which page of which users to answer."""

    platform_id: fields.Uuid | None = Field(default=None, description="Only users of this platform.")
    status: UserStatus | None = Field(default=None, description="Only users who stand so.")
    phone_number: fields.PhoneNumber | None = Field(default=None, description="Only the users with this phone number.")


class UserList(fields.Answer):
    """One page of users."""

    items: list[User] = Field(description="The users, newest first.")
    next_page_token: fields.NextPageToken


class IdProofBody(fields.Body):
    """A document and its number. The number is never answered in full."""

    proof_type: IdProofType = Field(description="Which document it is.")
    number: fields.IdProofNumber = Field(description="The document's number. Never an Aadhaar number.")


class UpdateUserBody(fields.Body):
    """A worker of a platform."""

    phone_number: fields.PhoneNumber = Field(default_factory=fields.absent, description="The user's mobile number in E.164; null once released or erased. Only operators may change it.")
    first_name: fields.PersonName | None = Field(default_factory=fields.absent, description="The given name.")
    middle_name: fields.MiddleName | None = Field(default_factory=fields.absent, description="The middle name.")
    last_name: fields.FamilyName | None = Field(default_factory=fields.absent, description="The family name; null for the many people who have a single name.")
    gender: Gender | None = Field(default_factory=fields.absent, description="The gender.")
    date_of_birth: fields.IsoDate | None = Field(default_factory=fields.absent, description="The birth date.")
    email: fields.EmailText | None = Field(default_factory=fields.absent, description="The mail address.")
    preferred_language: fields.LanguageTag | None = Field(default_factory=fields.absent, description="The language that the user prefers, as a BCP 47 tag such as hi or ta-IN.")
    address_line: fields.AddressLine | None = Field(default_factory=fields.absent, description="Street and house.")
    city: fields.PlaceName | None = Field(default_factory=fields.absent, description="City, town or village.")
    state_code: fields.StateCode | None = Field(default_factory=fields.absent, description="The state's two-letter code, such as KA.")
    pincode: fields.Pincode | None = Field(default_factory=fields.absent, description="The six-digit postal code.")
    id_proof: IdProofBody | None = Field(default_factory=fields.absent, description="The document that proves who the user is.")
    abha_number: fields.AbhaNumber | None = Field(default_factory=fields.absent, description="The fourteen digits of the Ayushman Bharat Health Account.")
    abha_address: fields.AbhaAddress | None = Field(default_factory=fields.absent, description="The address of the Ayushman Bharat Health Account, such as ravi@abdm.")
    metadata: fields.JsonObject | None = Field(default_factory=fields.absent, description="Free data of the app's own, at most 8 KiB of JSON.")


class ReactivateUserBody(fields.Body):
    """Which user to reactivate, and why."""

    reason: fields.Reason = Field(description="Why the operator does this.")


class ReleasePhoneBody(fields.Body):
    """Whose phone number to free, and why."""

    reason: fields.Reason = Field(description="Why the operator does this.")


class EraseUserBody(fields.Body):
    """Whose personal data to erase, and why."""

    reason: fields.Reason = Field(description="Why the operator does this.")
