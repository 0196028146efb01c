"""Tokenizers of text towers, and the files of towers and tokenizers that transformers implements.

A configuration alone decides nothing about other places: a model folder is complete, so loading one opens only its own
``TEXT_FOLDER``. Repositories of the hub are opened when the caller names an architecture or a repository, and no
repository's code is ever run.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import HFTokenizer

from mote_fast.clip.clip_config import ClipConfig
from mote_fast.clip.tokens import small_tokenizer
from mote_fast.clip.towers import ClipTowers, Tokenizer
from mote_fast.errors import BackendError, CheckpointError, ConfigError, MoteError, one_line, quoted
from mote_fast.runtime.checks import check_count
from mote_fast.runtime.json_text import from_json
from mote_fast.runtime.reading import check_inside, check_regular, read_small
from mote_fast.runtime.shapes import MAX_LAYERS
from mote_fast.runtime.weights import MAX_CONFIG

# The tokenizer options of open_clip's model configurations that cannot open other files or run code.
_HF_OPTIONS = frozenset({"clean", "strip_sep_token", "language"})
_CLIP_OPTIONS = frozenset({"clean", "reduction_mask"})

# A trace of the machine that wrote a tokenizer; never opened.
_HARMLESS = frozenset({"special_tokens_map_file"})

# Bytes of a file of a tokenizer or of a text tower's configuration; those of the largest vocabularies take 40 MB.
MAX_FILE = 2**27
# The files that tokenizers and text towers of transformers are read from.
TOKENIZER_FILES = (
    *("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "bpe.codes"),
)
# A sub-folder that transformers reads too.
_CHAT_TEMPLATES = "additional_chat_templates"
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".npz"})

# Exceptions of transformers, tokenizers and the hub client for files that are missing, unreadable or of unknown kind.
_FILE_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


def needs_transformers(config: ClipConfig) -> bool:
    """Whether transformers implements the tokenizer or the text tower."""
    text = config.model["text_cfg"]
    return bool(text.get("hf_tokenizer_name") or text.get("hf_model_name"))


def check_installed(config: ClipConfig) -> None:
    """Raise BackendError if the tokenizer or the text tower needs transformers, which is not installed."""
    if needs_transformers(config):
        with _transformers(config, None):
            pass


def check_repositories(config: ClipConfig, repository: str) -> None:
    """Check that a repository's configuration refers to itself, or to repositories that open_clip itself names.

    Raises:
        ConfigError: it refers to another one.
    """
    texts = [(open_clip.get_model_config(name) or {}).get("text_cfg", {}) for name in open_clip.list_models()]
    for key in ("hf_tokenizer_name", "hf_model_name"):
        known = {repository, None, "", *(text.get(key) for text in texts)}
        named = config.model["text_cfg"].get(key)
        if named not in known:
            raise ConfigError(
                f"{config.name}: its {key} is {quoted(named)}, a repository that you have not named; refused"
            )


def tokenizer_of(config: ClipConfig, files: Path | None = None) -> Tokenizer:
    """Return a configuration's tokenizer: CLIP's, a part of it, or one that transformers implements.

    Args:
        config: the configuration; its ``name`` plays no role.
        files: folder of the files of a tokenizer of transformers, and then nothing else is opened; None opens the
            repository that the configuration names.

    Raises:
        BackendError: transformers, or a package that it needs, is not installed.
        CheckpointError: the tokenizer's files are missing or unreadable.
        ConfigError: the tokenizer does not fit, or has an option that is not supported.
    """
    text = config.model["text_cfg"]
    context_length = text.get("context_length", 77)
    options = _tokenizer_options(config)
    if text.get("hf_tokenizer_name"):
        if files is not None:
            _check_files(files)
        with _transformers(config, files):
            return HFTokenizer(
                str(files or text["hf_tokenizer_name"]),
                context_length=context_length,
                tokenizer_mode=text.get("tokenizer_mode"),
                trust_remote_code=False,
                local_files_only=files is not None,
                **options,
            )
    if config.merges is not None:
        tokenizer = small_tokenizer(config.merges, context_length)
    else:
        tokenizer = open_clip.SimpleTokenizer(context_length=context_length, **options)
    if text.get("vocab_size", tokenizer.vocab_size) < tokenizer.vocab_size:
        raise ConfigError(
            f"the text tower knows {text['vocab_size']} tokens, its tokenizer makes {tokenizer.vocab_size}; "
            "such a tower needs a tokenizer of its own"
        )
    return tokenizer


@contextmanager
def text_config_of(config: ClipConfig, files: Path | None = None) -> Iterator[dict[str, Any]]:
    """Yield open_clip's text configuration, with its ``hf_model_name`` replaced by a folder with that configuration.

    open_clip would open the repository itself, ask on the terminal whether to run its code, and load its weights.

    Args:
        config: the configuration.
        files: as in ``tokenizer_of``.

    Raises:
        BackendError: transformers is not installed.
        CheckpointError: the text tower's configuration is missing, unreadable, or needs code that transformers lacks.
    """
    text = config.model["text_cfg"]
    if not text.get("hf_model_name"):
        yield text
        return
    with tempfile.TemporaryDirectory() as folder:
        with _transformers(config, files) as transformers:
            if files is not None:
                _check_files(files)
            found = transformers.AutoConfig.from_pretrained(
                str(files or text["hf_model_name"]), trust_remote_code=False, local_files_only=files is not None
            )
            vars(found).pop("auto_map", None)
            for key, value in found.to_dict().items():
                if "layer" in key and isinstance(value, int):
                    check_count(key, int(value), 0, MAX_LAYERS)
            found.save_pretrained(folder)
        yield {**text, "hf_model_name": folder, "hf_model_pretrained": False}


def write_text_files(towers: ClipTowers, folder: Path) -> None:
    """Write what ``tokenizer_of`` and ``text_config_of`` need into ``folder``; nothing for CLIP's own tokenizer."""
    text = towers.config.model["text_cfg"]
    if text.get("hf_tokenizer_name"):
        folder.mkdir(exist_ok=True)
        towers.tokenizer.save_pretrained(str(folder))  # pyright: ignore[reportFunctionMemberAccess]
        # The program of a chat, which no text tower holds.
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    if text.get("hf_model_name"):
        folder.mkdir(exist_ok=True)
        towers.text.config.save_pretrained(str(folder))


