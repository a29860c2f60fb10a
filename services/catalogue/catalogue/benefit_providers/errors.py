"""Why a call about benefit providers is refused."""

from servicekit.errors import AlreadyExists, NotFound, RuleBroken, WrongState


class BenefitProviderUnknown(NotFound):
    """No provider has this id."""

    code = "BP-601"
    message = "There is no such benefit provider."


class BenefitProviderMissing(RuleBroken):
    """Something refers to a provider that does not exist."""

    code = "BP-602"
    message = "The benefit provider referred to does not exist."


class BenefitProviderCodeTaken(AlreadyExists):
    """Another provider has this code."""

    code = "BP-603"
    message = "Another benefit provider has this code."


class BenefitProviderInUse(WrongState):
    """A benefit or an MRN has referred to the provider."""

    code = "BP-604"
    message = "A benefit or an MRN has referred to the benefit provider. Make it inactive instead."


class BenefitProviderRuleBroken(RuleBroken):
    """A value breaks a rule."""

    code = "BP-605"
    message = "The benefit provider breaks a rule."
