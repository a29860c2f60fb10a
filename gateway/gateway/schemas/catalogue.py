"""Generated from protos/ by gateway/generate_schemas.py: never edit, run `make generate`."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from gateway import fields


BenefitProviderType = TypeAliasType("BenefitProviderType", Annotated[Literal["INSURER", "HOSPITAL", "CLINIC", "DIAGNOSTICS", "PHARMACY", "TELEHEALTH", "WELLNESS", "OTHER"], Field(description="What kind of business a provider is.\n\n- `INSURER`: An insurance company.\n- `HOSPITAL`: A hospital.\n- `CLINIC`: A clinic.\n- `DIAGNOSTICS`: A laboratory or imaging centre.\n- `PHARMACY`: A pharmacy.\n- `TELEHEALTH`: Doctors reached by phone or video.\n- `WELLNESS`: Prevention and well-being.\n- `OTHER`: Anything else.")])


BenefitProviderStatus = TypeAliasType("BenefitProviderStatus", Annotated[Literal["active", "inactive"], Field(description="Whether a provider takes part at the moment.\n\n- `active`: The provider's benefits are shown and new MRNs can be linked.\n- `inactive`: The provider's benefits are hidden from users and new MRNs are refused.")])


class CreateBenefitProviderBody(fields.Body):
    """A business that gives benefits: an insurer, a clinic, a laboratory."""

    code: fields.Code = Field(description="The short name that other systems use, unique: 2 to 32 lower-case letters, digits and underscores, a letter first.")
    legal_name: fields.Title = Field(description="The name in the commercial register.")
    display_name: fields.Title = Field(description="The name that users see.")
    type: BenefitProviderType = Field(description="What kind of business it is.")
    status: BenefitProviderStatus = Field(default_factory=fields.absent, description="Whether the provider takes part at the moment; a new one does.")
    support_phone: fields.SupportPhone | None = Field(default_factory=fields.absent, description="Where users get help by phone.")
    support_email: fields.EmailText | None = Field(default_factory=fields.absent, description="Where users get help by mail.")
    website: fields.Url | None = Field(default_factory=fields.absent, description="The provider's web site.")
    issues_mrn: bool = Field(default_factory=fields.absent, description="Whether the provider gives its patients medical record numbers.")
    mrn_pattern: fields.MrnPattern | None = Field(default_factory=fields.absent, description="What the whole of such a number looks like, in RE2 syntax.")
    metadata: fields.JsonObject | None = Field(default_factory=fields.absent, description="Free data of the operator's own, at most 8 KiB of JSON.")


class BenefitProvider(fields.Answer):
    """A business that gives benefits: an insurer, a clinic, a laboratory."""

    id: fields.Uuid = Field(description="The provider's id.")
    code: fields.Code = Field(description="The short name that other systems use, unique: 2 to 32 lower-case letters, digits and underscores, a letter first.")
    legal_name: fields.Title = Field(description="The name in the commercial register.")
    display_name: fields.Title = Field(description="The name that users see.")
    type: BenefitProviderType = Field(description="What kind of business it is.")
    status: BenefitProviderStatus = Field(description="Whether the provider takes part at the moment; a new one does.")
    support_phone: fields.SupportPhone | None = Field(description="Where users get help by phone.")
    support_email: fields.EmailText | None = Field(description="Where users get help by mail.")
    website: fields.Url | None = Field(description="The provider's web site.")
    issues_mrn: bool = Field(description="Whether the provider gives its patients medical record numbers.")
    mrn_pattern: fields.MrnPattern | None = Field(description="What the whole of such a number looks like, in RE2 syntax.")
    metadata: fields.JsonObject | None = Field(description="Free data of the operator's own, at most 8 KiB of JSON.")
    version: int = Field(description="Grows by one with every change.")
    created_at: fields.Rfc3339 = Field(description="When the provider was added.")
    updated_at: fields.Rfc3339 = Field(description="When the provider was last changed.")


class ListBenefitProvidersQuery(fields.PageQuery):
    """Which page of the providers to answer."""


class BenefitProviderList(fields.Answer):
    """One page of providers."""

    items: list[BenefitProvider] = Field(description="The providers, newest first.")
    next_page_token: fields.NextPageToken


class UpdateBenefitProviderBody(fields.Body):
    """A business that gives benefits: an insurer, a clinic, a laboratory."""

    code: fields.Code = Field(default_factory=fields.absent, description="The short name that other systems use, unique: 2 to 32 lower-case letters, digits and underscores, a letter first.")
    legal_name: fields.Title = Field(default_factory=fields.absent, description="The name in the commercial register.")
    display_name: fields.Title = Field(default_factory=fields.absent, description="The name that users see.")
    type: BenefitProviderType = Field(default_factory=fields.absent, description="What kind of business it is.")
    status: BenefitProviderStatus = Field(default_factory=fields.absent, description="Whether the provider takes part at the moment; a new one does.")
    support_phone: fields.SupportPhone | None = Field(default_factory=fields.absent, description="Where users get help by phone.")
    support_email: fields.EmailText | None = Field(default_factory=fields.absent, description="Where users get help by mail.")
    website: fields.Url | None = Field(default_factory=fields.absent, description="The provider's web site.")
    issues_mrn: bool = Field(default_factory=fields.absent, description="Whether the provider gives its patients medical record numbers.")
    mrn_pattern: fields.MrnPattern | None = Field(default_factory=fields.absent, description="What the whole of such a number looks like, in RE2 syntax.")
    metadata: fields.JsonObject | None = Field(default_factory=fields.absent, description="Free data of the operator's own, at most 8 KiB of JSON.")


BenefitType = TypeAliasType("BenefitType", Annotated[Literal["CONSULTATION", "TELECONSULTATION", "DIAGNOSTICS", "PHARMACY", "HEALTH_INSURANCE", "ACCIDENT_INSURANCE", "WELLNESS", "OTHER"], Field(description="What a benefit gives.\n\n- `CONSULTATION`: A visit to a doctor.\n- `TELECONSULTATION`: A doctor by phone or video.\n- `DIAGNOSTICS`: Laboratory tests and imaging.\n- `PHARMACY`: Medicines.\n- `HEALTH_INSURANCE`: Cover of hospital costs.\n- `ACCIDENT_INSURANCE`: Cover of accidents.\n- `WELLNESS`: Prevention and well-being.\n- `OTHER`: Anything else.")])


BenefitStatus = TypeAliasType("BenefitStatus", Annotated[Literal["draft", "active", "paused", "archived"], Field(description="Whether a benefit is offered at the moment.\n\n- `draft`: Being prepared; users don't see it.\n- `active`: Offered.\n- `paused`: Taken off for a while; users don't see it.\n- `archived`: Taken off for good; users don't see it.")])


Relationship = TypeAliasType("Relationship", Annotated[Literal["SELF", "SPOUSE", "SON", "DAUGHTER", "FATHER", "MOTHER", "FATHER_IN_LAW", "MOTHER_IN_LAW", "BROTHER", "SISTER", "GRANDPARENT", "WARD", "OTHER"], Field(description="Who a benefit can be for, seen from the user.\n\n- `SELF`: The user.\n- `SPOUSE`: Husband or wife.\n- `SON`: A son.\n- `DAUGHTER`: A daughter.\n- `FATHER`: The father.\n- `MOTHER`: The mother.\n- `FATHER_IN_LAW`: The spouse's father.\n- `MOTHER_IN_LAW`: The spouse's mother.\n- `BROTHER`: A brother.\n- `SISTER`: A sister.\n- `GRANDPARENT`: A grandparent.\n- `WARD`: A child in the user's care who is not the user's own.\n- `OTHER`: Anyone else.")])


class BenefitTranslationBody(fields.Body):
    """A benefit's texts in another language."""

    name: fields.Title = Field(description="The name.")
    short_description: fields.Sentence | None = Field(default_factory=fields.absent, description="The short description.")


