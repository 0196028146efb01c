"""Attacks on downloads: kills at random instants, several processes, full disks, damaged parts, servers that lie."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from mote_fast.cli import main
from mote_fast.errors import CheckpointError
from mote_fast.model import zoo
from mote_fast.runtime import transfer
from mote_fast.runtime.transfer import fetch
from tests.attack.conftest import Attack
from tests.full_disk import files_of_at_most
from tests.web import Site, left_in, serve

CONTENT = random.Random(3).randbytes(2**20 + 4321)
# Small, so that a transfer has many instants at which it can be killed.
PIECE = 2**14
KILLS = 10


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_CHUNK", PIECE)


@pytest.fixture(scope="module")
def processes() -> Any:
    """Children that have imported the library already, and share no thread with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.attack.test_attack_downloads"])
    return context


def fetch_in_child(answers: Connection, url: str, target: str, sha256: str | None, hold_at: int | None) -> None:
    """Fetch, and tell the parent each step of the progress; wait at ``hold_at`` bytes to be killed."""
    transfer._CHUNK = PIECE

    def tell(done: int, _: int) -> None:
        answers.send(done)
        if hold_at is not None and done >= hold_at:
            answers.recv()

    fetch(url, Path(target), sha256=sha256, progress=tell)
    answers.send(None)


def start(
    processes: Any, site: Site, target: Path, sha256: str | None, hold_at: int | None = None
) -> tuple[Any, Connection]:
    ours, theirs = multiprocessing.Pipe()
    given = (theirs, site.url, str(target), sha256, hold_at)
    child = processes.Process(target=fetch_in_child, args=given, daemon=True)
    child.start()
    theirs.close()
    return child, ours


