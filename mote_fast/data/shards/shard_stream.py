"""The samples that one worker reads from tar shards, in order, each as the video's bytes or as a failure."""

from __future__ import annotations

import itertools
import logging
import math
import random
import re
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import torch

from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.order import Replica
from mote_fast.data.shards.shard_index import ShardIndex, TarShard, key_of
from mote_fast.data.shards.tar_members import read_members
from mote_fast.errors import ConfigError, one_line
from mote_fast.runtime.json_text import from_json
from mote_fast.runtime.reading import open_regular
from mote_fast.runtime.seeding import generator_of, seed_of

log = logging.getLogger(__name__)

# A watched process holds a video twice while it receives it.
MAX_VIDEO_BYTES = 1 << 30
# Bytes of a sample's JSON; a path has at most a few thousand characters.
MAX_ABOUT_BYTES = 1 << 16
# Bytes of the videos that wait in one worker's shuffle buffer.
MAX_BUFFER_BYTES = 1 << 31

_KEY = re.compile(r"[0-9]{10,}")
_INCOMPLETE = "its shard does not hold one video and one JSON of it"


@dataclass(frozen=True, slots=True)
class RawSample:
    """A video as stored in its shard: its index in the list, its location (for errors), its label, the file's bytes."""

    index: int
    path: str
    label: int
    video: bytes


class ShardStream(NamedTuple):
    """The parts of shards that one worker reads in an epoch, and the sizes of its batches."""

    parts: list[TarShard]
    batch_sizes: list[int]


def streams_of(
    index: ShardIndex, batch_size: int, *, training: bool, seed: int, epoch: int, replica: Replica, streams: int
) -> list[ShardStream]:
    """Divide an epoch over ranks and workers; return the streams of one rank, whose batches take turns.

    The tar files are ordered by a draw from (seed, epoch), or by name in evaluation. Each rank takes a contiguous run
    of their samples, and each stream a contiguous run of its rank's, so there may be fewer shards than readers. In
    training all ranks have the same number of batches, all full, and the remainder at the end is not used in this
    epoch. In evaluation every sample is read once, and the last batch of a rank may be short.

    Raises:
        ConfigError: there are too few samples for one training step.
    """
    first, samples = _rank_run(index.samples, batch_size, training, replica)
    batches = math.ceil(samples / batch_size)
    order = torch.randperm(len(index.shards), generator=generator_of(seed, "tar shards", epoch)).tolist()
    files = [index.shards[at] for at in order] if training else list(index.shards)
    result = []
    for number in range(streams):
        sizes = [min(batch_size, samples - batch * batch_size) for batch in range(number, batches, streams)]
        result.append(ShardStream(_cut(files, first, first + sum(sizes)), sizes))
        first += sum(sizes)
    return result


