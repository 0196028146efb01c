"""Prints the packages of an environment as pip's requirements or constraints.

    python tools/versions.py lock     every package that this environment's mote_fast[dev] needs, as installed here
    python tools/versions.py oldest   the lower bound of every requirement that setup.py states
    python tools/versions.py cpu      what mote_fast[dev] requires without the packages that only GPUs need
    python tools/versions.py docs     what mote_fast[docs] requires beyond mote_fast
    python tools/versions.py hashes   the lock with the SHA-256 of each file that pip would install on this platform

``make lock``, ``make test-oldest``, ``make dev-cpu`` and ``make docs`` call it. A release that supports only some of
the package's Python versions is pinned for those versions; for the others pip chooses.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PACKAGE, EXTRA = "mote_fast", "dev"
# The versions that setup.py supports; tests/test_packaging.py checks it.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LOCK = Path(__file__).parents[1] / "constraints.txt"
# The library runs on a CPU without these; each is imported only for a GPU or Triton's interpreter.
GPU_PACKAGES = frozenset({"nvidia-cuda-runtime-cu12", "nvidia-dali-cuda130", "triton", "xformers"})


def requirements(found: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    """The requirements of ``found`` that apply on this machine, including those of its ``extras``."""
    for text in found.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras | {""}):
            yield requirement


def lock() -> list[str]:
    """Pin all direct and indirect requirements of the package."""
    seen: dict[str, set[str]] = {}
    todo = [(PACKAGE, frozenset({EXTRA}))]
    while todo:
        name, extras = todo.pop()
        known = seen.setdefault(canonicalize_name(name), set())
        if known and extras <= known:
            continue
        known |= extras | {""}
        for requirement in requirements(distribution(name), extras):
            todo.append((requirement.name, frozenset(requirement.extras)))
    return [_pin(name) for name in sorted(seen) if name != canonicalize_name(PACKAGE)]


def oldest() -> list[str]:
    """Pin every direct requirement of the package at its lower bound."""
    pins = {}
    for requirement in requirements(distribution(PACKAGE), frozenset({EXTRA})):
        bounds = [bound.version for bound in requirement.specifier if bound.operator in (">=", "==")]
        if len(bounds) != 1:
            raise SystemExit(f"{requirement}: state one lower bound in setup.py")
        pins[canonicalize_name(requirement.name)] = bounds[0]
    return [f"{name}=={lowest}" for name, lowest in sorted(pins.items())]


def cpu() -> list[str]:
    """The direct requirements of the package that a machine without a GPU needs."""
    found = {
        canonicalize_name(requirement.name): f"{requirement.name}{requirement.specifier}"
        for requirement in requirements(distribution(PACKAGE), frozenset({EXTRA}))
    }
    return [found[name] for name in sorted(found) if name not in GPU_PACKAGES]


def docs() -> list[str]:
    """The requirements of the documentation site alone."""
    found = distribution(PACKAGE)
    with_docs = set(map(str, requirements(found, frozenset({"docs"}))))
    return sorted(
        text.partition(";")[0].strip() for text in with_docs - set(map(str, requirements(found, frozenset())))
    )


def hashes() -> list[str]:
    """The pins of the lock that apply here, each with the SHA-256 of the file that pip's indexes give for it.

    pip only resolves: it installs nothing, and downloads no file whose hash the index states.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "--quiet", "install", "--dry-run", "--ignore-installed", "--no-deps"]
        done = subprocess.run([*command, "--report", str(report), "--requirement", str(LOCK)], check=False)
        if done.returncode:
            raise SystemExit("pip cannot find every version of the lock, see above")
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    lines = [
        f"{canonicalize_name(each['metadata']['name'])}=={each['metadata']['version'].split('+')[0]} "
        f"--hash=sha256:{each['download_info']['archive_info']['hashes']['sha256']}"
        for each in found
    ]
    return [f"# For {platform.system()} {platform.machine()}; other platforms have other files.", *sorted(lines)]


def _pin(name: str) -> str:
    found = distribution(name)
    supported = SpecifierSet(found.metadata.get("Requires-Python") or "")
    # A bound on a patch release means its minor version: ">=3.10.1" means 3.10.
    fitting = [python for python in PYTHONS if supported.contains(f"{python}.99")]
    pin = f"{name}=={found.version.split('+')[0]}"
    return pin if len(fitting) == len(PYTHONS) else f'{pin}; python_version >= "{fitting[0]}"'


def main() -> None:
    """Print the requested list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("lock", "oldest", "cpu", "docs", "hashes"))
    kind = parser.parse_args().kind
    python = ".".join(map(str, sys.version_info[:3]))
    try:
        lines = {"lock": lock, "oldest": oldest, "cpu": cpu, "docs": docs, "hashes": hashes}[kind]()
    except PackageNotFoundError as error:
        raise SystemExit(f"{error}: run make venv first") from error
    print(f"# Written by `python tools/versions.py {kind}` for {PACKAGE} {version(PACKAGE)}, Python {python}.")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
