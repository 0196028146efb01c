"""Generated videos of every kind, honest and lying: frame n is the n-th picture of playing the file from the start.

Each picture shows its number and which way up it is. The truth is the order in which the pictures were drawn, and a
decoding of every packet without seeking (``truth.play``). A file that does not read like that raises a typed error.
"""

from __future__ import annotations

import logging
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mote_fast.data import probe, read_frames
from mote_fast.errors import UndecodableVideoError
from tests.conftest import why_no_dali
from tests.data.corpus.checks import backends
from tests.data.corpus.pictures import draw, read
from tests.data.corpus.recipes import ENCODERS, LIES, Recipe, draw_recipe
from tests.data.corpus.survey import DALI_CODECS, Survey, check_recipe, check_with_dali, survey
from tests.data.corpus.truth import play
from tests.data.corpus.writing import write

logger = logging.getLogger(__name__)

# Codec and container of honest files that may be refused; none is.
REFUSED: frozenset[tuple[str, str]] = frozenset()

# Files of the long suite, and how many lying ones of them "auto" may refuse.
LONG, REFUSED_SHARE = 2000, 0.1


def _assert_read(found: Survey) -> None:
    """No silent difference, and honest files are read."""
    assert not found.failures, "\n".join(found.failures[:40])
    refused = [
        f"{recipe!r} by {where}: {reason}"
        for where, recipe, reason in found.refused_honest
        if where != "everyone"
        and not where.startswith("torchcodec")
        and (recipe.codec, recipe.container) not in REFUSED
    ]
    assert not refused, "\n".join(refused[:40])


@pytest.mark.parametrize("codec", sorted(ENCODERS))
def test_honest_files_are_read(codec: str, tmp_path: Path) -> None:
    """Every codec, in one of its containers with a random structure, is read by every backend."""
    found, _ = survey([draw_recipe(random.Random(codec), codec, lie="")], tmp_path)
    assert found.counts["files"] == 1
    _assert_read(found)


@pytest.mark.parametrize("lie", sorted(LIES))
def test_lies_are_noticed(lie: str, tmp_path: Path) -> None:
    """Files whose container is wrong about their packets."""
    draws = random.Random(lie)
    found, _ = survey([draw_recipe(draws, lie=lie) for _ in range(2)], tmp_path)
    assert found.counts["files"]
    _assert_read(found)


@pytest.mark.parametrize("codec", sorted(DALI_CODECS))
@pytest.mark.heavy
def test_dali_reads_the_same_pictures(codec: str, tmp_path: Path) -> None:
    """DALI counts frames by packets, so it must not get a file whose packets are not its pictures."""
    if reason := why_no_dali():
        pytest.skip(reason)
    draws, paths = random.Random(codec), {}
    recipes = [draw_recipe(draws, codec, lie) for lie in ("", "", "all_key", "no_key", "pts_is_dts", "second_stream")]
    pix_fmt = ENCODERS[codec].pix_fmts[0]
    recipes += [Recipe(codec, "mp4", orientation=orientation, pix_fmt=pix_fmt) for orientation in range(8)]
    for number, recipe in enumerate(recipes):
        path = write(recipe, tmp_path, str(number))
        paths[path] = play(path), recipe.orientation
    assert not check_with_dali(paths)


# Files that were once read wrongly. Containers that mark every packet a key frame, or store no time of presentation;
# mirrored pictures; rotations in messages; an alpha plane; a comment behind the last picture; pictures that the decoder
# leaves out; packets of several pictures, of none, and of damage; times out of order; palettes.
KNOWN = [
    Recipe("mpeg4", "mp4", 40, gop=20, lie="no_stss"),
    Recipe("h263", "3gp", 40, gop=20, rate=Fraction(30000, 1001), lie="no_stss"),
    Recipe("msmpeg4v3", "avi", 40, gop=20, lie="all_key"),
    Recipe("wmv2", "avi", 40, gop=20, lie="all_key"),
    Recipe("h263", "h263", 40, gop=20, rate=Fraction(30000, 1001)),
    Recipe("h261", "h261", 40, gop=20, rate=Fraction(30000, 1001)),
    Recipe("h264", "mp4", 40, gop=250, b_frames=3, lie="pts_is_dts"),
    Recipe("h264", "mp4", 5, orientation=4),
    Recipe("h264", "mp4", 10, orientation=1, by_message=True),
    Recipe("h264", "avi", 12, orientation=1, by_message=True),
    Recipe("av1", "mp4", 10, lie="noisy_second_stream"),
    Recipe("gif", "gif", 3, pix_fmt="rgb8", lie="comment"),
    Recipe("mpeg4", "3gp", 29, gop=5, b_frames=1, rate=Fraction(0), interlaced=True, lie="all_key", seed=1),
    Recipe("prores", "mkv", 33, start=3, pix_fmt="yuv422p10le", lie="empty_packets", seed=51356),
    Recipe("utvideo", "nut", 33, rate=Fraction(0), pix_fmt="gbrp", lie="garbage", seed=39676),
    Recipe("hevc", "flv", 18, 5, 3, True, start=100, pix_fmt="gbrp", full_range=True, lie="merged", seed=16214),
    Recipe("h264", "asf", 30, 1, 3, True, True, Fraction(1), pix_fmt="yuv420p10le", lie="jittered_pts", seed=23531),
    Recipe("png", "nut", 20, start=3, pix_fmt="rgb24", lie="garbage", seed=1087),
    Recipe("h264", "avi", 22, 1, 2, rate=Fraction(1), pix_fmt="yuv444p"),
    Recipe("qtrle", "mov", 9, pix_fmt="gray"),
    Recipe("msrle", "avi", 9, pix_fmt="pal8"),
    Recipe("smc", "mov", 9, pix_fmt="pal8"),
    Recipe("zmbv", "avi", 9, pix_fmt="pal8"),
    Recipe("png", "mov", 9, pix_fmt="pal8"),
]

