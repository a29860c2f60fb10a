"""Whether a text can be a mail address."""

import re

# One @, no space, a dotted domain: anything closer is only known by sending a mail.
_ADDRESS = re.compile(r"[^\s@<>(),;:\"\\]{1,64}@(?:[^\s@.<>(),;:\"\\]{1,63}\.)+[^\s@.<>(),;:\"\\]{2,63}")


def is_mail_address(text: str) -> bool:
    """Return whether a text has the form of a mail address."""
    return len(text) <= 254 and _ADDRESS.fullmatch(text) is not None
