"""The texts that stand for a class: templates around its name, and sentences that describe it (eq. (16))."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mote_fast.clip.texts import check_texts
from mote_fast.data.text_tables import read_json, read_lines
from mote_fast.errors import ConfigError, LabelError, ListError, quoted

log = logging.getLogger(__name__)

_OPENINGS = ("a photo of", "a video of", "a example of", "a demonstration of")
_MIDDLES = (
    "{}.",
    "a person {}.",
    "a person using {}.",
    "a person doing {}.",
    "a person during {}.",
    "a person performing {}.",
    "a person practicing {}.",
)
# The paper's 28 prompts, grammar included.
TEMPLATES = tuple(f"{opening} {middle}" for opening in _OPENINGS for middle in _MIDDLES)


@dataclass(frozen=True)
class Prompts:
    """The texts that stand for a class; the defaults are the paper's.

    A class has two features of unit length: t, the normalised mean over the templates, and s, the normalised mean over
    its descriptions. Its class feature is ``(1 - weight) t + weight s``, normalised; t alone for a class without
    descriptions. Within t and within s every text counts the same.

    Attributes:
        templates: prompts with one "{}" each, in place of the class name.
        descriptions: class name -> sentences about the class, encoded as they are; names as in the label set, letter
            by letter.
        weight: share of the descriptions, in [0, 1]; 0 leaves them out, 1 the templates.

    Raises:
        ConfigError: the weight is out of range.
        LabelError: there is no template; a template has not one "{}", or has other braces; a class has no description,
            or one that ``check_texts`` refuses.
    """

    templates: Sequence[str] = TEMPLATES
    descriptions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    weight: float = 0.5

    def __post_init__(self) -> None:
        _check_templates(self.templates)
        if not 0 <= self.weight <= 1:
            raise ConfigError(f"the weight of descriptions must be in [0, 1], got {self.weight}")
        for name, sentences in self.descriptions.items():
            check_texts(sentences, f"descriptions of {quoted(name, 80)}", "sentence")
        frozen = {name: tuple(sentences) for name, sentences in self.descriptions.items()}
        object.__setattr__(self, "templates", tuple(self.templates))
        object.__setattr__(self, "descriptions", MappingProxyType(frozen))

    def __reduce__(self) -> tuple[type[Prompts], tuple[Any, ...]]:
        """Return what copies and pickles are made of: a read-only mapping has neither."""
        return type(self), (self.templates, dict(self.descriptions), self.weight)

    def described(self, labels: Sequence[str]) -> dict[str, Sequence[str]]:
        """Return label -> sentences of the labels that have descriptions; empty if their weight is 0.

        Raises:
            LabelError: there are descriptions, but of none of the labels.
        """
        if not self.descriptions or self.weight == 0:
            return {}
        found = {label: self.descriptions[label] for label in labels if label in self.descriptions}
        if not found:
            there, wanted = next(iter(self.descriptions)), labels[0]
            raise LabelError(
                f"the descriptions are of none of the {len(labels)} classes: they name {quoted(there, 80)}, the first "
                f"class is {quoted(wanted, 80)}; names must be equal letter by letter"
            )
        return found

    def count(self, labels: Sequence[str]) -> int:
        """Return the number of texts that a label set needs; the ``progress`` of ``encode_classes`` counts them."""
        sentences = {sentence for texts in self.described(labels).values() for sentence in texts}
        return len(set(labels)) * len(self.templates) + len(sentences)


def read_prompts(
    templates: str | os.PathLike[str] | None, descriptions: str | os.PathLike[str] | None, weight: float = 0.5
) -> Prompts:
    """Read templates and descriptions from files.

    Args:
        templates: text file, one template a line; None takes the paper's.
        descriptions: JSON file of an object, class name -> list of sentences; None for none.
        weight: see ``Prompts``.

    Raises:
        ConfigError: the weight is out of range.
        ListError: a file cannot be read, or holds something else; the message names it.
    """
    lines: Sequence[str] = TEMPLATES
    if templates is not None:
        lines = [line for _, line in read_lines(templates)]
        try:
            _check_templates(lines)
        except LabelError as error:
            raise ListError(f"{templates}: {error}") from error
    if descriptions is None:
        return Prompts(lines, weight=weight)
    document = read_json(descriptions)
    if not isinstance(document, dict) or not document:
        raise ListError(f'{descriptions}: must hold an object, {{"class name": ["a sentence", ...], ...}}')
    try:
        return Prompts(lines, document, weight)
    except LabelError as error:
        raise ListError(f"{descriptions}: {error}") from error


def _check_templates(templates: Sequence[str]) -> None:
    if isinstance(templates, str) or not templates:
        raise LabelError("templates must be a list of at least one text, such as ['a video of {}.']")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
            raise LabelError(
                f"a template holds one {{}}, in place of the name, and no other brace; got {quoted(template, 80)}"
            )
    check_texts(templates, "templates", "template")


PAPER_PROMPTS = Prompts()
