"""Names as text: for comparison, and with the lone surrogates by which Python decodes bytes that are not UTF-8."""

from __future__ import annotations

import re
import unicodedata

# What changes the order in which a terminal or a page shows the characters around it.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Characters that Markdown gives a meaning wherever they are; an underscore has none inside a word.
_MARKS = re.compile(r"[\\`*\[\]<>|&#~!$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|(?<=\w)@", re.IGNORECASE)
# What makes a list at the start of a line: a dash or plus, or a number's point or bracket.
_FIRST_MARKS = re.compile(r"^(\d*)((?<=\d)[.)](?=\s|$)|[-+])")


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


def visible(text: str) -> str:
    """Return the text on one line, with a backslash sequence in place of each character that a terminal obeys.

    These are control characters, line breaks of all kinds, and those that turn the direction of writing.
    """
    return "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in _REORDERING else letter
        for letter in text
    )


def markdown(text: str) -> str:
    """Return Markdown on one line, also for the cell of a table, that shows the text and nothing else."""
    text = _MARKS.sub(r"\\\g<0>", visible(text))
    return _FIRST_MARKS.sub(r"\1\\\2", text)


def plain(name: str) -> str:
    """Return a name for comparison: lower-case letters and digits only, so "Arm_wrestling" equals "arm wrestling"."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def underscores_to_spaces(name: str) -> str:
    """Return the class name of a class folder, whoever reads it: "brush_hair" is "brush hair"."""
    return " ".join(name.replace("_", " ").split())
