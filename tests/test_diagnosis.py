from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loso.diagnosis import advise_on_predictions, advise_on_sources, diagnose
from loso.evidence import Evidence
from loso.gate import evaluate_gate
from loso.recipe import GateThresholds
from loso.schema import ENCODER_VOCAB
from loso.seedfile import FoldScore, SeedFile, summarise


def evidence_of(*plccs_of_seeds):
    """One seed a dict of source -> PLCC."""
    files = {}
    for seed, plccs in enumerate(plccs_of_seeds):
        folds = tuple(FoldScore(held_out=source, plcc=plcc) for source, plcc in plccs.items())
        files[seed] = SeedFile(seed=seed, folds=folds, **summarise(folds))
    return Evidence(Path("run"), files, {}, {})


def diagnosis_of(*plccs_of_seeds):
    """The diagnosis; one seed alone stands for two that are alike."""
    evidence = evidence_of(*plccs_of_seeds, *(plccs_of_seeds if len(plccs_of_seeds) < 2 else ()))
    return diagnose(evidence, evaluate_gate(evidence, GateThresholds()))


def test_a_run_that_passes_needs_no_advice_but_names_its_weakest():
    assert diagnosis_of({"a": 0.96, "b": 0.99}, {"a": 0.97, "b": 0.99}) == {
        "failed": [],
        "worst_fold": {"held_out": "a", "mean_plcc": 0.965},
        "worst_seed": {"seed": 0, "mean_plcc": 0.975},
        "try": [],
    }


def test_one_source_that_drags_is_told_from_a_run_that_is_weak_everywhere():
    drags = diagnosis_of({"a": 0.7, "b": 0.99, "c": 0.99})
    assert drags["failed"] == [
        "mean PLCC 0.8933 is below 0.9500",
        "seeds below 0.9500: 0 (0.8933), 1 (0.8933)",
    ]
    assert drags["worst_fold"]["held_out"] == "a"
    (advice,) = drags["try"]
    assert advice.startswith("a alone drags: without it the mean is 0.9900.")

    (advice,) = diagnosis_of({"a": 0.9, "b": 0.93, "c": 0.93})["try"]
    assert advice.startswith("no single source explains it: without a, the worst, the mean is 0.93")


def test_a_spread_is_put_down_to_the_seed_that_stands_apart_and_where():
    steady = {"a": 0.97, "b": 0.97}
    diagnosis = diagnosis_of(steady, steady, {"a": 0.99, "b": 0.97})
    assert diagnosis["failed"] == ["spread between seeds 0.0100 is above 0.0050"]
    (advice,) = diagnosis["try"]
    assert advice.startswith(
        "seed 2 (0.9800) stands apart from the middle one (0.9700); seeds differ most on a, "
        "by 0.0200."
    )


def test_thin_evidence_has_no_worst_fold():
    files = {0: SeedFile(seed=0, mean_plcc=0.9), 1: SeedFile(seed=1, mean_plcc=0.8)}
    evidence = Evidence(Path("run"), files, {}, {})
    diagnosis = diagnose(evidence, evaluate_gate(evidence, GateThresholds()))
    assert diagnosis["worst_fold"] is None
    assert diagnosis["worst_seed"] == {"seed": 1, "mean_plcc": 0.8}
    assert "stands apart from the middle one (0.8500). Train" in diagnosis["try"][0]
    assert "hold no folds" in diagnosis["try"][1]


