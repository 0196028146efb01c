"""Files that crash, stop or mislead DALI: the caller survives, and every good video of a list is delivered once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mote_fast.data.dali.server import DECODER, DaliServer
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.gpu.decode_server import ReadyClip
from mote_fast.data.gpu.ready_clips import ClipReader
from mote_fast.data.items import VideoItem
from mote_fast.data.loaders import make_loader
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing
from tests.attack.conftest import Attack
from tests.data.mutations import GRAMMARS, mutate

RECIPE = ClipRecipe(frames=4, preprocessing=Preprocessing(32))

# Files that ended DALI's process, where the machine has them.
CRASHES = Path(__file__).parents[3] / "shared" / "reviews" / "reliability"

BASES: dict[str, dict[str, Any]] = {
    "avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "qmax": 4},
    "webm": {"codec": "libvpx-vp9", "g": 6, "deadline": "realtime", "cpu-used": 8},
}


pytestmark = pytest.mark.usefixtures("needs_dali")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A video of each kind that DALI decodes on a CPU."""
    folder = tmp_path_factory.mktemp("good")
    frames = np.random.default_rng(0).integers(0, 255, (20, 12, 16, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    for suffix, options in BASES.items():
        write_video(folder / f"good.{suffix}", frames, **options)
    return {suffix: folder / f"good.{suffix}" for suffix in BASES}


def deliver(paths: list[Path]) -> tuple[list[int], list[int]]:
    """Load a list through DALI; return the indices delivered and those reported."""
    items = [VideoItem(str(path), index) for index, path in enumerate(paths)]
    loader = make_loader(VideoDataset(items, RECIPE), LoaderOptions(8, training=False, workers=2), "dali")
    delivered, reported = [], []
    try:
        for batch in loader.epoch(0):
            assert batch.labels.tolist() == batch.indices.tolist()
            assert batch.pixels.shape == (len(batch.indices), 4, 3, 32, 32)
            delivered += batch.indices.tolist()
            reported += [failure.index for failure in batch.failures]
    finally:
        loader.close()
    return delivered, reported


@pytest.mark.heavy
def test_mutated_files_cost_nothing_but_themselves(good: dict[str, Path], tmp_path: Path, attack: Attack) -> None:
    """Every fourth video is good; all good ones are delivered in order, and each other one is delivered or reported."""
    choice = random.Random(8)
    known = sorted(CRASHES.glob("dali_crash_*"))[: attack.size(2, 100)]
    bad = list(known)
    for number in range(attack.size(24, 1000)):
        suffix = choice.choice(list(BASES))
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(mutate(good[suffix].read_bytes(), GRAMMARS["mkv" if suffix == "webm" else suffix], choice))
        bad.append(path)
    choice.shuffle(bad)
    # Lists of some length: a loader that has given up on a kind of video would not try DALI again.
    for start in range(0, len(bad), 60):
        paths: list[Path] = []
        for number, path in enumerate(bad[start : start + 60]):
            if number % 3 == 0:
                paths.append(good[choice.choice(list(BASES))])
            paths.append(path)
        sound = [index for index, path in enumerate(paths) if path in good.values()]
        delivered, reported = deliver(paths)
        for index, path in enumerate(paths):
            with attack.attempt(f"{index} {path.name}"):
                times = delivered.count(index), reported.count(index)
                assert times in ([(1, 0)] if index in sound else [(1, 0), (0, 1)])
        with attack.attempt("order"):
            assert delivered == sorted(delivered)


LISTS = {
    "an HLS playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n",
    "one after a mark": b"\xef\xbb\xbf#EXTM3U\n#EXTINF:2,\nother.ts\n",
    "one after blanks": b" \n\t#EXTM3U\n#EXTINF:2,\nother.ts\n",
    "a concat list": b"ffconcat version 1.0\nfile other.avi\n",
    "a plain concat list": b"file other.avi\nfile other.avi\n",
    "a DASH manifest": b"<?xml version='1.0'?>\n<MPD><Period/></MPD>",
    "a session": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "a smooth manifest": b"<SmoothStreamingMedia/>",
    "an IMF list": b"<?xml version='1.0'?><CompositionPlaylist/>",
}


@pytest.mark.heavy
def test_lists_do_not_reach_dali(good: dict[str, Path], tmp_path: Path, attack: Attack) -> None:
    """Whatever they begin with, and whatever their name: DALI cannot be told which formats it may open."""
    row = torch.empty(RECIPE.clip_shape, dtype=torch.uint8)
    server = DaliServer(RECIPE, "cpu", None, 1, 1)
    for suffix, sound in good.items():
        data = sound.read_bytes()
        for kind, text in LISTS.items():
            contents = [text, data[:4] + text, data[:12] + text + data[12:], text + data]
            for number, content in enumerate(contents):
                path = tmp_path / f"list.{suffix}"
                path.write_bytes(content)
                with attack.attempt(f"{kind} {suffix} {number}"):
                    reader = ClipReader(VideoDataset([VideoItem(str(path), 0)], RECIPE), DECODER.takes["cpu"])
                    found = reader((0, 0, ""), row)
                    assert not isinstance(found, ReadyClip) or b"<" not in content.partition(b"\0")[0]
                    assert not isinstance(found, ReadyClip) or content.startswith(data[:12])
            # The file is exchanged after it was looked at.
            path = tmp_path / f"exchanged.{suffix}"
            path.write_bytes(data)
            found = ClipReader(VideoDataset([VideoItem(str(path), 0)], RECIPE), DECODER.takes["cpu"])((0, 0, ""), row)
            assert isinstance(found, ReadyClip)
            path.write_bytes(text)
            with attack.attempt(f"exchanged for {kind} {suffix}"):
                assert "changed" in (server.feed([found]) or "")
                assert "changed" in str(server.attempt(found, timed=False))
