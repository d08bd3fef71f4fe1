import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.baselines import Ends, Gain
from loso.diagnosis import failed_limits
from loso.errors import BadEvidence, BadSettings
from loso.evidence import Evidence
from loso.gate import evaluate_gate, mean_per_fold
from loso.recipe import GateThresholds
from loso.seedfile import FoldScore, SeedFile

STANDARD = GateThresholds()
OLD_KEYS = {
    "passed",
    "mean_plcc",
    "mean_plcc_threshold",
    "mean_plcc_pass",
    "plcc_spread",
    "plcc_spread_max",
    "plcc_spread_pass",
    "per_seed_plccs",
    "per_seed_min",
    "per_seed_pass",
    "failing_seeds",
}
DIGITS = 10_000
"""Scores and limits are drawn as decimals of four places: exact as fractions, rounded as floats."""


def evidence_of(plccs, folds=()):
    files = {s: SeedFile(seed=s, mean_plcc=p, folds=tuple(folds)) for s, p in plccs.items()}
    return Evidence(Path("run"), files, {}, {})


decimals = st.integers(9_300, 9_700)
ensembles = st.dictionaries(st.integers(0, 99), decimals, min_size=2, max_size=8)


@given(ensembles, decimals, st.integers(0, 300), decimals)
def test_the_gate_is_its_three_conditions_in_exact_arithmetic(seeds, least, widest, lowest):
    report = evaluate_gate(
        evidence_of({seed: plcc / DIGITS for seed, plcc in seeds.items()}),
        GateThresholds(
            mean_plcc_threshold=least / DIGITS,
            plcc_spread_max=widest / DIGITS,
            per_seed_min=lowest / DIGITS,
        ),
    )
    assert report.mean_plcc_pass == (Fraction(sum(seeds.values()), len(seeds)) >= least)
    assert report.plcc_spread_pass == (max(seeds.values()) - min(seeds.values()) <= widest)
    assert report.failing_seeds == tuple(sorted(s for s, plcc in seeds.items() if plcc < lowest))
    assert report.per_seed_pass == (not report.failing_seeds)
    assert report.passed == (
        report.mean_plcc_pass and report.plcc_spread_pass and report.per_seed_pass
    )


@given(ensembles, st.randoms())
def test_the_order_of_seeds_is_irrelevant(seeds, random):
    plccs = [(seed, plcc / DIGITS) for seed, plcc in seeds.items()]
    shuffled = random.sample(plccs, len(plccs))
    one = evaluate_gate(evidence_of(dict(plccs)), STANDARD)
    assert evaluate_gate(evidence_of(dict(shuffled)), STANDARD) == one


@given(ensembles, st.data())
def test_raising_a_seed_never_breaks_the_mean_nor_another_seed(seeds, data):
    before = evaluate_gate(evidence_of({s: p / DIGITS for s, p in seeds.items()}), STANDARD)
    seed = data.draw(st.sampled_from(sorted(seeds)))
    raised = seeds | {seed: data.draw(st.integers(seeds[seed], DIGITS))}
    after = evaluate_gate(evidence_of({s: p / DIGITS for s, p in raised.items()}), STANDARD)
    assert after.mean_plcc_pass >= before.mean_plcc_pass
    assert set(after.failing_seeds) <= set(before.failing_seeds)


@pytest.mark.parametrize(
    ("plccs", "passed"),
    [
        ((0.955, 0.950), True),  # 0.955 - 0.950 is 0.0050000000000000044 in binary floats
        ((0.9551, 0.950), False),
        ((0.95, 0.95, 0.95), True),
        ((0.9499999999999, 0.96), False),
        ((0.9499, 0.9499), False),
        ((0.9489, 0.9539), False),
        ((1.0, 1.0), True),
        ((-1.0, 1.0), False),
    ],
)
def test_limits_are_inclusive(plccs, passed):
    assert evaluate_gate(evidence_of(dict(enumerate(plccs))), STANDARD).passed is passed


def test_tolerance_is_for_rounding_only():
    assert evaluate_gate(evidence_of(dict.fromkeys((0, 1), 0.95 - 0.9e-12)), STANDARD).passed
    assert not evaluate_gate(evidence_of(dict.fromkeys((0, 1), 0.95 - 1.1e-12)), STANDARD).passed


def test_the_report_has_the_old_keys_and_the_advice():
    content = evaluate_gate(evidence_of({3: 0.96, 1: 0.9}), STANDARD).to_dict()
    assert content.keys() == OLD_KEYS | {"advisory"}
    assert content["per_seed_plccs"] == {"3": 0.96, "1": 0.9}
    assert content["failing_seeds"] == [1]
    assert json.loads(json.dumps(content)) == content


