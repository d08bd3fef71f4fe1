"""Journeys: from a corpus to a verdict, as an operator goes."""

import json

import polars as pl
import pytest

from loso import pipeline
from loso.data import demo_corpus_path
from loso.errors import BadCorpus, BadEvidence, BadInput, Diverged
from loso.files import sha256_of
from loso.intervals import parse_intervals
from loso.recipe import Compute, GateThresholds, Recipe
from loso.verdict import validate_run

# Enough to learn the made-up corpus, little enough for a test.
QUICK = Recipe(epochs=120, lr=5e-3, hidden=16)
EASY = GateThresholds(mean_plcc_threshold=0.9, per_seed_min=0.9, plcc_spread_max=0.05)


@pytest.fixture
def corpus_path(make_corpus):
    return make_corpus(sources=["ant", "bee", "cat", "dog"], frames=8)


def test_a_corpus_that_can_be_learnt_is_promoted(corpus_path, tmp_path):
    outcome = pipeline.run(corpus_path, tmp_path / "run", QUICK, [0, 1], thresholds=EASY)
    assert outcome.verdict.verdict == "PROMOTE"
    assert outcome.verdict_path == tmp_path / "run" / "PROMOTE.json"
    verdict = json.loads(outcome.verdict_path.read_text())
    assert verdict["evidence"]["corpus_sha256"] == outcome.corpus.sha256
    intervals = tmp_path / "run" / "intervals.json"
    assert verdict["evidence"]["intervals_sha256"] == sha256_of(intervals)
    assert parse_intervals(intervals.read_bytes(), intervals) == outcome.intervals
    checks = [advice["check"] for advice in verdict["gate"]["advisory"]]
    assert checks[-2:] == ["coverage_mean", "coverage_worst"]
    predictions = pl.read_parquet(tmp_path / "run" / "oof_seed0.parquet")
    assert predictions.height == len(outcome.corpus)
    again = pipeline.run(corpus_path, tmp_path / "run", QUICK, [0, 1], thresholds=EASY)
    assert again.trained.kept == (0, 1)
    assert again.verdict.evidence == outcome.verdict.evidence


def test_intervals_are_kept_while_they_are_of_the_seeds(corpus_path, tmp_path, monkeypatch):
    calls = []
    calibrate = pipeline.calibrate_run

    def spy(*args, **options):
        calls.append(args[2])
        return calibrate(*args, **options)

    monkeypatch.setattr(pipeline, "calibrate_run", spy)
    short, folder, notes = Recipe(epochs=2, hidden=8), tmp_path / "run", []

    def progress(_done, _total, note=""):
        notes.append(note)

    first = pipeline.run(corpus_path, folder, short, [0, 1], progress=progress)
    again = pipeline.run(corpus_path, folder, short, [1, 0])
    assert calls == [(0, 1)]
    assert again.intervals == first.intervals
    assert any(note.startswith("stage 2 of 5: calibrating, ") for note in notes)
    pipeline.run(corpus_path, folder, short, [0, 1, 2])
    assert calls == [(0, 1), (0, 1, 2)]
    (folder / "intervals.json").write_text("{")
    pipeline.run(corpus_path, folder, short, [0, 1, 2])
    assert len(calls) == 3
    logs = "".join(path.read_text() for path in (folder / "logs").iterdir())
    assert "intervals calibrated: level 0.8, measured coverage of frames" in logs


def test_too_few_sources_for_intervals_are_a_warning(make_corpus, tmp_path):
    outcome = pipeline.run(make_corpus(frames=8), tmp_path / "run", QUICK, [0, 1], thresholds=EASY)
    assert outcome.intervals is None
    assert "no intervals: 3 sources are too few, they take 4" in outcome.warnings
    assert not (tmp_path / "run" / "intervals.json").exists()
    (log,) = (tmp_path / "run" / "logs").iterdir()
    assert "WARNING no intervals: 3 sources are too few" in log.read_text()


