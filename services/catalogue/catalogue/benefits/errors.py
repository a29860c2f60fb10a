"""Why a call about benefits is refused."""

from servicekit.errors import AlreadyExists, NotFound, RuleBroken


class BenefitUnknown(NotFound):
    """No benefit that the caller may see has this id."""

    code = "BE-701"
    message = "There is no such benefit."


class BenefitRuleBroken(RuleBroken):
    """A value breaks a rule."""

    code = "BE-702"
    message = "The benefit breaks a rule."


class BenefitCodeTaken(AlreadyExists):
    """Another benefit of the provider has this code."""

    code = "BE-703"
    message = "Another benefit of this provider has this code."