def _rank_run(samples: int, batch_size: int, training: bool, replica: Replica) -> tuple[int, int]:
    """The start and the length of a rank's run of samples."""
    if not training:
        start, stop = (samples * at // replica.world_size for at in (replica.rank, replica.rank + 1))
        return start, stop - start
    steps = samples // (batch_size * replica.world_size)
    if not steps:
        raise ConfigError(
            f"one step takes {batch_size * replica.world_size} videos ({replica.world_size} processes x batch "
            f"{batch_size}), but the shards hold {samples}: use a smaller batch"
        )
    return replica.rank * steps * batch_size, steps * batch_size


def _cut(files: Sequence[TarShard], start: int, stop: int) -> list[TarShard]:
    """Select the samples ``start`` to ``stop - 1`` of all files; return the parts of the files that hold them."""
    parts = []
    for file in files:
        indices = file.indices[max(0, start) : max(0, stop)]
        if indices:
            parts.append(TarShard(file.name, file.size, indices))
        start, stop = start - len(file.indices), stop - len(file.indices)
    return parts


def read_stream(
    folder: Path, stream: ShardStream, *, shuffle_buffer: int, seed_parts: Sequence[int | str], classes: int
) -> Iterator[RawSample | Failure]:
    """Read the samples of a stream, in file order, or drawn from a buffer of ``shuffle_buffer`` samples.

    Every sample in the index is yielded, as a ``Failure`` if its shard lacks it or its label is not below ``classes``;
    damage does not change the order. The buffer holds at most ``MAX_BUFFER_BYTES``, or one video.
    """
    samples = itertools.chain.from_iterable(_read_part(folder, part, classes) for part in stream.parts)
    if shuffle_buffer < 2:
        return samples
    return _shuffled(samples, shuffle_buffer, random.Random(seed_of(*seed_parts)))


def _shuffled(samples: Iterator[RawSample | Failure], most: int, dice: random.Random) -> Iterator[RawSample | Failure]:
    buffer: list[RawSample | Failure] = []
    held = 0
    for sample in samples:
        buffer.append(sample)
        held += _video_bytes(sample)
        while len(buffer) >= most or (buffer and held > MAX_BUFFER_BYTES):
            held -= _video_bytes(drawn := _draw(buffer, dice))
            yield drawn
    while buffer:
        yield _draw(buffer, dice)


def _draw(buffer: list[RawSample | Failure], dice: random.Random) -> RawSample | Failure:
    at = dice.randrange(len(buffer))
    buffer[at], buffer[-1] = buffer[-1], buffer[at]
    return buffer.pop()


def _video_bytes(sample: RawSample | Failure) -> int:
    return len(sample.video) if isinstance(sample, RawSample) else 0


def _read_part(folder: Path, part: TarShard, classes: int) -> Iterator[RawSample | Failure]:
    path = folder / part.name
    waiting = deque(part.indices)
    # The samples that are still expected, by key.
    expected = {key_of(index): index for index in waiting}
    reason = "its shard does not hold it, though the index says so"
    try:
        for sample in _samples(path, expected, classes):
            while waiting[0] != sample.index:
                key = key_of(waiting[0])
                expected.pop(key, None)
                yield _failure(waiting.popleft(), f"{path}/{key}", reason)
            waiting.popleft()
            yield sample
    except (tarfile.TarError, OSError) as error:
        reason = f"its shard cannot be read up to it ({one_line(error)}); copy or write the shard again"
    for index in waiting:
        yield _failure(index, f"{path}/{key_of(index)}", reason)


def _samples(path: Path, expected: dict[str, int], classes: int) -> Iterator[RawSample | Failure]:
    """Yield the expected samples in the order of the tar file, and take them out of ``expected``.

    A sample is a video and a JSON file of one key, one after the other. One member's data is read at a time, and only
    if it is expected.
    """
    key, held = "", {}
    others: list[str] = []
    with BufferedReader(open_regular(path)) as file:
        for member in read_members(file):
            before, (key, _, kind) = key, member.name.partition(".")
            if key != before and held:
                yield _failure(expected.pop(before), f"{path}/{before}", _INCOMPLETE)
                held = {}
            if key not in expected:
                if not _KEY.fullmatch(key):
                    others.append(member.name)
                continue
            part = "json" if kind == "json" else "video"
            most = MAX_ABOUT_BYTES if part == "json" else MAX_VIDEO_BYTES
            fault = member.fault or (f"has {member.size} bytes, over the limit of {most}" if member.size > most else "")
            if fault or part in held:
                held = {}
                reason = f"its member {fault}" if fault else _INCOMPLETE
                yield _failure(expected.pop(key), f"{path}/{member.name}", f"{reason}; write the shard again")
                continue
            held[part] = member.name, member.read()
            if len(held) == 2:
                (name, video), (_, about) = held["video"], held["json"]
                held = {}
                yield _parse(expected.pop(key), f"{path}/{name}", video, about, classes)
    if held:
        yield _failure(expected.pop(key), f"{path}/{key}", _INCOMPLETE)
    if others:
        log.warning("%s: passed over members that are no samples: %d, the first %s", path, len(others), others[0])


def _parse(index: int, where: str, video: bytes, about: bytes, classes: int) -> RawSample | Failure:
    try:
        label = from_json(about.decode())["label"]
    except (ValueError, KeyError, TypeError) as error:
        return _failure(index, where, f"its JSON has no label ({one_line(error)}); write the shard again")
    if type(label) is not int or not 0 <= label < classes:
        reason = f"its label is {one_line(ValueError(repr(label)), 40)}, but there are {classes} class names"
        return Failure(index, where, "ListError", f"{reason}; write the shard again")
    return RawSample(index, where, label, video)


def _failure(index: int, where: str, reason: str) -> Failure:
    return Failure(index, where, "UndecodableVideoError", reason)
