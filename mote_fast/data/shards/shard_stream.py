"""The samples that one worker reads from tar shards, in order, each as the video's bytes or as a failure."""

from __future__ import annotations

import itertools
import lzma
import math
import random
import tarfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.order import Replica
from mote_fast.data.shards.shard_index import ShardIndex, TarShard, key_of
from mote_fast.errors import BackendError, ConfigError, one_line
from mote_fast.runtime.json_text import from_json
from mote_fast.runtime.seeding import generator_of, seed_of


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
    folder: Path, stream: ShardStream, *, shuffle_buffer: int, seed_parts: Sequence[int | str]
) -> Iterator[RawSample | Failure]:
    """Read the samples of a stream, in file order, or drawn from a buffer of ``shuffle_buffer`` samples.

    Every sample in the index is yielded, as a ``Failure`` if its shard lacks it; damage does not change the order.
    """
    samples = itertools.chain.from_iterable(_read_part(folder, part) for part in stream.parts)
    if shuffle_buffer < 2:
        return samples
    shuffle = webdataset().filters.shuffle
    return iter(shuffle(shuffle_buffer, initial=shuffle_buffer, rng=random.Random(seed_of(*seed_parts)))(samples))


def _read_part(folder: Path, part: TarShard) -> Iterator[RawSample | Failure]:
    path = folder / part.name
    waiting = deque(part.indices)
    index_of = {key_of(index): index for index in waiting}
    reason = "its shard does not hold it, though the index says so"
    try:
        for sample in _samples(path, frozenset(index_of)):
            index = index_of[sample["__key__"]]
            if index not in waiting:
                continue
            while waiting[0] != index:
                yield Failure(waiting[0], f"{path}/{key_of(waiting.popleft())}", "UndecodableVideoError", reason)
            waiting.popleft()
            yield _parse(sample, index, path)
    # The error that tarfile raises depends on the damaged byte; it guesses the format, hence the decompressors' errors.
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        reason = f"its shard cannot be read up to it ({one_line(error)}); copy or write the shard again"
    for index in waiting:
        yield Failure(index, f"{path}/{key_of(index)}", "UndecodableVideoError", reason)


def _samples(path: Path, keys: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar file with these keys; the data of other samples is not read."""
    iterators = webdataset().tariterators
    with path.open("rb") as file:
        source = [{"url": str(path), "stream": file}]
        files = iterators.tar_file_expander(source, select_files=lambda name: name.split(".", 1)[0] in keys)
        yield from iterators.group_by_keys(files)


def _parse(sample: dict[str, Any], index: int, path: Path) -> RawSample | Failure:
    videos = [name for name in sample if not name.startswith("__") and name != "json"]
    where = f"{path}/{sample['__key__']}" + (f".{videos[0]}" if videos else "")
    try:
        (video,) = videos
        about = from_json(sample["json"].decode())
        return RawSample(index, where, int(about["label"]), sample[video])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"not one video and one JSON with a label ({error!r}); write the shard again"
        return Failure(index, where, "UndecodableVideoError", reason)


def webdataset() -> Any:
    """Import the library that reads the tar files.

    Raises:
        BackendError: the library is not installed.
    """
    try:
        import webdataset
        import webdataset.filters
        import webdataset.tariterators
    except ImportError as error:
        raise BackendError('reading shards needs webdataset; pip install "mote_fast[train]"') from error
    return webdataset
