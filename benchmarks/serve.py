"""Requests a second of `mote-fast serve`: one at a time, many at once, and many whose videos share a pass of the tower.

    python benchmarks/serve.py                                      # the tiny model, under three minutes
    python benchmarks/serve.py --model ViT-B-16 --requests 4 --clients 4 --rounds 2

Servers run as processes of their own, arms take turns, and figures are medians. "bound" is what the processors could do
at most: cores over the processor time of one request and its client, measured while requests came one at a time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mote_fast.runtime.environment import PRESETS

VIDEOS = sorted(PRESETS.glob("demo/*/*.mp4"))
LABELS = [f"{color} {shape}" for color in ("red", "blue", "green", "white") for shape in ("ring", "cross", "star")]
BOUNDARY = "end-of-part"


@dataclass
class Process:
    """A server, and the session of all its processes."""

    port: int
    session: int

    def processor_seconds(self) -> float:
        """Processor time so far of every process of the session that lives."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            # A process may end meanwhile.
            try:
                cells = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(cells[3]) == self.session:
                ticks += int(cells[11]) + int(cells[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def ask(self, at: int) -> dict[str, float]:
        """Classify one of the videos: the score of each label."""
        video = VIDEOS[at % len(VIDEOS)]
        parts = [
            ("labels", "\n".join(LABELS).encode()),
            ("topk", b"100"),
            ('video"; filename="v.mp4', video.read_bytes()),
        ]
        body = b"".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
            for name, value in parts
        )
        with closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
            connection.request("POST", "/v1/classify", body + f"--{BOUNDARY}--\r\n".encode(), kind)
            answer = connection.getresponse()
            document = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {document['error']}")
        return {each["label"]: each["score"] for each in document["predictions"]}


@contextmanager
def serving(model: str, threads: int, *options: str) -> Iterator[Process]:
    """Start a server with so many threads of PyTorch."""
    command = [sys.executable, "-m", "mote_fast.cli", "serve", "--model", model, "--port", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield Process(int(process.stdout.readline().strip().strip("/").rpartition(":")[2]), process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def rate(server: Process, requests: int, clients: int) -> tuple[float, float, float]:
    """Return requests a second, the median seconds of one, and the processor seconds of one, client included."""
    waited: list[float] = []

    def ask(at: int) -> None:
        started = time.perf_counter()
        server.ask(at)
        waited.append(time.perf_counter() - started)

    spent, started = server.processor_seconds() + time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, range(requests)))
    seconds = time.perf_counter() - started
    spent = server.processor_seconds() + time.process_time() - spent
    return requests / seconds, statistics.median(waited), spent / requests


def measure(model: str, requests: int, clients: int, rounds: int) -> dict[str, dict[str, float]]:
    """Measure every arm, and check that all give the same scores."""
    cores = len(os.sched_getaffinity(0))
    crops = 24 * 8
    found: dict[str, list[tuple[float, float, float]]] = {}
    with ExitStack() as stack:
        servers = {f"{threads} threads": stack.enter_context(serving(model, threads)) for threads in sorted({1, cores})}
        mixed = stack.enter_context(serving(model, 1, "--batch-size", str(crops)))
        arms = {
            **{f"{name}, {many} at once": (server, many) for name, server in servers.items() for many in (1, clients)},
            f"1 threads, batches of {crops} crops, {clients} at once": (mixed, clients),
        }
        reference = mixed.ask(0)
        for server in servers.values():
            assert all(abs(score - reference[label]) < 1e-6 for label, score in server.ask(0).items())
        # Every process decodes and every set of labels is encoded before the first turn.
        for server, many in arms.values():
            rate(server, 2 * clients, many)
        for _ in range(rounds):
            for name, (server, many) in arms.items():
                found.setdefault(name, []).append(rate(server, requests, many))
    table: dict[str, dict[str, float]] = {}
    for name, values in found.items():
        per_second, waited, spent = (statistics.median(column) for column in zip(*values, strict=True))
        table[name] = {"requests_per_second": per_second, "seconds": waited, "processor_seconds": spent}
    first = min(table[name]["processor_seconds"] for name in table if name.endswith(" 1 at once"))
    base = max(table[name]["requests_per_second"] for name in table if name.endswith(" 1 at once"))
    for row in table.values():
        row["times_one_at_a_time"] = row["requests_per_second"] / base
    table["bound"] = {"requests_per_second": cores / first, "times_one_at_a_time": cores / first / base}
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--requests", type=int, default=96, help="of each arm in a round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given: Any = parser.parse_args()
    table = measure(given.model, given.requests, given.clients, given.rounds)
    columns = ("requests_per_second", "seconds", "processor_seconds", "times_one_at_a_time")
    print(f"{given.model}: {', '.join(columns)}")
    for name, row in table.items():
        print(f"{name:48} " + " ".join(f"{row[column]:9.3f}" if column in row else " " * 9 for column in columns))
    if given.json is not None:
        given.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
