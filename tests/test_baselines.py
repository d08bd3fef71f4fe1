from pathlib import Path

import numpy as np
import pytest

from loso.baselines import measure_figures, on_scale, paired_gain, parse_baselines
from loso.errors import BadEvidence
from loso.metrics import (
    bootstrap,
    jackknife,
    krocc,
    map_in_sample,
    map_out_of_fold,
    outlier_ratio,
    plcc,
    rmse,
    rmse_gain_by_source,
    rmse_star,
    srocc,
)


@pytest.fixture
def scores():
    """Scores of four sources, a good model of them, a poor one on another scale, half-widths."""
    random = np.random.default_rng(1)
    source = np.repeat(list("abcd"), 12)
    y_true = random.uniform(1, 5, 48)
    good = y_true + random.normal(0, 0.2, 48)
    poor = 20 * y_true - 5 + random.normal(0, 12, 48)
    return source, y_true, good, poor, random.uniform(0.1, 0.4, 48)


def test_figures_are_those_of_the_mapped_predictions(scores):
    source, y_true, _, poor, half_width = scores
    found = measure_figures("mos", y_true, poor, source, half_width)
    mapped = map_out_of_fold(y_true, poor, source)
    assert np.array_equal(on_scale("mos", y_true, poor, source), mapped)
    assert found.n_rows == 48
    assert found.plcc == plcc(y_true, mapped).value
    assert found.srocc == srocc(y_true, mapped).value
    assert found.krocc == krocc(y_true, mapped).value
    assert found.rmse == rmse(y_true, mapped)
    assert found.rmse_star == rmse_star(y_true, mapped, ci95=half_width)
    assert found.outlier_ratio == outlier_ratio(y_true, mapped, ci95=half_width)
    squares = np.square(map_in_sample(y_true, poor) - y_true).sum()
    assert found.rmse_in_sample == pytest.approx(np.sqrt(squares / 44))
    within = {s: plcc(y_true[source == s], mapped[source == s]).value for s in "abcd"}
    assert found.mean_within_plcc == pytest.approx(np.mean(list(within.values())))
    assert found.worst_plcc_source == min(within, key=within.get)
    errors = {s: rmse(y_true[source == s], mapped[source == s]) for s in "abcd"}
    assert found.worst_rmse_source == max(errors, key=errors.get)
    assert {s: own.plcc for s, own in found.by_source.items()} == within
    assert {s: own.rmse for s, own in found.by_source.items()} == errors
    assert found.reasons == {}


def test_predictions_of_vmaf_are_judged_as_they_are(scores):
    source, y_true, _, poor, _ = scores
    found = measure_figures("vmaf", y_true, poor, source)
    assert found.rmse == rmse(y_true, poor)
    assert found.plcc == plcc(y_true, poor).value
    assert (found.rmse_in_sample, found.rmse_star, found.outlier_ratio) == (None, None, None)


def test_an_undefined_correlation_is_none_with_its_reason(scores):
    source, y_true, *_ = scores
    found = measure_figures("vmaf", y_true, np.full(48, 3.0), source)
    assert (found.plcc, found.krocc, found.worst_plcc_source) == (None, None, None)
    assert found.reasons["plcc"] == "y_pred is constant"
    assert found.reasons["mean_within_plcc"].startswith("no PLCC within a (y_pred is constant), b")


@pytest.mark.parametrize("target", ["mos", "vmaf"])
def test_a_gain_is_what_the_metrics_give(scores, target):
    source, y_true, good, poor, _ = scores
    found = paired_gain(target, y_true, good, poor, source)
    if target == "mos":
        good, poor = (map_out_of_fold(y_true, y, source) for y in (good, poor))
    assert (found.model_rmse, found.baseline_rmse) == (rmse(y_true, good), rmse(y_true, poor))
    assert found.rmse_gain == rmse(y_true, poor) - rmse(y_true, good)
    gain = rmse_gain_by_source(y_true, good, poor, source)
    drawn = bootstrap(gain, level=0.95, n_resamples=2000, seed=0)
    left_out = jackknife(gain, level=0.95)
    assert (found.bootstrap.low, found.bootstrap.high) == (drawn.low, drawn.high)
    assert (found.jackknife.low, found.jackknife.high) == (left_out.low, left_out.high)
    assert drawn.low > 0
    assert found.beats
    assert found.jackknife_agrees == (left_out.low > 0)
    assert (found.level, found.n_sources) == (0.95, 4)


def test_no_gain_does_not_beat_and_the_reverse_is_a_loss(scores):
    source, y_true, good, poor, _ = scores
    assert not paired_gain("mos", y_true, good, good, source).beats
    loss = paired_gain("mos", y_true, poor, good, source)
    assert loss.bootstrap.high < 0
    assert not loss.beats
    assert loss.jackknife_agrees


def test_the_intervals_may_disagree():
    """The model wins on three sources by far and on one by little: resampling sees no loss."""
    source = np.repeat(list("abcd"), 2)
    y_true = np.zeros(8)
    baseline = np.repeat([1.0, 2.0, 9.0, 1.0], 2)
    found = paired_gain("vmaf", y_true, np.full(8, 0.9), baseline, source)
    assert found.beats
    assert found.jackknife.low < 0
    assert not found.jackknife_agrees


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "run/baselines.json: the record cannot be used: Invalid JSON"),
        (b'{"schema_version": 2}', "schema_version cannot be used: Input should be 1"),
        (b'{"schema_version": 1}', "corpus_sha256 cannot be used: Field required"),
    ],
)
def test_a_damaged_record_is_refused(content, message):
    with pytest.raises(BadEvidence) as refusal:
        parse_baselines(content, Path("run/baselines.json"))
    assert message in str(refusal.value)
    fix = "remove the file, or compute it again (loso ablate run)"
    assert str(refusal.value).endswith(fix)
