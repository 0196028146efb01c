"""Settings as written in YAML files and on the command line, each with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mote_fast.errors import ConfigError, quoted
from mote_fast.runtime.reading import read_small

COMMAND_LINE = "command line"

# Bytes of a configuration file; that of a run takes three thousand.
MAX_BYTES = 2**16


class Setting(NamedTuple):
    """A value as written, and the file (or ``COMMAND_LINE``) that holds it."""

    value: object
    source: str


def read_document(path: str | Path) -> dict[Any, Any]:
    """Read a YAML file that holds a mapping; an empty file gives an empty mapping.

    Raises:
        ConfigError: the file cannot be read, is not YAML, gives a key twice, or holds no mapping.
    """
    try:
        content = read_small(path, MAX_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    document = _parse(content, str(path))
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must hold sections with keys, found {type(document).__name__}")
    return document


def flatten(document: Mapping[Any, Any], source: str) -> dict[str, Setting]:
    """Return the settings of a document by dotted key, such as "optim.lr"; a key outside all sections has no dot."""
    settings: dict[str, Setting] = {}
    for section, values in document.items():
        if isinstance(values, dict) and values:
            settings |= {f"{section}.{name}": Setting(value, source) for name, value in values.items()}
        else:
            settings[str(section)] = Setting(values, source)
    return settings


def parse_overrides(overrides: Sequence[str]) -> dict[str, Setting]:
    """Read ``key=value`` texts, the values as YAML; if a key is given twice, the last value counts.

    Raises:
        ConfigError: a text has another form, or its value is not YAML.
    """
    settings: dict[str, Setting] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not (key.strip() and equals):
            raise ConfigError(f"{COMMAND_LINE}: expected key=value, such as optim.lr=1e-4, got {quoted(override)}")
        settings[key.strip()] = Setting(_parse(text, f"{COMMAND_LINE}: {key.strip()}"), COMMAND_LINE)
    return settings


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, in which a text says no more than it spells out, and nothing in silence.

    A repeated key is an error, where PyYAML takes the last value. So is an alias of a list or mapping: a few lines of
    them stand for billions of items.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and isinstance(node, yaml.CollectionNode):
            raise yaml.MarkedYAMLError(
                None, None, "an alias of a list or section; write it out, or use 'base'", node.start_mark
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{quoted(key.value)} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse(content: str | bytes, where: str) -> Any:
    try:
        return yaml.load(content, Loader=_StrictLoader)
    # PyYAML leaks internal exceptions when a value does not fit its tag ("!!int x", a 13th month) or nests too deep.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        reason = (error.problem if isinstance(error, yaml.MarkedYAMLError) else None) or str(error)
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{where}: not valid YAML ({line}{' '.join(reason.split())})") from error