class CreateBenefitBody(fields.Body):
    """Something a user can use, such as a consultation or an insurance cover."""

    benefit_provider_id: fields.Uuid = Field(description="The provider that gives the benefit.")
    code: fields.BenefitCode = Field(description="The short name that other systems use, unique for the provider: 1 to 64 letters, digits, underscores, dots and hyphens.")
    name: fields.Title = Field(description="The name that users see.")
    short_description: fields.Sentence | None = Field(default_factory=fields.absent, description="One sentence for a list.")
    description: fields.Description | None = Field(default_factory=fields.absent, description="The whole text.")
    type: BenefitType = Field(description="What the benefit gives.")
    status: BenefitStatus = Field(default_factory=fields.absent, description="Whether the benefit is offered at the moment; a new one is a draft.")
    valid_from: fields.IsoDate | None = Field(default_factory=fields.absent, description="The first day of the benefit.")
    valid_to: fields.IsoDate | None = Field(default_factory=fields.absent, description="The last day of the benefit, after the first.")
    price_paise: fields.Paise = Field(description="What a user pays, in paise.")
    coverage_paise: fields.Paise | None = Field(default_factory=fields.absent, description="How much is covered, in paise.")
    eligible_relationships: Annotated[list[Relationship], Field(max_length=fields.MAX_ITEMS)] = Field(default_factory=fields.absent, description="Who the benefit can be for; empty means everyone. What is repeated counts once.")
    min_age: fields.Age | None = Field(default_factory=fields.absent, description="The age in years from which a person can use it.")
    max_age: fields.Age | None = Field(default_factory=fields.absent, description="The age in years up to which a person can use it.")
    platform_ids: Annotated[list[fields.Uuid], Field(max_length=fields.MAX_ITEMS)] = Field(default_factory=fields.absent, description="The platforms whose users are offered the benefit, at most 200; empty means all. What is repeated counts once.")
    terms_url: fields.Url | None = Field(default_factory=fields.absent, description="Where the terms stand.")
    translations: Annotated[dict[fields.LanguageTag, BenefitTranslationBody], Field(max_length=fields.MAX_ITEMS)] = Field(default_factory=fields.absent, description="The texts in other languages, by BCP 47 tag.")