def test_rows_that_a_key_tells_apart_go_the_whole_way(make_corpus, tmp_path):
    path = make_corpus(frames=8, edit=lambda i, row: row.update(frame_index=i // 2, test=i % 2))
    outcome = pipeline.run(path, tmp_path / "run", Recipe(epochs=1), [0, 1], key=["test"])
    assert outcome.verdict.evidence["taken_on_trust"] == []


def test_noise_is_held_and_the_worst_fold_named(make_corpus, tmp_path):
    def shuffle_scores(i, row):
        if row["src"] == "cat":
            row["vmaf"] = float(i * 7919 % 100)

    path = make_corpus(sources=["ant", "bee", "cat", "dog"], frames=8, edit=shuffle_scores)
    outcome = pipeline.run(path, tmp_path / "run", QUICK, [0, 1], thresholds=EASY)
    assert outcome.verdict.verdict == "HOLD"
    assert outcome.verdict.diagnosis["worst_fold"]["held_out"] == "cat"
    assert "cat alone drags" in outcome.verdict.diagnosis["try"][0]
    assert not (tmp_path / "run" / "PROMOTE.json").exists()


def test_a_constant_source_is_bad_evidence_not_a_pass(make_corpus, tmp_path):
    def saturate(_, row):
        if row["src"] == "bee":
            row["vmaf"] = 100.0

    path = make_corpus(sources=["ant", "bee", "cat", "dog"], frames=8, edit=saturate)
    with pytest.raises(BadEvidence, match=r"bee.*constant"):
        pipeline.run(path, tmp_path / "run", QUICK, [0, 1], thresholds=EASY)
    record = json.loads((tmp_path / "run" / "loso_seed0.json").read_text())
    assert record["mean_plcc"] is None
    (bee,) = (fold for fold in record["folds"] if fold["held_out"] == "bee")
    assert bee["plcc"] is None
    assert bee["reason"] == "y_true is constant"
    assert not list((tmp_path / "run").glob("*O*.json"))


def test_predictions_edited_after_training_are_caught(corpus_path, tmp_path):
    folder = tmp_path / "run"
    pipeline.run(corpus_path, folder, QUICK, [0, 1], thresholds=EASY)
    path = folder / "oof_seed1.parquet"
    pl.read_parquet(path).with_columns(pl.col("y_true").alias("y_pred")).write_parquet(path)
    with pytest.raises(BadEvidence, match=r"oof_seed1\.parquet"):
        validate_run(folder, [0, 1], EASY)


def test_what_cannot_be_used_writes_nothing(make_corpus, tmp_path):
    with pytest.raises(
        BadCorpus, match="too few rows to train on, expected at least 100, found 72"
    ):
        pipeline.run(make_corpus(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"exclude_sources": ["owl"]},
        {"seeds": [0, 0]},
        {"seeds": [0]},
        {"compute": Compute(engine="jax")},
        {"key": ["nothing"]},
        {"exclude_sources": ["ant", "bee", "cat"]},
    ],
)
def test_what_cannot_be_asked_writes_nothing(corpus_path, tmp_path, options):
    with pytest.raises(BadInput):
        pipeline.run(corpus_path, tmp_path / "run", QUICK, **options)
    assert not (tmp_path / "run").exists()


def test_rows_are_counted_after_exclusion(corpus_path, tmp_path):
    with pytest.raises(
        BadCorpus, match="too few rows to train on, expected at least 100, found 96"
    ):
        pipeline.run(corpus_path, tmp_path / "run", exclude_sources=["ant", "bee"])


def test_the_log_ends_with_what_stopped_the_run(corpus_path, tmp_path):
    wild = Recipe(epochs=40, lr=1e3, depth=4)
    with pytest.raises(Diverged):
        pipeline.run(corpus_path, tmp_path / "run", wild, [0, 1])
    (log,) = (tmp_path / "run" / "logs").iterdir()
    assert "ERROR Diverged: seed 0, held out ant" in log.read_text().splitlines()[-1]


def test_the_demo_corpus_goes_the_whole_way(tmp_path):
    """Three epochs are enough to see that every part fits; the whole run is `loso demo`."""
    outcome = pipeline.run(demo_corpus_path(), tmp_path / "run", Recipe(epochs=3), [0, 1])
    assert len(outcome.trained.seed_files[0].folds) == len(outcome.corpus.sources) == 10
    assert outcome.trained.seed_files[0].mean_rmse < 25
