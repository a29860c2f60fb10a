"""Why a call about MRNs is refused."""

from servicekit.errors import AlreadyExists, NotFound, RuleBroken


class MrnUnknown(NotFound):
    """No link of the caller's has this id."""

    code = "MR-901"
    message = "There is no such MRN."


class ProviderUnusable(RuleBroken):
    """The benefit provider is unknown, inactive or does not issue MRNs."""

    code = "MR-902"
    message = "MRNs cannot be linked at this benefit provider."


class MrnAlreadyLinked(AlreadyExists):
    """The dependant has an MRN at this benefit provider."""

    code = "MR-903"
    message = "The dependant already has an MRN at this benefit provider."


class MrnOfAnotherDependant(AlreadyExists):
    """Another dependant of the same user has this number at this benefit provider."""

    code = "MR-904"
    message = "Another dependant of the user already has this MRN at this benefit provider."


class MrnFormatWrong(RuleBroken):
    """The number does not look as the benefit provider says."""

    code = "MR-905"
    message = "The MRN does not have the benefit provider's format."
