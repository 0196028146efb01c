"""What is measured: arms that give the same, under names of their own."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import answer
import data
import experts
import head
import memory
import peers
import pytest
import scaling
import throughput
import torch
from harness import OFFICIAL, OURS
from inference_scaling import AXES, exponents, inference_scaling
from rows import Row, value
from setting import Setting

from mote_fast.head.head_config import HeadConfig
from tests.tolerances import assert_close

# "answer" has a test of its own.
STAGES = {**throughput.STAGES, **experts.STAGES, "fold": head.fold}
del STAGES["answer"]


def check(rows: list[Row], baseline: str = OFFICIAL) -> None:
    """Every case of every size has both arms, each figure once, and equal outputs where they are comparable."""
    for case, x in {(row.case, row.x) for row in rows}:
        arms = [row.arm for row in rows if (row.case, row.x) == (case, x)]
        assert arms[0] == baseline
        assert OURS in arms
    assert max(Counter((row.case, row.x, row.arm, row.metric) for row in rows).values()) == 1
    differences = {(row.case, row.x, row.arm): row.median for row in rows if row.metric == "difference"}
    for row in rows:
        if row.metric == "tolerance":
            assert differences[row.case, row.x, row.arm] <= row.median, row


@pytest.mark.heavy
@pytest.mark.parametrize("stage", STAGES)
def test_arms_agree(setting: Setting, stage: str) -> None:
    """A ratio means something only where both arms give the same; each arm has a name of its own."""
    pytest.importorskip("decord", reason="the official recipe decodes with decord")
    check(list(STAGES[stage](setting)), head.UNFOLDED if stage == "fold" else OFFICIAL)


@pytest.mark.heavy
def test_answers_come_from_processes_of_their_own(setting: Setting) -> None:
    """Ours answers without and with the cache of class features, which the first of the two has filled."""
    pytest.importorskip("decord", reason="the official recipe decodes with decord")
    rows = list(answer.answer(setting))
    check(rows)
    new, known, loaded, _ = (case.name for case in answer.CASES)
    for arm in (OFFICIAL, OURS):
        assert value(rows, new, arm) > value(rows, loaded, arm) > 0
    assert value(rows, new, OFFICIAL) == value(rows, known, OFFICIAL)


@pytest.mark.heavy
@pytest.mark.parametrize("arms", [(), ("mote_fast, F.linear",)])
def test_arms_can_be_chosen(setting: Setting, arms: tuple[str, ...]) -> None:
    """Without a choice all are measured; with one, the baseline and ours stay."""
    found = {row.arm for row in throughput.STAGES["clip"](replace(setting, arms=arms, left_out={}))}
    assert {OFFICIAL, OURS, "mote_fast, F.linear"} <= found
    assert ("mote_fast, bfloat16" in found) == (arms == ())


@pytest.mark.heavy
@pytest.mark.parametrize("axis", AXES)
def test_axes_agree(setting: Setting, axis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So do both arms at every size of an axis."""
    pytest.importorskip("decord", reason="the official recipe decodes with decord")
    monkeypatch.setitem(AXES, axis, AXES[axis]._replace(sizes=AXES[axis].sizes[:2]))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(setting, "stages", (axis,))
    rows = list(inference_scaling(setting))
    check([row for row in rows if row.case == axis])
    assert {row.metric for row in rows if row.case != axis} == {"expected", "exponent", "at the end"}


def test_exponents_stand_beside_their_order() -> None:
    """Rows of a linear axis give 1; with a fixed cost, the last points are nearer to it than all points are."""
    for fixed in (0.0, 100.0):
        rows = [Row("", "batch", OURS, "time", "ms", fixed + x, x=x) for x in (1, 10, 100, 1000, 10_000)]
        powers = {row.metric: row.median for row in exponents(rows)}
        if fixed:
            assert powers["exponent"] < powers["at the end"] < powers["expected"]
        else:
            assert list(powers.values()) == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.heavy
