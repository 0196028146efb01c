"""Record what kernels load and store in Triton's interpreter, and count the bytes.

Loads and stores are recorded, and values left out: no address depends on them, except through integers (indices, orders
of samples), which are loaded and stored for real. The interpreter runs many programs at once: every array of its has
one more axis, the last, over programs. Where a condition or the bounds of a loop differ between them, the programs
begin again in groups that agree, and what they added to counters is taken back first.

requested    every load and store of every program: no reuse beyond the program at all
per launch   every 128-byte line at most once per launch: unlimited reuse inside a launch, none between launches
dram         lines that miss an L2 of 25 MB, half of an H100's 50 MB because data may be held on both of its sides, kept
             by last use (lines that a kernel stores with evict_first leave first), with as many programs running side
             by side as the part has processors, in the order in which CUDA starts them, taking turns; lines written
             stay until evicted, and all are written back at the end

Tensors are taken to begin at the start of a line, as CUDA's allocator places them, and to share none; the CPU's does
not, and lines that straddle two programs' tiles would be counted twice, those of two small tensors once.
"""

from __future__ import annotations

import inspect
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, zip_longest
from typing import Any, NamedTuple, TypeAlias
from unittest.mock import patch

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, ReduceScanOpInterface, TensorHandle

from mote_fast.kernels.tiles import GPU_SPECS

LINE = 128
# From one storage to the next, in the numbers that addresses become.
APART = 1 << 40
L2_BYTES = 25 * 1024 * 1024
# Programs that are interpreted at once: an array of a 128 x 64 tile's addresses then takes 4 MB.
BATCH = 64


class Access(NamedTuple):
    """Line numbers of one load or store; ``leaves_first`` is the kernel's evict_first hint."""

    lines: NDArray[np.uint64]
    written: bool
    leaves_first: bool = False


# Accesses of one program, in order.
Program: TypeAlias = list[Access]


@dataclass
class Traffic:
    """Launches recorded so far, each a list of programs, and the bytes that their instructions asked for."""

    launches: list[list[Program]] = field(default_factory=list)
    loaded: int = 0
    stored: int = 0

    @property
    def requested(self) -> int:
        """Bytes of every load and store of every program."""
        return self.loaded + self.stored

    def per_launch(self) -> int:
        """Bytes of the lines that each launch reads, and of those it writes, each once."""
        total = 0
        for programs in self.launches:
            for written in (False, True):
                lines = [a.lines for program in programs for a in program if a.written is written]
                total += LINE * len(np.unique(np.concatenate(lines))) if lines else 0
        return total

    def dram(self, l2_bytes: int = L2_BYTES, processors: int = GPU_SPECS["sm_90"].processors) -> int:
        """Bytes read from and written back to memory behind an L2 kept by last use."""
        capacity = l2_bytes // LINE
        # Line -> whether it was written since it came in.
        cache: OrderedDict[int, bool] = OrderedDict()
        moved = 0
        for programs in self.launches:
            for first in range(0, len(programs), processors):
                # Programs that run side by side make one access each, in turn.
                turns = zip_longest(*programs[first : first + processors])
                for lines, written, leaves_first in filter(None, chain.from_iterable(turns)):
                    for line in lines.tolist():
                        if line in cache:
                            cache[line] = cache.pop(line) or written
                        else:
                            moved += not written
                            if len(cache) >= capacity:
                                moved += cache.popitem(last=False)[1]
                            cache[line] = written
                        if leaves_first:
                            cache.move_to_end(line, last=False)
        return LINE * (moved + sum(cache.values()))


