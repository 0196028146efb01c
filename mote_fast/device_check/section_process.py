"""The process of one section: ``python -m mote_fast.device_check.section_process MODULE``, by run_sections."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from mote_fast.device_check.check import Check
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.runtime.json_text import to_json


def main(given: Sequence[str] | None = None) -> int:
    """Run one section and append its checks to a file, one JSON line each; what it raises ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("--device", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(given)

    setting = CheckSetting(
        torch.device(args.device, 0) if args.device == "cuda" else torch.device(args.device),
        args.dry,
        args.quick,
        time.monotonic() + args.seconds,
        args.folder,
    )
    torch.manual_seed(0)
    checks: Iterator[Check] = importlib.import_module(args.module).checks(setting)
    with args.found.open("a", encoding="utf-8") as file:
        for check in checks:
            file.write(to_json({**vars(check), "figures": dict(check.figures)}) + "\n")
            file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