def fold(source, plcc, error=None):
    return FoldScore(held_out=source, plcc=plcc, rmse=error)


def test_advice_names_the_worst_sources_and_leaves_the_answer_alone():
    files = {
        0: SeedFile(seed=0, mean_plcc=0.96, folds=(fold("a", 0.98, 1.0), fold("b", 0.94, 2.0))),
        1: SeedFile(seed=1, mean_plcc=0.96, folds=(fold("a", 0.96, 5.0), fold("b", 0.96, 2.0))),
    }
    evidence = Evidence(Path("run"), files, {}, {})
    report = evaluate_gate(evidence, STANDARD)
    assert report.passed
    assert [(a.check, pytest.approx(a.value), a.note) for a in report.advisory] == [
        ("worst_fold_plcc", 0.95, "held-out source b"),
        ("mean_rmse", 2.5, "in units of the target"),
        ("worst_fold_rmse", 3.0, "held-out source a"),
    ]


def test_means_over_seeds_leave_out_a_source_that_some_seed_did_not_score():
    folds = [fold("a", 0.9, 1.0), fold("b", 0.8)]
    evidence = evidence_of({0: 0.85, 1: 0.85}, folds)
    assert mean_per_fold(evidence, "plcc") == {"a": 0.9, "b": 0.8}
    assert mean_per_fold(evidence, "rmse") == {"a": 1.0}


def test_an_undefined_mean_is_never_compared():
    with pytest.raises(BadEvidence, match="mean_plcc of seed 2 is undefined"):
        evaluate_gate(evidence_of({1: 0.99, 2: None}), STANDARD)


def test_one_seed_is_no_ensemble():
    with pytest.raises(BadEvidence) as refusal:
        evaluate_gate(evidence_of({3: 0.99}), STANDARD)
    assert str(refusal.value) == (
        "run: an ensemble needs at least two seeds, the spread of one says nothing, found seed 3; "
        "name the others too, as in --seeds 0,1,2,3,4"
    )
    with pytest.raises(BadEvidence, match=r"at least two seeds.*found none"):
        evaluate_gate(evidence_of({}), STANDARD)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean_plcc_threshold": 1.5}, "mean_plcc_threshold is out of range"),
        ({"plcc_spread_max": -0.1}, "plcc_spread_max is out of range"),
        ({"per_seed_min": float("nan")}, "per_seed_min is out of range"),
        ({"tolerance": -1.0}, "tolerance must be finite, not negative"),
    ],
)
def test_limits_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(BadSettings, match=message):
        GateThresholds(**settings)


# -- The gain over VMAF ---------------------------------------------------------------------------


def gain(low, *, agrees=True):
    nothing = Ends(low=None, high=None, reason="1 source, two are needed")
    ends = nothing if low is None else Ends(low=low, high=0.4, reason=None)
    return Gain(
        model_rmse=0.3,
        baseline_rmse=0.5,
        rmse_gain=0.2,
        level=0.95,
        n_sources=5,
        bootstrap=ends,
        jackknife=nothing,
        beats=low is not None and low > 0,
        jackknife_agrees=agrees,
    )


@pytest.mark.parametrize("agrees", [True, False])
@pytest.mark.parametrize("low", [0.1, 0.0, -0.1, None])
@pytest.mark.parametrize("plcc", [0.96, 0.9])
def test_a_gain_must_hold_beside_the_limits(plcc, low, agrees):
    report = evaluate_gate(evidence_of({0: plcc, 1: plcc}), STANDARD, gain(low, agrees=agrees))
    assert report.passed == (plcc > 0.95 and low == 0.1)
    assert report.mean_plcc_pass == (plcc > 0.95)
    written = json.loads(json.dumps(report.to_dict()))
    assert written["gain_over_vmaf"] == gain(low, agrees=agrees).model_dump()


def test_without_a_gain_the_report_has_no_such_key():
    report = evaluate_gate(evidence_of({0: 0.96, 1: 0.96}), STANDARD)
    assert report.gain_over_vmaf is None
    assert "gain_over_vmaf" not in report.to_dict()


def test_a_gain_that_does_not_hold_is_said_in_a_sentence():
    evidence = evidence_of({0: 0.96, 1: 0.96})
    said = "RMSE 0.3 does not beat that of the VMAF column, 0.5: gain 0.2, "
    report = evaluate_gate(evidence, STANDARD, gain(-0.1))
    assert failed_limits(report) == [said + "95% interval -0.1..0.4"]
    report = evaluate_gate(evidence, STANDARD, gain(None))
    assert failed_limits(report) == [said + "no interval (1 source, two are needed)"]
    assert failed_limits(evaluate_gate(evidence, STANDARD, gain(0.1))) == []
