"""Tar shards of strangers: damaged headers, odd members and false indices cost samples, and nothing else."""

from __future__ import annotations

import contextlib
import json
import random
import tarfile
from pathlib import Path

import pytest

from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.shards.shard_index import INDEX_FILE, ShardIndex, TarShard, key_of, read_shard_index
from mote_fast.data.shards.shard_loader import ShardLoader
from mote_fast.data.shards.shard_stream import RawSample, ShardStream, read_stream
from mote_fast.data.transforms import Preprocessing
from mote_fast.runtime.workers import WorkerPool
from tests.attack.conftest import Attack
from tests.attack.test_attack_annotations import VALUES, changed, refusal
from tests.data.conftest import NumberedVideos

pytestmark = pytest.mark.heavy

SAMPLES, CLASSES = 5, 3
# Seconds and bytes that reading a shard of a few kilobytes may take.
HANG, MEMORY = 20.0, 2**28

NAMES = [
    "", ".", "..", "../../a.mp4", "/etc/passwd", "a/../../b", "C:\\x.mp4", "0000000001.", "0000000001.json",
    "0000000001.mp4", "0000000001.a/b.mp4", "0000000001.\n.mp4", "\udcff.mp4", "x" * 100, "shards.json",
    "0000000099.mp4",
]  # fmt: skip
TYPES = [b"0", b"\0", *(b"%d" % kind for kind in range(1, 8)), b"x", b"g", b"X", b"S", b"L", b"K", b"V", b"D", b"\xff"]
SIZES = [0, 1, 511, 512, 513, 2**20, 8**11 - 1, 64 << 30, 2**63, 2**80, -1, -512, -(2**63)]
ABOUTS = [b"", b"[" * 100_000, b'{"label": 1e400}', b'{"label": NaN}', b'{"label": %d}' % 2**70, b"\xff", b"null"]


def entry(name: str, content: bytes) -> list[bytes]:
    """The header of a member and its padded data."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return [header.tobuf(tarfile.USTAR_FORMAT), content + bytes(-len(content) % tarfile.BLOCKSIZE)]


def sound(videos: list[bytes]) -> list[list[bytes]]:
    """The members of a shard: of each sample its video and its JSON."""
    return [
        each
        for index, video in enumerate(videos)
        for each in (
            entry(f"{key_of(index)}.mp4", video),
            entry(f"{key_of(index)}.json", json.dumps({"index": index, "label": index % CLASSES}).encode()),
        )
    ]


def forged(dice: random.Random) -> bytes:
    """A header with a right checksum, and any name, type and sizes."""
    header = tarfile.TarInfo(dice.choice(NAMES))
    header.type, header.size, header.linkname = dice.choice(TYPES), dice.choice(SIZES), dice.choice(NAMES)
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")[-tarfile.BLOCKSIZE :])
    if dice.random() < 0.3:
        # Where GNU's sparse files and the prefix of a name lie.
        at = dice.randrange(345, 500)
        block[at : at + 12] = bytes(dice.choice((0, 47, 46, 55, 128, 255)) for _ in range(12))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def damaged(members: list[list[bytes]], dice: random.Random) -> bytes:
    """A shard with one to three kinds of damage."""
    members = [list(member) for member in members]
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(members))
        match dice.randrange(7):
            case 0:
                members[at][0] = forged(dice)
            case 1:
                members.insert(at, [forged(dice), bytes(512 * dice.randrange(3))])
            case 2:
                members.insert(at, list(dice.choice(members)))
            case 3:
                members.pop(at)
                members = members or [entry("a", b"")]
            case 4:
                other = dice.randrange(len(members))
                members[at], members[other] = members[other], members[at]
            case 5:
                members[at] = entry(dice.choice(NAMES), dice.choice(ABOUTS))
            case _:
                block = bytearray(members[at][0])
                for _ in range(dice.randint(1, 4)):
                    block[dice.randrange(512)] = dice.randrange(256)
                members[at][0] = bytes(block)
    content = b"".join(part for member in members for part in member) + bytes(1024)
    return content[: dice.randrange(len(content))] if dice.random() < 0.2 else content


def read(folder: str) -> list[tuple[int, int | None, int]]:
    """Read a shard; return of each sample its index, its label or None, and the length of its video or reason."""
    part = TarShard("s.tar", 0, tuple(range(SAMPLES)))
    stream = ShardStream([part], [SAMPLES])
    found = list(read_stream(Path(folder), stream, shuffle_buffer=0, seed_parts=(), classes=CLASSES))
    return [
        (each.index, each.label, len(each.video))
        if isinstance(each, RawSample)
        else (each.index, None, len(each.reason))
        for each in found
    ]


def test_damaged_shards(attack: Attack, tmp_path: Path) -> None:
    """Each sample comes once, in order, with a class's label, or is named; in the memory and time of a small file."""
    dice = random.Random(17)
    folder = tmp_path / "shards"
    folder.mkdir()
    videos = [dice.randbytes(dice.choice((1, 512, 900))) for _ in range(SAMPLES)]
    with contextlib.closing(WorkerPool(read, 1, HANG, memory_limit=MEMORY)) as pool:
        for number in range(attack.size(400, 15_000)):
            content = damaged(sound(videos), dice)
            (folder / "s.tar").write_bytes(content)
            with attack.attempt(number):
                found = pool.run(str(folder))
                assert [index for index, _, _ in found] == list(range(SAMPLES))
                for _, label, length in found:
                    assert label in (None, *range(CLASSES))
                    assert length <= (600 if label is None else len(content))
                # Nothing is written anywhere around.
                assert [path.name for path in tmp_path.rglob("*")] == ["shards", "s.tar"]


