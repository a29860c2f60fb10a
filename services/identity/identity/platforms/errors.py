"""Why a call about platforms or their keys is refused."""

from servicekit.errors import AlreadyExists, NotFound, RuleBroken, WrongState


class PlatformUnknown(NotFound):
    """No platform has this id."""

    code = "PL-301"
    message = "There is no such platform."


class PlatformRuleBroken(RuleBroken):
    """A setting breaks a rule."""

    code = "PL-302"
    message = "The platform's settings break a rule."


class PlatformNameTaken(AlreadyExists):
    """Another platform has this name or id."""

    code = "PL-303"
    message = "Another platform has this name or id."


class PlatformHasUsers(WrongState):
    """The platform still has users who are not deactivated."""

    code = "PL-304"
    message = "The platform still has users who are not deactivated."


class ApiKeyUnknown(NotFound):
    """The platform has no key with this id."""

    code = "PL-305"
    message = "The platform has no such API key."


class PlatformArchived(WrongState):
    """The platform is archived, which is for good."""

    code = "PL-306"
    message = "The platform is archived and can no longer be changed."


class ApiKeySecretTaken(AlreadyExists):
    """The secret that the operator brought is another key's already."""

    code = "PL-307"
    message = "This secret is in use already. Bring another one."
