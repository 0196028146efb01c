"""Opening the graphs of a folder, each as a function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mote_fast.errors import BackendError, CheckpointError, one_line
from mote_fast.exports.export_choices import Format
from mote_fast.exports.record import GraphRecord, data_file
from mote_fast.runtime.extras import required

# Takes the graph's inputs in order, float32 on the CPU, and returns its output.
Runner: TypeAlias = Callable[..., Tensor]


def open_graph(folder: Path, graph: GraphRecord, file_format: Format) -> Runner:
    """Open a graph whose file has been compared with the folder's record.

    PyTorch's formats run code of the file when they are opened: the caller must trust it.

    Raises:
        BackendError: ONNX Runtime is missing or too old.
        CheckpointError: the file is no graph of its format, or not the one that the record describes; also when it
            runs.
    """
    path = folder / graph.file
    with _as_ours(path):
        run = _OPENERS[file_format](path, graph)
    (stated,) = graph.outputs.values()

    def checked(*inputs: Tensor) -> Tensor:
        with _as_ours(path):
            output = run(*inputs)
        shapes = zip(graph.inputs.values(), inputs, strict=True)
        sizes = {size: found for shape, value in shapes for size, found in zip(shape, value.shape, strict=True)}
        if list(output.shape) != [sizes.get(size, size) for size in stated]:
            raise CheckpointError(f"{path}: its output is {list(output.shape)}, not {stated}")
        return output

    return checked


@contextmanager
def _as_ours(path: Path) -> Iterator[None]:
    """Turn a runtime's error about a graph into ours; they are of many kinds, without a common class."""
    try:
        yield
    except (BackendError, CheckpointError):
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: not a graph that can be run here ({one_line(error)})") from error


def _open_onnx(path: Path, graph: GraphRecord) -> Runner:
    onnxruntime = required("onnxruntime", "an ONNX export", "export")
    options = onnxruntime.SessionOptions()
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        raise BackendError(
            f"onnxruntime {onnxruntime.__version__} cannot be kept from opening the files that a graph names; 1.24.1 "
            "can (Python 3.11 and later): pip install -U onnxruntime"
        )
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin between runs would slow down decoding and PyTorch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Errors become exceptions; the runtime would print them too.
    options.log_severity_level = 4
    beside = path.with_name(data_file(path.name))
    weights = beside.read_bytes() if beside.exists() else b""
    # The one file that the graph may name is given by its content: with such a table no other file is opened, also
    # none of the working directory, where the runtime looks for those of a graph that it gets as bytes.
    options.add_external_initializers_from_files_in_memory([beside.name], [weights], [len(weights)])
    content = path.read_bytes()
    _check_operators(path, content)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    _check_ends(path, session.get_inputs(), graph.inputs)
    _check_ends(path, session.get_outputs(), graph.outputs)
    names = list(graph.inputs)

    def run(*inputs: Tensor) -> Tensor:
        arrays = (value.detach().contiguous().numpy() for value in inputs)
        (output,) = session.run(None, dict(zip(names, arrays, strict=True)))
        return torch.from_numpy(output)

    return run


def _check_operators(path: Path, content: bytes) -> None:
    """Refuse a graph with graphs inside: weights of these escape the table above, and loops need not end.

    Exports have none, nor functions, nor operators of others than ONNX.
    """
    model = required("onnx", "an ONNX export", "export").load_model_from_string(content)
    inner = any(
        attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute
    )
    if inner or model.functions or any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        raise CheckpointError(f"{path}: holds operators that no export of this library has")


def _check_ends(path: Path, found: list[Any], stated: Mapping[str, list[int | str]]) -> None:
    """Compare the inputs or outputs of an ONNX graph with the record's."""
    ends = {end.name: (end.type, list(end.shape)) for end in found}
    if ends != {name: ("tensor(float)", shape) for name, shape in stated.items()}:
        raise CheckpointError(f"{path}: its inputs and outputs are not those of the folder's record")


def _open_pt2(path: Path, graph: GraphRecord) -> Runner:
    del graph
    return torch.no_grad()(torch.export.load(path).module())


def _open_aoti(path: Path, graph: GraphRecord) -> Runner:
    del graph
    return torch._inductor.aoti_load_package(str(path))


_OPENERS: Mapping[Format, Callable[[Path, GraphRecord], Runner]] = {
    "onnx": _open_onnx,
    "pt2": _open_pt2,
    "aoti": _open_aoti,
}
