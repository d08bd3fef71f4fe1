import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from loso.calibration import calibrate_run
from loso.corpus.load import load_corpus
from loso.data import demo_corpus_path
from loso.errors import BadCorpus
from loso.evaluate import evaluate_model
from loso.export import export_model
from loso.intervals import POOLS
from loso.model.sources import hash_sources
from loso.model.sums import refresh_sums
from loso.predict import Predictor
from loso.recipe import GateThresholds, Recipe
from loso.run_folder import train_into
from loso.schema import CANONICAL_6
from loso.verdict import validate_run

ANYTHING = GateThresholds(mean_plcc_threshold=-1.0, per_seed_min=-1.0, plcc_spread_max=2.0)
STEM = "fr_regressor_v2_ensemble_v1"
SEEN = 6
"""Sources that the model learns from; the demo corpus has four more."""


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Two corpora of other sources: one to train on, one that is new."""
    whole = load_corpus(demo_corpus_path())
    made = []
    for name, sources in (("seen", whole.sources[:SEEN]), ("new", whole.sources[SEEN:])):
        path = tmp_path_factory.mktemp("corpus") / f"{name}.parquet"
        # Sources of unequal length: a mean over sources is no mean over rows.
        short = (pl.col("src") == sources[0]) & (pl.col("frame_index") >= 7)
        whole.rows.filter(pl.col("src").is_in(sources), ~short).write_parquet(path)
        made.append(load_corpus(path))
    return made


@pytest.fixture(scope="module")
def folder(halves, tmp_path_factory):
    run, out = (tmp_path_factory.mktemp("model") / name for name in ("run", "out"))
    train_into(run, halves[0], Recipe(epochs=4, hidden=8, lr=1e-2), [0, 1])
    calibrate_run(run, halves[0], [0, 1])
    validate_run(run, [0, 1], ANYTHING, corpus=halves[0])
    export_model(run, halves[0], out)
    return out


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.load(folder)


@pytest.fixture(scope="module")
def evaluation(predictor, halves):
    return evaluate_model(predictor, halves[1])


def expected(y_true, mu, low, high):
    return {
        "n": len(y_true),
        "plcc": pytest.approx(stats.pearsonr(y_true, mu)[0]),
        "srocc": pytest.approx(stats.spearmanr(y_true, mu)[0]),
        "rmse": pytest.approx(np.sqrt(np.mean((y_true - mu) ** 2))),
        "coverage": pytest.approx(np.mean((low <= y_true) & (y_true <= high))),
        "mean_width": pytest.approx(np.mean(high - low)),
    }


def hold(agreement, expectation):
    for name, value in expectation.items():
        assert getattr(agreement, name) == value, name


def test_frames_agree_as_outside_libraries_say(predictor, evaluation, halves):
    rows = halves[1].rows
    table = predictor.predict(rows).frames.with_columns(vmaf=rows["vmaf"])
    judged = evaluation.pools["frame"]
    assert list(judged.by_source) == list(halves[1].sources)
    columns = ("vmaf", "mu", "lower", "upper")
    for source, agreement in judged.by_source.items():
        own = table.filter(pl.col("src") == source)
        hold(agreement, expected(*(own[name].to_numpy() for name in columns)))
    together = expected(*(table[name].to_numpy() for name in columns))
    for name in ("coverage", "mean_width"):
        of_sources = [getattr(own, name) for own in judged.by_source.values()]
        together[name] = pytest.approx(np.mean(of_sources))
    hold(judged.pooled, together)


WAYS = {
    "mean": np.mean,
    "hmean": lambda x: stats.hmean(np.maximum(x, 0.0) + 1.0) - 1.0,
    "p1": lambda x: np.percentile(x, 1),
    "p5": lambda x: np.percentile(x, 5),
}


@pytest.mark.parametrize("pool", WAYS)
def test_clips_agree_on_their_pooled_truth(predictor, evaluation, halves, pool):
    rows = halves[1].rows
    clips = predictor.predict(rows).clips
    keys = ["src", "encoder", "preset", "cq", "clip"]
    truth = {
        name: WAYS[pool](own["vmaf"].to_numpy())
        for name, own in rows.group_by(keys, maintain_order=True)
    }
    y_true = np.array([truth[name] for name in clips.select(keys).rows()])
    assert evaluation.clips == len(y_true) == len(truth)
    source = clips["src"].to_numpy()
    table = [clips[f"{pool}_{name}"].to_numpy() for name in ("mu", "lower", "upper")]
    for name, agreement in evaluation.pools[pool].by_source.items():
        own = source == name
        hold(agreement, expected(y_true[own], *(values[own] for values in table)))


def test_it_names_the_model_the_corpus_and_the_interval(evaluation, halves, predictor):
    assert set(evaluation.pools) == set(POOLS)
    assert (evaluation.model, evaluation.corpus) == (STEM, "new.parquet")
    assert evaluation.corpus_sha256 == halves[1].sha256
    assert (evaluation.unseen, evaluation.target) == (True, "vmaf")
    assert evaluation.level == predictor.manifest.confidence.nominal_coverage == 0.8
    assert evaluation.interval == "hierarchical_conformal, supported by 6 sources"
    assert evaluation.rows == len(halves[1])


def test_the_drift_of_inputs_is_against_training(evaluation, halves):
    seen, new = (half.rows for half in halves)
    for drift in evaluation.inputs:
        before, now = seen[drift.name].to_numpy(), new[drift.name].to_numpy()
        outside = (now < before.min()) | (now > before.max())
        assert drift.outside_share == pytest.approx(outside.mean())
        assert (drift.low, drift.high) == (now.min(), now.max())
        if drift.name == "cq":
            assert drift.mean_shift is None
        else:
            shift = (now.mean() - before.mean()) / before.std()
            assert drift.mean_shift == pytest.approx(shift)
    assert [drift.name for drift in evaluation.inputs] == [*CANONICAL_6, "cq"]
    assert any(drift.outside_share for drift in evaluation.inputs)


def test_the_corpus_of_training_is_called_that(predictor, halves):
    judged = evaluate_model(predictor, halves[0])
    assert judged.unseen is False
    assert judged.trained_on == dict.fromkeys(halves[0].sources, "name")
    assert judged.warnings[0].startswith("THE MODEL WAS TRAINED ON EVERY SOURCE OF THIS CORPUS: wh")


def test_sources_of_training_are_told_in_another_file(predictor, halves, tmp_path):
    """One keeps its name and half its rows, one its rows under another name, and others are new."""
    named, renamed = halves[0].sources[1:3]
    of_source = halves[0].rows.filter
    rows = pl.concat(
        [
            halves[1].rows,
            of_source(src=renamed).sample(fraction=1, shuffle=True, seed=1),
            of_source(src=named).gather_every(2),
        ]
    ).with_columns(pl.col("src").replace(renamed, "another name"))
    rows.write_parquet(tmp_path / "mixed.parquet")
    judged = evaluate_model(predictor, load_corpus(tmp_path / "mixed.parquet"))
    assert judged.unseen is False
    assert judged.trained_on == {"another name": "rows", named: "name"}
    assert judged.warnings[0] == (
        "THE MODEL WAS TRAINED ON 2 OF 6 SOURCES: what follows says nothing new about "
        f"another name (by its rows), {named}, nor does a figure that they are part of"
    )
    changed = rows.with_columns(vmaf=pl.col("vmaf") * 0.999).filter(src="another name")
    changed.write_parquet(tmp_path / "changed.parquet")
    assert evaluate_model(predictor, load_corpus(tmp_path / "changed.parquet")).unseen is True


def test_hashes_of_sources_mind_no_order_and_no_name(halves):
    rows = halves[0].rows
    columns = ("cq", "frame_index", *CANONICAL_6, "vmaf")
    expected = hash_sources(rows, columns)
    assert list(expected) == list(halves[0].sources)
    assert len(set(expected.values())) == SEEN
    shuffled = rows.sample(fraction=1, shuffle=True, seed=2).with_columns(cq=pl.col("cq").cast(int))
    assert hash_sources(shuffled, columns) == expected
    for name in ("encoder", "vmaf"):  # values of one row, given to another
        first = rows.filter(src=halves[0].sources[0])
        moved = first.with_columns(pl.col(name).sort(descending=True))
        assert hash_sources(moved, columns) != hash_sources(first, columns)


def test_a_model_that_names_no_sources_cannot_tell(folder, halves, tmp_path):
    out = tmp_path / "silent"
    shutil.copytree(folder, out)
    path = out / f"{STEM}.json"
    manifest = json.loads(path.read_text())
    for key in ("corpus_sha256", "training_sources", "encoders_seen", "training_ranges"):
        del manifest[key]
    path.write_text(json.dumps(manifest))
    refresh_sums(out, [path.name])
    judged = evaluate_model(Predictor.load(out), halves[1])
    assert (judged.unseen, judged.trained_on) == (None, {})
    assert "whether it has seen these rows cannot be told" in judged.warnings[0]
    assert [d.name for d in judged.inputs if d.outside_share is not None] == ["cq"]
    assert judged.encoders_without_rows == {}


def test_without_intervals_there_is_no_coverage(predictor, halves):
    manifest = predictor.manifest.model_copy(update={"confidence": None})
    judged = evaluate_model(Predictor(replace(predictor.model, manifest=manifest)), halves[1])
    assert (judged.level, judged.interval) == (None, "none")
    for pool in judged.pools.values():
        for agreement in (pool.pooled, *pool.by_source.values()):
            assert (agreement.coverage, agreement.mean_width) == (None, None)


def test_encoders_that_training_did_not_see_are_counted(predictor, halves, tmp_path):
    rows = (
        halves[1]
        .rows.head(40)
        .with_columns(
            encoder=pl.Series(["h264_qsv", "theora"]).sample(40, with_replacement=True, seed=1)
        )
    )
    rows = rows.with_columns(clip=pl.int_range(40).cast(pl.String))
    rows.write_parquet(tmp_path / "odd.parquet")
    judged = evaluate_model(predictor, load_corpus(tmp_path / "odd.parquet"))
    counts = rows.group_by("encoder").len().sort("encoder")
    assert judged.encoders_without_rows == dict(counts.iter_rows())


def test_an_undefined_correlation_has_its_reason(predictor, halves, tmp_path):
    rows = halves[1].rows.head(30).with_columns(vmaf=pl.lit(80.0))
    rows.write_parquet(tmp_path / "flat.parquet")
    judged = evaluate_model(predictor, load_corpus(tmp_path / "flat.parquet"))
    found = judged.pools["frame"].pooled
    assert (found.plcc, found.srocc, found.reason) == (None, None, "y_true is constant")
    assert np.isfinite(found.rmse)
    json.dumps(judged.to_dict(), allow_nan=False)


def test_clips_that_only_a_key_tells_apart_stay_apart(predictor, halves, tmp_path):
    rows = halves[1].rows.head(30)
    twice = pl.concat([rows.with_columns(take=pl.lit(take)) for take in (1, 2)])
    twice.write_parquet(tmp_path / "twice.parquet")
    judged = evaluate_model(predictor, load_corpus(tmp_path / "twice.parquet", key=["take"]))
    assert judged.clips == 2 * rows["clip"].n_unique()
    assert not any("pooled as one" in warning for warning in judged.warnings)


def test_a_corpus_without_the_target_is_refused(predictor, halves):
    manifest = predictor.manifest.model_copy(update={"target": "mos"})
    of_scores = Predictor(replace(predictor.model, manifest=manifest))
    with pytest.raises(BadCorpus, match="no column mos"):
        evaluate_model(of_scores, halves[1])
