"""The static report: it must see what is in the machine code, and notice when a kernel gets worse."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="the report is of Triton kernels, and Triton is not installed")

from launches import NAMES
from static_report import GPUS, RESULTS, Case, Code, all_cases, broken_rules, read_report, read_sass, worse_than

# A loop around an HMMA; a spin loop without one; a block that was moved behind the exit and jumps back.
SASS = """
        /*0000*/                   LDG.E.64 R2, desc[UR4][R2.64] ;
.L_x_0:
        /*0010*/              @!P0 BRA `(.L_x_0) ;
        /*0020*/               @P1 BRA `(.L_x_3) ;
.L_x_1:
        /*0030*/                   LDGSTS.E.BYPASS.128 [R7], desc[UR12][R20.64], !P1 ;
        /*0040*/                   HMMA.16816.F32.BF16 R24, R100, R4, R24 ;
        /*0050*/               @P0 LDG.E.U16 R8, desc[UR4][R2.64] ;
        /*0060*/               @P2 BRA `(.L_x_1) ;
.L_x_2:
        /*0070*/                   STG.E.128 desc[UR4][R2.64], R4 ;
        /*0080*/                   STL [R1], R4 ;
        /*0090*/                   EXIT ;
.L_x_3:
        /*00a0*/                   LDG.E R9, desc[UR4][R2.64] ;
        /*00b0*/                   BRA `(.L_x_1) ;
"""


def test_only_loops_with_tensor_core_instructions_are_hot() -> None:
    """A block behind the exit that jumps back into the loop is no part of it."""
    code = read_sass(SASS)
    assert (code["mma"], code["mma_count"]) == ("HMMA", 1)
    assert (code["loop_wide"], code["loop_narrow"]) == (1, 1)
    assert (code["store_wide"], code["store_narrow"], code["local_accesses"]) == (1, 0, 1)


@pytest.fixture(scope="module")
def committed() -> dict[Case, Code]:
    return read_report(RESULTS)


@pytest.mark.parametrize("version", ["3.6.0", "3.8.0"])
def test_committed_report_is_complete(committed: dict[Case, Code], version: str) -> None:
    """Every case has its row for PyTorch 2.11's Triton and for the newest, and no row is of a tile that is gone."""
    cases = {case._replace(triton=version) for case in all_cases(quick=False)}
    assert {case for case in committed if case.triton == version} == cases


def test_committed_report_is_clean(committed: dict[Case, Code]) -> None:
    """No row breaks a rule, and the report has no version but the two that it promises."""
    assert {case.triton for case in committed} == {"3.6.0", "3.8.0"}
    assert not [problem for case, code in committed.items() for problem in broken_rules(case, code)]


@pytest.mark.parametrize("gpu", GPUS)
def test_no_launch_and_no_dtype_is_left_out(gpu: int) -> None:
    """Every launch of every operator, and products of both streams in each dtype."""
    cases = [case for case in all_cases(quick=False) if case.gpu == gpu]
    assert {(case.operator, case.launch) for case in cases} == {(key, name) for key in NAMES for name in NAMES[key]}
    assert {case.activation for case in cases if case.tile} == {"float32", "bfloat16", "float16"}


def test_worse_rows_are_noticed(committed: dict[Case, Code]) -> None:
    """Spills, registers, shared memory, narrower accesses and lost tensor cores all count; equality does not."""
    case, code = next(iter(committed.items()))
    assert not worse_than(code, code)
    for change in ({"stack": 8}, {"registers": code.registers + 9}, {"shared": code.shared + 1}, {"loop_narrow": 99}):
        assert worse_than(code._replace(**change), code)
    assert worse_than(code._replace(mma=""), code)
    assert len(broken_rules(case, code._replace(mma="", stack=8, shared=1 << 20))) == 3


def test_quick_form_checks_a_part_of_the_same_rows() -> None:
    """What `make test` compiles is compared with the committed rows."""
    assert {*all_cases(quick=True)} < {*all_cases(quick=False)}
