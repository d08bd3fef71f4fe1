"""How fast a model predicts: the ensemble's one graph beside five member sessions and numpy.

Both run in onnxruntime, in turn, on the same rows, and give mu, sigma and the bounds. The model is
of the standard size, 20-64-64-1 five times, trained for a moment on the demo corpus. For context
stands a support vector regression of the size of VMAF v0.6.1's own (RBF kernel on the six features,
211 support vectors), as scikit-learn runs it: it is not libvmaf's code, and gives no interval.

    python bench/predict.py --json predict.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from loso.calibration import calibrate_run
from loso.corpus.load import Corpus, load_corpus
from loso.data import demo_corpus_path
from loso.export import export_model
from loso.machine import cores
from loso.model.files import ENSEMBLE_OUTPUTS, MEMBER_OUTPUTS, Manifest, find_manifest, read_record
from loso.model.onnx_graph import Session, read_graph
from loso.predict import Predictor
from loso.recipe import DEFAULT_SEEDS, GateThresholds, Recipe
from loso.run_folder import train_into
from loso.schema import CANONICAL_6, CODEC_BLOCK_WIDTH
from loso.verdict import validate_run

BATCHES = (1, 32, 1024, 4096)
SUPPORT_VECTORS = 211
LEAST_S = 0.05
"""A timing repeats its call for at least that long."""

Rows = NDArray[np.float32]


def make_model(folder: Path) -> tuple[Corpus, Path]:
    """Return the demo corpus and a model folder made from it."""
    corpus, run = load_corpus(demo_corpus_path()), folder / "run"
    train_into(run, corpus, Recipe(epochs=2), DEFAULT_SEEDS)
    calibrate_run(run, corpus, DEFAULT_SEEDS)
    anything = GateThresholds(mean_plcc_threshold=-1.0, per_seed_min=-1.0, plcc_spread_max=2.0)
    validate_run(run, DEFAULT_SEEDS, anything, corpus=corpus)
    export_model(run, corpus, folder / "model")
    return corpus, folder / "model"


def one_graph(folder: Path, manifest: Manifest, threads: int | None) -> Callable[[Rows, Rows], Any]:
    """Return what runs the ensemble's graph."""
    graph, _ = read_graph(folder / str(manifest.onnx), outputs=ENSEMBLE_OUTPUTS)
    return Session(graph, threads=threads).run


def five_graphs(
    folder: Path, manifest: Manifest, threads: int | None
) -> Callable[[Rows, Rows], Any]:
    """Return what runs the members one by one and aggregates their scores in numpy."""
    graphs = [read_graph(folder / m.onnx, outputs=MEMBER_OUTPUTS)[0] for m in manifest.members]
    sessions = [Session(graph, threads=threads) for graph in graphs]
    mean = np.array(manifest.feature_mean, dtype=np.float32)
    std = np.array(manifest.feature_std, dtype=np.float32)
    low, high = manifest.target_range or (-np.inf, np.inf)
    confidence = manifest.confidence
    if confidence is None or confidence.by_pool is None:
        raise SystemExit("the model was exported without intervals")
    rule, level = confidence.by_pool["frame"], confidence.nominal_coverage

    def run(features: Rows, block: Rows) -> dict[str, NDArray[np.floating]]:
        standardised = (features - mean) / std
        scores = np.stack([s.run(standardised, block)[MEMBER_OUTPUTS[0]] for s in sessions])
        mu, sigma = scores.mean(axis=0), scores.std(axis=0, ddof=1)
        half = rule.half_width(sigma, level)
        lower, upper = np.clip(mu - half, low, high), np.clip(mu + half, low, high)
        return dict(zip(ENSEMBLE_OUTPUTS, (mu, sigma, lower, upper), strict=True))

    return run


def support_vectors(corpus: Corpus) -> tuple[Callable[[Rows, Rows], Any], int]:
    """Return what runs a nu-SVR of about the published model's size, and its support vectors."""
    from sklearn.svm import NuSVR

    # nu is a lower limit on the share of rows that become support vectors.
    random = np.random.default_rng(0)
    drawn = random.choice(len(corpus), 2 * SUPPORT_VECTORS - 12, replace=False)
    chosen = corpus.rows[np.sort(drawn)]
    features = chosen.select(CANONICAL_6).to_numpy()
    mean, std = features.mean(axis=0), features.std(axis=0)
    machine = NuSVR(kernel="rbf", nu=0.5).fit((features - mean) / std, chosen["vmaf"].to_numpy())
    return lambda rows, _: machine.predict((rows - mean) / std), len(machine.support_)


