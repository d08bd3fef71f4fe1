"""ONNX graphs from anywhere are checked, checked graphs run; `onnx_build` makes loso's own.

The one door to onnxruntime, and with `onnx_build` to onnx. A graph's bytes are parsed as a protobuf
and held against what a model of loso may contain; only bytes that were written anew from what was
checked reach onnxruntime, and never a path.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, shape_inference

from loso.errors import BadInput
from loso.files import read_regular
from loso.model.files import INPUT_NAMES, MEMBER_OUTPUTS
from loso.model.onnx_build import ensemble_graph, member_graph

__all__ = [
    "MOST_BYTES",
    "PARITY_TOLERANCE",
    "GraphFile",
    "Session",
    "check_graph",
    "ensemble_graph",
    "member_graph",
    "read_graph",
]

MOST_BYTES: Final = 64 * 2**20
"""The largest graph, with its external weights, that is opened: a thousand times what five wide
members take."""

PARITY_TOLERANCE: Final = 1e-3
"""How far a graph's float32 score may lie from the trained weights in float64, in target units."""

_OPSETS: Final = range(7, 22)
_MEMBER_OPS: Final = frozenset({"Concat", "Gemm", "Div", "Erf", "Add", "Mul", "Squeeze"})
_ENSEMBLE_OPS: Final = _MEMBER_OPS | {"Sub", "Sqrt", "ReduceMean", "Clip"}
_MOST_NODES: Final = 4096
_MOST_NUMBERS_A_ROW: Final = 2**18
"""Of all nodes together. The largest recipe, 4 layers of 512 with 6 nodes each, takes 12,288 a
member: 20 of them fit."""

_BYTES_AT_ONCE: Final = 64 * 2**20
"""What the values of all nodes take for the rows of one call, were none given back in between."""

_ROWS: Final = "batch"
_UNKNOWN: Final = onnx.TensorShapeProto.Dimension()
_PLAIN_NAME: Final = re.compile(r"\w[\w.-]*", re.ASCII)
_DTYPES: Final = {TensorProto.FLOAT: np.dtype("<f4"), TensorProto.INT64: np.dtype("<i8")}
_PLAIN_ATTRIBUTES: Final = {
    onnx.AttributeProto.FLOAT,
    onnx.AttributeProto.INT,
    onnx.AttributeProto.FLOATS,
    onnx.AttributeProto.INTS,
}


# -- Checking -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GraphFile:
    """A graph that was checked: its bytes written anew, all weights inside, and what it takes.

    `widths` are those of `features` and `codec_onehot`; `external` holds the sha256 of every file
    that its weights came from; `numbers_a_row` counts what its nodes give for a row.
    """

    content: bytes = field(repr=False)
    where: str
    opset: int
    widths: tuple[int, int]
    outputs: tuple[str, ...]
    external: Mapping[str, str]
    numbers_a_row: int


def read_graph(
    path: Path,
    *,
    outputs: Sequence[str],
    widths: tuple[int, int] | None = None,
    take_external: bool = False,
) -> tuple[GraphFile, str]:
    """Return the checked graph in a file and the sha256 of the bytes that were checked.

    With `take_external`, weights may lie in files beside it; see `check_graph`.
    """
    content = read_regular(path, MOST_BYTES)
    folder = path.parent if take_external else None
    graph = check_graph(content, where=str(path), outputs=outputs, widths=widths, folder=folder)
    return graph, hashlib.sha256(content).hexdigest()


def check_graph(
    content: bytes,
    *,
    where: str,
    outputs: Sequence[str],
    widths: tuple[int, int] | None = None,
    folder: Path | None = None,
) -> GraphFile:
    """Return the graph in `content` as it may be run; BadInput names what it must not contain.

    `outputs` are the names it must give, float32 [batch]. Its inputs are `features` and
    `codec_onehot`, float32 [batch, width], of the given `widths` if any. Weights outside the file
    are refused, unless `folder` is given: then they are read from regular files in it, by plain
    names, and taken into the graph.
    """
    if len(content) > MOST_BYTES:
        raise _refusal(where, "too large for a graph", f"at most {MOST_BYTES} bytes", len(content))
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # noqa: BLE001 (the parser's own classes differ between versions)
        raise _refusal(where, f"not a whole ONNX file ({type(error).__name__})") from None
    model.DiscardUnknownFields()
    opset = _opset(model, where)
    external = _take_in_weights(model, where, folder)
    allowed = _MEMBER_OPS if tuple(outputs) == MEMBER_OUTPUTS else _ENSEMBLE_OPS
    for fault in _faults(model, allowed):
        raise _refusal(where, fault)
    found = _signature(model, where, outputs)
    if widths is not None and found != widths:
        raise _refusal(where, "inputs of another width", f"{widths}", f"{found}")
    numbers = _numbers_a_row(model, where)
    checked = model.SerializeToString(deterministic=True)
    return GraphFile(checked, where, opset, found, tuple(outputs), external, numbers)


