"""Why a call about users is refused."""

from servicekit.errors import AlreadyExists, NotAllowed, NotFound, RuleBroken, WrongState


class UserUnknown(NotFound):
    """No user of the caller's has this id."""

    code = "US-401"
    message = "There is no such user."


class UserRuleBroken(RuleBroken):
    """A profile value breaks a rule."""

    code = "US-402"
    message = "The profile breaks a rule."


class PhoneTaken(AlreadyExists):
    """Another user of the platform has this phone number."""

    code = "US-403"
    message = "Another user of the platform has this phone number."


class WrongUserStatus(WrongState):
    """The user's status does not allow this."""

    code = "US-404"
    message = "The user's status does not allow this."


class ProfileIncomplete(RuleBroken):
    """Profile fields that the platform requires are missing."""

    code = "US-405"
    message = "The profile lacks fields that the platform requires."


class UserDeactivated(NotAllowed):
    """The user has left the platform."""

    code = "US-406"
    message = "The user is deactivated."
