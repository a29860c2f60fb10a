"""Generated from protos/ by gateway/generate_schemas.py: never edit, run `make generate`."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from gateway import fields


AccountType = TypeAliasType("AccountType", Annotated[Literal["BANK", "UPI", "WALLET", "OTHER"], Field(description="Where an account is held.\n\n- `BANK`: A bank account.\n- `UPI`: An address of the Unified Payments Interface.\n- `WALLET`: A prepaid wallet.\n- `OTHER`: Anything else.")])


AccountVerificationStatus = TypeAliasType("AccountVerificationStatus", Annotated[Literal["unverified", "verified", "failed"], Field(description="Whether somebody has made sure that the account is the user's.\n\n- `unverified`: Nobody has looked.\n- `verified`: The partner has made sure.\n- `failed`: The partner has looked and it is not.")])


class CreateAccountBody(fields.Body):
    """A reference to an account elsewhere, where a user's money goes."""

    type: AccountType = Field(description="Where the account is held.")
    account_number: fields.AccountNumber = Field(description="The account's number, or the address for UPI. Never answered. 9 to 18 digits for BANK, `name@handle` for UPI, otherwise 4 to 64 characters.")
    ifsc: fields.Ifsc | None = Field(default_factory=fields.absent, description="The bank branch's IFSC; required for a bank account, and refused for any other.")
    holder_name: fields.Title | None = Field(default_factory=fields.absent, description="The holder's name as the bank knows it.")
    provider_name: fields.Title | None = Field(default_factory=fields.absent, description="The bank's or wallet's name.")
    is_primary: bool = Field(default_factory=fields.absent, description="Whether money goes here first. A user's first account does in any case; after that, make another account primary to take it from this one.")
    verification_status: AccountVerificationStatus = Field(default_factory=fields.absent, description="Whether the partner has made sure that the account is the user's. Only partners may set it.")
    verification_reference: fields.Identifier | None = Field(default_factory=fields.absent, description="The partner's reference of that check. Only partners may set it.")


AccountStatus = TypeAliasType("AccountStatus", Annotated[Literal["active", "removed"], Field(description="Whether an account is there.\n\n- `active`: In use.\n- `removed`: Removed.")])


class Account(fields.Answer):
    """A reference to an account elsewhere, where a user's money goes."""

    id: fields.Uuid = Field(description="The account reference's id.")
    user_id: fields.Uuid = Field(description="The user whose account it is.")
    type: AccountType = Field(description="Where the account is held.")
    account_number_masked: fields.Masked | None = Field(description="The end of the account's number; null once erased.")
    ifsc: fields.Ifsc | None = Field(description="The bank branch's IFSC; required for a bank account, and refused for any other.")
    holder_name: fields.Title | None = Field(description="The holder's name as the bank knows it.")
    provider_name: fields.Title | None = Field(description="The bank's or wallet's name.")
    is_primary: bool = Field(description="Whether money goes here first. A user's first account does in any case; after that, make another account primary to take it from this one.")
    verification_status: AccountVerificationStatus = Field(description="Whether the partner has made sure that the account is the user's. Only partners may set it.")
    verification_reference: fields.Identifier | None = Field(description="The partner's reference of that check. Only partners may set it.")
    status: AccountStatus = Field(description="Whether the account is there.")
    shared_with_other_users: bool | None = Field(description="Whether another user of the partner's platform has stored the same account; told to partners, null for users.")
    created_at: fields.Rfc3339 = Field(description="When the account was stored.")
    updated_at: fields.Rfc3339 = Field(description="When the account was last changed.")


class ListAccountsQuery(fields.PageQuery):
    """Which page of whose accounts to answer."""


class AccountList(fields.Answer):
    """One page of accounts."""

    items: list[Account] = Field(description="The accounts, newest first.")
    next_page_token: fields.NextPageToken


class UpdateAccountBody(fields.Body):
    """A reference to an account elsewhere, where a user's money goes."""

    account_number: fields.AccountNumber = Field(default_factory=fields.absent, description="The account's number, or the address for UPI. Never answered. 9 to 18 digits for BANK, `name@handle` for UPI, otherwise 4 to 64 characters.")
    ifsc: fields.Ifsc | None = Field(default_factory=fields.absent, description="The bank branch's IFSC; required for a bank account, and refused for any other.")
    holder_name: fields.Title | None = Field(default_factory=fields.absent, description="The holder's name as the bank knows it.")
    provider_name: fields.Title | None = Field(default_factory=fields.absent, description="The bank's or wallet's name.")
    is_primary: bool = Field(default_factory=fields.absent, description="Whether money goes here first. A user's first account does in any case; after that, make another account primary to take it from this one.")
    verification_status: AccountVerificationStatus = Field(default_factory=fields.absent, description="Whether the partner has made sure that the account is the user's. Only partners may set it.")
    verification_reference: fields.Identifier | None = Field(default_factory=fields.absent, description="The partner's reference of that check. Only partners may set it.")


