"""Writing one graph in each format: ONNX, PyTorch's exported program, and compiled for this machine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from mote_fast.errors import BackendError, one_line
from mote_fast.exports.export_choices import Format
from mote_fast.exports.graphs import Graph
from mote_fast.exports.record import data_file
from mote_fast.runtime.extras import required

log = logging.getLogger(__name__)

PURPOSE = "an ONNX export"

# The oldest operator set that the exporter writes; every newer ONNX Runtime and TensorRT reads it.
OPSET = 18
# Bytes of weights above which they get a file of their own: protobuf ends at 2^31, and the graph takes some.
_MAX_INSIDE = 2**31 - 2**27

# Sizes of the free dimensions of the traced sample: 2 or more, because exporters take 1 for a constant, and all
# different, so that none is taken for another.
_TRACED = {"images": 2, "views": 3, "frames": 2, "classes": 7}

# PyTorch's exporters serve one thread at a time.
_EXPORTING = threading.Lock()


def write_graph(graph: Graph, path: Path, file_format: Format) -> None:
    """Write a graph to ``path``; an ONNX graph of over 2 GB puts its weights into a second file beside it.

    Raises:
        BackendError: a package or the C++ compiler is missing, or the exporter does not know an operator of the model.
        OSError: the file cannot be written.
    """
    with _EXPORTING, torch.no_grad():
        try:
            _WRITERS[file_format](graph, path)
        except (BackendError, OSError):
            raise
        # The exporters raise errors of many kinds, without a common class.
        except Exception as error:
            raise BackendError(
                f"this model cannot be exported as {path.name} ({type(error).__name__}: {one_line(error)})"
            ) from error


def parameter_bytes(graph: Graph) -> int:
    """Bytes of the numbers that a graph holds."""
    return sum(value.nbytes for value in graph.module.state_dict().values())


def _write_onnx(graph: Graph, path: Path) -> None:
    required("onnxscript", PURPOSE, "export")
    program = torch.onnx.export(
        graph.module,
        _sample(graph),
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        dynamic_shapes=graph.dynamic_shapes(),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    _name_dimensions(program.model.graph, {**graph.inputs, **graph.outputs})
    # What the exporter notes of each node are lines of code and paths of this machine.
    program.model.metadata_props.clear()
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    apart = parameter_bytes(graph) > _MAX_INSIDE
    program.save(path, external_data=apart)
    assert apart == (path.parent / data_file(path.name)).exists()


def _name_dimensions(graph: Any, shapes: Mapping[str, list[int | str]]) -> None:
    """Give the free dimensions of inputs and outputs their names, in place of the exporter's symbols."""
    ir = required("onnx_ir", PURPOSE, "export")
    for value in (*graph.inputs, *graph.outputs):
        value.shape = ir.Shape(shapes[value.name])


def _write_pt2(graph: Graph, path: Path) -> None:
    program = _program(graph)
    # A region without autocast is a graph of its own.
    inner = [module for module in program.graph_module.modules() if isinstance(module, GraphModule)]
    for node in (node for module in inner for node in module.graph.nodes):
        # Lines of code and paths of this machine.
        for note in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(note, None)
    # The sample would lie in the file as a pickle.
    program.example_inputs = None
    torch.export.save(program, path)


def _write_aoti(graph: Graph, path: Path) -> None:
    torch._inductor.aoti_compile_and_package(_program(graph), package_path=str(path))


def _program(graph: Graph) -> ExportedProgram:
    return torch.export.export(graph.module, _sample(graph), dynamic_shapes=graph.dynamic_shapes())


def _sample(graph: Graph) -> tuple[torch.Tensor, ...]:
    return graph.samples(_TRACED, torch.Generator().manual_seed(0))


_WRITERS: Mapping[Format, Callable[[Graph, Path], None]] = {"onnx": _write_onnx, "pt2": _write_pt2, "aoti": _write_aoti}
