"""Why a call about accounts is refused."""

from servicekit.errors import AlreadyExists, NotFound, RuleBroken


class AccountUnknown(NotFound):
    """The user has no account with this id, or has removed it."""

    code = "AC-801"
    message = "There is no such account."


class AccountRuleBroken(RuleBroken):
    """An account's value breaks a rule."""

    code = "AC-802"
    message = "The account breaks a rule."


class AccountAlreadyThere(AlreadyExists):
    """The user has stored the same account before."""

    code = "AC-803"
    message = "The user already has this account."