def _refusal(where: str, problem: str, expected: object = "", found: object = "") -> BadInput:
    return BadInput(
        problem,
        where=where,
        expected=str(expected),
        found=str(found),
        fix="take the graph from a folder that loso export wrote",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _opset(model: onnx.ModelProto, where: str) -> int:
    versions = {str(entry.domain or "ai.onnx"): entry.version for entry in model.opset_import}
    opset: int = versions.get("ai.onnx", 0)
    if len(versions) != len(model.opset_import) or set(versions) != {"ai.onnx"}:
        raise _refusal(where, "operators of other makers", "ai.onnx alone", ", ".join(versions))
    if opset not in _OPSETS:
        raise _refusal(where, "opset out of range", f"{_OPSETS[0]}..{_OPSETS[-1]}", opset)
    return opset


def _faults(model: onnx.ModelProto, allowed: frozenset[str]) -> Iterator[str]:
    """Yield what a graph must not contain."""
    graph = model.graph
    if model.functions:
        yield "functions of its own"
    if model.training_info:
        yield "training information"
    if graph.sparse_initializer:
        yield "sparse weights"
    if len(graph.node) > _MOST_NODES:
        yield f"{len(graph.node)} nodes, at most {_MOST_NODES} are run"
    for node in graph.node:
        if node.op_type not in allowed or node.domain not in {"", "ai.onnx"}:
            domain = f"{node.domain}." if node.domain else ""
            yield f"operator {domain}{node.op_type[:40]} is not one of {', '.join(sorted(allowed))}"
        for attribute in node.attribute:
            if attribute.type not in _PLAIN_ATTRIBUTES or attribute.ref_attr_name:
                yield f"{node.op_type} with {attribute.name[:40]}, a subgraph or a tensor"
    for tensor in graph.initializer:
        yield from _faults_of_weights(tensor)


def _faults_of_weights(tensor: onnx.TensorProto) -> Iterator[str]:
    name = f"weights {tensor.name[:80]!r}"
    if tensor.data_type not in _DTYPES:
        yield f"{name} are neither float32 nor int64"
        return
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        yield f"{name} are not whole ({error})"
        return
    if not np.isfinite(values).all():
        yield f"{name} are not finite"


def _signature(model: onnx.ModelProto, where: str, outputs: Sequence[str]) -> tuple[int, int]:
    """Return the widths of the two inputs; refuse other names, types and ranks."""
    graph = model.graph
    for kind, values, names in (
        ("inputs", graph.input, INPUT_NAMES),
        ("outputs", graph.output, tuple(outputs)),
    ):
        found = tuple(str(value.name)[:80] for value in values)  # bytes, where they are no UTF-8
        if found != names:
            raise _refusal(where, f"other {kind}", ", ".join(names), ", ".join(found) or "none")
    for value in (*graph.input, *graph.output):
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        if tensor.elem_type != TensorProto.FLOAT:
            raise _refusal(where, f"{value.name} is not float32")
        if len(dims) != (2 if value.name in INPUT_NAMES else 1):
            raise _refusal(where, f"{value.name} has another rank", found=len(dims))
        if dims[0].HasField("dim_value"):
            raise _refusal(where, f"{value.name} takes a fixed number of rows")
    features, codec = (value.type.tensor_type.shape.dim[1].dim_value for value in graph.input)
    if features < 1 or codec < 1:
        raise _refusal(where, "inputs of no fixed width", found=f"{features}, {codec}")
    return features, codec


def _numbers_a_row(model: onnx.ModelProto, where: str) -> int:
    """Return how many numbers all nodes together give for a row.

    Refused: a graph that is none, numbers that no model needs, and values that grow otherwise than
    with the rows, such as each row held against each other one.
    """
    graph = model.graph
    del graph.value_info[:]  # what a file says of its own sizes counts for nothing
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _ROWS
    try:
        onnx.checker.check_model(model)
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:  # noqa: BLE001 (its own classes, and text that is no UTF-8)
        raise _refusal(where, f"not a graph that can run ({_first_line(error)})") from None
    found = {
        value.name: value.type.tensor_type.shape.dim
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    total = 0
    for name in (name for node in graph.node for name in node.output):
        dims = list(found.get(name, [_UNKNOWN]))
        each = dims[1:] if dims and dims[0].dim_param == _ROWS else dims
        if not all(dim.dim_value > 0 for dim in each):
            raise _refusal(where, f"{name[:80]!r} has no known size for a row")
        total += math.prod(dim.dim_value for dim in each)
    for value in graph.output:
        value.type.tensor_type.shape.dim.add(dim_param=_ROWS)
        if [dim.dim_param for dim in found.get(value.name, ())] != [_ROWS]:
            raise _refusal(where, f"{value.name} is not one number for each row")
    if total > _MOST_NUMBERS_A_ROW:
        problem = "takes too much memory for a row"
        raise _refusal(where, problem, f"at most {_MOST_NUMBERS_A_ROW} numbers", total)
    return total


def _take_in_weights(model: onnx.ModelProto, where: str, folder: Path | None) -> dict[str, str]:
    """Put weights that lie in files of `folder` into the graph; return the files' sha256."""
    files: dict[str, bytes] = {}
    room = MOST_BYTES
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL and not tensor.external_data:
            continue
        entries = {entry.key: str(entry.value) for entry in tensor.external_data}
        name = entries.get("location", "")
        if folder is None:
            raise _refusal(where, "weights outside the file", "all inside", name[:80])
        if not _PLAIN_NAME.fullmatch(name):
            raise _refusal(where, "weights outside the folder", "a plain file name", name[:80])
        if name not in files:
            files[name] = read_regular(folder / name, MOST_BYTES)
        content = files[name]
        numbers = [entries.get("offset", "0"), entries.get("length", str(len(content)))]
        if not all(re.fullmatch("[0-9]{1,12}", number) for number in numbers):
            raise _refusal(where, f"weights at no place in {name}", found=", ".join(numbers)[:80])
        offset, length = map(int, numbers)
        room -= length
        if offset + length > len(content) or room < 0:
            raise _refusal(where, f"weights beyond the end of {name}, or too large")
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
        tensor.raw_data = content[offset : offset + length]
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


# -- Running --------------------------------------------------------------------------------------


class Session:
    """A checked graph, ready to run on the CPU; `threads` by default as onnxruntime chooses."""

    def __init__(self, graph: GraphFile, *, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone: nothing here depends on its warnings
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                graph.content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 (onnxruntime's classes share no other base)
            raise _refusal(graph.where, f"cannot be opened ({_first_line(error)})") from None
        self._graph = graph
        self._rows_at_once = max(1, _BYTES_AT_ONCE // (4 * graph.numbers_a_row))

    def run(
        self, features: NDArray[np.floating], codec_block: NDArray[np.floating]
    ) -> dict[str, NDArray[np.float32]]:
        """Return each output (rows,) of rows (rows, F) and (rows, C), by its name."""
        blocks = [np.ascontiguousarray(a, dtype=np.float32) for a in (features, codec_block)]
        pieces = [
            self._run([a[start : start + self._rows_at_once] for a in blocks])
            for start in range(0, len(blocks[0]), self._rows_at_once)
        ]
        if not pieces:
            return {name: np.empty(0, dtype=np.float32) for name in self._graph.outputs}
        joined = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
        return dict(zip(self._graph.outputs, joined, strict=True))

    def _run(self, blocks: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        try:
            found: list[NDArray[np.float32]] = self._session.run(
                self._graph.outputs, dict(zip(INPUT_NAMES, blocks, strict=True))
            )
        except Exception as error:  # noqa: BLE001 (the same)
            raise _refusal(self._graph.where, f"cannot run ({_first_line(error)})") from None
        return found
