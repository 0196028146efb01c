"""Weights, model folders and configurations of strangers: read as data, or refused in bounded time and memory."""

from __future__ import annotations

import json
import os
import pickletools
import random
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mote_fast
from mote_fast.data.items import read_labels, read_list
from mote_fast.runtime.environment import PRESETS
from mote_fast.runtime.weights import CONFIG_FILE, WEIGHTS_FILE, read_weights
from mote_fast.training.config.train_config import load_config
from tests.attack.bounded import Bounded, check_refused_or_read
from tests.attack.conftest import Attack

NUMBERS = (0, 1, 2, -1, 7, 63, 64, 65, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64, 10**30)
VALUES: list[Any] = [*NUMBERS, None, True, 0.5, 1e300, "", "64", "x" * 9999, "../..", "\0", [], {}, [1, 2], [[]] * 9]
DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I8", "U8", "BOOL", "C64", "F4", "X")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped model."""
    return Path(shutil.copytree(PRESETS / "tiny", tmp_path / "model"))


def changed(value: Any, dice: random.Random) -> Any:
    """Return a JSON value with one part replaced, dropped, renamed, repeated or nested."""
    if dice.random() < 0.15 or not isinstance(value, list | dict) or not value:
        return dice.choice([*VALUES, [value], {"a": value}])
    copy = value.copy()
    key = dice.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    match dice.randrange(8):
        case 0:
            copy.pop(key)
        case 1 if isinstance(copy, dict):
            copy[str(dice.choice([*VALUES, *value]))[:99]] = copy.pop(key)
        case _:
            copy[key] = changed(copy[key], dice)
    return copy


def garbled(content: bytes, dice: random.Random) -> bytes:
    """Return bytes that are flipped, cut off, padded, moved or repeated in a few places."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(6):
            case 0:
                del data[at:]
            case 1:
                data += bytes(dice.randrange(64))
            case 2:
                data[at:at] = data[at : at + dice.randrange(99)]
            case 3:
                data[at : at + 4] = struct.pack("<I", dice.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1)))
            case _:
                data[at : at + 1] = bytes([dice.randrange(256)])
    return bytes(data)


def load_folder(path: str) -> None:
    mote_fast.load(path)


def test_configurations_of_folders(attack: Attack, folder: Path) -> None:
    """Any value in any place of config.json: the weights decide what is allocated."""
    dice = random.Random("folders")
    config = json.loads((folder / CONFIG_FILE).read_text())
    # So many merges would take all the changes.
    merges = config["clip"].pop("merges")
    with Bounded(load_folder) as load:
        for number in range(attack.size(40, 800)):
            document = changed(config, dice)
            if isinstance(document, dict) and isinstance(document.get("clip"), dict) and dice.random() < 0.9:
                document["clip"] = {"merges": merges, **document["clip"]}
            text = json.dumps(document).encode()
            (folder / CONFIG_FILE).write_bytes(garbled(text, dice) if number % 8 == 7 else text)
            with attack.attempt(str(document)[:2000]):
                check_refused_or_read(load(folder), "model")


def test_headers_of_safetensors(attack: Attack, folder: Path) -> None:
    """Shapes, dtypes, offsets, names and the length of the header, beside the data that they are about."""
    dice = random.Random("headers")
    content = (folder / WEIGHTS_FILE).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    with Bounded(load_folder) as load:
        for number in range(attack.size(40, 800)):
            document = json.loads(json.dumps(header))
            name = dice.choice([key for key in document if key != "__metadata__"])
            entry = document[name]
            match number % 8:
                case 0:
                    entry["shape"] = [dice.choice(NUMBERS) for _ in entry["shape"]]
                case 1:
                    entry["dtype"] = dice.choice(DTYPES)
                case 2:
                    entry["data_offsets"][dice.randrange(2)] = dice.choice((*NUMBERS, len(data), len(data) + 1))
                case 3:
                    document["__metadata__"] = dice.choice([{"a": "x" * 10**6}, VALUES, [], {"a": 1}])
                case 4:
                    document[dice.choice(("", "\0", name * 99, "head.train_class_features"))] = document.pop(name)
                case 5:
                    document |= {f"more{each}": {**entry, "shape": [0, 2**40]} for each in range(dice.randrange(9))}
                case _:
                    document = changed(document, dice)
            text = json.dumps(document).encode()
            stated = dice.choice((*NUMBERS[:12], len(text) + 1)) if dice.random() < 0.1 else len(text)
            whole = struct.pack("<Q", max(stated, 0)) + text + data
            (folder / WEIGHTS_FILE).write_bytes(garbled(whole, dice) if dice.random() < 0.1 else whole)
            with attack.attempt(f"{number} {name}"):
                check_refused_or_read(load(folder), "model")


@pytest.fixture(params=["saved", "scripted"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small file of each kind."""
    path = tmp_path / "whole.pt"
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    if request.param == "saved":
        state = {"state_dict": model.state_dict(), "list": [1, 2.5, "a", None, (True, 2**40)]}
        torch.save(state, path)
    else:
        with warnings.catch_warnings():
            # torch.jit is deprecated, and the format of OpenAI's files.
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(model), path)
    return path


