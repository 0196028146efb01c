"""From arms to rows: parts count as the whole, and outputs that differ are told."""

from __future__ import annotations

import platform

import pytest
import torch
from harness import GEMM, OFFICIAL, OURS, Arm, Workload, described, measure
from rows import value
from setting import Setting


@pytest.mark.heavy
def test_a_part_is_scaled_to_the_whole(setting: Setting) -> None:
    """A quarter of the work, measured, counts as the whole; rates are of what was done."""
    arms = [
        Arm(OFFICIAL, lambda: sum(range(20_000)), clips=1, scale=4.0, flops=1e9),
        Arm(OURS, lambda: sum(range(20_000)), clips=4, flops=1e9, preparation=2.0),
        Arm(GEMM, lambda: None, flops=1e9, yardstick=True),
    ]
    rows = list(measure(Workload("clip", "scaled", arms, turns=10), setting))
    seconds = value(rows, "scaled", OFFICIAL) / 1e3
    assert value(rows, "scaled", OFFICIAL, "ratio") == 1.0
    assert value(rows, "scaled", OFFICIAL, "throughput") == pytest.approx(4.0 / seconds)
    assert value(rows, "scaled", OFFICIAL, "rate") == pytest.approx(4.0 * 1e9 / seconds / 1e12)
    assert value(rows, "scaled", OFFICIAL, "scale") == 4.0
    assert value(rows, "scaled", OURS, "preparation") == 2000.0
    assert {row.metric for row in rows if row.arm == GEMM} == {"time", "rate"}
    peak = value(rows, "scaled", GEMM) / value(rows, "scaled", OURS)
    assert value(rows, "scaled", OURS, "of peak") == pytest.approx(peak)


@pytest.mark.heavy
def test_outputs_that_differ_are_told(setting: Setting) -> None:
    """The relative difference and the cosine are to the output of the first arm of the same size."""
    outputs = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    arms = [
        Arm(name, lambda out=out: out, x) for x in (1, 2) for name, out in zip((OFFICIAL, OURS), outputs, strict=True)
    ]
    rows = list(measure(Workload("clip", "outputs", arms, turns=2), setting))
    for x in (1, 2):
        differences = [value(rows, "outputs", arm, "difference", x) for arm in (OFFICIAL, OURS)]
        assert differences == pytest.approx([0, 2**0.5 / 5])
        assert value(rows, "outputs", OURS, "cosine", x) == pytest.approx(0.96)


@pytest.mark.heavy
def test_memory_is_shared_where_it_means_something(setting: Setting) -> None:
    """A few MiB say nothing, and have no share."""
    for mib, shares in ((64, 1), (2, 0)):
        arms = [Arm(name, lambda mib=mib: int(torch.ones(mib << 18).numel())) for name in (OFFICIAL, OURS)]
        rows = list(measure(Workload("clip", "memory", arms, turns=2), setting))
        if not any(row.metric == "memory" for row in rows):
            pytest.skip("this system does not tell")
        assert [row.metric for row in rows if row.arm == OURS].count("memory share") == shares


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (
            "processor\t: 0\ncpu family\t: 23\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: sse avx avx2\n\n"
            "processor\t: 1\nmodel name\t: another\n",
            "AMD EPYC (family 23, model 1) with AVX2",
        ),
        ("model name\t: one: two\nflags\t\t: avx2 avx512f avx512_vnni\n", "one: two with AVX2 AVX-512 VNNI"),
        ("processor\t: 0\nFeatures\t: fp asimd\n", platform.machine()),
    ],
    ids=["family", "no family", "ARM"],
)
def test_a_processor_is_told_by_what_decides_its_speed(cpuinfo: str, expected: str) -> None:
    """Processors of one name, such as those of clouds, differ twofold by family and instruction sets."""
    assert described(cpuinfo) == expected