@dataclass(frozen=True)
class Way:
    """One column of the table."""

    name: str
    threads: int | None
    run: Callable[[Rows, Rows], Any]

    def seconds_a_call(self, features: Rows, block: Rows) -> float:
        """Return the mean time of a call, repeated for `LEAST_S`."""
        calls, started = 0, time.perf_counter()
        while (taken := time.perf_counter() - started) < LEAST_S:
            self.run(features, block)
            calls += 1
        return taken / calls


def measure(
    ways: Sequence[Way], inputs: tuple[Rows, Rows], batch: int, repeats: int
) -> list[dict[str, Any]]:
    """Return the rows a second of every way at one batch size, the ways taken in turn."""
    features, block = (part[np.arange(batch) % len(part)] for part in inputs)
    seconds: list[list[float]] = [[] for _ in ways]
    for repeat in range(repeats + 1):
        for of_way, way in zip(seconds, ways, strict=True):
            taken = way.seconds_a_call(features, block)
            if repeat:  # the first round warms up
                of_way.append(taken)
    return [
        {
            "name": way.name,
            "threads": way.threads,
            "batch": batch,
            "seconds_a_call": of_way,
            "rows_a_second": batch / statistics.median(of_way),
        }
        for way, of_way in zip(ways, seconds, strict=True)
    ]


def seconds_as_used(predictor: Predictor, corpus: Corpus, repeats: int) -> dict[int, list[float]]:
    """Return what calls of `Predictor.predict` take, checks, clips and tables included, by rows."""
    taken: dict[int, list[float]] = {}
    for batch in (1, 4096):
        rows = corpus.rows.head(batch)
        predictor.predict(rows)  # warms up
        taken[batch] = []
        for _ in range(30 * repeats):
            started = time.perf_counter()
            predictor.predict(rows)
            taken[batch].append(time.perf_counter() - started)
    return taken


def inputs_of(corpus: Corpus) -> tuple[Rows, Rows]:
    """Return the features of the corpus's rows, and a codec block: what is in it costs the same."""
    features = corpus.rows.select(CANONICAL_6).to_numpy().astype(np.float32)
    block = np.zeros((len(features), CODEC_BLOCK_WIDTH), dtype=np.float32)
    block[:, 0], block[:, -2:] = 1.0, 0.5
    return features, block


def main() -> None:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description="How fast a model predicts.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        corpus, folder = make_model(Path(name))
        manifest = read_record(find_manifest(folder), Manifest)
        machine, size = support_vectors(corpus)
        predictor = Predictor.load(folder)
        ways = [
            way
            for threads in (1, None)
            for way in (
                Way("one graph", threads, one_graph(folder, manifest, threads)),
                Way("five members", threads, five_graphs(folder, manifest, threads)),
            )
        ]
    inputs = inputs_of(corpus)
    for way in ways[1:]:  # all give the same
        for key, expected in ways[0].run(*inputs).items():
            np.testing.assert_allclose(way.run(*inputs)[key], expected, atol=1e-3)
    ways.append(Way(f"{size}-vector SVR", 1, machine))
    lines = [line for batch in BATCHES for line in measure(ways, inputs, batch, options.repeats)]
    print(f"onnxruntime {onnxruntime.__version__}, {cores().usable} cores, rows a second")
    print(f"median of {options.repeats}; the SVR is context, and gives no interval")
    print(f"{'':16}{'threads':>9}" + "".join(f"{f'batch {batch}':>14}" for batch in BATCHES))
    for i, way in enumerate(ways):
        rates = "".join(f"{line['rows_a_second']:14,.0f}" for line in lines[i :: len(ways)])
        print(f"{way.name:16}{way.threads or 'default':>9}{rates}")
    as_used = seconds_as_used(predictor, corpus, options.repeats)
    for batch, seconds in as_used.items():
        typical = 1000 * statistics.median(seconds)
        print(f"Predictor.predict, {batch} rows: {typical:.2f} ms, median of {len(seconds)}")
    ratios = {
        f"one graph / five members, batch {batch}, threads {one.threads or 'default'}": (
            lines[at + i]["rows_a_second"] / lines[at + i + 1]["rows_a_second"]
        )
        for at, batch in zip(range(0, len(lines), len(ways)), BATCHES, strict=True)
        for i, one in enumerate(ways)
        if one.name == "one graph"
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    if options.json:
        result = {"cores": cores().usable, "lines": lines, "as_used": as_used, "ratios": ratios}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
