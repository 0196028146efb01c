"""Files from the web: continued after interruptions, checked, and whole or absent."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mote_fast.errors import CheckpointError
from mote_fast.runtime import transfer
from mote_fast.runtime.transfer import fetch
from tests.full_disk import files_of_at_most
from tests.web import Site, left_in, serve

CONTENT = random.Random(1).randbytes(3 * 2**20 + 17)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(CONTENT) as site:
        yield site


def interrupt_after(limit: int) -> transfer.TransferProgress:
    """A callback that ends a transfer, as Ctrl-C does, once ``limit`` bytes are there."""

    def stop(done: int, _: int) -> None:
        if done >= limit:
            raise KeyboardInterrupt

    return stop


def test_a_file_is_fetched_once_and_checked_ever_after(site: Site, tmp_path: Path) -> None:
    """The second use opens no connection; a file that changed on the disk is refused by name, and is not deleted."""
    target = tmp_path / "models" / "weights.bin"
    told: list[tuple[int, int]] = []
    assert fetch(site.url, target, sha256=site.sha256, progress=lambda *done: told.append(done)) == target
    assert target.read_bytes() == CONTENT
    assert (told[0], told[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))
    fetch(site.url, target, sha256=site.sha256)
    assert len(site.requests) == 1
    assert left_in(tmp_path / "models") == {"weights.bin"}
    target.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"weights\.bin: its SHA-256 is .* published.*delete it"):
        fetch(site.url, target, sha256=site.sha256)
    assert target.read_bytes() == b"other"


def test_a_hash_that_nobody_published_is_recorded(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, checked at every use, and a later fetch of another file under the address is refused."""
    target = tmp_path / "weights.bin"
    fetch(site.url, target)
    assert site.sha256 in caplog.text
    assert (tmp_path / "weights.bin.sha256").read_text() == f"{site.sha256}  weights.bin\n"
    target.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"recorded in .*weights\.bin\.sha256"):
        fetch(site.url, target)
    target.unlink()
    site.content, site.etag = CONTENT[::-1], '"second"'
    with pytest.raises(CheckpointError, match="damaged or another file"):
        fetch(site.url, target)
    assert left_in(tmp_path) == {"weights.bin.sha256"}
    (tmp_path / "weights.bin.sha256").write_text("nonsense")
    with pytest.raises(CheckpointError, match="delete it"):
        fetch(site.url, target)


def test_a_file_put_there_by_hand_is_recorded_too(tmp_path: Path) -> None:
    """Someone without a network copies the file; nothing is fetched."""
    target = tmp_path / "weights.bin"
    target.write_bytes(CONTENT)
    fetch("https://localhost:1/weights.bin", target)
    assert hashlib.sha256(CONTENT).hexdigest() in (tmp_path / "weights.bin.sha256").read_text()


@pytest.mark.parametrize("etag", ['"first"', None])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("hashed", [True, False])
def test_an_interrupted_transfer_is_continued(
    site: Site, tmp_path: Path, etag: str | None, ranges: bool, hashed: bool
) -> None:
    """Only what is missing is asked for, unless the server cannot say that the rest belongs to the same version."""
    site.etag, site.ranges = etag, ranges
    target, sha256 = tmp_path / "weights.bin", site.sha256 if hashed else None
    with pytest.raises(KeyboardInterrupt):
        fetch(site.url, target, sha256=sha256, progress=interrupt_after(2**20))
    assert not target.exists()
    fetch(site.url, target, sha256=sha256)
    assert target.read_bytes() == CONTENT
    asked = etag is not None or hashed
    assert site.requests == [None, f"bytes={2**20}-" if asked else None]


def test_pieces_of_two_versions_are_never_joined(site: Site, tmp_path: Path) -> None:
    """A file that changed on the server, or became shorter, is fetched from its start."""
    target = tmp_path / "weights.bin"
    for version, content in enumerate((CONTENT[::-1], CONTENT[: 2**19])):
        with pytest.raises(KeyboardInterrupt):
            fetch(site.url, target, progress=interrupt_after(2**20))
        site.content, site.etag = content, f'"{version}"'
        fetch(site.url, target)
        assert target.read_bytes() == content
        for path in tmp_path.iterdir():
            path.unlink()
        site.content = CONTENT


