"""Whether a text can be the address of a web page."""

import re

# Plain or secure, a dotted host, no user name in front of it: a link with one shows another host than it opens.
_LABEL = r"[^\s/?#@:.\\<>\"\[\]]{1,63}"
_ADDRESS = re.compile(rf"https?://(?:{_LABEL}\.)+{_LABEL}(?::[0-9]{{1,5}})?(?:[/?#][^\s\\<>\"]*)?", re.IGNORECASE)


def is_web_address(text: str) -> bool:
    """Return whether a text has the form of an ``http`` or ``https`` address."""
    return _ADDRESS.fullmatch(text) is not None
