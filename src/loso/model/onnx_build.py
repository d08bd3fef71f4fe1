"""Networks become ONNX graphs: one for a member, one for the ensemble with its intervals.

Weights are stored in float32, inside the graph. Equal networks give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from loso.engine.network import Network
from loso.errors import BadSettings
from loso.intervals import Rule
from loso.model.files import ENSEMBLE_OUTPUTS, INPUT_NAMES, MEMBER_OUTPUTS, OPSET
from loso.schema import CANONICAL_6

__all__ = ["ensemble_graph", "member_graph"]

_IR_VERSION: Final = 8  # the one that came with opset 17


class _Builder:
    """Nodes and constants of one graph, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def constant(self, name: str, value: NDArray[Any] | float) -> str:
        """Add a constant in float32, once; return its name."""
        if name not in self.constants:
            array = np.asarray(value, dtype=np.float32)
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def squeeze(self, x: str, name: str) -> str:
        """Add the step from one column (rows, 1) to (rows,)."""
        columns = numpy_helper.from_array(np.array([1], dtype=np.int64), "columns")
        self.constants["columns"] = columns
        return self.add("Squeeze", [x, "columns"], name)

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node; its one output has its name, which is returned."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def network(self, network: Network, x: str, prefix: str) -> str:
        """Add the layers of `network` on the rows `x`; return the name of its scores (rows, 1)."""
        last = len(network.weights) - 1
        for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            layer = f"{prefix}layer{i}"
            weights = [
                self.constant(f"{layer}.weight", weight),
                self.constant(f"{layer}.bias", bias),
            ]
            x = self.add("Gemm", [x, *weights], layer, transB=1)
            x = self.gelu(x) if i < last else x
        return x

    def gelu(self, x: str) -> str:
        """Add the exact GELU, x (1 + erf(x / sqrt 2)) / 2, in the form that runtimes fuse."""
        scaled = self.add("Div", [x, self.constant("sqrt2", math.sqrt(2.0))], f"{x}.scaled")
        erf = self.add("Erf", [scaled], f"{x}.erf")
        raised = self.add("Add", [erf, self.constant("one", 1.0)], f"{x}.raised")
        product = self.add("Mul", [x, raised], f"{x}.product")
        return self.add("Mul", [product, self.constant("half", 0.5)], f"{x}.gelu")

    def to_bytes(self, outputs: Sequence[str], widths: tuple[int, int]) -> bytes:
        """Return the graph as a file's bytes: the same for the same calls."""

        def rows(name: str, *width: int) -> ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *width])

        graph = helper.make_graph(
            self.nodes,
            "loso",
            [rows(name, width) for name, width in zip(INPUT_NAMES, widths, strict=True)],
            [rows(name) for name in outputs],
            list(self.constants.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="loso",
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def member_graph(network: Network, *, n_features: int = len(CANONICAL_6)) -> bytes:
    """Return the graph of one network: standardised features and codec block in, score out.

    The first layer of `network` takes `n_features` columns, then those of the codec block and of
    the conditions, which are part of it: the caller feeds them standardised.
    """
    graph = _Builder()
    inputs = graph.add("Concat", INPUT_NAMES, "inputs", axis=1)
    scores = graph.network(network, inputs, "")
    graph.squeeze(scores, *MEMBER_OUTPUTS)
    return graph.to_bytes(MEMBER_OUTPUTS, _widths(network, n_features))


def ensemble_graph(
    networks: Sequence[Network],
    *,
    feature_mean: Sequence[float] | NDArray[np.floating],
    feature_std: Sequence[float] | NDArray[np.floating],
    rule: Rule | None = None,
    level: float | None = None,
    target_range: tuple[float, float] | None = None,
) -> bytes:
    """Return the graph of an ensemble: raw features and codec block in, `mu sigma` out.

    Conditions at the end of the codec block come standardised, as a member takes them.
    `sigma` is the standard deviation of the members' scores, ddof=1. With `rule` and `level`,
    `lower` and `upper` follow: the rule's interval of that level around `mu`, clipped to
    `target_range` where there is one. One branch for each network: of the forms that were measured,
    the one that is faster than separate sessions at every number of rows. BadSettings for fewer
    than two networks, and for a level that the rule does not have.
    """
    if len(networks) < 2:
        raise BadSettings("an ensemble takes two networks or more", found=f"{len(networks)}")
    graph = _Builder()
    features, codec = INPUT_NAMES
    mean = graph.constant("feature_mean", np.asarray(feature_mean))
    centred = graph.add("Sub", [features, mean], "features.centred")
    std = graph.constant("feature_std", np.asarray(feature_std))
    standardised = graph.add("Div", [centred, std], "features.standardised")
    inputs = graph.add("Concat", [standardised, codec], "inputs", axis=1)
    members = [graph.network(network, inputs, f"member{i}.") for i, network in enumerate(networks)]
    scores = graph.add("Concat", members, "scores", axis=1)
    centre = graph.add("ReduceMean", [scores], "scores.mean", axes=[1], keepdims=1)
    mu = graph.squeeze(centre, "mu")
    # Deviations first, squares after: the mean of squares less the square of the mean would lose
    # every digit of a spread of 0.01 around 90.
    deviations = graph.add("Sub", [scores, centre], "scores.deviations")
    squares = graph.add("Mul", [deviations, deviations], "scores.squares")
    biased = graph.add("ReduceMean", [squares], "scores.variance", axes=[1], keepdims=0)
    unbias = graph.constant("ddof1", len(networks) / (len(networks) - 1))
    sigma = graph.add("Sqrt", [graph.add("Mul", [biased, unbias], "variance")], "sigma")
    widths = _widths(networks[0], len(feature_mean))
    if rule is None or level is None:
        return graph.to_bytes(ENSEMBLE_OUTPUTS[:2], widths)
    half_width = _half_width(graph, rule, level, sigma)
    limits = [graph.constant(f"range.{i}", value) for i, value in enumerate(target_range or ())]
    for op, name in (("Sub", "lower"), ("Add", "upper")):
        bound = graph.add(op, [mu, half_width], f"{name}.unclipped" if limits else name)
        if limits:
            graph.add("Clip", [bound, *limits], name)
    return graph.to_bytes(ENSEMBLE_OUTPUTS, widths)


def _half_width(graph: _Builder, rule: Rule, level: float, sigma: str) -> str:
    try:
        width = float(rule.half_width(np.zeros(1), level)[0])
        slope = float(rule.half_width(np.ones(1), level)[0]) - width
    except KeyError:
        raise BadSettings(
            "the intervals do not have this level",
            expected=" or ".join(rule.quantiles) or "some level",
            found=f"{level:g}",
        ) from None
    if rule.form == "absolute":
        return graph.constant("half_width", width)
    scaled = graph.add("Mul", [sigma, graph.constant("quantile", slope)], "sigma.scaled")
    return graph.add("Add", [scaled, graph.constant("least_half_width", width)], "half_width")


def _widths(network: Network, n_features: int) -> tuple[int, int]:
    return n_features, network.weights[0].shape[1] - n_features
