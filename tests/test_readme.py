"""README and the guides are correct: programs run, commands parse, and the output that is shown is real."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mote_fast
from mote_fast.cli import main
from mote_fast.cli.demo import CLIPS
from mote_fast.cli.parsers import build_parser
from tests.document_blocks import PAGES, README, ROOT, blocks, commands, our_arguments, sessions
from tests.hub_server import serve_hub

LABELS = ["archery", "juggling balls", "playing the cello"]
# What needs a network, a GPU or many processes, and what takes its place here.
REPLACED = {
    '"ViT-B-16", clip_pretrained="openai"': '"ViT-test"',
    '"mote-b16-k400"': '"tiny"',
    '"clip:ViT-B-16/openai"': '"tiny"',
    'device="cuda"': 'device="cpu"',
    "workers=8": "workers=0",
    '"rtsp://192.0.2.1/door"': '"video.mp4"',
}
# Percentages as the commands print them differ in their last digits between processors.
SHOWN_PERCENT = 0.02


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moving_video: Path,
    clip_file: Path,
    clip_state: Any,
    released_head: Any,
) -> Path:
    """The working folder of someone who has the files that the documents name; the checkpoints are small."""
    visual = {name: value for name, value in clip_state.items() if name.startswith("visual.") or name == "logit_scale"}
    torch.save({"epoch": 1, "model_state_dict": visual, "fusion_model_state_dict": released_head}, "released.pt")
    shutil.copy(clip_file, "ViT-B-16.pt")
    for video in ("video.mp4", "videos/a/a.mp4", "videos/b/b.mp4"):
        (tmp_path / video).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(moving_video, video)
    Path("lists").mkdir()
    Path("lists/vallist.txt").write_text("a/a.mp4 0\nb/b.mp4 1\n", encoding="utf-8")
    mote_fast.create_model("ViT-test").save(tmp_path / "my_model")
    return tmp_path


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub on this machine, and an account of it."""
    with serve_hub(monkeypatch, tmp_path / "hub_cache"):
        monkeypatch.setenv("HF_TOKEN", "mine")
        yield


@pytest.mark.heavy
@pytest.mark.usefixtures("files", "hub")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_programs_run(page: Path) -> None:
    """All lines of a page run in their order, unchanged except for what stands in ``REPLACED``."""
    clf = mote_fast.load("tiny")
    known: dict[str, Any] = {"__name__": "__main__", "mote_fast": mote_fast, "torch": torch}
    known |= {"clf": clf, "labels": LABELS, "video": "video.mp4"}
    if page.name == "hub.md":
        clf.classes = LABELS
        clf.push_to_hub("my-org/my-model")
    known |= {"paths": ["video.mp4"] * 5, "frames": torch.zeros(8, 3, 64, 64, dtype=torch.uint8), "start": 0, "end": 9}
    for program in blocks(page, "python"):
        for fetched, here in REPLACED.items():
            program = program.replace(fetched, here)
        exec(compile(program, name(page), "exec"), known)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_parse(page: Path) -> None:
    """Every option exists under its name; file names stand for files."""
    for words in commands(page):
        if (ours := our_arguments(words)) is not None:
            assert callable(build_parser().parse_args(ours).run)


def test_documents_show_commands() -> None:
    """The pattern finds the commands of the pages."""
    shown = [our_arguments(words) for page in PAGES for words in commands(page)]
    assert len([words for words in shown if words]) > 40


@pytest.mark.heavy
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")], ids=name)
def test_shown_output_is_real(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every shown line is printed, in this order; "..." stands for lines that are left out."""
    for words, output in sessions(page):
        arguments = our_arguments(words)
        assert arguments is not None
        assert main(arguments) == 0
        printed = iter(capsys.readouterr().out.splitlines())
        for line in output.splitlines():
            if line != "...":
                assert any(same(line, each) for each in printed), line


def same(shown: str, printed: str) -> bool:
    """Whether two lines agree, percentages up to their last digits."""
    percent = r"\d+\.\d\d(?= %)"
    pairs = zip(re.findall(percent, shown), re.findall(percent, printed), strict=False)
    close = all(abs(float(one) - float(other)) <= SHOWN_PERCENT for one, other in pairs)
    return close and re.sub(percent, "", shown).split() == re.sub(percent, "", printed).split()


def test_what_readme_points_to_exists() -> None:
    """Files and make targets."""
    text = README.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([\w-]+)", text, re.MULTILINE)) <= targets
    for path in re.findall(r"`((?:tests|benchmarks|lab)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_scripts_in_commands_exist(page: Path) -> None:
    """Configurations and scripts of the repository."""
    for words in commands(page):
        for path in re.findall(r"(?:configs|benchmarks)/[\w./]+|train\.py", " ".join(words)):
            assert (ROOT / path).is_file(), path


def test_readme_stays_short() -> None:
    """A newcomer reads it in two minutes; everything else has a page of docs/."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 165


def test_the_picture_shows_the_demo() -> None:
    """The six videos that `mote-fast demo` classifies; their number is stated below the picture."""
    assert len(list(CLIPS.glob("*/*.mp4"))) == 6
    assert "docs/assets/demo.webp" in README.read_text(encoding="utf-8")
    assert (ROOT / "docs" / "assets" / "demo.webp").stat().st_size < 250_000
