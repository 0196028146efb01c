"""Names as text: for comparison, and with the lone surrogates by which Python decodes bytes that are not UTF-8."""

from __future__ import annotations


def is_text(text: str) -> bool:
    """Whether UTF-8 can encode the text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str, encoding: str = "utf-8") -> str:
    """Return the text with a backslash sequence in place of each character that the encoding lacks."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def plain(name: str) -> str:
    """Return a name for comparison: lower-case letters and digits only, so "Arm_wrestling" equals "arm wrestling"."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
