"""Moments: each part of a video is a row with its time span, found as such; runs resume, and videos go as a whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mote_fast
from mote_fast.cli import main
from mote_fast.cli.demo import demo_videos
from mote_fast.errors import ConfigError
from mote_fast.search.video_index import Index
from tests.data.conftest import NumberedVideos
from tests.tolerances import assert_close


def read_number(pixels: torch.Tensor, **_: bool) -> torch.Tensor:
    """An image tower that says which tenth of a second of the numbered video a frame shows."""
    squares = torch.nn.functional.interpolate(pixels.mean(1, keepdim=True), (64, 64))[:, 0] > 0
    bits = torch.stack([squares[:, row + 8, column + 8] for row in (0, 16) for column in (0, 16, 32, 48)], 1)
    numbers = (bits.long() << torch.arange(8)).sum(1)
    return torch.nn.functional.one_hot(numbers, 64).float()


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """43 numbered frames, 10 a second; the last is shown for less."""
    frames = NumberedVideos.draw(43, 64, 64)
    return NumberedVideos.encode_timed(tmp_path_factory.mktemp("video") / "numbers.mkv", frames, range(0, 4300, 100))


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> mote_fast.VideoClassifier:
    """A model whose features are the numbers of frames."""
    found: Any = mote_fast.create_model("ViT-test", frames=5, header="mean", heads=1)
    monkeypatch.setattr(found, "encode_frames", read_number)
    return found


def test_a_moment_is_found_with_its_span(tmp_path: Path, numbered: Path, reader: mote_fast.VideoClassifier) -> None:
    """Each row is made of the frames that are shown within its span, and a query of a frame finds it."""
    index = Index.create(tmp_path / "index", reader, moments=1)
    seen: list[Any] = []
    assert index.add_videos(reader, [numbered], progress=seen.append) == []
    assert seen[0].embedding.shape == (5, 64)
    spans = [(row.start, row.end) for row in index.rows()]
    # The last ends with the video.
    assert spans[:4] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert spans[4] == pytest.approx((3.2, 4.2))
    assert [row.id for row in index.rows()][1] == f"{numbered}#t=1,2"
    for number in range(30):
        hit = index.search(torch.eye(64)[number], topk=1)[0]
        if hit.score > 0.1:
            assert hit.path == str(numbered)
            assert hit.start is not None
            assert hit.end is not None
            assert hit.start <= number / 10 + 0.05 < hit.end
    assert sum(index.search(torch.eye(64)[number], topk=1)[0].score > 0.1 for number in range(30)) == 15


def test_windows_embed_as_their_frames_alone(numbered: Path) -> None:
    """A window has the embedding of a video of its frames, and a video shorter than a window is one window."""
    torch.manual_seed(0)
    model = mote_fast.create_model("ViT-test", frames=4, layers=1, experts=2)
    frames = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (19, 32, 48, 3), np.uint8))
    found = model.embed_windows(frames, fps=5, window=1.6, hop=0.6, frame_rate=5)
    expected = torch.tensor([(0, 1.6), (0.6, 2.2), (1.2, 2.8), (1.8, 3.4), (2.2, 3.8)])
    assert_close(torch.tensor(found.spans), expected, "float32")
    for (start, _), vector in zip(found.spans, found.embeddings, strict=True):
        first = round(start * 5)
        assert_close(vector, model.embed(frames[first : first + 8 : 2]), "equivalent")
    short = model.embed_windows(frames[:7], fps=5, window=1.6, frame_rate=5)
    assert short.spans == [(0, 1.4)]
    assert model.embed_windows(numbered).spans == [(0, 2), (2, 4)]


def test_runs_resume_and_videos_go_as_a_whole(
    tmp_path: Path, numbered: Path, reader: mote_fast.VideoClassifier
) -> None:
    """A bad video costs itself; what is there is skipped or replaced whole; a path deletes all of its moments."""
    index, seen = Index.create(tmp_path / "index", reader, moments=2), []
    other, bad = tmp_path / "other.mkv", tmp_path / "bad.mkv"
    shutil.copy(numbered, other)
    bad.write_bytes(b"none")

    def stop(found: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.add_videos(reader, [numbered, other], progress=stop)
    assert {row.path for row in index.rows()} == {str(numbered)}
    failed = index.add_videos(reader, [numbered, bad, other], progress=seen.append)
    assert [each.video for each in failed] == [str(bad)]
    assert [each.video for each in seen] == [str(bad), str(other)]
    assert len(index) == 6
    # The file is another one by now, and has fewer moments.
    NumberedVideos.encode_timed(other, NumberedVideos.draw(20, 64, 64), range(0, 2000, 100))
    index.add_videos(reader, [other], replace=True)
    assert [row.id for row in index.rows() if row.path == str(other)] == [f"{other}#t=0,1.94"]
    assert (index.has_video(str(numbered)), index.has_video(str(bad))) == (True, False)
    assert index.delete([str(numbered), f"{other}#t=0,1.94"]) == 4
    assert len(index) == 0
    with pytest.raises(ConfigError, match="no row with the id"):
        index.delete([str(numbered)])


@pytest.mark.heavy
def test_words_find_their_moment(tmp_path: Path) -> None:
    """Of six drawn videos joined to one, each is found by its name, with the two seconds that it takes."""
    clips = demo_videos()
    parts = []
    for clip in clips:
        count = mote_fast.data.probe(clip).num_frames
        frames = mote_fast.data.read_frames(clip, [min(count - 1, (2 * at + 1) * count // 60) for at in range(30)])
        sized = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2).float(), (80, 80), mode="bilinear")
        parts.append(sized.round().byte().permute(0, 2, 3, 1))
    joined = mote_fast.data.write_video(tmp_path / "joined.mp4", torch.cat(parts), fps=15)
    clf = mote_fast.load("tiny")
    index = Index.create(tmp_path / "index", clf, moments=2)
    index.add_videos(clf, [joined])
    for number, clip in enumerate(clips):
        hit = index.search(clip.stem.split("_", 1)[1].replace("_", " "), clf, topk=1)[0]
        assert (hit.path, hit.start, hit.end) == (str(joined), 2 * number, 2 * number + 2)


@pytest.mark.parametrize("moments", [0, -1, float("nan"), float("inf"), "2", 10**6])
def test_bad_seconds_are_refused(tmp_path: Path, reader: mote_fast.VideoClassifier, moments: Any) -> None:
    """No index is made."""
    with pytest.raises(ConfigError):
        Index.create(tmp_path / "index", reader, moments=moments)
    assert not (tmp_path / "index").exists()


@pytest.mark.heavy
def test_commands(
    tmp_path: Path, numbered: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """build --moments, a search that prints spans, add and delete by the video's path; another length is refused."""
    monkeypatch.chdir(tmp_path)
    build = ["index", "build", "videos", str(numbered), "--model", "tiny"]
    assert main([*build, "--moments", "2"]) == 0
    assert "1 videos added, 0 were there, 0 failed; 3 rows" in capsys.readouterr().out
    assert main([*build, "--moments", "2"]) == 0
    assert "0 videos added, 1 were there" in capsys.readouterr().out
    assert main([*build, "--moments", "3"]) == 2
    assert "--moments 3: videos has moments of 2 s" in capsys.readouterr().err
    assert main(["search", "videos", "square", "--model", "tiny", "--topk", "1"]) == 0
    assert f"  {numbered}  " in (line := capsys.readouterr().out)
    assert line.endswith(" s\n")
    assert main(["index", "info", "videos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["embedding"]["moments"] == 2
    assert main(["index", "delete", "videos", str(numbered)]) == 0
    assert "3 deleted, 0 remain" in capsys.readouterr().out
    assert main(["index", "build", "new", str(numbered), "--model", "tiny", "--moments", "2", "--views", "3x1"]) == 2
    assert "1x1" in capsys.readouterr().err