# Files whose decoder reports errors, or marks pictures corrupt; playing passes over them.
DAMAGED = [
    Recipe("mpeg4", "mp4", 28, gop=1, rate=Fraction(1000), lie="no_picture", seed=33214),
    Recipe("zmbv", "avi", 34, rate=Fraction(1000), pix_fmt="bgr0", lie="merged", seed=20696),
    Recipe("cfhd", "mov", 27, rate=Fraction(0), pix_fmt="yuv422p10le", lie="merged", seed=48637),
    Recipe("mpeg1", "avi", 26, gop=1, rate=Fraction(30), lie="merged", seed=45543),
    Recipe("wmv1", "asf", 32, rate=Fraction(30), start=3, lie="first_packet_lost", seed=42343),
]


@pytest.mark.parametrize("recipe", [*KNOWN, *DAMAGED], ids=str)
def test_known_mistakes(recipe: Recipe, tmp_path: Path) -> None:
    """They are read as they play; only what the decoder complains of is refused."""
    outcome = check_recipe(recipe, write(recipe, tmp_path))
    assert not outcome.wrong
    assert recipe in DAMAGED or not outcome.refused.keys() & {"probe", "auto all"}


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    """FFmpeg takes ``clip%03d.png`` for a series of pictures; a path names one file."""
    Image.new("RGB", (16, 16), "red").save(tmp_path / "clip%03d.png")
    for number in (1, 2):
        Image.new("RGB", (64, 48), "blue").save(tmp_path / f"clip{number:03d}.png")
    path = tmp_path / "clip%03d.png"
    try:
        info = probe(path)
    except UndecodableVideoError:
        return
    assert (info.num_frames, info.width, info.height) == (1, 16, 16)
    assert read_frames(path, [0])[0, 8, 8].tolist() == [255, 0, 0]


@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_webp(orientation: int, backend: str, tmp_path: Path) -> None:
    """FFmpeg before version 7 does not turn it; the backends must agree with ``probe`` and with Pillow."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.webp"
    Image.fromarray(draw(5, 128, 96)).save(path, exif=exif, lossless=True)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    try:
        frame = read_frames(path, [0], backend)[0].numpy()
    except UndecodableVideoError:
        assert backend == "torchcodec"
        return
    info = probe(path)
    assert frame.shape[:2] == (info.height, info.width)
    assert read(frame) == read(upright)


@pytest.mark.slow
def test_two_thousand_files(tmp_path: Path) -> None:
    """Random codec, container, group of pictures, rate, orientation, colour and lie; prints what was refused."""
    draws = random.Random(0)
    recipes = [draw_recipe(draws) for _ in range(LONG)]
    found, kept = survey(recipes, tmp_path, DALI_CODECS)
    by_name = {f"{number:04d}": recipe for number, recipe in enumerate(recipes)}
    if why_no_dali() is None:
        playable = {path: (play(path), by_name[path.stem].orientation) for path in kept}
        found.failures += [f"{by_name[line[:4]]!r}: {line}" for line in check_with_dali(playable)]
        found.counts["files given to DALI"] = len(playable)
    for what, count in sorted(found.counts.items()):
        logger.info("%s: %d", what, count)
    for line in found.failures:
        logger.info("%s", line)
    assert found.counts["files"] > 0.97 * LONG
    _assert_read(found)
    lying = found.counts["files"] - found.counts["honest files"]
    assert found.counts["refused by probe"] + found.counts["refused by auto"] <= REFUSED_SHARE * lying
    assert found.counts["honest, refused by torchcodec"] <= 0.3 * found.counts["honest files"]
