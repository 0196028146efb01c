"""What section 7 runs under compute-sanitizer: the operators on small and odd widths, every layout of one of them."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCHMARKS.parent), str(BENCHMARKS)]


def main(device: str) -> int:
    from mote_fast.device_check.expert_cases import PRECISIONS, Shape
    from mote_fast.device_check.section_compiling import Task, run_task

    for precision in PRECISIONS[:3:2]:
        run_task(Task(Shape("d=64 N=48", 64, 6, 8, 3), precision, layouts=precision is PRECISIONS[0]), device)
        run_task(Task(Shape("d=80 N=37", 80, 37, 1, 3), precision), device)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
