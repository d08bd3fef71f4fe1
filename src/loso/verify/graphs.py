"""Graphs of a model folder, opened only if they are safe; the ensemble's held against the members'.

The ensemble's graph repeats the members' weights, the scaler and the intervals of the manifest. Of
loso's own making it is made again from them; whether another maker's repeats them rightly shows
where both are run on the same rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loso.engine.network import Network, first_network
from loso.errors import BadInput
from loso.intervals import Rule, level_key
from loso.model.files import ENSEMBLE_OUTPUTS, MEMBER_OUTPUTS, SUMS_FILE, Manifest
from loso.model.onnx_build import ensemble_graph, member_graph
from loso.model.onnx_graph import PARITY_TOLERANCE, GraphFile, Session, read_graph
from loso.recipe import Recipe
from loso.verify.folder import Findings, Folder

__all__ = ["check_ensemble", "open_graph", "read_network"]

_BATCHES: Final = (1, 256)


def open_graph(
    folder: Folder, name: str, outputs: Sequence[str], findings: Findings
) -> tuple[GraphFile | None, str | None]:
    """Return a graph that may be run, and its sha256; None and findings where there is none."""
    if name not in folder.files:
        findings.add(name, "graph", "missing")
        return None, None
    try:
        graph, sha256 = read_graph(folder.files[name], outputs=outputs, take_external=True)
    except BadInput as error:
        findings.refused(Path(error.where).name, "graph", error)
        return None, None
    for weights in graph.external:
        findings.add(weights, "weights", f"weights of {name} outside its file")
        if SUMS_FILE not in folder.files:
            findings.add(weights, "weights", f"no sha256 covers it, and {name} is nothing without")
    return graph, sha256


def read_network(graph: GraphFile, sha256: str, recipe: Recipe) -> Network | None:
    """Return the weights in a member's graph; None where it is not what loso writes for a recipe.

    Graphs of one recipe differ in their weights alone, so these lie where those of another do, and
    the graph of what was read must be the file again, byte for byte.
    """
    width = graph.widths[0]
    other = first_network(sum(graph.widths), recipe, seed=0, fold=0)
    layout, end = member_graph(other, n_features=width), 0
    if len(layout) != len(graph.content):
        return None
    found = []
    for layer in zip(other.weights, other.biases, strict=True):
        for values in layer:
            raw = values.astype("<f4").tobytes()
            start = layout.index(raw, end)
            end = start + len(raw)
            found.append(np.frombuffer(graph.content[start:end], "<f4").reshape(values.shape))
    network = Network(tuple(found[::2]), tuple(found[1::2]))
    again = member_graph(network, n_features=width)
    return network if hashlib.sha256(again).hexdigest() == sha256 else None


def check_ensemble(
    folder: Folder,
    stem: str,
    manifest: Manifest,
    members: Sequence[tuple[GraphFile, Network | None]],
    findings: Findings,
) -> None:
    """Hold the ensemble's graph against `members`, each with its weights if they could be read.

    With all weights, the graph that loso makes of them must be there byte for byte; else it must
    give the members' scores on drawn rows, and bounds by the rule.
    """
    file = f"{stem}.json"
    if manifest.onnx is None:
        findings.add(file, "ensemble", "names no graph of the ensemble", f"{stem}.onnx")
        return
    findings.same(file, "ensemble", "onnx", f"{stem}.onnx", manifest.onnx)
    calibrated = manifest.confidence is not None and manifest.confidence.by_pool is not None
    outputs = ENSEMBLE_OUTPUTS if calibrated else ENSEMBLE_OUTPUTS[:2]
    graph, sha256 = open_graph(folder, manifest.onnx, outputs, findings)
    if sha256 is not None:
        findings.same(file, "ensemble", f"sha256 of {manifest.onnx}", sha256, manifest.sha256)
    if graph is None or not 2 <= len(members) == len(manifest.members):
        return
    widths = {graph.widths, *(member.widths for member, _ in members)}
    lengths = {graph.widths[0], len(manifest.feature_mean), len(manifest.feature_std)}
    if len(widths) > 1 or len(lengths) > 1:
        findings.add(manifest.onnx, "ensemble", "inputs not as wide as those of the members")
        return
    networks = [network for _, network in members if network]
    if len(networks) == len(members):
        if hashlib.sha256(_rebuilt(manifest, networks)).hexdigest() != sha256:
            problem = "not the graph that the members and the manifest give"
            findings.add(manifest.onnx, "ensemble", problem)
    else:
        _check_scores(manifest, graph, [member for member, _ in members], findings)


def _rebuilt(manifest: Manifest, networks: Sequence[Network]) -> bytes:
    rule, level = _bounds(manifest)
    with np.errstate(over="ignore"):  # a number that float32 cannot hold makes another graph
        return ensemble_graph(
            networks,
            feature_mean=manifest.feature_mean,
            feature_std=manifest.feature_std,
            rule=rule,
            level=level,
            target_range=manifest.target_range,
        )


def _check_scores(
    manifest: Manifest, graph: GraphFile, members: Sequence[GraphFile], findings: Findings
) -> None:
    """Hold what the ensemble's graph gives on drawn rows against the members' scores."""
    name = str(manifest.onnx)
    try:
        sessions = [Session(member, threads=1) for member in members]
        ensemble = Session(graph, threads=1)
        differences: dict[str, list[float]] = {}
        for rows in _BATCHES:
            features, codec = _random_rows(manifest, graph, rows)
            found = ensemble.run(features, codec)
            for output, values in _aggregate(manifest, sessions, features, codec).items():
                with np.errstate(invalid="ignore"):
                    largest = float(np.abs(found[output] - values).max())
                differences.setdefault(output, []).append(largest)
    except BadInput as error:
        findings.refused(name, "ensemble", error)
        return
    for output, of_batches in differences.items():
        too_far = [one for one in of_batches if not one <= PARITY_TOLERANCE]  # NaN is too far
        if too_far:
            problem = f"{output} is not what the members and the manifest give"
            limit = f"a difference of at most {PARITY_TOLERANCE:g}"
            findings.add(name, "ensemble", problem, limit, f"{max(too_far):g}")


def _random_rows(
    manifest: Manifest, graph: GraphFile, rows: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return raw features as training had them, and codec blocks of one encoder each.

    Conditions at the end of the block are standardised, as the ensemble takes them.
    """
    random = np.random.default_rng(rows)
    mean, std = np.array(manifest.feature_mean), np.array(manifest.feature_std)
    features = mean + std * random.uniform(-2.0, 2.0, (rows, len(mean)))
    codec = random.uniform(0.0, 1.0, (rows, graph.widths[1]))
    encoders = min(len(manifest.encoder_vocab), graph.widths[1])
    codec[:, :encoders] = np.eye(encoders)[random.integers(0, encoders, rows)]
    conditions = len(manifest.inputs.conditions)
    codec[:, graph.widths[1] - conditions :] = random.uniform(-2.0, 2.0, (rows, conditions))
    return features, codec


