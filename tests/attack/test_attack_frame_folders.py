"""Folders of extracted frames made to do harm: other formats, pipes, bombs and damaged images."""

from __future__ import annotations

import io
import os
import random
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mote_fast.data.decoding.frame_folders import probe_frame_folder, read_frame_folder
from mote_fast.data.decoding.video_info import MAX_FRAMES, MAX_IMAGE_BYTES, MAX_MEMORY
from mote_fast.errors import MoteError, VideoError
from mote_fast.runtime.workers import WorkerLostError, WorkerPool
from tests.attack.conftest import Attack
from tests.data.bombs import png

# Seconds after which reading a folder counts as hanging.
HANG = 60.0

NAME = "img_00001.jpg"


def read(task: tuple[str, int]) -> tuple[str, int]:
    """Probe and read a folder; return what happened, and the process's peak memory in MiB."""
    folder, count = task
    try:
        info = probe_frame_folder(folder, count)
        frames = read_frame_folder(folder, range(min(count, 8)), count)
        outcome = "frames" if frames.shape[1:] == (info.height, info.width, 3) else f"shape {tuple(frames.shape)}"
    except MoteError as error:
        outcome = "refused" if isinstance(error, VideoError) else repr(error)
    return outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def read_watched(folder: Path, count: int, memory: int = 1024) -> str:
    """Read a folder in a process of its own; return what happened."""
    pool = WorkerPool(read, 1, HANG, memory_limit=MAX_MEMORY)
    try:
        outcome, peak = pool.run((str(folder), count))
    except WorkerLostError as lost:
        return str(lost)
    finally:
        pool.close()
    return outcome if peak < memory else f"{outcome}, but {peak} MiB"


def encoded(name: str, **options: object) -> bytes:
    """A small picture in a format of Pillow's."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, name, **options)
    return out.getvalue()


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file."""
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def text_bomb() -> bytes:
    """A PNG whose comment unpacks to a gigabyte."""
    data = png(16, 16)
    # Every process that reads imports this module, so one packed MiB is repeated, as in ``png``.
    packer = zlib.compressobj(9, wbits=-15)
    part = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = b"\x78\xda" + part * 1024 + b"\x03\x00" + struct.pack(">HH", 2**30 % 65521, 1)
    body = b"zTXta\0\0" + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


HUGE = (1 << 24) - 1

# What a folder's first image holds, and whether it may be read.
CONTENTS = {
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n", False),
    "pdf": (b"%PDF-1.4\n1 0 obj\n", False),
    "gif": (encoded("GIF"), False),
    "tiff": (encoded("TIFF"), False),
    "ico": (encoded("ICO"), False),
    "ppm": (encoded("PPM"), False),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", False),
    "a png": (encoded("PNG"), True),
    "a bmp": (encoded("BMP"), True),
    "a webp": (encoded("WEBP"), True),
    "nothing": (b"", False),
    "an 8 K png of 16 bits": (png(8192, 8192, depth=16, color=6), True),
    "a larger png": (png(30_000, 30_000), False),
    "a png with a comment of a gigabyte": (text_bomb(), False),
    "a bmp of 2^31 rows": (
        b"BM" + struct.pack("<IIIIiiHHI", 70, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0) + bytes(40),
        False,
    ),
    "a webp that declares a huge canvas": (
        riff((b"VP8X", b"\x02\0\0\0" + struct.pack("<I", HUGE)[:3] + b"\xff\0\0"), (b"ANIM", bytes(6))),
        False,
    ),
}  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize("kind", CONTENTS)
def test_content_decides_and_not_the_name(kind: str, tmp_path: Path, attack: Attack) -> None:
    """Every file has the name of a JPEG; other formats than those of frames are refused, and none fills the memory."""
    content, readable = CONTENTS[kind]
    (tmp_path / NAME).write_bytes(content)
    with attack.attempt(kind):
        assert read_watched(tmp_path, 1, 1400) == ("frames" if readable else "refused")


@pytest.mark.heavy
def test_no_program_is_started(tmp_path: Path, attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand an EPS to Ghostscript, whatever its name."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    (tmp_path / NAME).write_bytes(CONTENTS["eps"][0])
    with attack.attempt("eps"):
        assert read((str(tmp_path), 1))[0] == "refused"
        assert not (tmp_path / "ran").exists()


@pytest.mark.heavy
def test_only_regular_files_of_bounded_size_are_opened(tmp_path: Path, attack: Attack) -> None:
    """A pipe must not be waited for, nor a device read; a sparse file of a terabyte costs nothing."""
    (tmp_path / "target").mkdir()
    kinds = {
        "a pipe": lambda path: os.mkfifo(path),
        "a pipe behind a link": lambda path: (os.mkfifo(tmp_path / "pipe"), path.symlink_to(tmp_path / "pipe")),
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a terminal": lambda path: path.symlink_to("/dev/tty"),
        "a folder": lambda path: path.mkdir(),
        "a link to itself": lambda path: path.symlink_to(path),
        "a large file": lambda path: (path.write_bytes(encoded("BMP")), os.truncate(path, MAX_IMAGE_BYTES + 1)),
    }
    for number, (kind, make) in enumerate(kinds.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / NAME)
        with attack.attempt(kind):
            assert read_watched(folder, 1, 600) == "refused"


@pytest.mark.heavy
def test_many_images_take_the_memory_of_their_frames(tmp_path: Path, attack: Attack) -> None:
    """Eight pictures of half a megabyte make 1.5 GiB of frames; beside them, one picture at a time takes memory."""
    data, count = png(8192, 8192, depth=16, color=6), attack.size(2, 8)
    for number in range(count):
        (tmp_path / f"img_{number + 1:05d}.jpg").write_bytes(data)
    with attack.attempt("pictures"):
        assert read_watched(tmp_path, count, 192 * count + 1024) == "frames"
    with attack.attempt("more frames than a list may state"):
        assert read_watched(tmp_path, MAX_FRAMES + 1) == "refused"
    with attack.attempt("more than a machine counts"):
        assert read_watched(tmp_path, 10**30) == "refused"


def damage(data: bytes, choice: random.Random) -> bytes:
    """Change some bytes, mostly of the header; cut or repeat a part."""
    out = bytearray(data)
    for _ in range(choice.randint(1, 8)):
        out[choice.randrange(min(len(out), choice.choice((40, 200, len(out)))))] = choice.choice(
            (0, 255, choice.randrange(256))
        )
    if choice.random() < 0.2:
        del out[choice.randrange(1, len(out)) :]
    if choice.random() < 0.2:
        at = choice.randrange(len(out))
        out[at:at] = out[at : at + 64] * choice.choice((1, 50))
    return bytes(out)  # fmt: skip


@pytest.mark.heavy
def test_damaged_images_are_read_or_refused(tmp_path: Path, attack: Attack) -> None:
    """Typed errors only, no hang, no crash, bounded memory."""
    choice = random.Random(21)
    bases = [
        encoded("JPEG"),
        encoded("JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
        encoded("PNG"),
        encoded("WEBP"),
        encoded("WEBP", lossless=True),
        encoded("BMP"),
        png(32, 24, depth=16, color=6),
    ]
    pool = WorkerPool(read, 1, HANG, memory_limit=MAX_MEMORY)
    try:
        for number in range(attack.size(400, 40_000)):
            (tmp_path / NAME).write_bytes(damage(choice.choice(bases), choice))
            with attack.attempt(number):
                outcome, peak = pool.run((str(tmp_path), 1))
                assert outcome in ("frames", "refused")
                assert peak < 1400
    finally:
        pool.close()
