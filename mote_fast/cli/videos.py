"""The videos of a command: which they are, and the loop over them that writes each result as it comes."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from mote_fast.cli import outputs
from mote_fast.cli.result_writers import Writer
from mote_fast.data.find_videos import find_videos
from mote_fast.data.loading.addresses import is_address
from mote_fast.data.text_tables import read_lines
from mote_fast.errors import ConfigError, ListError, MissingVideoError, MoteError, VideoError
from mote_fast.model.classifier import VideoClassifier


class Videos(NamedTuple):
    """The paths of the videos, and why those that are not there cannot be read."""

    paths: list[str]
    missing: dict[str, str]

    @property
    def present(self) -> list[str]:
        """The paths of those that are there."""
        return [path for path in self.paths if path not in self.missing]


class Judged(NamedTuple):
    """What a model says of one video, or the error; and its replaced frames."""

    value: Any
    error: MoteError | None
    replaced_frames: int


def videos_of(arguments: argparse.Namespace) -> Videos:
    """Collect the videos of the arguments, which replace them, and report those that are missing; none is opened.

    A folder stands for the videos below it, a pattern for the files that match, and ``--list`` for the lines of a file.

    Raises:
        ConfigError: a folder or pattern has none, a video is an address of the web, or none of the
            videos is there.
        ListError: the list cannot be read.
    """
    named = [*arguments.videos]
    if arguments.list is not None:
        named += [line.strip() for _, line in read_lines(arguments.list)]
    paths = [path for name in named for path in _meant(name)]
    missing = {path: str(MissingVideoError(path, "no such file")) for path in paths if not os.path.lexists(path)}
    if len(missing) == len(set(paths)):
        first, *others = missing.values()
        raise ConfigError(first + (f"; nor are the other {len(others)} there" if others else ""))
    outputs.report(list(missing.values()))
    arguments.videos = [path for path in paths if path not in missing]
    return Videos(paths, missing)


def judged_each(
    model: VideoClassifier,
    videos: Sequence[str],
    one: Callable[[str], Any],
    several: Callable[[Sequence[str], int], Generator[Any, None, None]],
    value: Callable[[Any], Any],
) -> Iterator[Judged]:
    """Yield what a model says of each video; of several, the next ones are decoded meanwhile.

    Args:
        model: the model.
        videos: paths.
        one: judges one video, in the process that was started for it while the model was built.
        several: judges several, with a number of worker processes; see ``VideoClassifier.stream_results``.
        value: what its results say.
    """
    if len(videos) == 1:
        before = model.replaced_frames
        try:
            found, error = one(videos[0]), None
        except VideoError as problem:
            found, error = None, problem
        yield Judged(found, error, model.replaced_frames - before)
        return
    with contextlib.closing(several(videos, min(len(videos), os.cpu_count() or 1))) as results:
        for result in results:
            if result.error is not None and not isinstance(result.error, VideoError):
                # The model's fault, not the video's.
                raise result.error
            yield Judged(None if result.error else value(result), result.error, result.replaced_frames)


def write_each(
    videos: Videos,
    judged: Iterator[Judged],
    key: str,
    writers: Sequence[Writer],
    facts_of: Callable[[str | None], Mapping[str, Any]] = lambda first: {},
) -> int:
    """Write what is said of each video, under ``key``, as it comes; return the exit status, 3 if a video failed.

    Args:
        videos: all videos.
        judged: what is said of those that are there, in their order.
        key: name of the value in a record.
        writers: begun; they are finished here, also at Ctrl-C, after which what was done is complete.
        facts_of: returns further facts for a document of all videos, given the first that could be read.
    """
    failed, first = 0, None
    shown = tqdm(total=len(videos.paths), unit="videos", delay=2, disable=True if len(videos.paths) < 2 else None)
    try:
        with shown as bar:
            for video in videos.paths:
                found = Judged(None, None, 0) if video in videos.missing else next(judged)
                problem = videos.missing.get(video) or (str(found.error) if found.error is not None else None)
                failed += problem is not None
                first = first or (video if problem is None else None)
                record = {"video": video, key: found.value, "replaced_frames": found.replaced_frames, "error": problem}
                for writer in writers:
                    writer.add(record)
                if found.error is not None:
                    with tqdm.external_write_mode(sys.stderr):
                        outputs.report([str(found.error)])
                bar.update()
    except KeyboardInterrupt:
        _finish(writers, {})
        raise
    _finish(writers, facts_of(first))
    return outputs.SOME_FAILED if failed else 0


def _finish(writers: Iterable[Writer], further: Mapping[str, Any]) -> None:
    for writer in writers:
        writer.finish(further)


def _meant(name: str) -> list[str]:
    """The videos that one argument stands for."""
    if is_address(name):
        raise ConfigError(f"{name}: addresses are not opened; fetch the video, and give the path of the file")
    if Path(name).is_dir():
        found, unreadable = find_videos(name)
        if unreadable:
            raise ListError(f"{unreadable[0]}; make it readable, or name the videos")
        if not found:
            raise ConfigError(f"{name}: holds no videos")
        return [os.path.join(name, path) for path in found]
    if not os.path.lexists(name) and glob.has_magic(name):
        matching = sorted(path for path in glob.glob(name, recursive=True) if not os.path.isdir(path))
        if not matching:
            raise ConfigError(f"{name}: no file matches this pattern")
        return matching
    return [name]
