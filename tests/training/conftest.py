"""A small data set of real video files: squares that move over a dark ground; the colour is the class."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

import mote_fast
from mote_fast.data import write_video
from mote_fast.ops import products
from mote_fast.training.config.train_config import TrainConfig, load_config
from mote_fast.training.step import LOSSES

ROOT = Path(__file__).parents[2]

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 220, 30),
    "blue": (40, 40, 230),
    "yellow": (220, 220, 30),
    "purple": (190, 30, 190),
    "white": (230, 230, 230),
}
SIDE = 64
LENGTH = 12


class VideoFolder(NamedTuple):
    """Lists and class names, and the settings that train the smallest architecture on them."""

    folder: Path

    def config(self, output: Path, **changes: Any) -> TrainConfig:
        """The configuration, as read from a file."""
        return load_config(self.write_config(output, **changes))

    def write_config(self, output: Path, **changes: Any) -> Path:
        """Write the settings to a YAML file beside the run's folder, and return its path."""
        sections: dict[str, dict[str, Any]] = {}
        for key, value in self.settings(output, **changes).items():
            section, name = key.split(".")
            sections.setdefault(section, {})[name] = value
        path = output.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(sections))
        return path

    def settings(self, output: Path, **changes: Any) -> dict[str, Any]:
        """Dotted keys; ``changes`` have "__" for the dot."""
        settings = {
            "data.train_list": str(self.folder / "train.txt"),
            "data.val_list": str(self.folder / "val.txt"),
            "data.labels": str(self.folder / "labels.txt"),
            "data.frames": 4,
            "data.size": 64,
            "data.batch_size": 6,
            "data.workers": 0,
            "model.arch": "ViT-test",
            "model.clip_pretrained": None,
            "optim.lr": 2e-3,
            "optim.clip_ratio": 1.0,
            "optim.epochs": 2,
            "optim.warmup_epochs": 0,
            "optim.precision": "fp32",
            "run.output": str(output),
            "run.device": "cpu",
            "run.tensorboard": False,
            "run.log_every": 1,
            "run.save_every": 0,
            "run.eval_every": 0,
        }
        return settings | {key.replace("__", "."): value for key, value in changes.items()}


def write_data_set(folder: Path, train: int, val: int) -> VideoFolder:
    """Write ``train`` and ``val`` videos per class, and their lists."""
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.txt").write_text("\n".join(COLOURS) + "\n")
    for split, count in (("train", train), ("val", val)):
        lines = []
        for label, (name, color) in enumerate(COLOURS.items()):
            for number in range(count):
                path = folder / f"{split}_{name}_{number}.mp4"
                write_video(path, moving_square(color, generator), fps=12, preset="ultrafast")
                lines.append(f"{path} {label}")
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return VideoFolder(folder)


def moving_square(color: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """A large square on a noisy dark ground, moving on a straight line: uint8 [T, H, W, 3]."""
    frames = torch.randint(0, 40, (LENGTH, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    start, stop = torch.randint(0, SIDE - 40, (2, 2), generator=generator).tolist()
    for t in range(LENGTH):
        top, left = (a + (b - a) * t // (LENGTH - 1) for a, b in zip(start, stop, strict=True))
        frames[t, top : top + 40, left : left + 40] = torch.tensor(color, dtype=torch.uint8)
    return frames


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoFolder:
    """24 videos to train on, 12 to validate."""
    return write_data_set(tmp_path_factory.mktemp("videos"), train=4, val=2)


@pytest.fixture(autouse=True)
def process_wide_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the process-wide switches that a run sets."""
    before, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(products, "_DECIDED", dict(products._DECIDED))
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = tf32


def metrics_of(output: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The records of one kind that a run wrote."""
    records = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    """The weights of a run's final model."""
    return mote_fast.load(output / "model").state_dict()


def assert_same_run(first: Path, second: Path) -> None:
    """Equal weights to the last bit, and equal metrics except times."""
    ours, theirs = final_weights(first), final_weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    for kind, names in (("train", ("step", "epoch", *LOSSES, "lr")), ("val", ("step", "top1", "top5"))):
        a, b = ([[record[name] for name in names] for record in metrics_of(run, kind)] for run in (first, second))
        assert a == b


class Launched:
    """train.py as a separate program, under torchrun if there are several processes; one thread each."""

    def __init__(self, config: Path, processes: int = 1, *overrides: str) -> None:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(torchrun if processes > 1 else []), "train.py", "--config", str(config)]
        self.processes = processes
        self.process = subprocess.Popen(
            [*command, *overrides],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.text = ""

    def until(self, step: int) -> None:
        """Read its log until it has taken ``step`` steps."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text += line
            if (match := re.search(r"step (\d+)/", line)) and int(match[1]) >= step:
                return
        raise AssertionError(f"ended before step {step}:\n{self.text}")

    def workers(self) -> list[int]:
        """The process ids of its ranks, in their order."""
        own = self.process.pid
        if self.processes == 1:
            return [own]
        return sorted(map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split()))

    def end(self) -> int:
        """Wait for its end and return its exit code."""
        _, rest = self.process.communicate()
        self.text += rest
        return self.process.returncode