def test_what_a_killed_process_left_beside_a_whole_file_is_removed(site: Site, tmp_path: Path) -> None:
    """Killed between the renaming and the end, it leaves its lock, maybe its note and the folder of its part."""
    target = tmp_path / "weights.bin"
    fetch(site.url, target, sha256=site.sha256)
    for name in (".weights.bin.abcdefgh.part", ".weights.bin.sha256.abcdefgh.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    for name in (".weights.bin.lock", ".weights.bin.partial.json"):
        (tmp_path / name).write_text("{}")
    fetch(site.url, target, sha256=site.sha256)
    assert left_in(tmp_path) == {"weights.bin"}
    assert len(site.requests) == 1


def test_a_part_without_its_note_is_not_trusted(site: Site, tmp_path: Path) -> None:
    """Bytes of unknown origin, and more bytes than the file has, are dropped."""
    target = tmp_path / "weights.bin"
    (tmp_path / ".weights.bin.partial").write_bytes(b"x" * 1000)
    fetch(site.url, target, sha256=site.sha256)
    target.unlink()
    with pytest.raises(KeyboardInterrupt):
        fetch(site.url, target, sha256=site.sha256, progress=interrupt_after(2**20))
    (tmp_path / ".weights.bin.partial").write_bytes(CONTENT * 2)
    fetch(site.url, target, sha256=site.sha256)
    assert target.read_bytes() == CONTENT


def test_a_lost_connection_is_followed_by_another(site: Site, tmp_path: Path) -> None:
    """As long as each brings something."""
    site.drop_after = 2**20
    fetch(site.url, tmp_path / "weights.bin", sha256=site.sha256)
    assert site.requests == [None, *(f"bytes={start * 2**20}-" for start in (1, 2, 3))]


def test_a_network_that_fails_for_good_keeps_what_came(site: Site, tmp_path: Path) -> None:
    """The error says how much there is and where the file goes; the next attempt goes on from there."""
    target = tmp_path / "weights.bin"
    site.drop_after = 0
    with pytest.raises(CheckpointError, match=r"put it at .*weights\.bin") as caught:
        fetch(site.url, target)
    assert "\n" not in str(caught.value)
    assert left_in(tmp_path) == set()
    site.drop_after = None
    with pytest.raises(KeyboardInterrupt):
        fetch(site.url, target, progress=interrupt_after(2**21))
    site.status = 503
    with pytest.raises(CheckpointError, match=r"503 Service Unavailable.*2\.1 MB are kept"):
        fetch(site.url, target)
    site.status = None
    fetch(site.url, target)
    assert site.requests[-1] == f"bytes={2**21}-"


def test_a_wrong_hash_leaves_nothing(site: Site, tmp_path: Path) -> None:
    """Neither the file nor its parts."""
    with pytest.raises(CheckpointError, match="expected " + "0" * 64):
        fetch(site.url, tmp_path / "weights.bin", sha256="0" * 64)
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 5}, "expected 5"),
        ({"length": False}, "does not say how large"),
        ({"claimed": transfer.MAX_FILE_BYTES + 1}, "more than"),
        ({"location": "http://example.invalid/weights.bin"}, "not https"),
        ({"location": "file:///etc/passwd"}, "302 Found"),
        ({"status": 404}, "404 Not Found"),
        ({"status": 206}, "which was not asked for"),
    ],
)
def test_what_a_server_may_not_do(tmp_path: Path, options: dict[str, object], words: str) -> None:
    """Sizes are bounded before anything is written, and redirects lead to https alone."""
    size = options.pop("size", None)
    with serve(CONTENT, **options) as site, pytest.raises(CheckpointError, match=words):
        fetch(site.url, tmp_path / "weights.bin", size=size)  # pyright: ignore[reportArgumentType]
    assert left_in(tmp_path) == set()


def test_plain_http_is_refused(tmp_path: Path) -> None:
    """Except from this machine, nothing is fetched that anyone on the way could exchange."""
    for url in ("http://example.invalid/w.bin", "file:///etc/passwd", "ftp://example.invalid/w.bin", "w.bin"):
        with pytest.raises(CheckpointError, match="only https"):
            fetch(url, tmp_path / "weights.bin")
    assert left_in(tmp_path) == set()


def test_a_redirect_keeps_the_range(site: Site, tmp_path: Path) -> None:
    """Releases are behind a redirect, whose target changes."""
    with serve(b"", location=site.url) as door:
        target = tmp_path / "weights.bin"
        with pytest.raises(KeyboardInterrupt):
            fetch(door.url, target, progress=interrupt_after(2**20))
        fetch(door.url, target)
    assert site.requests == [None, f"bytes={2**20}-"]


def test_a_full_disk_gets_its_space_back(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known before, or found out while writing: one error that names the file, and nothing is left."""
    target = tmp_path / "weights.bin"
    with files_of_at_most(2**20), pytest.raises(CheckpointError, match=r"weights\.bin: cannot be written"):
        fetch(site.url, target)
    assert left_in(tmp_path) == set()
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**20}))
    with pytest.raises(CheckpointError, match=r"3\.1 MB are missing, and 1\.0 MB are free"):
        fetch(site.url, target)
    assert left_in(tmp_path) == set()


def test_of_two_one_fetches_and_the_other_waits(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both get the file, which is fetched once."""
    site.pace = 2**20
    target, started = tmp_path / "weights.bin", threading.Event()
    first = threading.Thread(
        target=fetch, args=(site.url, target), kwargs={"progress": lambda *_: started.set()}, daemon=True
    )
    first.start()
    assert started.wait(60)
    second = threading.Thread(target=fetch, args=(site.url, target), daemon=True)
    second.start()
    site.gate.release(100)
    first.join(60)
    second.join(60)
    assert target.read_bytes() == CONTENT
    assert len(site.requests) == 1
