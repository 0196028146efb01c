"""Weight files: no code is executed on reading, and writes are atomic."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast.errors import CheckpointError
from mote_fast.runtime.files import staged
from mote_fast.runtime.weights import (
    CONFIG_FILE,
    TEXT_FOLDER,
    WEIGHTS_FILE,
    check_model_folder,
    check_numbers,
    is_finite,
    read_model_config,
    read_model_weights,
    read_weights,
    save_pickled,
    write_model_folder,
)
from tests.full_disk import files_of_at_most


class Bomb:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    ("zipped", "message"),
    [(True, r"evil\.pt: refused.*pickled Python object, 'posix.mkdir'"), (False, "before 1.6, save again")],
)
def test_pickled_objects_are_refused_unrun(tmp_path: Path, zipped: bool, message: str) -> None:
    """A checkpoint that would run code is refused with a clear message, and nothing runs."""
    marker, path = tmp_path / "exploded", tmp_path / "evil.pt"
    content = {"model_state_dict": {"w": torch.ones(2)}, "extra": Bomb(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=message):
        read_weights(path)
    assert not marker.exists()


def test_raw_pickle_is_refused_unrun(tmp_path: Path) -> None:
    """The same for a bare pickle under a weights name."""
    marker, path = tmp_path / "exploded", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Bomb(marker), protocol=2))
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        read_weights(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"PK\x03\x04" + b"\0" * 200, b"PK\5\6\1" + b"\0" * 17])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    """Empty, foreign and broken files raise a typed error with the file's name."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_weights(path)


def test_truncated_files_are_named(tmp_path: Path) -> None:
    """A file truncated at any position is refused; the complete file is read."""
    path = tmp_path / "w.pt"
    torch.save({"w": torch.arange(1000)}, path)
    whole = path.read_bytes()
    for keep in range(0, len(whole), 97):
        path.write_bytes(whole[:keep])
        with pytest.raises(CheckpointError, match=r"w\.pt"):
            read_weights(path)


def test_missing_and_foreign_content(tmp_path: Path) -> None:
    """A missing file and a lone tensor are refused by name."""
    with pytest.raises(CheckpointError, match="no such file"):
        read_weights(tmp_path / "none.pt")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        read_weights(tmp_path / "tensor.pt")


