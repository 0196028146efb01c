"""Compile every kernel ahead of time for GPUs that are not here, and report what the machine code needs.

    python benchmarks/static_report.py [--quick] [--write] [--filter TEXT] [--json] [--jobs N]

Every kernel x tile x dtype x {sm_80, sm_90, sm_100}, with and without 16-divisibility of pointers and strides, and at
an embedding width that tiles do not divide: registers, shared memory, stack (spills), tensor-core instructions, and
the widths of global accesses, read from the SASS. Fails if a kernel breaks a rule (``broken_rules``) or got worse than
the committed results/static_report.csv; ``--write`` replaces that file. ``--quick`` checks a sample of the same rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path

import networkx
import torch
import triton
from torch import Tensor
from tqdm import tqdm
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

try:
    from benchmarks import launches
except ImportError:
    import launches

from mote_fast.kernels.tiles import (
    MATRIX_TILES,
    SHARED_LIMIT,
    UNALIGNED_TILES,
    UNALIGNED_VECTOR_TILE,
    VECTOR_TILE,
    Family,
    MatrixTile,
    Product,
)

RESULTS = Path(__file__).parent / "results" / "static_report.csv"
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

# (activations, master weights)
DTYPES = (
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
)

# No tile divides 80; 37 tokens are odd.
UNEVEN = launches.Shape(80, 37, 1, 3)

# Registers that a compile may gain over the committed report before it counts as worse.
REGISTER_SLACK = 8


@dataclass(frozen=True)
class Row:
    """One compiled kernel.

    ``loop_*`` count global loads in loops that hold tensor-core instructions, or in the whole kernel where it has no
    such loop (vector kernels, and loops that the compiler unrolled); stores are counted in the whole kernel; ``wide``
    means 128 bits.
    """

    family: str
    operator: str
    launch: str
    activation: str
    master: str
    width: int
    experts: int
    tile: str
    aligned: bool
    kernel: str
    registers: int
    shared: int
    stack: int
    local_accesses: int
    mma: str
    mma_count: int
    loop_wide: int
    loop_narrow: int
    store_wide: int
    store_narrow: int

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies the row: the fields before ``kernel``."""
        return tuple(str(value) for value in list(asdict(self).values())[: list(asdict(self)).index("kernel")])


@dataclass(frozen=True)
class Case:
    """One kernel to compile, described so that it can be sent to another process."""

    family: Family
    operator: str
    launch: str
    activation: torch.dtype
    master: torch.dtype
    shape: launches.Shape
    tile: MatrixTile | None
    aligned: bool

    @property
    def key(self) -> tuple[str, ...]:
        """The key of the row that the case makes."""
        sizes = (str(self.shape.width), str(self.shape.experts))
        names = (self.family, self.operator, self.launch, NAMES[self.activation], NAMES[self.master])
        return (*names, *sizes, describe_tile(self.tile), str(self.aligned))

    def find(self) -> launches.Launch:
        """Return the launch that the operator makes in this case."""
        if self.operator == "pair":
            return launches.pair_launches(self.shape, self.activation, self.master, self.tile)[self.launch]
        if self.operator == "routed":
            return launches.routed_launches(self.shape, self.activation, self.master, self.tile)[self.launch]
        if self.operator == "merge":
            return launches.merge_launches(self.shape, self.master, self.activation)[self.launch]
        vector = VECTOR_TILE if self.aligned else UNALIGNED_VECTOR_TILE
        return launches.adamw_launches(self.shape, self.master, vector)[self.launch]


def describe_tile(tile: MatrixTile | None) -> str:
    return "x".join(map(str, tile)) if tile else ""


PAIR = ("up", "down", "dpre", "dw_down", "dw_up", "dx")


def matrix_cases(family: Family) -> list[Case]:
    cases = []
    for activation, master in DTYPES:
        unaligned = UNALIGNED_TILES[family][activation.itemsize]
        for operator, launch in product(("pair", "routed"), PAIR):
            kind: Product = "gradient" if launch.startswith("dw") else "linear"
            cases.append(Case(family, operator, launch, activation, master, launches.VIT_B_16, unaligned, False))
            for tile in MATRIX_TILES[family][kind][activation.itemsize]:
                cases.append(Case(family, operator, launch, activation, master, launches.VIT_B_16, tile, True))
                if (activation, master) in (DTYPES[0], DTYPES[4]):
                    cases.append(Case(family, operator, launch, activation, master, UNEVEN, tile, True))
    return cases


def vector_cases(family: Family) -> list[Case]:
    cases = []
    for experts in (4, 16):
        shape = launches.Shape(512, 64, 8, experts)
        for aligned in (True, False):
            for activation, master in DTYPES:
                for launch in ("forward", "backward", "backward_weights", "expand"):
                    cases.append(Case(family, "merge", launch, activation, master, shape, None, aligned))
            for master in (torch.float32, torch.bfloat16, torch.float16):
                for launch in ("one", "two", "device"):
                    cases.append(Case(family, "adamw", launch, master, master, shape, None, aligned))
        cases.append(Case(family, "routed", "group", torch.float32, torch.float32, shape, None, True))
    return cases