class Diverged(BaseException):
    """Programs of a batch disagree about a condition or a bound; ``values`` are theirs.

    Not an Exception: the interpreter would wrap it.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        super().__init__()
        self.values = values


def agreed(tensor: Any) -> int:
    """Return the value of a scalar that is the same in all programs."""
    values = tensor.handle.data
    if (values != values.flat[0]).any():
        raise Diverged(values)
    return int(values.flat[0])


def lines_of(
    addresses: NDArray[np.uint64], active: NDArray[np.bool_], shift: NDArray[np.uint64]
) -> list[NDArray[np.uint64]]:
    """Return, for each program, the numbers of the lines that hold its active addresses, ascending, each once.

    Args:
        addresses: [..., programs].
        active: the same shape; the other addresses are not accessed.
        shift: [programs], what is added to an address before.
    """
    if addresses.ndim == 3 and len(addresses) > 1 and abs(int(addresses[1, 0, 0]) - int(addresses[0, 0, 0])) < LINE:
        # Columns lie side by side in memory, and neighbors there are in one line.
        addresses, active = addresses.swapaxes(0, 1), active.swapaxes(0, 1)
    flat = np.moveaxis(addresses, -1, 0).reshape(addresses.shape[-1], -1)
    inside = np.moveaxis(active, -1, 0).reshape(flat.shape)
    lines = (flat + shift[:, None]) // np.uint64(LINE)
    # Most neighbors share a line: drop those before the sort.
    new = inside.copy()
    new[:, 1:] &= (lines[:, 1:] != lines[:, :-1]) | ~inside[:, :-1]
    return [np.unique(row[first]) for row, first in zip(lines, new, strict=True)]


class Recorder:
    """The interpreter's launches, loads and stores, in the place of its own."""

    def __init__(self, traffic: Traffic, batch: int) -> None:
        self._traffic, self._batch = traffic, batch
        # Where the storages of the running launch begin, ascending, and what is added to addresses within them.
        self._starts, self._shifts = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        # The storages of all launches by where they begin, each with its place.
        self._places: dict[int, int] = {}
        # Functions of the running launch that see the interpreter's language.
        self._patched: set[object] = set()
        self._patch = interpreter._patch_lang
        self._load, self._store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
        self._add = InterpreterBuilder.create_atomic_rmw
        # The batch: program numbers [programs, 3], their accesses, and bytes loaded and stored.
        self._sizes = (1, 1, 1)
        self._programs = np.zeros((1, 3), np.int32)
        # For each addition of the batch to counters, what takes it back.
        self._take_back: list[Callable[[], object]] = []
        self._accesses: list[Program] = []
        self._moved = {False: 0, True: 0}

    def replacements(self) -> Iterator[Any]:
        """Yield the patches of the interpreter: they record, and they know of the axis of programs."""
        yield patch.object(GridExecutor, "__call__", lambda executor, *args, **kw: self.launch(executor, *args, **kw))
        yield patch.object(interpreter, "_patch_lang", self.patch_once)
        yield patch.object(ReduceScanOpInterface, "to_tensor", lambda _, data, dtype: tensor_of(data, dtype))
        yield patch.multiple(
            InterpreterBuilder,
            create_masked_load=lambda builder, *args: self.load(builder, *args),
            create_masked_store=lambda builder, *args: self.store(builder, *args),
            create_atomic_rmw=lambda builder, *args: self.add(builder, *args),
            create_get_program_id=lambda _, axis: TensorHandle(self._programs[:, axis], tl.int32),
            create_get_num_programs=lambda _, axis: TensorHandle(np.array([self._sizes[axis]], np.int32), tl.int32),
            create_make_range=lambda _, kind, *ends: TensorHandle(np.arange(*ends, dtype=np.int32)[:, None], tl.int32),
            create_splat=lambda _, kind, x: TensorHandle(spread(x.data, kind.shape), x.dtype.scalar),
            create_broadcast=lambda _, x, shape: TensorHandle(spread(x.data, shape), x.dtype.scalar),
            create_trans=lambda _, x, perm: TensorHandle(x.data.transpose(*perm, len(perm)), x.dtype.scalar),
            create_dot=lambda _, a, b, total, *rest: total,
        )

    def launch(self, executor: GridExecutor, *args: Any, **options: Any) -> None:
        """Run all programs of a launch, as ``GridExecutor.__call__`` does one by one."""
        starts = sorted({x.untyped_storage().data_ptr() for x in tensors_among(args)})
        places = [self._places.setdefault(start, len(self._places) + 1) for start in starts]
        self._starts = np.array(starts, np.uint64)
        # Unsigned differences wrap, and the sum with an address wraps back.
        self._shifts = np.array(places, np.uint64) * np.uint64(APART) - self._starts
        self._patched.clear()
        names = inspect.getfullargspec(executor.fn).args
        given = inspect.getcallargs(executor.fn, *args, **{k: v for k, v in options.items() if k in names})
        given = {k: v if k in executor.constexprs else interpreter._implicit_cvt(v) for k, v in given.items()}
        # The first axis varies fastest, as on a GPU.
        self._sizes = (*executor.grid, 1, 1)[:3]
        programs = np.indices(self._sizes[::-1]).reshape(3, -1).T[:, ::-1].astype(np.int32)
        found: list[Program] = [[] for _ in programs]
        scope = interpreter._patch_lang(executor.fn)
        try:
            waiting = deque(np.split(np.arange(len(programs)), range(self._batch, len(programs), self._batch)))
            while waiting:
                members = waiting.popleft()
                self._programs, self._moved = programs[members], {False: 0, True: 0}
                self._accesses, self._take_back = [[] for _ in members], []
                try:
                    executor.fn(**given)
                except Diverged as split:
                    for undo in self._take_back:
                        undo()
                    # Those that a false condition lets end first: others may wait for their counts.
                    waiting.extendleft(members[split.values == value] for value in np.unique(split.values)[::-1])
                    continue
                for member, accesses in zip(members, self._accesses, strict=True):
                    found[member] = accesses
                self._traffic.loaded += self._moved[False]
                self._traffic.stored += self._moved[True]
        finally:
            scope.restore()
        self._traffic.launches.append(found)

    def patch_once(self, function: Any) -> Any:
        """Exchange the language that a function sees once per launch: doing so at every call takes long."""
        if function in self._patched:
            return interpreter._LangPatchScope()
        self._patched.add(function)
        scope = self._patch(function)
        tl.tensor.__bool__ = lambda tensor: bool(agreed(tensor))
        tl.tensor.__index__ = agreed
        return scope

    def load(self, builder: InterpreterBuilder, pointers: TensorHandle, mask: TensorHandle, *rest: Any) -> TensorHandle:
        """Record a load; floating values are zeros."""
        self._note(pointers, mask, written=False)
        kind = pointers.get_element_ty()
        if kind.is_floating():
            return TensorHandle(np.zeros((*pointers.data.shape[:-1], 1), interpreter._get_np_dtype(kind)), kind)
        other, *hints = rest
        if other is None:
            other = TensorHandle(np.zeros(1, interpreter._get_np_dtype(kind)), kind)
        return self._load(builder, *alike(pointers, mask, other), *hints)

    def store(
        self, builder: InterpreterBuilder, pointers: TensorHandle, value: TensorHandle, mask: TensorHandle, *rest: Any
    ) -> None:
        """Record a store; floating values are dropped."""
        self._note(pointers, mask, written=True, eviction=rest[1])
        if not pointers.get_element_ty().is_floating():
            self._store(builder, *alike(pointers, value, mask), *rest)

    def add(self, builder: InterpreterBuilder, operation: Any, *args: Any) -> TensorHandle:
        """Record an addition to integers, a load and a store, and do it for one program after another."""
        pointers, value, mask, *rest = args
        assert not pointers.get_element_ty().is_floating(), "programs that begin again take back integers alone"
        self._note(pointers, mask, written=False)
        self._note(pointers, mask, written=True)
        everywhere = TensorHandle(np.zeros((*pointers.data.shape[:-1], len(self._programs)), bool), tl.int1)
        pointers, value, mask, _ = alike(pointers, value, mask, everywhere)
        less = TensorHandle(-value.data, value.dtype)
        self._take_back.append(partial(self._add, builder, operation, pointers, less, mask, *rest))
        return self._add(builder, operation, pointers, value, mask, *rest)

    def _note(self, pointers: TensorHandle, mask: TensorHandle, written: bool, eviction: object = None) -> None:
        shape = (*pointers.data.shape[:-1], len(self._programs))
        # The interpreter keeps some masks as integers.
        addresses, active = np.broadcast_to(pointers.data, shape), np.broadcast_to(mask.data.astype(bool), shape)
        self._moved[written] += int(np.count_nonzero(active)) * (pointers.get_element_ty().primitive_bitwidth // 8)
        # A program's instruction addresses one tensor.
        some = active.reshape(-1, shape[-1]).argmax(0)
        firsts = np.take_along_axis(addresses.reshape(-1, shape[-1]), some[None], 0)[0]
        lines = lines_of(addresses, active, self._shifts[np.searchsorted(self._starts, firsts, "right") - 1])
        hinted = "EVICT_FIRST" in str(eviction)
        for accesses, own in zip(self._accesses, lines, strict=True):
            if len(own):
                accesses.append(Access(own, written, hinted))


def spread(data: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Broadcast to a block's shape, the axis of programs left as it is."""
    return np.broadcast_to(data, (*map(int, shape), data.shape[-1]))


def alike(*handles: TensorHandle) -> list[TensorHandle]:
    """Return handles whose arrays have one shape, in memory of their own."""
    arrays = np.broadcast_arrays(*(handle.data for handle in handles))
    return [TensorHandle(np.ascontiguousarray(x), handle.dtype) for x, handle in zip(arrays, handles, strict=True)]


def tensor_of(data: NDArray[Any], kind: tl.dtype) -> tl.tensor:
    """Return what a reduction or a scan gave, [..., programs], as the interpreter's tensor."""
    shape = [*data.shape[:-1]]
    handle = TensorHandle(data.astype(interpreter._get_np_dtype(kind)), kind.scalar)
    return tl.tensor(handle, tl.block_type(kind.scalar, shape) if shape else kind.scalar)


@contextmanager
def counted(batch: int = BATCH) -> Iterator[Traffic]:
    """Record what the kernels launched inside load and store, ``batch`` programs at once.

    What they write is left out, except integers.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise SystemExit("traffic is counted in Triton's interpreter: set TRITON_INTERPRET=1")
    traffic = Traffic()
    with ExitStack() as replaced:
        for replacement in Recorder(traffic, batch).replacements():
            replaced.enter_context(replacement)
        yield traffic


def tensors_among(values: Iterable[object]) -> Iterator[Tensor]:
    """Yield the tensors among a launch's arguments, those in tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from tensors_among(value)