def test_folder_round_trip_and_replacement(tmp_path: Path) -> None:
    """A written folder is read back; writing again replaces it and leaves no remains."""
    folder = tmp_path / "deep" / "model"
    shared = torch.randn(3)
    for value in (1, 2):
        write_model_folder(folder, {"value": value}, {"a": shared, "b": shared, "t": shared.reshape(3, 1).t()})
        config, tensors = read_model_config(folder), read_model_weights(folder)
        assert config == {"value": value}
        assert torch.equal(tensors["b"], shared)
    assert sorted(entry.name for entry in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    assert [entry.name for entry in folder.parent.iterdir()] == ["model"]


def test_files_of_the_text_tower_are_replaced_with_the_folder(tmp_path: Path) -> None:
    """The sub-folder is written with the rest, and one of an earlier model does not stay."""

    def write_text(folder: Path) -> None:
        folder.mkdir()
        (folder / "tokenizer.json").write_text("{}")

    write_model_folder(tmp_path / "model", {}, {}, write_text)
    assert (tmp_path / "model" / TEXT_FOLDER / "tokenizer.json").read_text() == "{}"
    write_model_folder(tmp_path / "model", {}, {})
    assert not (tmp_path / "model" / TEXT_FOLDER).exists()


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    """A folder with other files, or a file of that name, is never replaced."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("thesis", "file"):
        with pytest.raises(CheckpointError, match=name):
            write_model_folder(tmp_path / name, {}, {"a": torch.ones(1)})
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"


def test_a_failed_write_keeps_the_earlier_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fills up during a write, the earlier folder is complete and no remains are left."""
    folder = tmp_path / "model"
    write_model_folder(folder, {"value": 1}, {"a": torch.ones(1)})

    def fail(path: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("mote_fast.runtime.files.flush", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        write_model_folder(folder, {"value": 2}, {"a": torch.zeros(1)})
    assert read_model_config(folder) == {"value": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


KILLED_WRITER = """
import sys, torch
from mote_fast.runtime.weights import write_model_folder
number = 0
while True:
    number += 1
    write_model_folder(sys.argv[1], {"value": number}, {"a": torch.full((50_000,), number)})
    if number == 1:
        sys.stdout.write("started\\n"); sys.stdout.flush()
"""


@pytest.mark.heavy
def test_kill_at_any_instant_leaves_a_whole_model(tmp_path: Path) -> None:
    """A writer killed with SIGKILL at any time leaves a folder whose two files belong together."""
    folder = tmp_path / "model"
    with subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(folder)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"started\n"
        # The swap may happen between the reads of the two files, but no file is missing or incomplete.
        for _ in range(200):
            tensors = read_model_weights(folder)
            assert int(tensors["a"][0]) == int(tensors["a"][-1])
        writer.kill()
    config, tensors = read_model_config(folder), read_model_weights(folder)
    assert config["value"] == int(tensors["a"][0])


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """The writers of safetensors and of PyTorch raise errors of their own; the typed one names the target."""
    tensors = {"a": torch.zeros(100_000)}
    with files_of_at_most(9_999):
        with pytest.raises(CheckpointError, match=r"model: cannot be written \(.*large"):
            write_model_folder(tmp_path / "model", {}, tensors)
        with (
            pytest.raises(CheckpointError, match=r"w\.pt: cannot be written \(.*large"),
            staged(tmp_path / "w.pt", CheckpointError) as part,
        ):
            save_pickled(tensors, part)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_models_are_checked_before_the_work(tmp_path: Path) -> None:
    """Other people's folders and places that take no files; a missing one is not made."""
    check_model_folder(tmp_path / "new" / "model")
    assert not (tmp_path / "new" / "model").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    (tmp_path / "file").touch()
    for path in (tmp_path / "thesis", tmp_path / "file", tmp_path / "file" / "model", Path("/proc/model")):
        with pytest.raises(CheckpointError, match=str(path)):
            check_model_folder(path)


TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_what_is_no_number_is_found(dtype: torch.dtype) -> None:
    """One NaN or infinity among many values, in every type; sums that overflow are not taken for one."""
    largest = torch.finfo(dtype).max
    values = torch.linspace(-1, 1, 999)
    assert is_finite(values.to(dtype))
    assert is_finite(torch.full((999,), largest, dtype=torch.float64).to(dtype))
    assert is_finite(torch.empty(0, dtype=dtype))
    for odd in ([float("nan")], [float("inf")], [float("inf"), float("-inf")]):
        lost = torch.cat((values, torch.tensor(odd))).to(dtype)
        assert is_finite(lost) == bool(torch.isfinite(lost.double()).all())
    assert is_finite(torch.arange(3))


def test_weights_must_be_the_models_numbers() -> None:
    """The error names tensor and file; masks that are infinite by design and unknown names are passed over."""
    expected = {"w": torch.ones(2), "mask": torch.tensor([0.0, float("-inf")]), "ids": torch.arange(2)}
    check_numbers({"w": torch.ones(2).half(), "mask": expected["mask"], "ids": torch.arange(2)}, "f", expected)
    check_numbers({"other": torch.tensor([float("nan")])}, "f", expected)
    for name, value in (
        ("w", torch.tensor([1.0, float("nan")])),
        ("w", torch.ones(2).long()),
        ("w", torch.ones(2).bool()),
        ("w", torch.ones(2).to(torch.complex64)),
        ("ids", torch.ones(2)),
    ):
        with pytest.raises(CheckpointError, match=f"f: {name} holds"):
            check_numbers({name: value}, "f", expected)
    with pytest.raises(CheckpointError, match="f: w holds NaN or infinity"):
        check_numbers({"w": torch.tensor([float("inf")])}, "f")


def test_a_configuration_is_json(tmp_path: Path) -> None:
    """Python's reader takes NaN."""
    write_model_folder(tmp_path / "m", {"value": 1}, {"a": torch.ones(1)})
    (tmp_path / "m" / CONFIG_FILE).write_text('{"value": NaN}')
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_model_config(tmp_path / "m")