def all_cases(quick: bool) -> list[Case]:
    """Every case, or a sample: the dtypes of mixed-precision training on sm_80 and sm_90 and one float32 tile."""
    families: tuple[Family, ...] = ("sm_80", "sm_90", "sm_100")
    cases = [case for family in families for case in matrix_cases(family) + vector_cases(family)]
    if not quick:
        return cases
    sample = []
    for case in cases:
        usual = (case.activation, case.master) == DTYPES[0] and case.aligned and case.shape == launches.VIT_B_16
        largest = case.tile is None or (case.tile.columns == 128 and case.tile.rows > 16)
        if usual and largest and (case.operator == "pair" or case.launch in ("forward", "expand", "one")):
            sample.append(case)
    return sample


def describe(value: object, aligned: bool) -> tuple[object, object, bool]:
    """Return how Triton's launcher would specialise an argument: its type, its constant, whether 16 divides it."""
    if isinstance(value, Tensor):
        return POINTERS[value.dtype], None, aligned and value.ndim > 0
    if isinstance(value, tuple):
        return tuple(describe(v, aligned) for v in value), None, False
    if value is None or isinstance(value, bool) or value == 1:
        return "constexpr", value, False
    if isinstance(value, float):
        return "fp32", None, False
    assert isinstance(value, int)
    return "i32", None, aligned and value % 16 == 0


def source(launch: launches.Launch, aligned: bool) -> ASTSource:
    """Describe a launch to Triton's compiler."""
    signature: dict[str, object] = {}
    constants: dict[tuple[int, ...], object] = {}
    attributes: dict[tuple[int, ...], list[list[object]]] = {}

    def visit(path: tuple[int, ...], value: object) -> object:
        if isinstance(value, tuple):
            return tuple(visit((*path, i), v) for i, v in enumerate(value))
        kind, constant, divisible = describe(value, aligned)
        if kind == "constexpr":
            constants[path] = constant
        elif divisible:
            attributes[path] = [["tt.divisibility", 16]]
        return kind

    for i, (parameter, value) in enumerate(zip(launch.kernel.params, launch.args, strict=True)):
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[(i,)] = value
        else:
            signature[parameter.name] = visit((i,), value)
    return ASTSource(launch.kernel, signature, constants, attributes)


def run_tool(name: str, *args: str) -> str:
    return subprocess.run([str(TOOLS / name), *args], capture_output=True, text=True, check=True).stdout


MMA = re.compile(r"\b(HGMMA|HMMA|UTC[A-Z]*MMA)")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(@!?\w+\s+)?([A-Z][\w.]*)(.*)")


@dataclass(frozen=True)
class Code:
    """What matters in a kernel's SASS."""

    mma: Counter[str]
    loop_loads: Counter[bool]
    stores: Counter[bool]
    local_accesses: int


def hot_instructions(names: list[str], targets: list[int | None]) -> set[int]:
    """Return the places of instructions in loops that hold tensor-core instructions.

    A loop is a strongly connected component of the control flow: lines alone would take a block that the compiler moved
    to the end for one.
    """
    flow = networkx.DiGraph()
    flow.add_nodes_from(range(len(names)))
    for at, (name, target) in enumerate(zip(names, targets, strict=True)):
        if target is not None:
            flow.add_edge(at, target)
        if at + 1 < len(names) and name not in ("BRA", "EXIT"):
            flow.add_edge(at, at + 1)
    loops = (part for part in networkx.strongly_connected_components(flow) if len(part) > 1)
    return {at for loop in loops if any(MMA.search(names[i]) for i in loop) for at in loop}


def read_sass(text: str) -> Code:
    """Count instructions in the output of ``nvdisasm -c``."""
    names, labels, branches = [], {}, []
    for line in text.splitlines():
        if match := re.match(r"\s*(\.L_x_\d+):", line):
            labels[match[1]] = len(names)
        elif match := INSTRUCTION.search(line):
            # A predicated branch may fall through: its name keeps the predicate.
            names.append((match[1] or "") + match[2])
            target = re.search(r"\.L_x_\d+", match[3]) if "BRA" in match[2] else None
            branches.append(target and target[0])
    hot = hot_instructions(names, [labels.get(b) if b else None for b in branches])
    plain = [re.sub(r"^@!?\w+\s+", "", name) for name in names]
    mma = Counter(match[0] for name in plain if (match := MMA.match(name)))
    loads, stores = Counter(), Counter()
    for at, name in enumerate(plain):
        if name.startswith(("LDGSTS", "LDG.")) and (at in hot or not hot):
            loads[".128" in name] += 1
        elif name.startswith("STG"):
            stores[".128" in name] += 1
    return Code(mma, loads, stores, sum(name.startswith(("LDL", "STL")) for name in plain))


