"""Compile every kernel ahead of time for GPUs that are not here, and report what the machine code needs.

    python benchmarks/static_report.py [--quick] [--write] [--filter TEXT] [--jobs N]

Every kernel for every GPU (``GPUS``), in the tiles and dtypes that tell something (``matrix_cases``, ``vector_cases``),
at an embedding width that tiles do not divide too: registers, shared memory, stack (spills), tensor-core instructions,
the widths of global accesses, read from the SASS, and waits for a product in its own step, from Triton's last own form.
Fails if a kernel breaks a rule (``broken_rules``) or got worse than the committed
results/static_report.csv, which has every case of each version of Triton that it has any of; other versions are held to
the rules only. ``--write`` adds or replaces the rows of what it compiles, for the version that runs. ``--quick`` checks
a sample. Another version: its wheel unpacked in a folder, and that folder on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

import networkx
import torch
import triton
from launches import NAMES, VIT_B_16, Launch, Shape, launches_of
from torch import Tensor
from tqdm import tqdm
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mote_fast.kernels import tiles

RESULTS = Path(__file__).parent / "results" / "static_report.csv"
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

FLOATS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
POINTERS = FLOATS | {torch.int64: "*i64", torch.int32: "*i32"}
# Activations and master weights. Products read activations alone; weight gradients have the masters' dtype.
MIXED, HALF, FLOAT32 = ("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32")

# Compute capabilities. The last three are consumer GPUs, which share sm_80's table and have less shared memory.
GPUS = (80, 90, 100, 120, 86, 89)
DATA_CENTER_GPUS = (80, 90, 100)
# One GPU is compiled for, besides, in another number of experts.
THOROUGH = 90
# Bytes of shared memory that one program may use.
SHARED_LIMIT = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}

# No tile divides 80; 37 tokens are odd.
UNEVEN = Shape(80, 37, 1, 3)
USUAL = VIT_B_16

# Registers that a compile may gain over the committed report before it counts as worse.
REGISTER_SLACK = 8


class Case(NamedTuple):
    """One kernel to compile, in words that identify its row and can be sent to another process."""

    triton: str
    gpu: int
    operator: str
    launch: str
    activation: str
    master: str
    width: int
    experts: int
    tile: str
    aligned: bool

    def find(self) -> Launch:
        """Return the launch that the operator makes in this case."""
        activation, master = getattr(torch, self.activation), getattr(torch, self.master)
        shape = UNEVEN if self.width == UNEVEN.width else replace(USUAL, experts=self.experts)
        tile = tiles.MatrixTile(*map(int, self.tile.split("x"))) if self.tile else None
        vector = tiles.VECTOR_TILE if self.aligned else tiles.SMALL_VECTOR_TILE
        return launches_of(self.operator, shape, activation, master, tile, vector)[self.launch]


class Code(NamedTuple):
    """What a compiled kernel needs.

    ``loop_*`` count global loads in loops that hold tensor-core instructions, or in the whole kernel where it has no
    such loop (vector kernels, and loops that the compiler unrolled); stores are counted in the whole kernel; ``wide``
    means 128 bits.
    """

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
    # Waits for a tensor-core product in the step of the loop that started it (sm_90).
    waits: int


Kind = TypeVar("Kind", Case, Code)


def matrix_cases(gpu: int) -> Iterator[Case]:
    """Products: every tile of the GPU's table, and the largest where others would say nothing more.

    That is for routed products, which differ from the pair's in how they find their tokens, and for a split ``dx``,
    which is a split ``down`` without a bias. float16 has the tiles of bfloat16, and code that differs where values
    are rounded and in the flag of an instruction: it is compiled for ``up`` and ``dpre``, whose loops and ends are
    those of ``down`` and ``dx`` and more, and for ``dw_down``. All of it would make the report half as long again.
    Masks in every dimension are compiled for the GPU with the smallest tiles.
    """
    for launch in ("up", "down", "dpre", "dw_down", "dw_up", "dx"):
        every = [("pair", MIXED, USUAL), ("pair", FLOAT32, USUAL), ("routed", MIXED, USUAL)]
        if launch in ("up", "dpre", "dw_down"):
            every.append(("pair", HALF, USUAL))
        if gpu == 80 and launch in ("up", "dx", "dw_down"):
            every.append(("pair", MIXED, UNEVEN))
        for operator, dtypes, shape in every:
            table = tables(gpu, launch, dtypes[0])
            case = Case(triton.__version__, gpu, operator, launch, *dtypes, shape.width, shape.experts, "", True)
            for tile in table[: 1 if operator == "routed" else None]:
                yield case._replace(tile=words(tile))
                can_split = operator == "pair" and shape == USUAL
                if can_split and (launch == "down" or (launch == "dx" and tile == table[0])):
                    yield case._replace(tile=words(tile._replace(parts=3)))


def tables(gpu: int, launch: str, activation: str) -> tuple[tiles.MatrixTile, ...]:
    """Return the tiles that a product may get on a GPU, the largest first."""
    kind: tiles.Product = "gradient" if launch.startswith("dw") else "linear"
    return tiles.MATRIX_TILES[tiles.family_of(divmod(gpu, 10))][kind][getattr(torch, activation).itemsize]


def words(tile: tiles.MatrixTile) -> str:
    """Return a tile as text: rows, columns, reduction step, warps and stages, and the parts of a split one."""
    return "x".join(map(str, tile if tile.parts > 1 else tile[:-1]))


def vector_cases(gpu: int) -> Iterator[Case]:
    """Everything else; on one GPU also for many experts, and the optimiser for pointers that 16 does not divide."""
    case = Case(triton.__version__, gpu, "", "", *MIXED, USUAL.width, USUAL.experts, "", True)
    for experts in (USUAL.experts, 16) if gpu == THOROUGH else (USUAL.experts,):
        for operator, launch in (("pair", "rows"), *(("merge", name) for name in NAMES["merge"])):
            yield case._replace(operator=operator, launch=launch, experts=experts)
    for launch in NAMES["quick_gelu"]:
        yield case._replace(operator="quick_gelu", launch=launch)
    for launch, aligned in product(NAMES["adamw"], (True, False) if gpu == THOROUGH else (True,)):
        yield case._replace(operator="adamw", launch=launch, activation="float32", aligned=aligned)
    yield case._replace(operator="routed", launch="group", activation="float32")


def all_cases(quick: bool) -> list[Case]:
    """Every case, or a sample: the dtypes of mixed-precision training, the largest tiles."""
    cases = [case for gpu in GPUS for case in (*matrix_cases(gpu), *vector_cases(gpu))]
    return [case for case in cases if in_sample(case)] if quick else cases


def in_sample(case: Case) -> bool:
    usual = case.aligned and (case.activation, case.master) == MIXED and case.gpu in DATA_CENTER_GPUS
    rows, columns, *_ = map(int, case.tile.split("x")) if case.tile else (128, 128)
    largest = columns == 128 and rows > 16 and (case.width, case.experts) == (USUAL.width, USUAL.experts)
    return usual and largest and (case.operator in ("pair", "quick_gelu") or case.launch in ("forward", "expand"))


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


def source(launch: Launch, aligned: bool) -> ASTSource:
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
            if parameter.do_not_specialize:
                attributes.pop((i,), None)
    return ASTSource(launch.kernel, signature, constants, attributes)


def run_tool(name: str, *args: str) -> str:
    return subprocess.run([str(TOOLS / name), *args], capture_output=True, text=True, check=True).stdout


MMA = re.compile(r"\b(HGMMA|HMMA|UTC[A-Z]*MMA)")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(@!?\w+\s+)?([A-Z][\w.]*)(.*)")


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


def read_sass(text: str) -> dict[str, Any]:
    """Count instructions in the output of ``nvdisasm -c``: fields of ``Code``."""
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
    mma = [match[0] for name in plain if (match := MMA.match(name))]
    loads = [name for at, name in enumerate(plain) if name.startswith(("LDGSTS", "LDG.")) and (at in hot or not hot)]
    stores = [name for name in plain if name.startswith("STG")]
    found = {"mma": "+".join(sorted({*mma})), "mma_count": len(mma)}
    for kind, accesses in (("loop", loads), ("store", stores)):
        wide = sum(".128" in name for name in accesses)
        found |= {f"{kind}_wide": wide, f"{kind}_narrow": len(accesses) - wide}
    return found | {"local_accesses": sum(name.startswith(("LDL", "STL")) for name in plain)}


def same_step_waits(ttgir: str) -> int:
    """Count the waits in loops that leave no asynchronous product under way: ``pendings = 0``."""
    waits, loops = 0, list[int]()
    for line in ttgir.splitlines():
        depth = len(line) - len(line.lstrip())
        if "scf.for" in line or "scf.while" in line:
            loops.append(depth)
        elif loops and depth == loops[-1] and line.lstrip().startswith("}"):
            loops.pop()
        waits += bool(loops) and "warp_group_dot_wait" in line and "pendings = 0" in line
    return waits


def compile_case(case: Case) -> Code:
    """Compile one case and read its machine code."""
    launch = case.find()
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    built = triton.compile(source(launch, case.aligned), target=GPUTarget("cuda", case.gpu, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage = run_tool("cuobjdump", "-res-usage", file.name)
        sass = read_sass(run_tool("nvdisasm", "-c", file.name))
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert found, f"no resource usage of {launch.kernel.__name__}"
    registers, stack, local = map(int, found.groups())
    resources = {"registers": registers, "shared": built.metadata.shared, "stack": stack + local}
    waits = same_step_waits(built.asm["ttgir"])
    return Code(kernel=launch.kernel.__name__, **resources, **sass, waits=waits)


EXPECTED_MMA = {90: "HGMMA", 100: "UTCHMMA"}


def broken_rules(case: Case, code: Code) -> list[str]:
    """Return the rules that a compiled case breaks."""
    broken = []
    if code.stack or code.local_accesses:
        broken.append(f"spills: {code.stack} bytes of stack, {code.local_accesses} local accesses")
    if code.shared > SHARED_LIMIT[case.gpu]:
        broken.append(f"{code.shared} bytes of shared memory")
    if case.tile and EXPECTED_MMA.get(case.gpu, "HMMA") not in code.mma and "HMMA" not in code.mma:
        broken.append("no tensor-core instruction")
    # tf32x3 splits its operands in registers, and waits for each of its three products.
    if case.activation != "float32" and code.waits:
        broken.append(f"{code.waits} products awaited in their own step")
    # Scalars (weights, an index) are narrow in vector kernels.
    if case.aligned and case.launch != "group":
        if not code.loop_wide or not code.store_wide:
            broken.append("no 128-bit loads in the hot loop, or no 128-bit stores")
        # Gathered tokens read one narrow index per row.
        # Triton 3.6 stores the transposed float32 operand of a weight gradient transposed, value by value.
        by_value = case.triton.startswith("3.6.") and case.activation == "float32" and case.launch.startswith("dw")
        plain = case.tile and case.width == USUAL.width and case.operator != "routed" and not by_value
        if plain and code.loop_narrow:
            broken.append(f"{code.loop_narrow} loads below 128 bits in the hot loop")
    return broken


def worse_than(code: Code, before: Code) -> list[str]:
    """Return in which respects a kernel is worse than the committed one."""
    worse = []
    if code.registers > before.registers + REGISTER_SLACK:
        worse.append(f"registers {before.registers} -> {code.registers}")
    for name in ("shared", "stack", "local_accesses", "loop_narrow", "store_narrow", "waits"):
        if getattr(code, name) > getattr(before, name):
            worse.append(f"{name} {getattr(before, name)} -> {getattr(code, name)}")
    if code.mma != before.mma:
        worse.append(f"instructions {before.mma} -> {code.mma}")
    return worse


def read_report(path: Path) -> dict[Case, Code]:
    """Read a report; its columns are the fields of both."""
    with path.open(newline="") as file:
        return {_typed(Case, line): _typed(Code, line) for line in csv.DictReader(file)}


def _typed(kind: type[Kind], line: dict[str, str]) -> Kind:
    types = {int: int, bool: "True".__eq__}
    return kind(**{name: types.get(each, str)(line[name]) for name, each in get_type_hints(kind).items()})


def write_report(rows: dict[Case, Code], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*Case._fields, *Code._fields))
        writer.writerows((*case, *code) for case, code in rows.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sample of the rows")
    parser.add_argument("--write", action="store_true", help="replace the committed report")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--filter", default="", help="only cases whose description contains this, such as adamw")
    args = parser.parse_args()

    cases = [case for case in all_cases(args.quick) if args.filter in str(case)]
    committed = read_report(RESULTS) if RESULTS.exists() else {}
    reported = {case.triton for case in committed}
    rows: dict[Case, Code] = {}
    problems = 0
    # Spawned: a forked child would inherit the state of PyTorch's thread pools.
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        compiled = tqdm(pool.imap(compile_case, cases), total=len(cases), unit="kernel", disable=None)
        for case, code in zip(cases, compiled, strict=True):
            rows[case] = code
            found = broken_rules(case, code)
            if not args.write and case.triton in reported:
                found += worse_than(code, committed[case]) if case in committed else ["no row: add it with --write"]
            problems += len(found)
            for problem in found:
                tqdm.write(f"{' '.join(map(str, case))}: {problem}", file=sys.stderr)
    print(f"{len(rows)} kernels compiled, {problems} problems", file=sys.stderr)
    if args.write:
        # Read again, because a run of another version may have written meanwhile. Rows of tiles that are gone go.
        committed = read_report(RESULTS) if RESULTS.exists() else {}
        kept = {case: code for case, code in committed.items() if case.triton != triton.__version__}
        known = committed | rows
        write_report(kept | {case: known[case] for case in all_cases(quick=False) if case in known}, RESULTS)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
