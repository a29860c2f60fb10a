"""Why a call is refused because of its user."""

from servicekit.errors import NotFound, WrongState


class UserUnknown(NotFound):
    """No user of the caller's has this id."""

    code = "US-401"
    message = "There is no such user."


class WrongUserStatus(WrongState):
    """The user's status does not allow this."""

    code = "US-404"
    message = "The user's status does not allow this."