def compile_case(case: Case) -> Row:
    """Compile one case and read its machine code."""
    launch = case.find()
    target = GPUTarget("cuda", int(case.family[3:]), 32)
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    built = triton.compile(source(launch, case.aligned), target=target, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage = run_tool("cuobjdump", "-res-usage", file.name)
        code = read_sass(run_tool("nvdisasm", "-c", file.name))
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert found, f"no resource usage of {launch.kernel.__name__}"
    return Row(
        family=case.family,
        operator=case.operator,
        launch=case.launch,
        activation=NAMES[case.activation],
        master=NAMES[case.master],
        width=case.shape.width,
        experts=case.shape.experts,
        tile=describe_tile(case.tile),
        aligned=case.aligned,
        kernel=launch.kernel.__name__,
        registers=int(found[1]),
        shared=built.metadata.shared,
        stack=int(found[2]) + int(found[3]),
        local_accesses=code.local_accesses,
        mma="+".join(sorted(code.mma)),
        mma_count=code.mma.total(),
        loop_wide=code.loop_loads[True],
        loop_narrow=code.loop_loads[False],
        store_wide=code.stores[True],
        store_narrow=code.stores[False],
    )


EXPECTED_MMA = {"sm_80": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA"}


def broken_rules(row: Row) -> list[str]:
    """Return the rules that a row breaks."""
    broken = []
    if row.stack or row.local_accesses:
        broken.append(f"spills: {row.stack} bytes of stack, {row.local_accesses} local accesses")
    if row.shared > SHARED_LIMIT[row.family]:  # pyright: ignore[reportArgumentType]
        broken.append(f"{row.shared} bytes of shared memory")
    matrix = row.tile != ""
    if matrix and EXPECTED_MMA[row.family] not in row.mma and "HMMA" not in row.mma:
        broken.append("no tensor-core instruction")
    # Gathered tokens read one narrow index per row; scalars (weights, an index) are narrow in vector kernels.
    gathered = row.operator == "routed"
    if row.aligned and row.launch != "group":
        if not row.loop_wide or not row.store_wide:
            broken.append("no 128-bit loads in the hot loop, or no 128-bit stores")
        if matrix and row.width == launches.VIT_B_16.width and row.loop_narrow and not gathered:
            broken.append(f"{row.loop_narrow} loads below 128 bits in the hot loop")
    return broken


def worse_than(row: Row, before: Row) -> list[str]:
    """Return in which respects a row is worse than the committed one."""
    worse = []
    if row.registers > before.registers + REGISTER_SLACK:
        worse.append(f"registers {before.registers} -> {row.registers}")
    for name in ("shared", "stack", "local_accesses", "loop_narrow", "store_narrow"):
        if getattr(row, name) > getattr(before, name):
            worse.append(f"{name} {getattr(before, name)} -> {getattr(row, name)}")
    if row.mma != before.mma:
        worse.append(f"instructions {before.mma} -> {row.mma}")
    return worse


def read_report(path: Path) -> dict[tuple[str, ...], Row]:
    """Read a report, keyed by what identifies a row."""
    rows = {}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            kinds = {"int": int, "bool": lambda text: text == "True", "str": str}
            row = Row(**{f.name: kinds[str(f.type)](line[f.name]) for f in fields(Row)})
            rows[row.key] = row
    return rows


def write_report(rows: list[Row], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sample of the rows")
    parser.add_argument("--write", action="store_true", help="replace the committed report")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--filter", default="", help="only cases whose description contains this, such as adamw")
    args = parser.parse_args()

    cases = [case for case in all_cases(args.quick) if args.filter in str(case)]
    committed = {} if args.write or not RESULTS.exists() else read_report(RESULTS)
    rows, problems = [], 0
    # Spawned: a forked child would inherit the state of PyTorch's thread pools.
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for row in tqdm(pool.imap(compile_case, cases), total=len(cases), unit="kernel", disable=None):
            rows.append(row)
            found = broken_rules(row)
            if not args.write:
                before = committed.get(row.key)
                found += worse_than(row, before) if before else ["not in the committed report"]
            problems += len(found)
            for problem in found:
                tqdm.write(f"{' '.join(row.key)}: {problem}", file=sys.stderr)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    print(f"{len(rows)} kernels compiled, {problems} problems", file=sys.stderr)
    if args.write:
        # A filtered run replaces its own rows only; rows of tiles that are gone go.
        known = read_report(RESULTS) if args.filter and RESULTS.exists() else {}
        known |= {row.key: row for row in rows}
        write_report([known[case.key] for case in all_cases(quick=False) if case.key in known], RESULTS)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
