"""The examples are short, compile, and run on a machine with nothing."""

from __future__ import annotations

import ast
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from mote_fast.runtime.environment import PRESETS

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
# The last line or a part of it that each program prints; onnx_only.py runs in tests/exports.
PRINTED = {
    "bulk.py": "labels.jsonl: 24 videos",
    "classify.py": "plain red square sliding to the left",
    "evaluate.py": "by class: results/per_class.csv",
    "fine_tune.py": "after: ",
    "search.py": "plain_blue_square_sliding_to_the_bottom",
    "drawn_clips.py": "",
}


def cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_programs_compile_and_are_short(program: Path) -> None:
    """A reader sees a whole example at once; its docstring says how to run it."""
    text = program.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    said = ast.get_docstring(ast.parse(text)) or ""
    assert f"python examples/{program.name}" in said or program.name == "drawn_clips.py"
    assert program.name in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio, for which a stand-in serves here, gets functions that take what its fields hold."""
    program = EXAMPLES / "space" / "app.py"
    assert len(program.read_text(encoding="utf-8").splitlines()) < 45
    assert "space/app.py" in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    gradio = MagicMock()
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    space = runpy.run_path(str(program), run_name="space")
    assert [call.args[0] for call in gradio.Button.return_value.click.call_args_list] == [space["rank"], space["find"]]
    clf = space["clf"]
    video = str(min(PRESETS.glob("demo/*/*.mp4")))
    found = space["rank"](video, "ring\ncross")
    assert found == {each.label: each.score for each in clf.classify(video, ["ring", "cross"])}
    assert [row[2] for row in space["find"](video, "ring\ncross")] == [
        each.label for each in clf.timeline(video, ["ring", "cross"], background="auto").segments
    ]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(notebook: Path) -> None:
    """The site's build runs them, so that what is shown is of the present library."""
    programs = [cell for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert programs
    for cell in programs:
        ast.parse("".join(cell["source"]))
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
@pytest.mark.parametrize("program", PRINTED)
def test_programs_run(program: str, tmp_path: Path) -> None:
    """Without arguments, in an empty folder, with the package found as Python finds it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, str(EXAMPLES / program)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert PRINTED[program] in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore::mote_fast.errors.UntrainedWarning")
def test_notebooks_run(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their programs, in order, in one namespace; nothing of Jupyter is needed."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    known: dict[str, object] = {}
    for cell in cells(notebook):
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), known)