def check_index(folder: Path) -> None:
    index = read_shard_index(folder)
    indices = [each for shard in index.shards for each in shard.indices]
    assert len(set(indices)) == len(indices) == index.samples
    assert all((folder / shard.name).parent == folder for shard in index.shards)
    assert all(isinstance(label, str) for label in index.labels)


def test_damaged_indices(attack: Attack, tmp_path: Path) -> None:
    """An index is refused with one line, or names files of its folder and each video once."""
    dice = random.Random(18)
    failure = Failure(9, "a.mp4", "MissingVideoError", "no such file")
    shards = (TarShard("s.tar", 1, (0, 1, 2)), TarShard("t.tar", 2, (3, 4)))
    text = ShardIndex(tmp_path, shards, (failure,), ("a", "b")).document()
    for number in range(attack.size(200, 10_000)):
        if number % 2:
            document = json.dumps(changed(json.loads(text), dice))
        else:
            letters = list(text)
            for _ in range(dice.randint(1, 3)):
                letters[dice.randrange(len(letters))] = dice.choice('0123456789-."{}[]:,\0/e ')
            document = "".join(letters)
        (tmp_path / INDEX_FILE).write_text(document, encoding="utf-8", errors="surrogatepass")
        with attack.attempt(document):
            said = refusal(check_index, tmp_path)
            assert not said or str(tmp_path / INDEX_FILE) in said
            assert len(said) < 600
            assert "\n" not in said


def odd_members(video: bytes) -> dict[str, list[list[bytes]]]:
    """Members in place of the second sample's, by what is odd about them."""

    def header(name: str, kind: bytes, size: int = 0, link: str = "") -> list[bytes]:
        block = tarfile.TarInfo(name)
        block.type, block.size, block.linkname = kind, size, link
        return [block.tobuf(tarfile.GNU_FORMAT)]

    key = key_of(1)
    about = entry(f"{key}.json", b'{"label": 1}')
    odd = {
        "symbolic link": [header(f"{key}.mp4", tarfile.SYMTYPE, link="/etc/passwd"), about],
        "hard link": [header(f"{key}.mp4", tarfile.LNKTYPE, link=f"{key_of(0)}.mp4"), about],
        "device": [header(f"{key}.mp4", tarfile.CHRTYPE), about],
        "pipe": [header(f"{key}.mp4", tarfile.FIFOTYPE), about],
        "path": [entry(f"../{key}.mp4", video), entry(f"/tmp/{key}.json", b"{}")],
        "folder in the name": [entry(f"{key}.a/b.mp4", video), about],
        "twice": [entry(f"{key}.mp4", video), entry(f"{key}.avi", video), about],
        "sparse file": [header(f"{key}.mp4", tarfile.GNUTYPE_SPARSE), about],
        "larger than the file": [about, header(f"{key}.mp4", tarfile.REGTYPE, 64 << 30)],
        "long name": [header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 1 << 40), about],
        "extended header": [header("x", tarfile.XHDTYPE, 1 << 40), about],
        "deep JSON": [entry(f"{key}.mp4", video), entry(f"{key}.json", b"[" * 100_000)],
    }
    labels: list[object] = [2**70, -100, 10**9, 1.5, *VALUES]
    for label in labels:
        if label not in range(CLASSES) or isinstance(label, bool):
            text = json.dumps({"label": label}).encode()
            odd[f"label {label!r}"] = [entry(f"{key}.mp4", video), entry(f"{key}.json", text)]
    return odd


def test_epochs_over_odd_members(attack: Attack, tmp_path: Path) -> None:
    """Training and evaluation deliver every other sample, name the odd one with its shard, and end."""
    frames = NumberedVideos.draw(8)
    video = Path(write_video(tmp_path / "a.mp4", frames)).read_bytes()
    recipe = ClipRecipe(frames=2, preprocessing=Preprocessing(32))
    kinds = odd_members(video)
    folder = tmp_path / "shards"
    folder.mkdir()
    rest = sound([video] * SAMPLES)
    shard, other = TarShard("s.tar", 1, tuple(range(SAMPLES))), TarShard("t.tar", 1, (SAMPLES,))
    (folder / INDEX_FILE).write_text(ShardIndex(folder, (shard, other)).document())
    last = sound([video] * (SAMPLES + 1))[-2:]
    (folder / "t.tar").write_bytes(b"".join(map(b"".join, last)) + bytes(1024))
    for kind in kinds if attack.full else list(kinds)[::2]:
        (folder / "s.tar").write_bytes(b"".join(map(b"".join, [*rest[:2], *kinds[kind], *rest[4:]])) + bytes(1024))
        for training in (False, True):
            for workers in (0, 1) if attack.full else (0,):
                options = LoaderOptions(2, training, workers=workers)
                loader = ShardLoader(folder, recipe, options, classes=CLASSES, decode_backend="pyav")
                with attack.attempt(f"{kind}, training {training}, {workers} workers"), contextlib.closing(loader):
                    batches = list(loader.epoch(0))
                    named = {failure.index for failure in loader.faults.failures}
                    assert 1 in named
                    assert all(f"{folder}/s.tar/" in failure.path for failure in loader.faults.failures)
                    seen = {index for batch in batches for index in batch.indices.tolist()}
                    assert seen == set(range(SAMPLES + 1)) - named
                    # Only where the position of the next header is lost does more than the odd member go.
                    lost = kind in ("larger than the file", "long name", "extended header", "sparse file")
                    assert lost or named == {1}
                    assert not training or all(len(batch.indices) == 2 for batch in batches)
