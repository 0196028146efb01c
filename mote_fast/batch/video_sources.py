"""Reads what names the videos of a run: a folder, a pattern, a list, CSV, Parquet, or Python's own paths.

Everything is read in pieces, so that a list of ten million videos takes no more memory than one of ten thousand.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import IO, Any, NamedTuple, TypeAlias

from mote_fast.batch.id_digests import id_of_path
from mote_fast.data.find_videos import find_videos, is_video_name
from mote_fast.data.loading.addresses import Address, check_protocol, is_address
from mote_fast.errors import ConfigError, ListError, one_line, quoted
from mote_fast.runtime.extras import required
from mote_fast.runtime.reading import check_regular, expanded
from mote_fast.runtime.text import is_text

# What names the videos of a run: a path, a pattern or an address, paths, or paths by their ids.
Source: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]]

# Videos of a piece.
PIECE = 2**16

# Bytes of an id, of a path, and of a line.
MAX_TEXT = 2**16


class Item(NamedTuple):
    """A video of a run: its id, and its absolute path or its address."""

    id: str
    path: str


class Columns(NamedTuple):
    """Where a table has paths, and ids (None: hashes of the paths); and the folder that relative paths start from."""

    path: str = "path"
    id: str | None = None
    root: str = ""


def read_source(source: Source, columns: Columns) -> Iterator[list[Item]]:
    """Yield the videos of a source, in pieces.

    Args:
        source: a folder, of which all videos below are taken; a pattern; a CSV file; a Parquet file; or another file,
            with a path on each line. An address of fsspec instead of a path names the same elsewhere. Or paths, or
            paths by their ids.
        columns: of CSV and Parquet, which need not be those of the defaults.

    Raises:
        ListError: the source cannot be read or holds no videos; or an id or a path is missing or malformed.
        BackendError: the package for an address or for Parquet is missing.
        ConfigError: the source is something else.
    """
    protocols: set[str] = set()
    found = False
    for names, paths in _named(source, columns):
        items = [_item(name, path, columns.root, protocols) for name, path in zip(names, paths, strict=True)]
        found = found or bool(items)
        if items:
            yield items
    if not found:
        raise ListError(f"{_label(source)}: names no videos")


# Ids and paths of some videos; an id of None is made of the path.
_Piece: TypeAlias = tuple[Iterable[str | None], list[Any]]


def _named(source: Source, columns: Columns) -> Iterator[_Piece]:
    if isinstance(source, Mapping):
        pairs: Iterator[tuple[Any, Any]] = iter(source.items())
        while piece := list(itertools.islice(pairs, PIECE)):
            yield [name for name, _ in piece], [path for _, path in piece]
        return
    if not isinstance(source, str | os.PathLike):
        if not isinstance(source, Iterable):
            raise ConfigError(f"videos are named by a path or by an iterable of paths, got {quoted(source)}")
        yield from _without_ids(source)
        return
    name = os.fspath(source)
    if is_address(name):
        yield from _at_address(name, columns)
        return
    path = expanded(name)
    if path.is_dir():
        videos, unreadable = find_videos(path)
        if unreadable:
            raise ListError(f"{unreadable[0]}; make it readable, or name the videos")
        yield from _without_ids(os.path.join(path, video) for video in videos)
    elif not os.path.lexists(path) and glob.has_magic(name):
        yield from _without_ids(sorted(each for each in glob.glob(name, recursive=True) if not os.path.isdir(each)))
    else:
        with _reading(name):
            check_regular(path)
            with path.open("rb") as file:
                yield from _of_file(file, name, columns)


def _at_address(name: str, columns: Columns) -> Iterator[_Piece]:
    check_protocol(Address(name).protocol)
    fsspec = required("fsspec", name, "batch")
    with _reading(name):
        system, path = fsspec.core.url_to_fs(name)
        if glob.has_magic(path):
            listed = sorted(system.glob(path))
        elif system.isdir(path):
            listed = sorted(each for each in system.find(path) if is_video_name(PurePath(each).name))
        else:
            with system.open(path, "rb") as file:
                yield from _of_file(file, name, columns)
            return
    yield from _without_ids(system.unstrip_protocol(each) for each in listed)


def _of_file(file: IO[bytes], name: str, columns: Columns) -> Iterator[_Piece]:
    suffix = PurePath(name).suffix.lower()
    if suffix == ".parquet":
        parquet = required("pyarrow.parquet", name, "batch").ParquetFile(file)
        missing = [each for each in (columns.path, columns.id) if each not in (None, *parquet.schema_arrow.names)]
        if missing:
            raise ListError(f"{name}: lacks the column {missing[0]!r}, has {quoted(parquet.schema_arrow.names)}")
        batches = parquet.iter_batches(PIECE, columns=[each for each in (columns.path, columns.id) if each is not None])
        yield from _of_tables(batches, name, columns)
    elif suffix == ".csv":
        csv = required("pyarrow.csv", name, "batch")
        arrow = required("pyarrow", name, "batch")
        wanted = {each: arrow.string() for each in (columns.path, columns.id) if each is not None}
        options = csv.ConvertOptions(column_types=wanted, include_columns=list(wanted), strings_can_be_null=False)
        yield from _of_tables(csv.open_csv(file, convert_options=options), name, columns)
    else:
        yield from _without_ids(_lines(file, name))


def _of_tables(batches: Iterable[Any], name: str, columns: Columns) -> Iterator[_Piece]:
    row = 0
    for batch in batches:
        for start in range(0, batch.num_rows, PIECE):
            part = batch.slice(start, PIECE)
            texts = []
            for column in (columns.path, columns.id):
                if column is None:
                    texts.append([None] * part.num_rows)
                    continue
                values = part.column(column)
                if values.null_count:
                    at = values.is_null().to_pylist().index(True)
                    raise ListError(f"{name}: row {row + at + 1} has no {column}")
                texts.append([str(value) for value in values.to_pylist()])
            yield texts[1], texts[0]
            row += part.num_rows


def _lines(file: IO[bytes], name: str) -> Iterator[str]:
    first = True
    while line := file.readline(MAX_TEXT + 2):
        text = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf") if first else line).strip()
        first = False
        if len(line) > MAX_TEXT:
            raise ListError(f"{name}: a line of over {MAX_TEXT} bytes; it must have a path on each line")
        if "\0" in text:
            raise ListError(f"{name}: no list of paths, one on each line")
        if text:
            yield text


def _without_ids(paths: Iterable[str | os.PathLike[str]]) -> Iterator[_Piece]:
    if isinstance(paths, str):
        raise ConfigError("videos are named by a path or by an iterable of paths")
    rest = iter(paths)
    while piece := list(itertools.islice(rest, PIECE)):
        yield [None] * len(piece), piece


def _item(name: str | None, path: Any, root: str, protocols: set[str]) -> Item:
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"a video is named by its path, got {quoted(path)}")
    text = os.fsdecode(path)
    if not text:
        raise ListError(f"a video's path is empty (its id is {quoted(name)})")
    if is_address(text):
        protocol = Address(text).protocol
        if protocol not in protocols:
            check_protocol(protocol)
            protocols.add(protocol)
    else:
        # Workers may have another folder, or another machine.
        text = os.path.abspath(os.path.join(root, expanded(text)))
    if name is None:
        return Item(id_of_path(text), text)
    if not isinstance(name, str) or not name or not is_text(name):
        raise ListError(f"{text}: its id must be a text of UTF-8 that is not empty, got {quoted(name)}")
    for kind, value in (("id", name), ("path", text)):
        if len(value.encode(errors="surrogateescape")) > MAX_TEXT:
            raise ListError(f"{quoted(value)}: its {kind} has more than {MAX_TEXT} bytes")
    return Item(name, text)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ListError(f"{name}: cannot be read ({one_line(error)})") from error
    except (ConfigError, ListError):
        raise
    except ValueError as error:
        # pyarrow's own errors.
        raise ListError(f"{name}: damaged, or in another form ({one_line(error)})") from error
    except KeyError as error:
        raise ListError(f"{name}: lacks a column ({one_line(error)})") from error


def _label(source: Source) -> str:
    return os.fsdecode(source) if isinstance(source, str | os.PathLike) else "the videos"
