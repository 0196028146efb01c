"""``mote-fast prepare shards``: shards and reports from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mote_fast.cli.parsers import build_parser
from mote_fast.cli.prepare_shards import bytes_of
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.shards.shard_index import read_shard_index
from mote_fast.errors import ConfigError, ListError
from tests.data.conftest import NumberedVideos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(3):
        write_video(folder / f"{number}.mp4", NumberedVideos.draw(5 + number))
    (tmp_path / "list.txt").write_text("".join(f"{number}.mp4 {number % 2}\n" for number in range(3)))
    (tmp_path / "labels.txt").write_text("walk\nrun\n")
    return folder


def run(*arguments: object) -> int:
    """Parse and run like the program, without its error handling."""
    parsed = build_parser().parse_args(["prepare", "shards", *map(str, arguments), "--workers", "1"])
    return parsed.run(parsed)


def test_writes_shards(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list's videos are in shards of the given size, the class names in the index."""
    out = tmp_path / "out"
    options = ("--root", root, "--samples", 2, "--labels-file", tmp_path / "labels.txt")
    assert run(tmp_path / "list.txt", out, *options) == 0
    assert "3 videos in 2 shards" in capsys.readouterr().out
    index = read_shard_index(out)
    assert (index.samples, index.labels) == (3, ("walk", "run"))
    assert run(tmp_path / "list.txt", out, *options, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"shards": 2, "samples": 3, "left_out": []}


def test_reports_what_is_left_out(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A left-out video is reported by name and reason, and in the exit status."""
    (root / "1.mp4").unlink()
    assert run(tmp_path / "list.txt", tmp_path / "out", "--root", root) == 3
    printed = capsys.readouterr()
    assert "2 videos in 1 shards" in printed.out
    assert "error: 1.mp4: no such file" in printed.err


def test_labels_must_fit_the_list(root: Path, tmp_path: Path) -> None:
    """A list with other classes is refused before terabytes are copied."""
    (tmp_path / "labels.txt").write_text("walk\n")
    with pytest.raises(ListError, match="label 1"):
        run(tmp_path / "list.txt", tmp_path / "out", "--root", root, "--labels-file", tmp_path / "labels.txt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("1.5 mb", 1500000), ("2GiB", 2**31), ("4096", 4096), ("10k", 10000), ("7B", 7)],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes are read in the usual notations."""
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "1TB", "-1", "1e9"])
def test_sizes_that_are_none(text: str) -> None:
    """Other texts are refused by name, not guessed."""
    with pytest.raises(ConfigError, match="--shard-size"):
        bytes_of(text)
