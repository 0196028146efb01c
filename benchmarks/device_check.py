"""Everything that only a GPU can show, in one command: values, compilation, capture, training, times.

    python benchmarks/device_check.py --out FOLDER [--minutes 9] [--only SECTION ...]

Needs PyTorch, Triton and NumPy; sections that need more say so and are skipped. Each section runs in a process of its
own and prints one line a check: name, error, bound, verdict. report.md and report.json are written after each section.
Exits with 1 if a check failed. ``--device cpu --dry`` runs the same code on small sizes without a GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from mote_fast.device_check import section_process  # noqa: E402
from mote_fast.device_check.device_report import failures, summary  # noqa: E402
from mote_fast.device_check.run_sections import QUICK, Section, run_sections  # noqa: E402

SECTIONS = (
    *QUICK,
    Section(3, "registration of the operators", "device.section_opcheck", 30),
    Section(4, "torch.compile", "device.section_compile", 60),
    Section(5, "CUDA graphs and waiting", "device.section_capture", 30),
    Section(6, "training", "device.section_engine", 45),
    Section(7, "compute-sanitizer", "device.section_sanitizer", 60),
    Section(8, "times of a layer and of the head", "device.section_timing", 90, interpreted=True),
    Section(9, "the whole training step", "device.section_step", 75, grows=True),
    Section(10, "decoding on the GPU", "device.section_decoding", 30),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the report goes")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all sections together (default %(default)s)")
    numbers = [section.number for section in SECTIONS]
    parser.add_argument("--only", type=int, nargs="+", choices=numbers, metavar="SECTION", help="these sections alone")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry", action="store_true", help="small sizes; with --device cpu")
    args = parser.parse_args()
    if args.dry != (args.device == "cpu"):
        parser.error("--dry and --device cpu go together: a CPU can only try the code")
    if args.minutes <= 0:
        parser.error(f"--minutes must be positive, got {args.minutes}")

    results = run_sections(
        [section for section in SECTIONS if args.only is None or section.number in args.only],
        [sys.executable, str(Path(__file__).resolve()), "--section"],
        args.out,
        device=args.device,
        dry=args.dry,
        quick=False,
        seconds=60 * args.minutes,
        show=lambda line: print(line, flush=True),
    )
    print(f"{summary(results)}; {args.out / 'report.md'}")
    return 1 if failures(results) else 0


if __name__ == "__main__":
    sys.exit(section_process.main(sys.argv[2:]) if sys.argv[1:2] == ["--section"] else main())