@pytest.mark.parametrize("work", memory.WORK)
@pytest.mark.parametrize("arm", [OFFICIAL, OURS])
def test_memory_arms_run(setting: Setting, work: str, arm: str) -> None:
    """Both arms of each kind of work run, in this process; peaks are taken in children."""
    pytest.importorskip("decord", reason="the official recipe decodes with decord")
    memory.WORK[work](arm, Setting(setting.folder, ("ViT-test",), setting.given, frames=4, quick=True))()


def test_bytes_explain_a_step_that_only_moves_them() -> None:
    """A step made of seven passes over its experts at a copy's speed, and a fixed cost, has a slope of just 1."""
    speed = 10e9
    rows = [
        Row("scaling", "", OURS, metric, "", figure)
        for mib in (32, 64, 256)
        for metric, figure in (("experts", mib), ("step", 5.0 + 1e3 * scaling.MOVED * mib * 2**20 / speed))
    ]
    found = list(scaling.fit(rows, OURS, speed))
    assert value(found, scaling.FIT, OURS, "of explained") == pytest.approx(1.0)
    assert value(found, scaling.FIT, OURS, "fixed") == pytest.approx(5.0)
    assert value(found, scaling.FIT, OURS, "r2") == pytest.approx(1.0)


@pytest.mark.heavy
def test_scaling_counts_bytes(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row's bytes are those of the head's expert weights, and ours holds gradients of one expert."""
    monkeypatch.setattr(scaling, "EXPERTS", (2, 4))
    rows = list(scaling.scaling(setting))
    head = scaling.TrainingStep(OURS, HeadConfig(64, 1, 2, 2), 1, setting.device).model
    held = sum(each.nbytes for name, each in head.named_parameters() if name.endswith("mlp.weight"))
    case = rows[0].case
    assert value(rows, case, OURS, "experts", 2) == held / 2**20
    assert value(rows, case, OURS, "gradients held", 2) == value(rows, case, OURS, "gradients held", 4)
    assert value(rows, case, OFFICIAL, "gradients held", 2) < value(rows, case, OFFICIAL, "gradients held", 4)


@pytest.mark.heavy
def test_loading_serves_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both arms load a clip of every file, and the originals' pixels are nearly those of the official recipe."""
    monkeypatch.setattr(data, "SECONDS", 1)
    pytest.importorskip("decord", reason="the official recipe decodes with decord")
    for source in data.sources(tmp_path, None, quick=True):
        arms = {arm.name: arm for arm in data.arms_of(source, "none")}
        official, ours = (arms[name].call() for name in (OFFICIAL, OURS))
        assert ours.shape == official.shape
        if source.path == source.original:
            assert (ours - official).abs().mean() < 0.01


@pytest.mark.heavy
def test_peers_are_measured_or_said_to_be_missing(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's arm gives the tower's features; a package that is missing leaves its arm out, with the reason."""
    pytest.importorskip("onnxruntime", reason="an arm of the benchmark")
    pytest.importorskip("onnxscript", reason="exports for that arm")
    full = replace(setting, quick=False, left_out={})
    monkeypatch.setitem(sys.modules, "transformers", None)
    ((name, encode, seconds),) = peers.peers(full)
    towers = full.model.clip
    pixels = full.random(3, 3, towers.image_size, towers.image_size)
    with torch.no_grad():
        assert_close(encode(pixels), towers.encode_frames(pixels))
    assert (name, seconds > 0) == (peers.ONNX_RUNTIME, True)
    assert "transformers" in full.left_out[peers.TRANSFORMERS]


@pytest.mark.heavy
def test_the_tower_of_transformers(setting: Setting) -> None:
    """Their tower has our tower's sizes, so that its time is that of the same work."""
    pytest.importorskip("transformers", reason="an arm of the benchmark")
    encode = {name: encode for name, encode, _ in peers.peers(setting)}[peers.TRANSFORMERS]
    towers = setting.model.clip
    pixels = setting.random(3, 3, towers.image_size, towers.image_size)
    with torch.no_grad():
        assert encode(pixels).shape == towers.encode_frames(pixels).shape
