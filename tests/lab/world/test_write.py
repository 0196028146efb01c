"""Videos of the world: reproducible from the seed, readable like any others, and showing the named action."""

from __future__ import annotations

import os
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from world import write
from world.draw import draw
from world.scenes import ABROAD, HOME, MOVES, video_scenes
from world.splits import CLOSE_SET, ZERO_SHOT, splits
from world.words import ACTIONS, COLOURS, SHAPES, TEXTURES, Object
from world.write import TRAIN, write_action, write_world

from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.items import read_labels, read_list
from mote_fast.runtime.seeding import generator_of

THING = Object("star", "yellow", "striped")


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    """Bytes depend on the arguments alone; another seed gives another video."""
    first, again, other = (
        write_action(tmp_path / f"{name}.mp4", THING, "rise", seed=(seed,)).read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


def hash_of_an_encoding(path: Path) -> str:
    return sha256(write_action(path, THING, "rise", seed=(1,)).read_bytes()).hexdigest()


@pytest.mark.slow
def test_encodings_under_load_are_one_file(tmp_path: Path) -> None:
    """x264's macroblock tree gave a second file in 7 to 34 of 100 encodings of this video; two processes a core."""
    processes = 2 * (os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        hashes = set(pool.map(hash_of_an_encoding, (tmp_path / f"{number}.mp4" for number in range(100))))
    assert len(hashes) == 1


def test_no_instruction_set_changes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file equals that of an encoder without vector instructions, which any processor can run."""
    fast = write_action(tmp_path / "fast.mp4", THING, "rise").read_bytes()
    monkeypatch.setitem(write.ENCODER, "x264-params", f"{write.ENCODER['x264-params']}:no-asm=1")
    assert write_action(tmp_path / "plain.mp4", THING, "rise").read_bytes() == fast


def test_no_number_of_cores_changes_the_file(tmp_path: Path) -> None:
    """x264 writes its settings into the file: it takes one thread wherever it runs."""
    (told,) = re.findall(rb"x264 - core.*?\0", write_action(tmp_path / "a.mp4", THING, "rise").read_bytes(), re.DOTALL)
    assert b" threads=1 " in told
    assert b" lookahead_threads=1 " in told


@pytest.mark.parametrize("domain", [HOME, ABROAD])
def test_files_are_of_their_domain(tmp_path: Path, domain: object) -> None:
    """H.264 at one of the domain's rates and lengths."""
    assert domain in (HOME, ABROAD)
    chosen = HOME if domain is HOME else ABROAD
    info = probe(write_action(tmp_path / "a.mp4", THING, "spin", domain=chosen))
    assert info.codec == "h264"
    assert round(info.fps) in chosen.rates
    assert chosen.seconds[0] - 0.1 <= info.num_frames / info.fps <= chosen.seconds[1] + 0.1


@pytest.mark.parametrize("action", [name for name, each in ACTIONS.items() if each.reverse])
def test_a_move_ends_on_the_other_side(action: str) -> None:
    """An action moves its property from one side to the other; its reverse moves it back."""
    scenes = video_scenes(THING, action, HOME, 20, generator_of("test", action))
    values = {"x": scenes.position[:, 0], "y": scenes.position[:, 1], "size": scenes.size, "strength": scenes.strength}
    for move in ACTIONS[action].moves:
        what, begin, end = MOVES[move]
        change = values[what][-1] - values[what][0]
        assert torch.sign(change) == (1 if end > begin else -1)


@pytest.mark.parametrize("shape", SHAPES)
def test_objects_show_their_colour(shape: str) -> None:
    """Somewhere near its centre an object has its own colour and the frame's corners have not."""
    for colour in COLOURS:
        for texture in TEXTURES:
            random = generator_of("test", shape, colour, texture)
            scenes = video_scenes(Object(shape, colour, texture), "rest", HOME, 1, random)
            (frame,) = draw(scenes, 64, 64, random)
            near = (frame.float() / 255 - scenes.colour[0]).norm(dim=-1) < 0.25
            assert near.sum() > 20, (colour, texture)


def test_a_world_is_complete_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every split has its list, its names and its videos; a second call writes only what is missing."""
    few = {name: replace(split, classes=split.classes[:3]) for name, split in splits(0, 1).items()}
    monkeypatch.setattr(write, "splits", lambda *_: few)
    found = write_world(tmp_path, train_videos=1, test_videos=1)
    assert set(found) == {CLOSE_SET, *ZERO_SHOT}
    for name in (TRAIN, *found):
        items = read_list(tmp_path / f"{name}.txt", tmp_path)
        names = read_labels(tmp_path / f"{name}.csv")
        assert [item.label for item in items] == list(range(len(names)))
    lost = tmp_path / TRAIN / "000_000.mp4"
    kept = (tmp_path / TRAIN / "001_000.mp4").stat().st_mtime_ns
    content = lost.read_bytes()
    lost.unlink()
    write_world(tmp_path, train_videos=1, test_videos=1)
    assert lost.read_bytes() == content
    assert (tmp_path / TRAIN / "001_000.mp4").stat().st_mtime_ns == kept
    assert read_frames(lost, [0]).shape[-1] == 3
