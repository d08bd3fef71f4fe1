import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# CI machines are slow and noisy: laws are checked, not the time they take.
settings.register_profile("loso", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("loso")


def corpus_rows(
    sources: Sequence[str] = ("ant", "bee", "cat"),
    *,
    encoders: Sequence[str] = ("libx264", "libsvtav1"),
    qualities: Sequence[int] = (20, 30, 40),
    frames: int = 4,
    seed: int = 0,
) -> list[dict]:
    """Rows of made-up clips: VMAF is a smooth function of the features, the source and the cq."""
    random = np.random.default_rng(seed)
    rows = []
    for src in sources:
        hardness = random.uniform(0.5, 1.5)
        for encoder in encoders:
            for cq in qualities:
                loss = hardness * (cq / 50) ** 2
                for frame in range(frames):
                    jitter = random.normal(0, 0.004, 5)
                    motion = float(random.uniform(0, 5)) if frame else 0.0
                    rows.append(
                        {
                            "src": src,
                            "encoder": encoder,
                            "cq": cq,
                            "frame_index": frame,
                            "vmaf": float(np.clip(100 - 60 * loss + 300 * jitter[0], 0, 100)),
                            "adm2": float(1 - 0.3 * loss + jitter[0]),
                            "vif_scale0": float(0.9 - 0.5 * loss + jitter[1]),
                            "vif_scale1": float(0.95 - 0.4 * loss + jitter[2]),
                            "vif_scale2": float(0.97 - 0.3 * loss + jitter[3]),
                            "vif_scale3": float(0.98 - 0.2 * loss + jitter[4]),
                            "motion2": motion,
                        }
                    )
    return rows


def write_rows(path: Path, rows: Sequence[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def loso(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a command line as a shell would: its exit code, stdout and stderr."""
    from loso.cli import main

    def run(*words):
        monkeypatch.setattr("sys.argv", ["loso", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Path]:
    """Write a made-up corpus of 72 rows, or as `options` ask, each row edited; return its path."""

    def make(name: str = "corpus.jsonl", edit: Callable | None = None, **options) -> Path:
        rows = corpus_rows(**options)
        for i, row in enumerate(rows):
            if edit:
                edit(i, row)
        return write_rows(tmp_path / name, rows)

    return make


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run's folder as training leaves it, and return its path.

    Predictions are the truth plus noise, of every source that is not in `excluded`. `edit` changes
    a seed file's content before it is written; `predict` changes the table of predictions after its
    scores were taken. A seed file that names no predictions has none beside it. With `score`, a
    function of a row, the target is `mos`: the corpus `mos.jsonl` has it, and `guess`, a function
    of a row too, is what predictions are but for the noise.
    """
    import polars as pl

    from loso.crossval import score_folds
    from loso.files import sha256_of
    from loso.seedfile import predictions_file_name, seed_file_name, summarise

    rows = corpus_rows()
    corpora = {"vmaf": write_rows(tmp_path / "corpus.jsonl", rows)}

    def table(target: str) -> pl.DataFrame:
        return pl.DataFrame(rows).select(
            pl.int_range(pl.len()).alias("row"),
            pl.lit(0).alias("fold"),
            "src",
            "encoder",
            pl.lit(None, dtype=pl.String).alias("preset"),
            "cq",
            "frame_index",
            pl.col(target).alias("y_true"),
        )

    def make(
        name: str = "run",
        *,
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
        noise: float = 0.3,
        excluded: Sequence[str] = (),
        edit: Callable[[int, dict], object] | None = None,
        predict: Callable[[int, pl.DataFrame], pl.DataFrame] | None = None,
        score: Callable[[dict], float] | None = None,
        guess: Callable[[dict], float] | None = None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        target = "mos" if score else "vmaf"
        if score:
            for row in rows:
                row["mos"] = score(row)
            corpora["mos"] = write_rows(tmp_path / "mos.jsonl", rows)
        expected = [guess(row) if guess else row[target] for row in rows]
        asked = table(target).with_columns(expected=pl.Series(expected))
        asked = asked.filter(~pl.col("src").is_in(excluded))
        asked = asked.with_columns(fold=pl.col("src").rank("dense").cast(pl.Int64) - 1)
        for seed in seeds:
            error = np.random.default_rng(seed).normal(0, noise, asked.height)
            predictions = asked.with_columns(y_pred=pl.col("expected") + error).drop("expected")
            folds = score_folds(predictions, sorted(set(asked["src"])))
            path = folder / predictions_file_name(seed)
            written = predict(seed, predictions) if predict else predictions
            written.write_parquet(path)
            content = {
                "schema_version": 1,
                "seed": seed,
                "corpus": str(corpora[target]),
                "corpus_sha256": sha256_of(corpora[target]),
                "corpus_rows": len(rows),
                "n_folds": len(folds),
                "folds": [fold.model_dump(exclude={"reason"}) for fold in folds],
                **summarise(folds),
                "epochs": 200,
                "batch_size": 32,
                "lr": 5e-4,
                "weight_decay": 1e-5,
                "hidden": 64,
                "depth": 2,
                "dropout": 0.1,
                "num_codecs": 14,
                "target": target,
                "unit": "frame",
                "encoder_vocab_version": 2,
                "engine": "batched",
                "versions": {"loso": "0.1.0"},
                "predictions": {"file": path.name, "sha256": sha256_of(path)},
                "wall_time_s": 1.5,
            }
            if excluded:
                content["excluded_sources"] = list(excluded)
            if edit:
                edit(seed, content)
            if "predictions" not in content:
                path.unlink()
            (folder / seed_file_name(seed)).write_text(json.dumps(content), encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def hostile_name() -> str:
    """A source's name as somebody would choose it who means harm."""
    return "<script>alert(1)</script>%{x}%s"


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, hostile_name: str) -> Path:
    """A run of three seeds and six sources as `loso run` leaves it, with baselines of networks.

    Made once for all tests, which must not change it. The last source has the hostile name.
    """
    from loso import pipeline
    from loso.ablation import ablate_run
    from loso.corpus.load import load_corpus
    from loso.recipe import Recipe

    folder = tmp_path_factory.mktemp("whole")
    rows = corpus_rows(("ant", "bee", "cat", "dog", "elk", hostile_name), frames=6)
    for row in rows:
        row["bitrate_kbps"] = round(4000 / row["cq"], 2)
    corpus = write_rows(folder / "corpus.jsonl", rows)
    run, seeds = folder / "run", (0, 1, 2)
    pipeline.run(corpus, run, Recipe(epochs=12, lr=5e-3, hidden=16), seeds)
    ablate_run(run, load_corpus(corpus), seeds)
    pipeline.validate_run(run, seeds, corpus=load_corpus(corpus))
    return run
