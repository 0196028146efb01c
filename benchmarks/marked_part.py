"""A part of a page that a program writes, between two comments; the rest is the authors'."""

from __future__ import annotations


def updated(page: str, text: str, begin: str, end: str) -> str:
    """The page with ``text`` between its two comments.

    Raises:
        SystemExit: the comments are not there, once each and in order.
    """
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise SystemExit(f"a page needs these two lines, once each and in this order: {begin!r}, {end!r}")
    return f"{page.split(begin)[0]}{begin}\n\n{text}\n\n{end}{page.split(end)[1]}"