@given(st.lists(st.floats(0.5, 0.9), min_size=3, max_size=12, unique=True))
def test_the_interval_over_sources_is_a_jackknife_with_students_t(plccs):
    (advice,) = advise_on_sources(evidence_of({str(i): plcc for i, plcc in enumerate(plccs)}))
    count = len(plccs)
    without = [fmean(plccs[:i] + plccs[i + 1 :]) for i in range(count)]
    error = np.sqrt((count - 1) / count * np.sum((np.array(without) - fmean(without)) ** 2))
    low, high = stats.t.interval(0.95, count - 1, fmean(plccs), error + 1e-300)
    assert advice.check == "mean_plcc_interval_low"
    # Leaving one out and putting it back costs a few digits of differences in 0.5..0.9.
    assert advice.value == pytest.approx(max(low, -1.0), abs=1e-9)
    assert advice.note == (
        f"95% interval {advice.value:.4f}..{min(high, 1.0):.4f} of the mean over {count} sources"
    )


def test_the_interval_is_of_the_mean_over_seeds_and_stays_among_correlations():
    one, two = {"a": 0.9, "b": 0.9, "c": 0.9}, {"a": 1.0, "b": 0.9, "c": 0.8}
    (advice,) = advise_on_sources(evidence_of(one, two))
    expected = stats.ttest_1samp([0.95, 0.9, 0.85], 0).confidence_interval(0.95)
    assert advice.value == pytest.approx(expected.low)
    (advice,) = advise_on_sources(evidence_of({"a": -1.0, "b": 1.0, "c": 0.0}))
    assert advice.value == -1.0
    assert "-1.0000..1.0000" in advice.note


def test_two_sources_make_no_interval():
    assert advise_on_sources(evidence_of({"a": 0.9, "b": 0.8})) == ()


def table(cells, encoder="libx264"):
    """Two frames each of (src, cq, y_true, y_pred)."""
    rows = [(*cell, encoder, None, frame) for cell in cells for frame in (0, 1)]
    names = ["src", "cq", "y_true", "y_pred", "encoder", "preset", "frame_index"]
    return pl.DataFrame(rows, schema=names, orient="row")


def test_scores_that_rise_as_cq_gets_cheaper_are_counted_within_a_clip_only():
    cells = [("a", 20, 90.0, 91.0), ("a", 30, 80.0, 92.0), ("a", 40, 81.0, 70.0)]
    cells += [("b", 20, 99.0, 99.0), ("b", 30, 95.0, 95.0)]
    advice = {a.check: a for a in advise_on_predictions({0: table(cells)})}
    assert advice["rises_with_cq"].value == 1 / 3
    assert advice["rises_with_cq"].note == (
        "1 of 3 steps to a cheaper cq raise the predicted score, 1 the measured one"
    )


def test_names_of_encodes_do_not_break_the_ladder():
    rows = table([("a", 20, 90.0, 80.0), ("a", 30, 80.0, 82.0)])
    named = rows.with_columns(clip=pl.format("a_q{}", "cq"))
    advice = {a.check: a.value for a in advise_on_predictions({0: named})}
    assert advice["rises_with_cq"] == 1


def test_rises_are_those_of_the_ensemble_mean():
    rising = table([("a", 20, 90.0, 80.0), ("a", 30, 80.0, 82.0)])
    falling = table([("a", 20, 90.0, 90.0), ("a", 30, 80.0, 80.0)])
    advice = {a.check: a.value for a in advise_on_predictions({0: rising, 1: falling})}
    assert advice["rises_with_cq"] == 0


def test_one_quality_makes_no_ladder():
    checks = [a.check for a in advise_on_predictions({0: table([("a", 20, 90.0, 80.0)])})]
    assert checks == ["encoders_without_rows"]


def test_encoders_of_the_vocabulary_without_rows_are_named():
    cells = [("a", 20, 90.0, 80.0)]
    (advice, *_) = advise_on_predictions({0: table(cells)})
    assert advice.value == 10
    assert "libx265" in advice.note
    assert "libx264" not in advice.note
    assert "unknown" not in advice.note
    everything = pl.concat(table(cells, encoder) for encoder in ENCODER_VOCAB)
    assert advise_on_predictions({0: everything}) == ()


def test_without_predictions_there_is_no_advice_on_them():
    assert advise_on_predictions({}) == ()
