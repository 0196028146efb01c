"""Writing shards: deterministic, complete or absent, and readable by the webdataset library."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from webdataset.compat import WebDataset

from mote_fast.data.items import VideoItem
from mote_fast.data.shards.shard_index import key_of, read_shard_index
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare import write_shards as module
from mote_fast.prepare.write_shards import write_shards
from tests.prepare.conftest import VideoMaker


@pytest.fixture
def videos(tmp_path: Path, make_video: VideoMaker) -> list[VideoItem]:
    """Seven videos in two folders, paths relative to ``tmp_path / "videos"``."""
    names = [f"{'ab'[at % 2]}/{at}.{'webm' if at == 3 else 'mp4'}" for at in range(7)]
    for at, name in enumerate(names):
        make_video(tmp_path / "videos" / name, frames=4 + at)
    return [VideoItem(name, at % 3) for at, name in enumerate(names)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_samples_hold_the_files_and_what_is_known_of_them(tmp_path: Path, videos: list[VideoItem]) -> None:
    """Each video is stored once, unchanged, under its list index, with its JSON, shuffled over the shards."""
    root = tmp_path / "videos"
    index = write_shards(videos, tmp_path / "out", root=root, max_samples=3, labels=["x", "y", "z"])
    assert index == read_shard_index(tmp_path / "out")
    assert [len(shard.indices) for shard in index.shards] == [3, 3, 1]
    order = [at for shard in index.shards for at in shard.indices]
    assert sorted(order) == list(range(7))
    assert order != sorted(order)
    assert index.labels == ("x", "y", "z")
    for shard in index.shards:
        path = tmp_path / "out" / shard.name
        assert path.stat().st_size == shard.size
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert [name.split(".")[0] for name in names[::2]] == [key_of(at) for at in shard.indices]
            for at, video, about in zip(shard.indices, names[::2], names[1::2], strict=True):
                item = videos[at]
                data: Any = tar.extractfile(video)
                assert data.read() == (root / item.path).read_bytes()
                assert video == key_of(at) + Path(item.path).suffix
                data = tar.extractfile(about)
                assert json.loads(data.read()) | {"codec": ""} == {
                    "index": at, "label": item.label, "path": item.path,
                    "num_frames": 4 + at, "width": 48, "height": 32, "codec": "",
                }  # fmt: skip


def test_webdataset_reads_them(tmp_path: Path, videos: list[VideoItem]) -> None:
    """Other programs find the same samples: key, video and JSON."""
    index = write_shards(videos, tmp_path / "out", root=tmp_path / "videos", max_samples=4)
    for shard in index.shards:
        dataset = WebDataset(str(tmp_path / "out" / shard.name), shardshuffle=False)
        found = [(sample["__key__"], json.loads(sample["json"])["label"]) for sample in dataset]
        assert found == [(key_of(at), videos[at].label) for at in shard.indices]


def test_a_video_too_large_for_a_shard(
    tmp_path: Path, videos: list[VideoItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the loader would refuse is left out, and named."""
    root = tmp_path / "videos"
    sizes = {(root / item.path).stat().st_size: at for at, item in enumerate(videos)}
    monkeypatch.setattr(module, "MAX_VIDEO_BYTES", max(sizes) - 1)
    index = write_shards(videos, tmp_path / "out", root=root)
    (failure,) = index.left_out
    assert failure.index == sizes[max(sizes)]
    assert "over the limit" in failure.reason
    assert index.samples == len(videos) - 1


def test_the_bytes_depend_on_the_arguments_alone(tmp_path: Path, videos: list[VideoItem]) -> None:
    """The bytes do not depend on machine or process count; another seed gives another order."""
    for name, options in {"one": {"workers": 1}, "two": {"workers": 2}, "other": {"seed": 1}}.items():
        write_shards(videos, tmp_path / name, root=tmp_path / "videos", max_samples=3, **options)
    one, two, other = (
        {name: data for name, data in contents(tmp_path / name).items() if name != module.JOURNAL_FILE}
        for name in ("one", "two", "other")
    )
    assert one == two
    assert one.keys() == other.keys()
    assert one != other


