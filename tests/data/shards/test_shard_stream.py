"""Samples of tar shards: one odd member costs its sample, and what waits is bounded."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import pytest
import webdataset

from mote_fast.data.loading.faults import Failure
from mote_fast.data.shards import shard_stream
from mote_fast.data.shards.shard_index import TarShard
from mote_fast.data.shards.shard_stream import RawSample, ShardStream, read_stream

Entry = tuple[str, bytes]
SAMPLES = 4


def entries_of(index: int, about: bytes = b'{"label": 1}') -> list[Entry]:
    return [(f"{index:010d}.mp4", b"video %d" % index), (f"{index:010d}.json", about)]


def write_shard(path: Path, entries: list[Entry]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def read(folder: Path, samples: int = SAMPLES, buffer: int = 0) -> list[RawSample | Failure]:
    part = TarShard("s.tar", 0, tuple(range(samples)))
    stream = ShardStream([part], [samples])
    return list(read_stream(folder, stream, shuffle_buffer=buffer, seed_parts=(1,), classes=2))


BAD_ABOUTS = {
    "deep": b"[" * 100_000,
    "no JSON": b"\xff{",
    "NaN": b'{"label": NaN}',
    "list": b"[1]",
    "no label": b'{"index": 1}',
    "twice": b'{"label": 1, "label": 0}',
    "many digits": b'{"label": 1%s}' % (b"0" * 5000),
    "too long": b'{"label": 1, "path": "%s"}' % (b"a" * 70_000),
}
BAD_LABELS = [b"1e400", b"1.0", b"true", b"null", b'"1"', b"-100", b"-1", b"2", b"1000000000", b"%d" % 2**70, b"[0]"]


@pytest.mark.parametrize(
    ("about", "kind"),
    [(about, "UndecodableVideoError") for about in BAD_ABOUTS.values()]
    + [(b'{"label": %s}' % label, "ListError") for label in BAD_LABELS],
    ids=[*BAD_ABOUTS, *map(bytes.decode, BAD_LABELS)],
)
def test_a_label_that_is_none(tmp_path: Path, about: bytes, kind: str) -> None:
    """The sample is named with its shard and member, in a line of a length that can be read; the others come."""
    write_shard(tmp_path / "s.tar", [*entries_of(0), *entries_of(1, about), *entries_of(2), *entries_of(3)])
    found = read(tmp_path)
    failure = found.pop(1)
    assert isinstance(failure, Failure)
    assert (failure.index, failure.kind) == (1, kind)
    assert failure.path.startswith(f"{tmp_path}/s.tar/0000000001.")
    assert len(failure.reason) < 400
    assert [(sample.index, sample.label) for sample in found if isinstance(sample, RawSample)] == [
        (0, 1),
        (2, 1),
        (3, 1),
    ]


VIDEO, ABOUT = entries_of(1)
ODD = {
    "no video": [ABOUT],
    "no JSON": [VIDEO],
    "two videos": [VIDEO, ("0000000001.avi", b"other"), ABOUT],
    "folder in the extension": [("0000000001.a/b.mp4", b"other"), VIDEO, ABOUT],
    "folder before": [("./0000000001.mp4", b"other"), ("../0000000001.json", b"{}")],
    "apart": [VIDEO, *entries_of(2), ABOUT],
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_members_cost_their_sample(tmp_path: Path, kind: str) -> None:
    """A sample is one video and one JSON beside it; whatever else has its key makes it a failure."""
    rest = [entry for entry in entries_of(2) if entry not in ODD[kind]]
    write_shard(tmp_path / "s.tar", [*entries_of(0), *ODD[kind], *rest, *entries_of(3)])
    found = read(tmp_path)
    assert [sample.index for sample in found] == [0, 1, 2, 3]
    assert [isinstance(sample, Failure) for sample in found] == [False, True, False, False]


def test_other_members_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Names that are no keys cost nothing, and are counted in the log; samples of other workers are not."""
    others = [("README", b"x"), ("/etc/passwd", b"x"), *entries_of(77)]
    write_shard(tmp_path / "s.tar", [*others, *(entry for at in range(SAMPLES) for entry in entries_of(at))])
    assert all(isinstance(sample, RawSample) for sample in read(tmp_path))
    assert "no samples: 2, the first README" in caplog.text


def test_a_video_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named and not read into memory."""
    monkeypatch.setattr(shard_stream, "MAX_VIDEO_BYTES", 7)
    write_shard(tmp_path / "s.tar", [*entries_of(0), ("0000000001.mp4", b"too long"), ABOUT])
    first, second = read(tmp_path, 2)
    assert isinstance(second, Failure)
    assert "8 bytes, over the limit of 7" in second.reason
    assert isinstance(first, RawSample)


@pytest.mark.parametrize(("samples", "most"), [(0, 4), (1, 4), (30, 2), (30, 7), (30, 8), (30, 64)])
def test_the_order_is_that_of_webdataset(tmp_path: Path, samples: int, most: int) -> None:
    """Runs that began with its buffer continue with the same batches."""
    write_shard(tmp_path / "s.tar", [entry for at in range(samples) for entry in entries_of(at)])
    plain = read(tmp_path, samples)
    dice = random.Random(shard_stream.seed_of(1))
    expected = list(webdataset.filters.shuffle(most, initial=most, rng=dice)(iter(plain)))
    assert read(tmp_path, samples, most) == expected


def test_the_buffer_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large videos make a shorter buffer, one of them at least; every sample comes once."""
    write_shard(tmp_path / "s.tar", [entry for at in range(20) for entry in entries_of(at)])
    for limit, longest in ((1, 0), (30, 4)):
        monkeypatch.setattr(shard_stream, "MAX_BUFFER_BYTES", limit)
        found = [sample.index for sample in read(tmp_path, 20, 64)]
        assert sorted(found) == list(range(20))
        # A sample is drawn once the bytes are exceeded, so none can come much earlier than in the file.
        assert all(index <= at + longest for at, index in enumerate(found))


def test_a_pipe_in_place_of_a_shard(tmp_path: Path) -> None:
    """It is not waited for; its samples are named."""
    os.mkfifo(tmp_path / "s.tar")
    found = read(tmp_path)
    assert all(isinstance(sample, Failure) and "not a regular file" in sample.reason for sample in found)