Relationship = TypeAliasType("Relationship", Annotated[Literal["SELF", "SPOUSE", "SON", "DAUGHTER", "FATHER", "MOTHER", "FATHER_IN_LAW", "MOTHER_IN_LAW", "BROTHER", "SISTER", "GRANDPARENT", "WARD", "OTHER"], Field(description="Who a dependant is, seen from the user.\n\n- `SELF`: The user; made and kept by the system.\n- `SPOUSE`: Husband or wife.\n- `SON`: A son.\n- `DAUGHTER`: A daughter.\n- `FATHER`: The father.\n- `MOTHER`: The mother.\n- `FATHER_IN_LAW`: The spouse's father.\n- `MOTHER_IN_LAW`: The spouse's mother.\n- `BROTHER`: A brother.\n- `SISTER`: A sister.\n- `GRANDPARENT`: A grandparent.\n- `WARD`: A child in the user's care who is not the user's own.\n- `OTHER`: Anyone else.")])


Gender = TypeAliasType("Gender", Annotated[Literal["MALE", "FEMALE", "OTHER"], Field(description="A person's gender.\n\n- `MALE`: Male.\n- `FEMALE`: Female.\n- `OTHER`: Neither of the two.")])


BloodGroup = TypeAliasType("BloodGroup", Annotated[Literal["A_POSITIVE", "A_NEGATIVE", "B_POSITIVE", "B_NEGATIVE", "AB_POSITIVE", "AB_NEGATIVE", "O_POSITIVE", "O_NEGATIVE"], Field(description="A blood group.\n\n- `A_POSITIVE`: A, Rh positive.\n- `A_NEGATIVE`: A, Rh negative.\n- `B_POSITIVE`: B, Rh positive.\n- `B_NEGATIVE`: B, Rh negative.\n- `AB_POSITIVE`: AB, Rh positive.\n- `AB_NEGATIVE`: AB, Rh negative.\n- `O_POSITIVE`: O, Rh positive.\n- `O_NEGATIVE`: O, Rh negative.")])


DependantStatus = TypeAliasType("DependantStatus", Annotated[Literal["active", "inactive", "deceased", "removed"], Field(description="Where a dependant stands.\n\n- `active`: A member of the family.\n- `inactive`: A member of the family who takes no benefits at the moment.\n- `deceased`: The person has died.\n- `removed`: Taken out of the family.")])


class CreateDependantBody(fields.Body):
    """A member of a user's family, as one version of an append-only history."""

    relationship: Relationship = Field(description="Who the dependant is, seen from the user.")
    first_name: fields.PersonName = Field(description="The given name; null once erased.")
    middle_name: fields.MiddleName | None = Field(default_factory=fields.absent, description="The middle name.")
    last_name: fields.FamilyName | None = Field(default_factory=fields.absent, description="The family name; null for the many people who have a single name.")
    gender: Gender = Field(description="The gender; null once erased.")
    date_of_birth: fields.IsoDate = Field(description="The birth date; null once erased.")
    phone_number: fields.PhoneNumber | None = Field(default_factory=fields.absent, description="The mobile number in E.164.")
    abha_number: fields.AbhaNumber | None = Field(default_factory=fields.absent, description="The fourteen digits of the Ayushman Bharat Health Account.")
    abha_address: fields.AbhaAddress | None = Field(default_factory=fields.absent, description="The address of the Ayushman Bharat Health Account, such as ravi@abdm.")
    blood_group: BloodGroup | None = Field(default_factory=fields.absent, description="The blood group.")
    status: DependantStatus = Field(default_factory=fields.absent, description="Where the dependant stands; a new one is active.")
    status_reason: fields.Reason | None = Field(default_factory=fields.absent, description="Why the status was set.")


ActorType = TypeAliasType("ActorType", Annotated[Literal["ADMIN", "PARTNER", "USER", "SYSTEM"], Field(description="Who did something.\n\n- `ADMIN`: An operator.\n- `PARTNER`: A partner's key.\n- `USER`: A user.\n- `SYSTEM`: Aarokya itself.")])


class Actor(fields.Answer):
    """Who did something."""

    type: ActorType = Field(description="What kind of caller it was.")
    id: fields.ActorId = Field(description="The operator's name, the key's id, the user's id or the service's name.")


