"""README is correct: its programs run, its commands parse, and its links and files exist."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import mote_fast
from mote_fast.cli import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LABELS = ["archery", "juggling balls", "playing the cello"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every shell command line as words, without comments and ellipses."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line.replace(" ...", ""), comments=True))]


@pytest.fixture
def files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moving_video: Path,
    clip_file: Path,
    clip_state: Any,
    released_head: Any,
) -> Path:
    """The working folder of someone who has the files that README names; the checkpoints are small."""
    visual = {name: value for name, value in clip_state.items() if name.startswith("visual.") or name == "logit_scale"}
    for name in ("released.pt",):
        torch.save({"epoch": 1, "model_state_dict": visual, "fusion_model_state_dict": released_head}, tmp_path / name)
    shutil.copy(clip_file, tmp_path / "ViT-B-16.pt")
    shutil.copy(moving_video, tmp_path / "video.mp4")
    mote_fast.create_model("ViT-test").save(tmp_path / "my_model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.heavy
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("program", blocks("python"))
def test_programs_run(program: str) -> None:
    """All lines run unchanged, except those that fetch weights."""
    program = program.replace('"ViT-B-16", clip_pretrained="openai"', '"ViT-test"')
    for fetched in ('"mote-b16-k400"', '"clip:ViT-B-16/openai"'):
        program = program.replace(fetched, '"tiny"')
    width = 64
    given = {"features": torch.randn(2, 8, width), "targets": torch.tensor([0, 2])}
    exec(program, {"mote_fast": mote_fast, "video": "video.mp4", "labels": LABELS, **given})


def test_commands_parse() -> None:
    """Every option exists under its name; abbreviated file names stand for files."""
    ours = [words[1:] for words in commands() if words[0] == "mote-fast"]
    ours += [words[words.index("mote_fast.cli") + 1 :] for words in commands() if "mote_fast.cli" in words]
    assert len(ours) > 8
    for words in ours:
        assert callable(build_parser().parse_args(words).run)


def test_what_it_points_to_exists() -> None:
    """Files, links and make targets."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([\w-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
    for path in re.findall(r"\]\((?!https?:)([^)#]+)", README) + re.findall(
        r"`((?:tests|benchmarks)/[\w./]+)`", README
    ):
        assert (ROOT / path).exists(), path
    for words in commands():
        for name in re.findall(r"(?:configs|benchmarks)/[\w./]+|train\.py", " ".join(words)):
            assert (ROOT / name).is_file(), name
