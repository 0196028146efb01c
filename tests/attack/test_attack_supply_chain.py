"""What the sources may not contain: shells, evaluated text, unpickled files; and the hashes of the lock."""

from __future__ import annotations

import ast
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mote_fast.runtime.files import staged, staged_folder, write_bytes, write_text
from mote_fast.runtime.weights import save_pickled, save_tensors
from tests.attack.conftest import Attack

ROOT = Path(__file__).parents[2]
FOLDERS = ("mote_fast", "kernels", "benchmarks", "tools", "lab")
HASHES = "constraints.hashes.txt"

# Classes that PyYAML's readers may be given: they make plain values.
_SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "_StrictLoader"}
# What reads pickles, where it reads only what this process or its parent wrote, or plain tensors.
_PICKLE_READERS = {
    "mote_fast/runtime/workers.py": "tasks between a process and the workers that it started",
}


def sources() -> list[Path]:
    return [*(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))), ROOT / "train.py"]


def offences(code: str, name: str = "") -> Iterator[str]:
    """The calls in a source that could run or overwrite what the user did not ask for."""
    for node in ast.walk(ast.parse(code)):
        bases = [_name(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
        if {"pickle.Unpickler", "Unpickler"} & {*bases} and name not in _PICKLE_READERS:
            yield f"line {node.lineno}: an unpickler"
        if isinstance(node, ast.ImportFrom) and node.module in (
            "pickle",
            "marshal",
            "shelve",
            "dill",
            "os",
            "subprocess",
        ):
            hidden = {alias.name for alias in node.names} & {"load", "loads", "system", "popen", "getoutput"}
            if hidden:
                yield f"line {node.lineno}: {node.module}.{min(hidden)} under a bare name"
        if not isinstance(node, ast.Call):
            continue
        called, keywords = _name(node.func), {each.arg: each.value for each in node.keywords}
        shell = keywords.get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            yield f"line {node.lineno}: a shell"
        if called in ("eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput", "tempfile.mktemp"):
            yield f"line {node.lineno}: {called}"
        if called in ("marshal.load", "marshal.loads", "shelve.open", "dill.load", "joblib.load"):
            yield f"line {node.lineno}: {called}"
        if called in ("pickle.load", "pickle.loads", "pickle.Unpickler") and name not in _PICKLE_READERS:
            yield f"line {node.lineno}: {called}"
        if called in ("np.load", "numpy.load") and _is_true(keywords.get("allow_pickle")):
            yield f"line {node.lineno}: {called} of pickles"
        if called == "torch.load" and not _is_true(keywords.get("weights_only")):
            yield f"line {node.lineno}: torch.load of any object"
        if called in ("torch.jit.load", "torch.package.PackageImporter", "torch.hub.load"):
            yield f"line {node.lineno}: {called}"
        if called in ("yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all"):
            yield f"line {node.lineno}: {called}"
        if (
            called in ("yaml.load", "yaml.load_all")
            and _name(keywords.get("Loader")).rpartition(".")[2] not in _SAFE_LOADERS
        ):
            yield f"line {node.lineno}: {called} without a safe loader"
        if any(each == "trust_remote_code" and _is_true(value) for each, value in keywords.items()):
            yield f"line {node.lineno}: remote code"


def _name(node: ast.AST | None) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_true(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_text_or_unpickles_files(path: Path) -> None:
    """No shell, no evaluated text, no unpickled file, no predictable name of a temporary file."""
    assert list(offences(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())) == []


OFFENDING = (
    "subprocess.run(command, shell=True)",
    "subprocess.run(command, shell=flag)",
    "eval(text)",
    "exec(text)",
    "os.system(text)",
    "os.popen(text)",
    "pickle.load(file)",
    "pickle.loads(content)",
    "class Reader(pickle.Unpickler): pass",
    "from pickle import loads",
    "yaml.load(text)",
    "yaml.load(text, Loader=yaml.Loader)",
    "yaml.full_load(text)",
    "torch.load(path)",
    "torch.load(path, weights_only=False)",
    "torch.load(path, weights_only=flag)",
    "torch.jit.load(path)",
    "np.load(path, allow_pickle=True)",
    "tempfile.mktemp()",
    "AutoModel.from_pretrained(name, trust_remote_code=True)",
)


def test_offences_are_found(attack: Attack) -> None:
    """The test above can fail: each offence is seen, also inside a function."""
    for code in OFFENDING:
        for text in (code, f"def function(command, flag, text, path, content, file, name):\n    {code}\n"):
            with attack.attempt(code):
                assert list(offences(text))
    with attack.attempt("harmless"):
        assert not list(offences("model.eval(); yaml.load(x, Loader=_StrictLoader); torch.load(x, weights_only=True)"))


def test_every_exception_is_used() -> None:
    """A file that no longer reads pickles loses its exception."""
    for name in _PICKLE_READERS:
        assert list(offences((ROOT / name).read_text(encoding="utf-8")))


def _embeddings(target: Path) -> None:
    with staged(target) as part:
        save_tensors({"one": torch.zeros(2)}, part)


def _weights(target: Path) -> None:
    with staged(target) as part:
        save_pickled({"one": torch.zeros(2)}, part)


def _folder(target: Path) -> None:
    with staged_folder(target) as part:
        (part / "text").mkdir()
        (part / "text" / "file").touch(mode=0o600)
        save_tensors({"one": torch.zeros(2)}, part / "tensors")


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda target: write_bytes(target, b"1"),
    "text": lambda target: write_text(target, "1"),
    "tensors": _embeddings,
    "pickled": _weights,
    "folder": _folder,
}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
@pytest.mark.parametrize("writer", WRITERS)
def test_outputs_have_the_permissions_of_the_umask(writer: str, umask: int, tmp_path: Path) -> None:
    """What is written atomically is as readable to others as what any program of the user writes."""
    before = os.umask(umask)
    try:
        WRITERS[writer](tmp_path / "target")
    finally:
        os.umask(before)
    written = tmp_path / "target"
    for path in [written, *written.rglob("*")]:
        allowed = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == allowed & ~umask, path.name


def test_the_lock_has_hashes() -> None:
    """Every pin of the lock that applies to the platform of the hashes has one SHA-256, and there are no others."""
    pins = dict(line.split(";")[0].split("==") for line in _lines("constraints.txt"))
    hashed = [re.fullmatch(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}", line) for line in _lines(HASHES)]
    assert None not in hashed, "a line of another form"
    assert {each[1]: each[2] for each in hashed if each is not None} == pins
    assert len(hashed) == len(pins)


def test_hashes_are_of_the_python_of_the_lock() -> None:
    """The files were chosen by the Python that made the lock."""
    of = re.compile(r"Python (\d+\.\d+)")
    found = [of.search((ROOT / name).read_text(encoding="utf-8")) for name in ("constraints.txt", HASHES)]
    assert len({each[1] for each in found if each is not None}) == 1
    assert None not in found


def _lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def logged_errors(code: str) -> Iterator[str]:
    """The places that give a caught error itself to the log."""
    for handler in ast.walk(ast.parse(code)):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        for call in ast.walk(handler):
            if not isinstance(call, ast.Call) or not re.fullmatch(r"log(ger)?\.\w+", _name(call.func)):
                continue
            if any(isinstance(each, ast.Name) and each.id == handler.name for each in call.args):
                yield f"line {call.lineno}: {_name(call.func)} keeps {handler.name}"


def test_the_log_keeps_texts(attack: Attack) -> None:
    """Whoever keeps records would keep an error's frames, and with them a video's bytes or a file's tensors."""
    for path in sources():
        with attack.attempt(path.relative_to(ROOT)):
            assert not list(logged_errors(path.read_text(encoding="utf-8")))
    example = "try:\n    read()\nexcept OSError as error:\n    log.warning('%s: %s', path, {})\n"
    assert list(logged_errors(example.format("error"))) == ["line 4: log.warning keeps error"]
    assert not list(logged_errors(example.format("str(error)")))
