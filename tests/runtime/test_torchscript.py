"""Weights of TorchScript archives: the same as PyTorch's own reader gives, and nothing of the archive runs."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mote_fast.errors import CheckpointError
from mote_fast.runtime.weights import read_weights

# A module whose state is restored by code of its own, which writes a file and reads another into the weights.
ATTACK = """
import torch

class Attack(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2))

    @torch.jit.export
    def __getstate__(self):
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.training = state[1]
        torch.save(state[0], "{written}")
        self.w = torch.from_file("{secret}", False, 10, dtype=torch.uint8).float()

    def forward(self, x):
        return x
"""


class Block(nn.Module):
    """Parts of CLIP: layers, a buffer, a plain tensor, a list, half precision, a shared and a transposed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, bias=False)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.layers[2].weight = self.layers[0].weight
        self.norm = nn.LayerNorm(4).half()
        self.projection = nn.Parameter(torch.randn(5, 4).t())
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("mask", torch.ones(2, 2, dtype=torch.bool))
        self.plain = torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        for layer in self.layers:
            x = layer(x)
        return x @ self.projection


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # torch.jit is deprecated, and the format of OpenAI's files.
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("how", ["script", "trace"])
def test_weights_are_those_of_pytorch(how: str, tmp_path: Path) -> None:
    """Names, values and dtypes, also of tensors that share a storage or are not contiguous."""
    model, path = Block(), tmp_path / "model.pt"
    archive = torch.jit.script(model) if how == "script" else torch.jit.trace(model, torch.zeros(1, 3, 8, 8))
    torch.jit.save(archive, path)
    expected, found = torch.jit.load(path).state_dict(), read_weights(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_code_of_an_archive_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ``__setstate__`` could call any operator: here it would write a file and read another."""
    written, secret, source = tmp_path / "written", tmp_path / "secret", tmp_path / "attack.py"
    secret.write_bytes(b"TOP-SECRET")
    source.write_text(ATTACK.format(written=written, secret=secret), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("attack", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "attack", module)
    spec.loader.exec_module(module)
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.save(torch.jit.script(module.Attack()), path)
    with pytest.raises(CheckpointError, match=r"refused, because .*__setstate__"):
        read_weights(path)
    assert not written.exists()
    torch.jit.load(path)
    # The attack is a real one.
    assert written.exists()


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self._call


@pytest.mark.parametrize(
    "content",
    [
        Call(eval, "open('ran', 'w')"),
        {"w": Call(Path.touch, Path("ran"))},
        Call(torch._utils._rebuild_tensor_v2, 1, 2, 3, 4),
        [1, 2],
        None,
    ],
)
def test_pickles_in_an_archive_are_refused(content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive is a zip file that anyone can write."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl", pickle.dumps(()))
        archive.writestr("model/data.pkl", pickle.dumps(content))
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["storage", "missing", "compressed", "cut"])
def test_damaged_archives(damage: str, tmp_path: Path) -> None:
    """Sizes are compared before anything is allocated; a bomb of compressed zeros is not opened."""
    torch.jit.save(torch.jit.script(Block()), tmp_path / "whole.pt")
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            content = whole.read(name)
            if name.endswith("/data/0"):
                if damage == "missing":
                    continue
                content = content[:-4] if damage == "storage" else content
            if name.endswith("/data.pkl") and damage == "cut":
                content = content[: len(content) // 2]
            kind = zipfile.ZIP_DEFLATED if damage == "compressed" else zipfile.ZIP_STORED
            archive.writestr(name, content, kind)
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        read_weights(path)
