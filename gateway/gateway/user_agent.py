"""What a caller's program calls itself, as it may be logged and stored."""

LONGEST = 200


def printable(text: str | None) -> str | None:
    """Return the beginning of a User-Agent header without what could disturb a log; None when there is nothing."""
    return "".join(character for character in text[:LONGEST] if character.isprintable()) if text else None
