"""The bound: what a source needs, and that promises are kept on sources nobody has seen."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from loso.errors import BadSettings
from loso.recommend.bound import NO_NEED, fit_bound, need_of
from loso.recommend.judge import MetricJudge
from loso.recommend.search import bracket_of, next_setting

PRIOR = MetricJudge("vmaf", "mean").prior
SETTINGS = 52

eighths = st.integers(0, 800).map(lambda n: n / 8)  # exact sums: no doubt about equality
falling_scores = st.lists(eighths, min_size=3, max_size=30).map(
    lambda scores: np.sort(scores)[::-1]
)


def choose(estimates, aim):
    """The setting that a search settles on, -1 where none meets the aim."""
    scores = {}
    usual = PRIOR(np.linspace(0, 1, len(estimates)))
    while (place := next_setting(scores, aim, usual, made=len(scores))) is not None:
        scores[place] = estimates[place]
    return bracket_of(scores, aim, len(estimates)).meets


@given(falling_scores, eighths, eighths, eighths)
def test_a_choice_breaks_its_promise_exactly_where_the_margin_is_below_the_need(
    truths, error, target, margin
):
    estimates = truths + error / 8
    chosen = choose(estimates, target + margin)
    broken = chosen >= 0 and truths[chosen] < target
    assert broken == (need_of(estimates, truths, target) >= margin)


def test_where_every_setting_meets_the_target_nothing_is_needed():
    assert need_of([97.0, 93.0], [96.0, 91.0], 50.0) == NO_NEED


def test_where_none_does_the_best_setting_must_not_be_promised():
    assert need_of([97.0, 93.0], [89.0, 80.0], 90.0) == 7.0


def test_the_margin_is_the_conformal_quantile_of_the_needs():
    needs = {f"s{at}": [float(at)] for at in range(9)}
    assert fit_bound(needs, 0.8).margin == pytest.approx(7.0)  # ceil(0.8 x 10) = 8th smallest
    assert fit_bound(needs, 0.9).margin == pytest.approx(8.0)
    assert fit_bound(needs).level == 0.8
    assert fit_bound(needs).evidence.endswith("bound supported by 9 sources")


def test_sources_that_are_better_than_their_estimates_lower_no_promise():
    assert fit_bound({f"s{at}": [-3.0] for at in range(9)}, 0.8).margin == 0.0
    assert fit_bound({f"s{at}": [NO_NEED] for at in range(9)}, 0.8).margin == 0.0


def test_a_source_with_many_needs_weighs_as_one_with_one():
    few = {f"s{at}": [0.0] for at in range(8)}
    assert fit_bound(few | {"loud": [50.0] * 100}, 0.8).margin == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("count", "level", "text"),
    [
        (3, None, "too few sources for intervals, expected at least 4"),
        (9, 0.95, "9 sources do not support an interval at that level, expected at most 0.9"),
    ],
)
def test_a_confidence_that_the_sources_do_not_support_is_refused(count, level, text):
    with pytest.raises(BadSettings, match=re.escape(text)):
        fit_bound({f"s{at}": [0.0] for at in range(count)}, level)


# -- On simulated sources -------------------------------------------------------------------------

MEASURED = np.array([[99.0, 97.5, 93.0, 84.0, 65.0, 30.0], [97.0, 93.5, 86.0, 73.0, 52.0, 20.0]])
"""VMAF of two contents at a few settings of x264, between which the simulated ones lie."""
AT = np.array([0.0, 0.4, 0.5, 0.6, 0.75, 1.0])


def simulated(random):
    """The truth of one source and what its segments say: off by an own amount, and by chance."""
    places = np.linspace(0, 1, SETTINGS)
    share, moved = random.uniform(), random.normal(0, 0.05)
    low, high = (np.interp(places + moved, AT, scores) for scores in MEASURED)
    truths = share * low + (1 - share) * high
    easier = random.normal(0, 1.2) + random.standard_t(3) * 0.5
    estimates = truths + easier * np.sqrt((100 - truths) / 10) + random.normal(0, 0.1, SETTINGS)
    return np.minimum.accumulate(truths), np.minimum.accumulate(np.clip(estimates, 0, 100))


@pytest.mark.parametrize(("n_calibration", "level"), [(4, 0.8), (9, 0.8), (19, 0.9)])
def test_on_new_sources_promises_are_kept_as_often_as_they_say(n_calibration, level):
    random = np.random.default_rng(7)
    trials, target = 600, 90.0
    broken = 0
    for _ in range(trials):
        known = [simulated(random) for _ in range(n_calibration)]
        needs = {f"{at}": [need_of(e, t, target)] for at, (t, e) in enumerate(known)}
        bound = fit_bound(needs, level)
        truths, estimates = simulated(random)
        chosen = choose(estimates, target + bound.margin)
        broken += chosen >= 0 and truths[chosen] < target
    # One-sided, at a chance of one in ten thousand that a bound that holds fails here.
    assert broken <= binom.ppf(1 - 1e-4, trials, 1 - level)
    # And it is no idle bound: without it, and so without a margin, far more promises break.
    idle = sum(
        (at := choose(estimates, target)) >= 0 and truths[at] < target
        for truths, estimates in (simulated(random) for _ in range(trials))
    )
    assert idle > binom.ppf(1 - 1e-4, trials, 1 - level)