class BenefitProviderSummary(fields.Answer):
    """What a benefit's answer says of its provider."""

    id: fields.Uuid = Field(description="The provider's id.")
    display_name: fields.Title = Field(description="The name that users see.")
    type: BenefitProviderType = Field(description="What kind of business it is.")
    status: BenefitProviderStatus = Field(description="Whether the provider takes part at the moment.")
    issues_mrn: bool = Field(description="Whether the provider gives its patients medical record numbers.")
    mrn_pattern: fields.MrnPattern | None = Field(description="What the whole of such a number looks like, in RE2 syntax.")


class BenefitTranslation(fields.Answer):
    """A benefit's texts in another language."""

    name: fields.Title = Field(description="The name.")
    short_description: fields.Sentence | None = Field(description="The short description.")


class Benefit(fields.Answer):
    """Something a user can use, such as a consultation or an insurance cover."""

    id: fields.Uuid = Field(description="The benefit's id.")
    benefit_provider_id: fields.Uuid = Field(description="The provider that gives the benefit.")
    provider: BenefitProviderSummary = Field(description="What a user needs to know of the provider.")
    code: fields.BenefitCode = Field(description="The short name that other systems use, unique for the provider: 1 to 64 letters, digits, underscores, dots and hyphens.")
    name: fields.Title = Field(description="The name that users see.")
    short_description: fields.Sentence | None = Field(description="One sentence for a list.")
    description: fields.Description | None = Field(description="The whole text.")
    type: BenefitType = Field(description="What the benefit gives.")
    status: BenefitStatus = Field(description="Whether the benefit is offered at the moment; a new one is a draft.")
    valid_from: fields.IsoDate | None = Field(description="The first day of the benefit.")
    valid_to: fields.IsoDate | None = Field(description="The last day of the benefit, after the first.")
    price_paise: fields.Paise = Field(description="What a user pays, in paise.")
    coverage_paise: fields.Paise | None = Field(description="How much is covered, in paise.")
    eligible_relationships: list[Relationship] = Field(description="Who the benefit can be for; empty means everyone. What is repeated counts once.")
    min_age: fields.Age | None = Field(description="The age in years from which a person can use it.")
    max_age: fields.Age | None = Field(description="The age in years up to which a person can use it.")
    platform_ids: list[fields.Uuid] = Field(description="The platforms whose users are offered the benefit, at most 200; empty means all. What is repeated counts once.")
    terms_url: fields.Url | None = Field(description="Where the terms stand.")
    translations: dict[fields.LanguageTag, BenefitTranslation] = Field(description="The texts in other languages, by BCP 47 tag.")
    version: int = Field(description="Grows by one with every change.")
    created_at: fields.Rfc3339 = Field(description="When the benefit was added.")
    updated_at: fields.Rfc3339 = Field(description="When the benefit was last changed.")