def _tokenizer_options(config: ClipConfig) -> Mapping[str, Any]:
    text = config.model["text_cfg"]
    options: Mapping[str, Any] = text.get("tokenizer_kwargs") or {}
    unknown = options.keys() - (_HF_OPTIONS if text.get("hf_tokenizer_name") else _CLIP_OPTIONS)
    if unknown:
        raise ConfigError(f"tokenizer_kwargs of {config.name} has {quoted(sorted(unknown))}, which is not supported")
    return options


def _check_files(files: Path) -> None:
    """Check what transformers would open in a folder.

    Raises:
        CheckpointError: a file is a link that leads elsewhere, a FIFO or a device, or too large; or the tokenizer's
            configuration names files, which may lie anywhere.
    """
    path = files
    try:
        for path in sorted((*files.iterdir(), *(files / _CHAT_TEMPLATES).glob("*"))):
            check_inside(path, files)
            if not path.is_dir() and path.suffix not in _WEIGHTS:
                check_regular(path)
                if path.stat().st_size > MAX_FILE:
                    raise OSError(f"larger than {MAX_FILE} bytes")
        path = files / "tokenizer_config.json"
        values = from_json(read_small(path, MAX_CONFIG).decode("utf-8"))
        named = {key for key, value in values.items() if key.endswith("_file") and value} - _HARMLESS
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: unreadable ({one_line(error)})") from error
    if named:
        raise CheckpointError(f"{path}: refused, because it names files of its own choice: {', '.join(sorted(named))}")


@contextmanager
def _transformers(config: ClipConfig, files: Path | None) -> Iterator[Any]:
    """Yield the package, and turn its errors into ours."""
    source = files or f"the text tower of {config.name}"
    try:
        yield importlib.import_module("transformers")
    except ImportError as error:
        raise BackendError(
            f"{source}: its tokenizer or text tower needs transformers ({one_line(error)}); pip install "
            "'mote_fast[text]'"
        ) from error
    except MoteError:
        raise
    except AssertionError as error:
        raise ConfigError(f"{source}: {one_line(error)}") from error
    except _FILE_ERRORS as error:
        raise CheckpointError(f"{source}: its tokenizer or configuration cannot be read ({one_line(error)})") from error
