"""Installs the wheel of dist/ into an empty environment and uses it as a stranger would, away from the checkout.

    python tools/check_dist.py [--python python3.10 --python python3.13]

``make dist`` calls it. Each Python gets an environment of its own in a temporary folder, 7 GB, which is removed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What somebody who unpacks the source archive needs to run the tests, beside the library.
SOURCES = (
    "tests/conftest.py",
    "tests/golden/golden.json",
    "configs/smoke.yaml",
    "docs/training.md",
    "Makefile",
    "train.py",
)
# Where the library came from, and what the demonstration's videos are.
PROBE = "import json, mote_fast; print(json.dumps([mote_fast.__file__, mote_fast.__version__]))"
LABELS = "dotted red cross sliding to the top left,plain blue star sliding to the top right"


def main() -> int:
    """Check the archives, then the wheel under each Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--python", action="append", default=[], help="Python to try; again for more (default: this one)"
    )
    arguments = parser.parse_args()
    wheel, source = archives(ROOT / "dist")
    check_contents(wheel, source)
    for python in arguments.python or [sys.executable]:
        check_installed(python, wheel)
        print(f"{wheel.name}: installs and works with {python}")
    return 0


def archives(folder: Path) -> tuple[Path, Path]:
    """The wheel and the source archive of ``folder``, which must be one of each, of one version."""
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        raise SystemExit(f"{folder}: expected one wheel and one source archive")
    return wheels[0], sources[0]


def check_contents(wheel: Path, source: Path) -> None:
    """Every tracked file of the library is in the wheel, and what the tests need is in the source archive."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "mote_fast", "kernels"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    configs = {
        f"{link}/{path.relative_to(ROOT / link).as_posix()}"
        for link in tracked
        if (ROOT / link).is_dir()
        for path in (ROOT / link).rglob("*.yaml")
    }
    tracked = [name for name in tracked if (ROOT / name).is_file()]
    installed = {
        name.replace("kernels/", "mote_fast/kernels/", 1) if name.startswith("kernels/") else name for name in tracked
    }
    _none((installed | configs) - packed, wheel)
    _none({name for name in packed if not name.startswith(("mote_fast/", "mote_fast-"))}, wheel, "does not belong into")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    _none({*SOURCES, *tracked} - names, source)


def check_installed(python: str, wheel: Path) -> None:
    """Install the wheel into a new environment; import, demonstrate, classify."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _run([python, "-m", "venv", str(place / "env")], place)
        programs = place / "env" / "bin"
        _run(
            [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)],
            place,
        )
        found, version = json.loads(_run([str(programs / "python"), "-c", PROBE], place))
        if not Path(found).is_relative_to(place / "env") or version not in wheel.name:
            raise SystemExit(f"{wheel.name}: {found}, version {version}, was imported instead")
        command = str(programs / "mote-fast")
        _run([command, "demo"], place)
        video = next(Path(found).parent.glob("presets/demo/actions/*.mp4"))
        answer = json.loads(
            _run([command, "classify", str(video), "--model", "tiny", "--labels", LABELS, "--json"], place)
        )
        if len(answer["videos"][0]["predictions"]) != 2:
            raise SystemExit(f"{wheel.name}: classify answered {answer}")
        for name in ("train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4"):
            (place / "videos" / name).parent.mkdir(parents=True)
            shutil.copyfile(video, place / "videos" / name)
        printed = _run([command, "prepare", "folder", "--root", "videos", "--output", "lists"], place)
        # The extra [train] brings TensorBoard.
        settings = ["run.max_steps=2", "run.tensorboard=false", "data.batch_size=2", *_settings_of(printed)]
        _run([command, "train", "--config", "smoke", *settings], place)
        if not (place / "runs" / "lists" / "model").is_dir():
            raise SystemExit(f"{wheel.name}: train left no model in runs/lists")


def _settings_of(printed: str) -> list[str]:
    """The settings of the command that ``prepare folder`` ends with."""
    return [word for word in shlex.split(printed.splitlines()[-1]) if "=" in word]


def _none(names: set[str], archive: Path, what: str = "is missing in") -> None:
    if names:
        raise SystemExit(
            f"{min(names)} {what} {archive.name}" + (f", and {len(names) - 1} more" if len(names) > 1 else "")
        )


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
