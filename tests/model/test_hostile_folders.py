"""Model folders and weights of strangers: sizes that cannot be, links, and what is no file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mote_fast
from mote_fast.errors import CheckpointError, ConfigError, MoteError
from mote_fast.runtime.environment import PRESETS
from mote_fast.runtime.weights import CONFIG_FILE, WEIGHTS_FILE

HUGE = 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped model."""
    return Path(shutil.copytree(PRESETS / "tiny", tmp_path / "model"))


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    change(config)
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def vision(config: Any) -> Any:
    return config["clip"]["model"]["vision_cfg"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: vision(c).update(width=HUGE),
        lambda c: vision(c).update(layers=HUGE),
        lambda c: vision(c).update(layers=[HUGE, 1]),
        lambda c: vision(c).update(layers=2.0),
        lambda c: vision(c).update(patch_size=0),
        lambda c: vision(c).update(head_width=0),
        lambda c: vision(c).update(mlp_ratio=1e300),
        lambda c: vision(c).update(image_size=HUGE),
        lambda c: vision(c).update(image_size=[]),
        lambda c: c["clip"]["model"]["text_cfg"].update(vocab_size=HUGE),
        lambda c: c["clip"]["model"]["text_cfg"].update(context_length=HUGE),
        lambda c: c["clip"]["model"].update(embed_dim="64"),
        lambda c: c["clip"].update(merges=[1]),
        lambda c: c["clip"].update(model=[]),
        lambda c: c["head"].update(experts=HUGE),
        lambda c: c["head"].update(layers=HUGE),
        lambda c: c["head"].update(heads=True),
        lambda c: c.update(frames=HUGE),
        lambda c: c.update(frames=8.5),
        lambda c: c.update(format_version=[["x" * 999] * 999] * 9),
    ],
)
def test_sizes_that_the_weights_do_not_have(folder: Path, change: Callable[[Any], object]) -> None:
    """Nothing is allocated on the configuration's word; the message is short and names the folder or the value."""
    edit(folder, change)
    with pytest.raises((CheckpointError, ConfigError)) as error:
        mote_fast.load(folder)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("content", ["[1]", "null", '{"a": ' * 200 + "1" + "}" * 200, "[" * 99_999, "", "\0"])
def test_configurations_that_are_none(folder: Path, content: str) -> None:
    """Other JSON, JSON nested deep, and no JSON."""
    (folder / CONFIG_FILE).write_text(content)
    with pytest.raises(CheckpointError, match="model"):
        mote_fast.load(folder)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "link", "large"])
def test_what_is_no_file_of_the_folder(folder: Path, name: str, kind: str, tmp_path: Path) -> None:
    """A FIFO is not waited for, a device not read, a link out of the folder not followed."""
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    match kind:
        case "fifo":
            os.mkfifo(folder / name)
        case "device":
            (folder / name).symlink_to("/dev/zero")
        case "folder":
            (folder / name).mkdir()
        case "link":
            (tmp_path / "secret").write_bytes(content)
            (folder / name).symlink_to("../secret")
        case "large":
            (folder / name).write_bytes(b"\xff" * 2**23)
    with pytest.raises(CheckpointError, match=name):
        mote_fast.load(folder)


@pytest.mark.parametrize("kind", ["script", "pickle", "fifo", "link", "layers"])
def test_folders_of_open_clip(tmp_path: Path, kind: str) -> None:
    """Their weights are read as any other file of strangers, and their sizes compared with the weights first."""
    folder = tmp_path / "published"
    folder.mkdir()
    model = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"width": 64, "heads": 1, "layers": HUGE if kind == "layers" else 1},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    weights = folder / "open_clip_pytorch_model.bin"
    match kind:
        case "script":
            torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), weights)
        case "pickle":
            torch.save({"w": Path("x")}, weights)
        case "fifo":
            os.mkfifo(weights)
        case "link":
            torch.save({"w": torch.ones(2)}, tmp_path / "secret")
            weights.symlink_to("../secret")
        case "layers":
            torch.save({"w": torch.ones(2)}, weights)
    with pytest.raises(MoteError, match="published"):
        mote_fast.create_model(f"local-dir:{folder}")


def test_one_long_tensor_makes_no_long_model(tmp_path: Path) -> None:
    """The sizes of a released head and of a CLIP file follow from single tensors, whose squares would be allocated."""
    state = {"frame_position_embeddings.weight": torch.zeros(77, HUGE // 1000)}
    state |= {f"transformer.resblocks.0.{key}": torch.zeros(1) for key in ("ln_1.weight", "mlp.c_fc.weight")}
    torch.manual_seed(0)
    clip = mote_fast.create_model("ViT-test").clip.model.state_dict()
    torch.save(clip, tmp_path / "original.pt")
    torch.save({"model_state_dict": clip, "fusion_model_state_dict": state}, tmp_path / "released.pt")
    clip |= {"ln_final.weight": torch.zeros(HUGE // 1000)}
    torch.save(clip, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"released\.pt: .*head"):
        mote_fast.load(tmp_path / "released.pt", clip=tmp_path / "original.pt", activation="quick_gelu")
    with pytest.raises(CheckpointError, match=r"clip\.pt: does not fit"):
        mote_fast.clip.load_towers(None, tmp_path / "clip.pt", activation="quick_gelu")


def test_names_for_the_same_numbers_are_counted(tmp_path: Path) -> None:
    """Copies of one tensor under many names would not fit into memory."""
    one = torch.ones(1000)
    torch.save({str(number): one for number in range(9)}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="names for each of its numbers"):
        mote_fast.create_model("ViT-test", clip_pretrained=tmp_path / "clip.pt", activation="gelu")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint8])
def test_other_numbers_are_refused(folder: Path, dtype: torch.dtype) -> None:
    """Weights are floating-point numbers of 16, 32 or 64 bits."""
    tensors = {name: value.to(dtype) for name, value in load_file(folder / WEIGHTS_FILE).items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match=f"holds {dtype}, expected torch.float32"):
        mote_fast.load(folder)
