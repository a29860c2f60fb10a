"""Why a token is not issued."""

from servicekit.errors import NotAllowed


class PlatformNotActive(NotAllowed):
    """The partner's platform is suspended or archived."""

    code = "AU-209"
    message = "The platform is suspended."