def steps(answers: Connection) -> Iterator[int]:
    """The progress of a child, until it has finished or was killed."""
    while True:
        try:
            done = answers.recv()
        except EOFError:
            return
        if done is None:
            return
        yield done


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no_ranges"])
@pytest.mark.parametrize("hashed", [True, False], ids=["published", "recorded"])
def test_killed_ten_times(attack: Attack, processes: Any, tmp_path: Path, ranges: bool, hashed: bool) -> None:
    """Killed at random instants of transfer, check and renaming, it ends with the right file and nothing else."""
    for seed in range(attack.size(1, 20)):
        draws = random.Random(f"{seed} {ranges} {hashed}")
        folder = tmp_path / str(seed)
        target = folder / "weights.bin"
        with serve(CONTENT, ranges=ranges) as site, attack.attempt(seed):
            sha256 = site.sha256 if hashed else None
            for kill in range(KILLS):
                # Ever further, to the moment after the last byte; the later ones are killed as they run on.
                instant = draws.randint(PIECE, len(CONTENT) * (kill + 1) // KILLS)
                child, answers = start(processes, site, target, sha256, instant if kill < KILLS // 2 else None)
                for done in steps(answers):
                    if done >= instant:
                        break
                child.kill()
                child.join()
                assert not target.exists() or target.read_bytes() == CONTENT
            fetch(site.url, target, sha256=sha256)
            assert target.read_bytes() == CONTENT
            assert left_in(folder) == {"weights.bin"} | (set() if hashed else {"weights.bin.sha256"})
            resumed = [asked for asked in site.requests if asked is not None]
            assert resumed


def test_many_at_once(attack: Attack, processes: Any, tmp_path: Path) -> None:
    """One fetches, the others wait; if it is killed, another goes on from its bytes."""
    for seed in range(attack.size(2, 20)):
        draws = random.Random(seed)
        target = tmp_path / str(seed) / "weights.bin"
        with serve(CONTENT, pace=PIECE) as site, attack.attempt(seed):
            started = [start(processes, site, target, site.sha256) for _ in range(3)]
            # Too little to end.
            site.gate.release(draws.randint(1, 60))
            busy = multiprocessing.connection.wait([answers for _, answers in started])
            victim, answers = next(each for each in started if each[1] in busy)
            answers.recv()
            victim.kill()
            victim.join()
            site.gate.release(10_000)
            for child, _ in started:
                if child is not victim:
                    child.join(120)
                    assert child.exitcode == 0
            assert target.read_bytes() == CONTENT
            assert left_in(target.parent) == {"weights.bin"}
            assert len(site.requests) == 2


def test_damaged_parts(attack: Attack, tmp_path: Path) -> None:
    """Whatever lies in place of the part or its note: the right file or an error, and the next attempt is right."""
    for seed in range(attack.size(12, 400)):
        draws = random.Random(seed)
        folder = tmp_path / str(seed)
        target = folder / "weights.bin"
        with serve(CONTENT, ranges=draws.random() < 0.7) as site, attack.attempt(seed):
            site.drop_after = draws.randrange(PIECE, len(CONTENT))
            with pytest.raises(KeyboardInterrupt):
                fetch(site.url, target, sha256=site.sha256, progress=_stop_after(site.drop_after // 2))
            site.drop_after = None
            victim = folder / draws.choice((".weights.bin.partial", ".weights.bin.partial.json"))
            content = bytearray(victim.read_bytes())
            match draws.randrange(5):
                case 0:
                    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
                case 1:
                    content = content[: draws.randrange(len(content))]
                case 2:
                    content += draws.randbytes(draws.randrange(2 * len(CONTENT)))
                case 3:
                    content = bytearray(draws.randbytes(draws.randrange(100)))
                case _:
                    content = bytearray(b'{"url": 1, "size": -1, "mark": []}')
            victim.write_bytes(content)
            if (problem := attempted(site, target, site.sha256)) is not None:
                assert "\n" not in problem
                assert left_in(folder) == set()
                fetch(site.url, target, sha256=site.sha256)
            assert target.read_bytes() == CONTENT
            assert left_in(folder) == {"weights.bin"}


def test_full_disks(attack: Attack, tmp_path: Path) -> None:
    """Wherever the disk ends, also in the middle of a continued transfer, its space is given back."""
    for seed in range(attack.size(8, 200)):
        draws = random.Random(seed)
        folder = tmp_path / str(seed)
        target = folder / "weights.bin"
        with serve(CONTENT) as site, attack.attempt(seed):
            limit = draws.randrange(2**12, len(CONTENT))
            if draws.random() < 0.5:
                with pytest.raises(KeyboardInterrupt):
                    fetch(site.url, target, progress=_stop_after(limit // 2))
            with files_of_at_most(limit), pytest.raises(CheckpointError, match="cannot be written"):
                fetch(site.url, target)
            assert left_in(folder) == set()
            fetch(site.url, target)
            assert target.read_bytes() == CONTENT


def test_servers_that_lie(attack: Attack, tmp_path: Path) -> None:
    """Lengths, marks, ranges and cuts at random: the right file, or one line and nothing that could be taken for it."""
    for seed in range(attack.size(20, 800)):
        draws = random.Random(seed)
        folder = tmp_path / str(seed)
        target = folder / "weights.bin"
        with serve(CONTENT, ranges=draws.random() < 0.5) as site, attack.attempt(seed):
            sha256 = site.sha256
            for _ in range(draws.randint(1, 4)):
                site.etag = draws.choice(('"first"', '"second"', 'W/"weak"', None, "none"))
                site.drop_after = draws.choice((None, 0, draws.randrange(1, len(CONTENT))))
                site.claimed = draws.choice((None, None, 0, len(CONTENT) // 2, 2 * len(CONTENT), 2**60))
                site.length = draws.random() < 0.9
                site.status = draws.choice((None, None, None, 404, 416, 500, 503, 206, 304))
                site.content = draws.choice((CONTENT, CONTENT[::-1], CONTENT[: len(CONTENT) // 3], b""))
                if (problem := attempted(site, target, sha256)) is not None:
                    assert "\n" not in problem
                    assert not target.exists()
            # An honest server again; an earlier lie may still cost one attempt, which removes what it left.
            site.etag, site.drop_after, site.claimed, site.length, site.status = '"first"', None, None, True, None
            site.content = CONTENT
            if attempted(site, target, sha256) is not None:
                assert left_in(folder) == set()
                fetch(site.url, target, sha256=sha256)
            assert target.read_bytes() == CONTENT
            assert left_in(folder) == {"weights.bin"}


@pytest.mark.parametrize("fault", ["wrong_hash", "full_disk", "no_network", "not_found", "plain_http", "too_large"])
def test_commands_fail_on_one_line(
    attack: Attack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, fault: str
) -> None:
    """`download` and `classify`: exit status 2, one line of error, and nothing half left behind."""
    options: dict[str, Any] = {
        "not_found": {"status": 404},
        "plain_http": {"location": "http://example.invalid/weights.bin"},
    }.get(fault, {})
    video = tmp_path / "v.mp4"
    video.touch()
    first, *others = zoo._MODELS
    monkeypatch.setattr(zoo, "fetch_tag", lambda *names: pytest.fail("the file itself was not refused"))
    with serve(CONTENT, **options) as site:
        address = {"no_network": "https://localhost:1/weights.bin"}.get(fault, site.url)
        known: dict[str, Any] = {"wrong_hash": {"sha256": "0" * 64}, "too_large": {"size": 5}}.get(fault, {})
        monkeypatch.setattr(zoo, "_MODELS", (replace(first, url=address, **known), *others))
        for command in (["download", first.name], ["classify", str(video), "--labels", "a", "--model", first.name]):
            with attack.attempt(command), files_of_at_most(2**19 if fault == "full_disk" else 2**40):
                status = main(command)
                lines = capsys.readouterr().err.splitlines()
                errors = [line for line in lines if not line.startswith("note: ")]
                assert status == 2
                assert len(errors) == 1
                assert errors[0].startswith("mote-fast: error: ")
                assert left_in(tmp_path / "cache" / "models") == set()


def attempted(site: Site, target: Path, sha256: str) -> str | None:
    """Fetch, and return the error."""
    try:
        fetch(site.url, target, sha256=sha256)
    except CheckpointError as error:
        return str(error)
    return None


def _stop_after(limit: int) -> transfer.TransferProgress:
    def stop(done: int, _: int) -> None:
        if done >= limit:
            raise KeyboardInterrupt

    return stop