class Dependant(fields.Answer):
    """A member of a user's family, as one version of an append-only history."""

    id: fields.Uuid = Field(description="The person's id, the same in all versions.")
    version: int = Field(description="The number of this version, from 1 without gaps.")
    user_id: fields.Uuid = Field(description="The user whose family it is.")
    platform_id: fields.Uuid = Field(description="The user's platform.")
    relationship: Relationship = Field(description="Who the dependant is, seen from the user.")
    first_name: fields.PersonName | None = Field(description="The given name; null once erased.")
    middle_name: fields.MiddleName | None = Field(description="The middle name.")
    last_name: fields.FamilyName | None = Field(description="The family name; null for the many people who have a single name.")
    gender: Gender | None = Field(description="The gender; null once erased.")
    date_of_birth: fields.IsoDate | None = Field(description="The birth date; null once erased.")
    phone_number: fields.PhoneNumber | None = Field(description="The mobile number in E.164.")
    abha_number: fields.AbhaNumber | None = Field(description="The fourteen digits of the Ayushman Bharat Health Account.")
    abha_address: fields.AbhaAddress | None = Field(description="The address of the Ayushman Bharat Health Account, such as ravi@abdm.")
    blood_group: BloodGroup | None = Field(description="The blood group.")
    status: DependantStatus = Field(description="Where the dependant stands; a new one is active.")
    status_reason: fields.Reason | None = Field(description="Why the status was set.")
    created_at: fields.Rfc3339 = Field(description="When this version was written.")
    first_created_at: fields.Rfc3339 = Field(description="When the first version was written.")
    created_by: Actor = Field(description="Who wrote this version.")


class ListDependantsQuery(fields.PageQuery):
    """Which page of whose family to answer."""

    as_of: fields.Rfc3339 | None = Field(default=None, description="The family as it was at this moment; unset means now.")
    include_removed: fields.QueryFlag = Field(default=False, description="Whether removed members are answered too.")


class DependantList(fields.Answer):
    """One page of a family."""

    items: list[Dependant] = Field(description="The members, newest first.")
    next_page_token: fields.NextPageToken


class ListDependantVersionsQuery(fields.PageQuery):
    """Which page of whose history to answer."""


class UpdateDependantBody(fields.Body):
    """A member of a user's family, as one version of an append-only history."""

    relationship: Relationship = Field(default_factory=fields.absent, description="Who the dependant is, seen from the user.")
    first_name: fields.PersonName = Field(default_factory=fields.absent, description="The given name; null once erased.")
    middle_name: fields.MiddleName | None = Field(default_factory=fields.absent, description="The middle name.")
    last_name: fields.FamilyName | None = Field(default_factory=fields.absent, description="The family name; null for the many people who have a single name.")
    gender: Gender = Field(default_factory=fields.absent, description="The gender; null once erased.")
    date_of_birth: fields.IsoDate = Field(default_factory=fields.absent, description="The birth date; null once erased.")
    phone_number: fields.PhoneNumber | None = Field(default_factory=fields.absent, description="The mobile number in E.164.")
    abha_number: fields.AbhaNumber | None = Field(default_factory=fields.absent, description="The fourteen digits of the Ayushman Bharat Health Account.")
    abha_address: fields.AbhaAddress | None = Field(default_factory=fields.absent, description="The address of the Ayushman Bharat Health Account, such as ravi@abdm.")
    blood_group: BloodGroup | None = Field(default_factory=fields.absent, description="The blood group.")
    status: DependantStatus = Field(default_factory=fields.absent, description="Where the dependant stands; a new one is active.")
    status_reason: fields.Reason | None = Field(default_factory=fields.absent, description="Why the status was set.")


class CreateMrnBody(fields.Body):
    """A link of a dependant to a benefit provider by that provider's medical record number."""

    dependant_id: fields.Uuid = Field(description="The person, whatever the version.")
    benefit_provider_id: fields.Uuid = Field(description="The provider.")
    mrn: fields.MrnText = Field(description="The medical record number; null once erased.")


MrnSource = TypeAliasType("MrnSource", Annotated[Literal["USER", "PARTNER"], Field(description="Who linked a medical record number.\n\n- `USER`: The user.\n- `PARTNER`: The partner.")])


class Mrn(fields.Answer):
    """A link of a dependant to a benefit provider by that provider's medical record number."""

    id: fields.Uuid = Field(description="The link's id.")
    dependant_id: fields.Uuid = Field(description="The person, whatever the version.")
    benefit_provider_id: fields.Uuid = Field(description="The provider.")
    mrn: fields.MrnText | None = Field(description="The medical record number; null once erased.")
    user_id: fields.Uuid = Field(description="The user whose dependant it is.")
    source: MrnSource = Field(description="Who linked it.")
    created_at: fields.Rfc3339 = Field(description="When it was linked.")


class ListMrnsQuery(fields.PageQuery):
    """Which page of which links to answer."""

    user_id: fields.Uuid | None = Field(default=None, description="Only links of this user. Partners need it unless dependant_id is given, or mrn together with benefit_provider_id.")
    dependant_id: fields.Uuid | None = Field(default=None, description="Only links of this person.")
    benefit_provider_id: fields.Uuid | None = Field(default=None, description="Only links to this provider.")
    mrn: fields.MrnText | None = Field(default=None, description="Only links with this number.")


class MrnList(fields.Answer):
    """One page of links."""

    items: list[Mrn] = Field(description="The links, newest first.")
    next_page_token: fields.NextPageToken


class UnlinkMrnQuery(fields.Query):
    """Which link to take away, and why."""

    reason: fields.Reason | None = Field(default=None, description="Why the operator does this.")