def pickles(content: bytes, dice: random.Random) -> bytes:
    """Change instructions of a pickle: their arguments, their order, and what they are."""
    parts = [(opcode, at) for opcode, _, at in pickletools.genops(content)]
    ends = [at for _, at in parts[1:]] + [len(content)]
    codes = [content[at:end] for (_, at), end in zip(parts, ends, strict=True)]
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(codes))
        match dice.randrange(6):
            case 0:
                codes.pop(at)
                codes = codes or [b"."]
            case 1:
                codes.insert(at, dice.choice(codes))
            case 2:
                codes[at] = b"J" + struct.pack("<i", dice.choice((-1, 0, 1, 2**31 - 1)))
            case 3:
                codes[at] = b"\x8a\x09" + (2 ** dice.choice((31, 40, 62, 63, 64))).to_bytes(9, "little")
            case 4:
                codes[at] = dice.choice(
                    (b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch.jit\nload\n", b"c__torch__\nEvil\n", b"\x93")
                )
            case _:
                codes[at] = bytes([dice.randrange(256)]) + codes[at][1:]
    return b"".join(codes)


def rewritten(path: Path, target: Path, dice: random.Random) -> None:
    """Write an archive again: its pickle changed, or a member dropped, renamed, repeated, cut, emptied or packed."""
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(target, "w") as out, warnings.catch_warnings():
        # Of a name that is there twice.
        warnings.simplefilter("ignore")
        names = whole.namelist()
        chosen, what = dice.choice(names), dice.randrange(12)
        for name in names:
            content, kind = whole.read(name), zipfile.ZIP_STORED
            if what >= 6 and name.endswith("/data.pkl"):
                content = pickles(content, dice)
            elif name == chosen:
                match what:
                    case 0:
                        continue
                    case 1:
                        name = dice.choice(names)
                    case 2:
                        out.writestr(name, content)
                    case 3:
                        content = content[: len(content) // 2]
                    case 4:
                        content, kind = bytes(10**7), zipfile.ZIP_DEFLATED
                    case 5:
                        content = garbled(content, dice)
            out.writestr(name, content, kind)


def read(path: str) -> None:
    read_weights(path)


def test_archives_and_pickles(attack: Attack, archive: Path, tmp_path: Path) -> None:
    """Whatever a zip archive and the pickle in it say."""
    dice = random.Random("archives")
    path, content = tmp_path / "w.pt", archive.read_bytes()
    with Bounded(read) as reading:
        for number in range(attack.size(300, 20_000)):
            if number % 4 == 3:
                damaged = bytearray(content)
                # The directory and its end are the last part.
                for _ in range(dice.randint(1, 3)):
                    at = dice.randrange(content.index(b"PK\1\2"), len(content) - 4)
                    damaged[at : at + 4] = dice.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\0", bytes(2)))
                path.write_bytes(damaged)
            elif number % 4 == 2:
                path.write_bytes(garbled(content, dice))
            else:
                rewritten(archive, path, dice)
            with attack.attempt(number):
                check_refused_or_read(reading(path), "w.pt")


WORDS = (
    "*a",
    "&a ",
    "<<: *a",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "!!python/object:os.system ",
    "!!binary ",
    "!!set ",
    "? ",
    "|",
)
WORDS += (
    "0x" + "f" * 9999,
    "1e999",
    ".inf",
    ".nan",
    "9" * 4999,
    "1:" * 999 + "1",
    "2024-99-99",
    "~",
    "'",
    '"',
    "\t",
    "#",
)
YAML = """base: BASE
data: {train_list: l.txt, labels: c.txt, frames: 8, size: 224, views: 1x1}
model: {arch: ViT-B-16, clip_pretrained: null, experts: 4, layers: 2}
optim:
  lr: 5e-5
  betas: [0.9, 0.999]
  epochs: 30
  milestones: [10, 20]
run: {output: runs, seed: 1, resume: none}
"""


def lines(dice: random.Random) -> Iterator[str]:
    """A configuration with words put in, replaced and repeated."""
    for line in YAML.splitlines():
        words = line.split(" ")
        while dice.random() < 0.15:
            words.insert(dice.randrange(len(words) + 1), dice.choice((*WORDS, str(dice.choice(VALUES)))))
        yield " ".join(words) * dice.choice((1, 1, 1, 1, 1, 1, 2))


def load_yaml(path: str) -> None:
    load_config(path)


def test_training_configurations(attack: Attack, tmp_path: Path) -> None:
    """Aliases, tags, numbers of all sizes and broken syntax."""
    dice = random.Random("yaml")
    path = tmp_path / "c.yaml"
    (tmp_path / "base.yaml").write_text("optim: {lr: 1e-3}")
    with Bounded(load_yaml) as load:
        for _ in range(attack.size(100, 4000)):
            base = dice.choice(("base.yaml", "base.yaml", "c.yaml", "/dev/zero", "x" * 999))
            text = "\n".join(lines(dice)).replace("BASE", base)
            path.write_bytes(garbled(text.encode(), dice) if dice.random() < 0.3 else text.encode())
            with attack.attempt(text):
                check_refused_or_read(load(path), ".yaml")


def missing(path: Path) -> None:
    path.unlink(missing_ok=True)


OTHERS: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "random": lambda path: path.symlink_to("/dev/urandom"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "folder": os.mkdir,
    "itself": lambda path: path.symlink_to(path.name),
    "secret": lambda path: path.symlink_to("/etc/passwd"),
    "memory": lambda path: path.symlink_to("/proc/self/mem"),
    "nothing": lambda path: path.write_bytes(b""),
    "hole": lambda path: (path.touch(), os.truncate(path, 2**40)),
}
DOORS: dict[str, Callable[[str], object]] = {
    "w.pt": read_weights,
    "w.safetensors": read_weights,
    "model/config.json": lambda path: mote_fast.load(Path(path).parent),
    "model/model.safetensors": lambda path: mote_fast.load(Path(path).parent),
    "open/open_clip_config.json": lambda path: mote_fast.create_model(f"local-dir:{Path(path).parent}"),
    "c.yaml": load_config,
    "list.txt": read_list,
    "labels.txt": read_labels,
}


def open_door(name: str, path: str) -> None:
    DOORS[name](path)


def test_what_is_no_file(attack: Attack, folder: Path, tmp_path: Path) -> None:
    """FIFOs, devices, folders, links and holes under the name of each file that is read."""
    (tmp_path / "open").mkdir()
    torch.save({"w": torch.ones(1)}, tmp_path / "open" / "open_clip_pytorch_model.bin")
    with Bounded(open_door) as opening:
        for name in DOORS:
            path = tmp_path / name
            whole = path.read_bytes() if path.exists() else None
            for kind, make in OTHERS.items():
                missing(path)
                make(path)
                with attack.attempt(f"{name} {kind}"):
                    outcome = opening(name, path)
                    # Lists may name any file of the user.
                    readable = kind == "secret" and name in ("list.txt", "labels.txt")
                    assert outcome.kind in (("read", "refused") if readable else ("refused",)), outcome
                    assert "root:" not in outcome.message or readable
                if kind == "folder":
                    path.rmdir()
                else:
                    missing(path)
            if whole is not None:
                path.write_bytes(whole)