def test_continues_where_it_stopped(tmp_path: Path, videos: list[VideoItem], monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted call leaves complete shards and no index; the next writes only the rest, with equal bytes."""
    root, out = tmp_path / "videos", tmp_path / "out"
    write_shards(videos, tmp_path / "whole", root=root, max_samples=3)
    real = module._write_shard
    written: list[str] = []

    def stop_at_second(shard: Any, *arguments: Any) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(shard.name)
        real(shard, *arguments)

    monkeypatch.setattr(module, "_write_shard", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        write_shards(videos, out, root=root, max_samples=3)
    assert sorted(path.name for path in out.iterdir()) == sorted([module.JOURNAL_FILE, *written])
    with pytest.raises(ListError, match="may resume"):
        read_shard_index(out)

    before = (out / written[0]).stat().st_mtime_ns
    monkeypatch.setattr(module, "_write_shard", real)
    write_shards(videos, out, root=root, max_samples=3)
    assert (out / written[0]).stat().st_mtime_ns == before
    whole = contents(tmp_path / "whole")
    assert {name: data for name, data in contents(out).items() if name != module.JOURNAL_FILE} == {
        name: data for name, data in whole.items() if name != module.JOURNAL_FILE
    }


def test_other_arguments_do_not_mix(tmp_path: Path, videos: list[VideoItem]) -> None:
    """Shards of two seeds or two versions of the videos in one folder would repeat some and lose others."""
    root, out = tmp_path / "videos", tmp_path / "out"
    write_shards(videos, out, root=root, max_samples=3)
    with pytest.raises(ConfigError, match="another list"):
        write_shards(videos, out, root=root, max_samples=3, seed=1)
    (root / videos[0].path).touch()
    with pytest.raises(ConfigError, match="other videos"):
        write_shards(videos, out, root=root, max_samples=3)


def test_a_call_that_stored_nothing_is_forgotten(tmp_path: Path, videos: list[VideoItem]) -> None:
    """With the wrong root no video is found; the right one then needs no other folder."""
    with pytest.raises(ListError, match="not one of"):
        write_shards(videos, tmp_path / "out", root=tmp_path / "elsewhere")
    for _ in range(2):
        assert write_shards(videos, tmp_path / "out", root=tmp_path / "videos").samples == len(videos)


def test_damaged_videos_are_left_out_and_named(tmp_path: Path, videos: list[VideoItem]) -> None:
    """Damaged videos move no other video, and a second call still names them."""
    root, out = tmp_path / "videos", tmp_path / "out"
    (root / videos[2].path).write_bytes(b"not a video")
    (root / videos[4].path).unlink()
    for _ in range(2):
        index = write_shards(videos, out, root=root, max_samples=3)
        assert [(failure.index, failure.path, failure.kind) for failure in index.left_out] == [
            (2, videos[2].path, "UndecodableVideoError"),
            (4, videos[4].path, "MissingVideoError"),
        ]
        assert sorted(at for shard in index.shards for at in shard.indices) == [0, 1, 3, 5, 6]


def test_a_video_that_changes_is_left_out(
    tmp_path: Path, videos: list[VideoItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video that was probed and cannot be copied unchanged costs itself alone, not the shard or the run."""
    root, out = tmp_path / "videos", tmp_path / "out"
    real = module.run_each

    def change(*arguments: Any) -> Any:
        outcomes = list(real(*arguments))
        (root / videos[2].path).write_bytes(b"short")
        (root / videos[4].path).unlink()
        return iter(outcomes)

    monkeypatch.setattr(module, "run_each", change)
    index = write_shards(videos, out, root=root, max_samples=7)
    assert [(failure.index, failure.path) for failure in index.left_out] == [
        (2, videos[2].path),
        (4, videos[4].path),
    ]
    (shard,) = index.shards
    assert sorted(shard.indices) == [0, 1, 3, 5, 6]
    with tarfile.open(out / shard.name) as tar:
        keys = [name.removesuffix(".json") for name in tar.getnames() if name.endswith(".json")]
    assert keys == [key_of(at) for at in shard.indices]
    assert (out / shard.name).stat().st_size == shard.size


def test_shards_keep_to_their_size(tmp_path: Path, videos: list[VideoItem]) -> None:
    """A video that does not fit starts a new shard; one larger than a shard gets its own."""
    root = tmp_path / "videos"
    sizes = [(root / item.path).stat().st_size for item in videos]
    limit = 2 * max(sizes)
    index = write_shards(videos, tmp_path / "out", root=root, max_bytes=limit)
    assert all(sum(sizes[at] for at in shard.indices) <= limit for shard in index.shards)
    assert len(index.shards) < len(videos)
    assert len(write_shards(videos, tmp_path / "each", root=root, max_bytes=1).shards) == len(videos)


def test_lists_that_cannot_become_shards(tmp_path: Path) -> None:
    """Lists without readable videos, or with folders of frames, raise instead of giving an empty index."""
    with pytest.raises(ListError, match="not one of 1 videos"):
        write_shards([VideoItem("gone.mp4", 0)], tmp_path / "out", root=tmp_path)
    with pytest.raises(ListError, match="extracted frames"):
        write_shards([VideoItem("folder", 0, 12)], tmp_path / "out")
    with pytest.raises(ConfigError, match="max_bytes"):
        write_shards([VideoItem("a.mp4", 0)], tmp_path / "out", max_bytes=0)