def _aggregate(
    manifest: Manifest,
    members: Sequence[Session],
    features: NDArray[np.float64],
    codec: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Return what the ensemble must give: the members' scores, taken together by the manifest."""
    standardised = (features - manifest.feature_mean) / np.array(manifest.feature_std)
    scores = np.stack([member.run(standardised, codec)[MEMBER_OUTPUTS[0]] for member in members])
    with np.errstate(invalid="ignore", over="ignore"):
        mu = scores.mean(axis=0, dtype=np.float64)
        sigma = scores.std(axis=0, ddof=1, dtype=np.float64)
    expected = {"mu": mu, "sigma": sigma}
    rule, level = _bounds(manifest)
    if rule and level:
        half = rule.half_width(sigma, level)
        low, high = manifest.target_range or (-np.inf, np.inf)
        expected |= {"lower": np.clip(mu - half, low, high), "upper": np.clip(mu + half, low, high)}
    return expected


def _bounds(manifest: Manifest) -> tuple[Rule, float] | tuple[None, None]:
    """Return the rule and the level of the ensemble's bounds, if a manifest has both."""
    confidence = manifest.confidence
    rule = (confidence.by_pool or {}).get(manifest.unit) if confidence else None
    if confidence and rule and level_key(confidence.nominal_coverage) in rule.quantiles:
        return rule, confidence.nominal_coverage
    return None, None
