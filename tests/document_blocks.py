"""The documents whose programs and commands run in the tests, and the code blocks in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "configs" / "README.md"]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in their order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Every shell command line as words, without comments, ellipses, and where its output goes."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    lines += [line[2:] for line in "".join(blocks(page, "console")).splitlines() if line.startswith("$ ")]
    found = (shlex.split(re.sub(r" (\.\.\.|[|>] .*)", "", line), comments=True) for line in lines)
    return [words for words in found if words]


def our_arguments(words: list[str]) -> list[str] | None:
    """What a command line gives to `mote-fast`; None if it calls something else."""
    for caller in ("mote-fast", "mote_fast.cli"):
        if caller in words:
            return words[words.index(caller) + 1 :]
    return None


def sessions(page: Path) -> list[tuple[list[str], str]]:
    """The command lines of every console block, with the output that is shown below each."""
    found = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((shlex.split(command), output))
    return found
