"""``mote-fast retrieval``: from video files and captions to the report, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mote_fast
from mote_fast.data import write_video
from mote_fast.evaluation.retrieval_ranks import retrieval_ranks, summarize_ranks
from tests.cli.test_eval import Captured, run

CAPTIONS = {0: ["a red square", "something red"], 1: ["a dog runs"], 2: ["a dog runs", "two men talk, and leave"]}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short videos with captions, and lists with a file that is not a video."""
    root = tmp_path_factory.mktemp("retrieval")
    generator = torch.Generator().manual_seed(0)
    for number in CAPTIONS:
        frames = torch.randint(0, 256, (6, 6, 8, 3), dtype=torch.uint8, generator=generator)
        write_video(root / f"video{number}.mp4", frames.repeat_interleave(8, 1).repeat_interleave(8, 2))
    (root / "bad.mp4").write_bytes(b"not a video")
    captions = {f"video{number}": texts for number, texts in CAPTIONS.items()}
    (root / "list.json").write_text(json.dumps(captions))
    rows = [f'{video},"{text}"\n' for video, texts in captions.items() for text in texts]
    (root / "broken.csv").write_text("".join(["video_id,sentence\n", *rows, "bad,nothing at all\n"]))
    return root


def retrieve(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    """Run ``retrieval`` in this process alone, on few frames."""
    return run(capsys, "retrieval", "--workers", 0, "--frames", 4, "--device", "cpu", *arguments)


def test_figures_are_those_of_the_embeddings(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """Both directions equal the ranks of ``embed`` and ``embed_text``; files and standard output agree."""
    status, out, _ = retrieve(capsys, videos / "list.json", "--root", videos, "--output", tmp_path / "out", "--json")
    document = json.loads(out)
    assert status == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == document
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"result.json", "report.md"}
    clf = mote_fast.load("tiny")
    clf.frames = 4
    texts = [(number, text) for number, of_video in CAPTIONS.items() for text in of_video]
    found = retrieval_ranks(
        torch.stack([clf.embed(videos / f"video{number}.mp4") for number in CAPTIONS]),
        clf.embed_text([text for _, text in texts]),
        torch.tensor([number for number, _ in texts]),
    )
    for direction, ranks in found._asdict().items():
        summary, entry = summarize_ranks(ranks), document[direction]["readable"]
        assert [entry["R@1"], entry["R@5"], entry["R@10"]] == list(summary.recall)
        assert (entry["median_rank"], entry["mean_rank"]) == pytest.approx((summary.median, summary.mean))
    assert (document["videos"], document["captions"], document["dataset"]) == (3, 5, "list")
    status, out, _ = retrieve(capsys, videos / "list.json", "--root", videos, "--dataset", "mine")
    assert (status, "text_to_video" in out) == (0, True)


def test_templates(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """Captions are put into them, and the result states the file; one that holds no template is refused."""
    (tmp_path / "templates.txt").write_text("a video of {}.\n{} is shown\n")
    embedded: list[Any] = []
    command = (videos / "list.json", "--root", videos, "--json", "--templates", tmp_path / "templates.txt")

    def recording(model: mote_fast.VideoClassifier, texts: Any, templates: Any, **options: Any) -> torch.Tensor:
        embedded.append(templates)
        return plain(model, texts, templates, **options)

    plain = mote_fast.VideoClassifier.embed_text
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mote_fast.VideoClassifier, "embed_text", recording)
        status, out, _ = retrieve(capsys, *command)
    assert (status, embedded) == (0, [("a video of {}.", "{} is shown")])
    assert json.loads(out)["templates"] == str(tmp_path / "templates.txt")
    (tmp_path / "templates.txt").write_text("a video\n")
    status, _, err = retrieve(capsys, *command)
    assert (status, "a template holds one {}" in err) == (2, True)


def test_a_bad_video(capsys: Captured, videos: Path) -> None:
    """The others are ranked, the bad one is named with its reason, and the status is 3."""
    status, out, err = retrieve(capsys, videos / "broken.csv", "--root", videos, "--json")
    document = json.loads(out)
    assert status == 3
    assert (document["videos"], document["failed"]) == (4, 1)
    assert document["failures"][0]["path"] == str(videos / "bad.mp4")
    assert (document["text_to_video"]["readable"]["queries"], document["text_to_video"]["all"]["queries"]) == (5, 6)
    assert "1 videos could not be read" in err


@pytest.mark.slow
def test_under_torchrun(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """Several processes, more than there are videos for, give the result of one."""
    data = [str(videos / "broken.csv"), "--root", str(videos), "--json"]
    alone = json.loads(retrieve(capsys, *data)[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    command += ["-m", "mote_fast.cli", "retrieval", *data, "--output", str(tmp_path / "out")]
    command += ["--frames", "4", "--model", "tiny"]
    finished = subprocess.run(
        [*command, "--device", "cpu", "--workers", "0"], capture_output=True, text=True, check=False
    )
    several = json.loads((tmp_path / "out" / "result.json").read_text())
    assert finished.returncode != 0
    assert "1 videos could not be read" in finished.stderr
    assert several["processes"] == 3
    for part in ("text_to_video", "video_to_text", "failures", "captions"):
        assert several[part] == alone[part]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "none.csv: cannot be read"),
        (["LIST", "--split", "test"], "leave out --split"),
        (["LIST", "--views", "2x2"], "views"),
        (["LIST", "--batch-size", "0"], "--batch-size"),
        (["LIST", "--output", "LIST"], "--output"),
        (["VIDEO"], "not UTF-8"),
        (["LIST", "--device", "tpu"], "tpu"),
        (["LIST", "--checkpoint", "none.pt"], "none.pt"),
    ],
)
def test_failures_are_one_clear_line(
    capsys: Captured, videos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """The status is 2, and one line of error names the problem, before any decoding."""
    (tmp_path / "latin.csv").write_bytes(b"video,caption\na,\xe9l\xe8ve\n")
    files = {"LIST": str(videos / "list.json"), "VIDEO": str(tmp_path / "latin.csv")}
    given = [files.get(argument, argument) for argument in arguments]
    status, out, err = run(capsys, "retrieval", "--workers", 0, "--root", videos, *given)
    assert (status, out) == (2, "")
    # A note on the model comes before an error that is found after it was loaded.
    (line,) = (line for line in err.splitlines() if not line.startswith("note: "))
    assert line.startswith("mote-fast: error: ")
    assert message in line