class ListBenefitsQuery(fields.PageQuery):
    """Which page of which benefits to answer."""

    type: BenefitType | None = Field(default=None, description="Only benefits of this kind.")
    benefit_provider_id: fields.Uuid | None = Field(default=None, description="Only benefits of this provider.")
    q: fields.SearchText | None = Field(default=None, description="Only benefits with this text in their name, whatever the letter case.")


class BenefitList(fields.Answer):
    """One page of benefits."""

    items: list[Benefit] = Field(description="The benefits, newest first.")
    next_page_token: fields.NextPageToken


class UpdateBenefitBody(fields.Body):
    """Something a user can use, such as a consultation or an insurance cover."""

    code: fields.BenefitCode = Field(default_factory=fields.absent, description="The short name that other systems use, unique for the provider: 1 to 64 letters, digits, underscores, dots and hyphens.")
    name: fields.Title = Field(default_factory=fields.absent, description="The name that users see.")
    short_description: fields.Sentence | None = Field(default_factory=fields.absent, description="One sentence for a list.")
    description: fields.Description | None = Field(default_factory=fields.absent, description="The whole text.")
    type: BenefitType = Field(default_factory=fields.absent, description="What the benefit gives.")
    status: BenefitStatus = Field(default_factory=fields.absent, description="Whether the benefit is offered at the moment; a new one is a draft.")
    valid_from: fields.IsoDate | None = Field(default_factory=fields.absent, description="The first day of the benefit.")
    valid_to: fields.IsoDate | None = Field(default_factory=fields.absent, description="The last day of the benefit, after the first.")
    price_paise: fields.Paise = Field(default_factory=fields.absent, description="What a user pays, in paise.")
    coverage_paise: fields.Paise | None = Field(default_factory=fields.absent, description="How much is covered, in paise.")
    eligible_relationships: Annotated[list[Relationship], Field(max_length=fields.MAX_ITEMS)] = Field(default_factory=fields.absent, description="Who the benefit can be for; empty means everyone. What is repeated counts once.")
    min_age: fields.Age | None = Field(default_factory=fields.absent, description="The age in years from which a person can use it.")
    max_age: fields.Age | None = Field(default_factory=fields.absent, description="The age in years up to which a person can use it.")
    platform_ids: Annotated[list[fields.Uuid], Field(max_length=fields.MAX_ITEMS)] = Field(default_factory=fields.absent, description="The platforms whose users are offered the benefit, at most 200; empty means all. What is repeated counts once.")
    terms_url: fields.Url | None = Field(default_factory=fields.absent, description="Where the terms stand.")
    translations: Annotated[dict[fields.LanguageTag, BenefitTranslationBody], Field(max_length=fields.MAX_ITEMS)] = Field(default_factory=fields.absent, description="The texts in other languages, by BCP 47 tag.")
