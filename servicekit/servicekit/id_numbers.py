"""Numbers of Indian identity documents: what they look like, and which must never be stored."""

import re

_ABHA_NUMBER = re.compile(r"[0-9]{14}", re.ASCII)
_ABHA_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._]{1,28})[A-Za-z0-9]@[a-z]{2,20}", re.ASCII)
NO_AADHAAR = "An Aadhaar number must not be stored."
PAN = re.compile(r"[A-Z]{5}[0-9]{4}[A-Z]", re.ASCII)

# The dihedral group of order ten and the permutation of Verhoeff's check digit (J. Verhoeff, 1969).
_MULTIPLIED = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_PERMUTED = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 5, 7, 6, 2, 8, 3, 0, 9, 4),
    (5, 8, 0, 3, 7, 9, 6, 1, 4, 2),
    (8, 9, 1, 6, 0, 4, 3, 5, 2, 7),
    (9, 4, 5, 3, 1, 2, 6, 8, 7, 0),
    (4, 2, 8, 6, 5, 7, 3, 9, 0, 1),
    (2, 7, 9, 3, 8, 0, 6, 4, 1, 5),
    (7, 0, 4, 6, 9, 1, 3, 2, 5, 8),
)


def is_aadhaar(text: str) -> bool:
    """Return whether a text is an Aadhaar number: twelve digits, separators aside, that pass Verhoeff's check.

    The law restricts who may store one, so no field takes it.
    """
    digits = re.sub(r"[\s/._-]", "", text)
    if not re.fullmatch(r"[0-9]{12}", digits, re.ASCII):
        return False
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _MULTIPLIED[check][_PERMUTED[place % 8][int(digit)]]
    return check == 0


def fault_of_abha_number(text: str) -> str | None:
    """Return what keeps a text from being the number of an Ayushman Bharat Health Account; None when nothing does."""
    if is_aadhaar(text):
        return NO_AADHAAR
    return None if _ABHA_NUMBER.fullmatch(text) else "An ABHA number has 14 digits."


def fault_of_abha_address(text: str) -> str | None:
    """Return what keeps a text from being the address of such an account; None when nothing does."""
    if is_aadhaar(text.partition("@")[0]):
        return NO_AADHAAR
    return None if _ABHA_ADDRESS.fullmatch(text) else "An ABHA address looks like ravi@abdm."


def masked(text: str, shown: int = 4) -> str:
    """Return four bullets and the end of a number; of a short one at most half is shown."""
    return "••••" + text[-min(shown, len(text) // 2) :] if len(text) > 1 else "••••"
