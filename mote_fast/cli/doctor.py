"""``mote-fast doctor``: reports versions, the backend chosen for each job, and the reason against each other one."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mote_fast.cli import outputs
from mote_fast.cli.backends import device_summary, survey, versions
from mote_fast.clip.feature_cache import FeatureCache
from mote_fast.clip.model_cache import ModelCache
from mote_fast.errors import BackendError
from mote_fast.runtime.environment import best_device
from mote_fast.version import __version__

# For the quick sections together; compilation takes most of it.
GPU_SECONDS = 180.0


def run(arguments: argparse.Namespace) -> int:
    """Print the report; a missing package is not a failure. Returns 0, or 2 if a check of --gpu failed.

    Raises:
        BackendError: --gpu without a GPU.
    """
    if arguments.gpu and best_device() != "cuda":
        raise BackendError("--gpu checks a GPU, and PyTorch sees no CUDA device; leave it out")
    cache, models = FeatureCache(), ModelCache()
    report: dict[str, Any] = {
        "device": device_summary(),
        "versions": {"mote_fast": __version__, **versions()},
        "backends": [vars(choice) for choice in survey()],
        "cache": {
            "path": None if cache.path is None else str(cache.path),
            "bytes": cache.size(),
            "max_bytes": cache.max_bytes,
        },
        "int8_cache": {
            "path": None if models.folder is None else str(models.folder),
            "bytes": models.size(),
            "max_bytes": models.max_bytes,
        },
    }
    lines = [f"device     {report['device']}"]
    lines += [f"  {package:22} {version or 'not installed'}" for package, version in report["versions"].items()]
    for choice in report["backends"]:
        lines += [f"{choice['job']:10} {choice['chosen']}"]
        lines += [f"  not {other}: {why}" for other, why in choice["others"].items()]
    for title, key in (("cache", "cache"), ("int8 cache", "int8_cache")):
        kept = report[key]
        filled, bound = kept["bytes"] / 1e6, kept["max_bytes"] / 1e6
        where = f"{kept['path']} ({filled:.1f} of {bound:.0f} MB; delete it freely)"
        lines += [f"{title:10} {where if kept['path'] else 'none: this user has no home folder; set XDG_CACHE_HOME'}"]
    if not arguments.gpu:
        outputs.show(arguments, report, lines)
        return 0
    if not arguments.json:
        outputs.show(arguments, report, lines)
        outputs.write("checks of the GPU")
    found, failed = _check_gpu(outputs.write if not arguments.json else lambda line: None)
    if arguments.json:
        outputs.show(arguments, report | found, [])
    return outputs.report(failed)


def _check_gpu(show: Callable[[str], Any]) -> tuple[dict[str, Any], list[str]]:
    """Run the quick sections of the device check: what they found, and the lines of what failed."""
    from mote_fast.device_check.device_report import describe, failures
    from mote_fast.device_check.run_sections import QUICK, run_sections

    command = [sys.executable, "-m", "mote_fast.device_check.section_process"]
    with tempfile.TemporaryDirectory(prefix="mote_fast_doctor_") as folder:
        results = run_sections(
            QUICK, command, Path(folder), device="cuda", dry=False, quick=True, seconds=GPU_SECONDS, show=show
        )
    return {"gpu": describe(results)}, [f"the GPU: {check.line()}" for check in failures(results)]
