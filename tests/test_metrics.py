import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import root_mean_squared_error

from loso.metrics import (
    ci95_of_votes,
    krocc,
    measure_agreement,
    outlier_ratio,
    panel_agreement,
    plcc,
    rmse,
    rmse_star,
    srocc,
)

# Both sides sum the same float64 products in another order.
FLOAT64 = 1e-10

# Small whole numbers make ties; the fractions keep most vectors from being constant.
vectors = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        *[
            st.lists(st.one_of(st.integers(-3, 3), st.floats(-1e3, 1e3)), min_size=n, max_size=n)
            for _ in range(2)
        ]
    )
)


def varies(values):
    # Below this scipy itself calls its answer inaccurate.
    return np.ptp(values) > 1e-6


@given(vectors)
def test_correlations_equal_scipy_with_ties(pair):
    true, pred = (np.array(values, float) for values in pair)
    assume(varies(true) and varies(pred))
    assert plcc(true, pred).value == pytest.approx(stats.pearsonr(true, pred)[0], abs=FLOAT64)
    assert srocc(true, pred).value == pytest.approx(stats.spearmanr(true, pred)[0], abs=FLOAT64)


@given(vectors)
def test_kendall_counts_pairs_and_corrects_for_ties(pair):
    true, pred = (np.array(values, float) for values in pair)
    assume(np.ptp(true) and np.ptp(pred))
    rises, follows = (np.sign(values[:, None] - values) for values in (true, pred))
    tau_b = (rises * follows).sum() / np.sqrt((rises**2).sum() * (follows**2).sum())
    assert krocc(true, pred).value == pytest.approx(tau_b, abs=FLOAT64)
    assert krocc(pred, true).value == pytest.approx(tau_b, abs=FLOAT64)
    assert krocc(true, -pred).value == pytest.approx(-tau_b, abs=FLOAT64)


@given(vectors)
def test_rmse_equals_scikit_learn(pair):
    assert rmse(*pair) == pytest.approx(root_mean_squared_error(*pair), rel=FLOAT64)


@given(vectors, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_plcc_ignores_scale_and_shift_and_srocc_any_rising_map(pair, scale, shift):
    true, pred = (np.array(values, float) for values in pair)
    assume(varies(true) and varies(pred))
    # A shift eats the digits of small deviations: 1e3 over 1e-6 leaves about seven.
    assert plcc(true, scale * pred + shift).value == pytest.approx(plcc(true, pred).value, abs=1e-6)
    assert srocc(true, stats.rankdata(pred) ** 3).value == pytest.approx(
        srocc(true, pred).value, abs=FLOAT64
    )


def test_two_points_correlate_fully():
    assert plcc([1.0, 2.0], [5.0, 3.0]).value == pytest.approx(-1.0, abs=FLOAT64)
    assert srocc([1.0, 2.0], [3.0, 5.0]).value == pytest.approx(1.0, abs=FLOAT64)


@pytest.mark.parametrize("metric", [plcc, srocc, krocc])
@pytest.mark.parametrize(
    ("true", "pred", "reason"),
    [
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0], "y_pred is constant"),
        ([0.1, 0.1, 0.1], [1.0, 2.0, 3.0], "y_true is constant"),
        ([1.0], [1.0], "1 value, two are needed"),
        ([], [], "0 values, two are needed"),
    ],
)
def test_undefined_is_a_named_outcome(metric, true, pred, reason):
    outcome = metric(true, pred)
    assert outcome.value is None
    assert outcome.reason == reason


def test_rounding_noise_is_not_variation():
    noise = np.full(50, 0.1).cumsum() - np.arange(1, 51) * 0.1 + 1e6
    assert plcc(noise, np.arange(50)).reason == "y_true is constant"


def test_tiny_and_huge_scales_stay_defined():
    x = np.array([1.0, 2.0, 4.0])
    for scale in (1e-300, 1e300):
        assert plcc(x * scale, -x).value == pytest.approx(-1.0, abs=FLOAT64)


@pytest.mark.parametrize("metric", [plcc, srocc, krocc, rmse])
def test_lengths_must_agree(metric):
    with pytest.raises(ValueError, match=r"vectors of one length.*\(2,\) and \(3,\)"):
        metric([1, 2], [1, 2, 3])


@pytest.mark.parametrize("metric", [plcc, srocc, krocc, rmse])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(metric, value):
    with pytest.raises(ValueError, match="must be finite"):
        metric([1.0, value], [1.0, 2.0])
    with pytest.raises(ValueError, match="must be finite"):
        metric([1.0, 2.0], [1.0, value])


def test_an_error_of_nothing_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        rmse([], [])


# -- Errors of scores that come from votes --------------------------------------------------------

TRUE = np.array([1.5, 2.5, 3.0, 4.0, 4.5])
ERROR = np.array([0.1, -0.2, 0.3, -0.4, 0.0])


def test_half_widths_are_196_standard_errors():
    found = ci95_of_votes([0.8, 0.8], [16, 64])
    assert found == pytest.approx([1.96 * 0.8 / 4, 1.96 * 0.8 / 8], rel=FLOAT64)


@pytest.mark.parametrize(
    ("ci95", "ratio"),
    [
        (0.0, 0.8),
        (0.25, 0.4),
        (0.5, 0.0),
        ([0.05, 0.3, 0.05, 0.5, 0.0], 0.4),
    ],
)
def test_outliers_lie_beyond_their_own_half_width(ci95, ratio):
    assert outlier_ratio(TRUE, TRUE + ERROR, ci95=ci95) == ratio


def test_an_error_of_just_the_half_width_is_no_outlier():
    assert outlier_ratio([1.0, 2.0], [1.5, 1.5], ci95=0.5) == 0.0


def test_rmse_star_counts_what_exceeds_the_half_width():
    # 0.3 exceeds 0.25 by 0.05, 0.4 by 0.15.
    expected = np.sqrt((0.05**2 + 0.15**2) / 5)
    assert rmse_star(TRUE, TRUE + ERROR, ci95=0.25) == pytest.approx(expected, rel=FLOAT64)
    by_point = rmse_star(TRUE, TRUE + ERROR, ci95=[0, 1, 1, 0.1, 1], degrees_of_freedom=4)
    assert by_point == pytest.approx(np.sqrt(0.1**2 + 0.3**2), rel=FLOAT64)


@given(vectors, st.floats(0, 10))
def test_rmse_star_lies_between_zero_and_rmse(pair, ci95):
    assert 0.0 <= rmse_star(*pair, ci95=ci95) <= rmse(*pair)
    assert rmse_star(*pair, ci95=0.0) == rmse(*pair)


@pytest.mark.parametrize("degrees_of_freedom", [0, 1, 4])
def test_the_divisor_is_what_is_left_of_n(degrees_of_freedom):
    expected = np.sqrt((ERROR**2).sum() / (5 - degrees_of_freedom))
    found = rmse(TRUE, TRUE + ERROR, degrees_of_freedom=degrees_of_freedom)
    assert found == pytest.approx(expected, rel=FLOAT64)


@pytest.mark.parametrize("degrees_of_freedom", [-1, 5, 6])
def test_degrees_of_freedom_must_leave_points(degrees_of_freedom):
    said = rf"must lie in 0\.\.4 for 5 points, got {degrees_of_freedom}"
    with pytest.raises(ValueError, match=said):
        rmse(TRUE, TRUE, degrees_of_freedom=degrees_of_freedom)
    with pytest.raises(ValueError, match=said):
        rmse_star(TRUE, TRUE, ci95=0.1, degrees_of_freedom=degrees_of_freedom)


@pytest.mark.parametrize("metric", [outlier_ratio, rmse_star])
def test_half_widths_must_fit_their_scores(metric):
    with pytest.raises(ValueError, match=r"one for each point, got \(2,\) for \(5,\)"):
        metric(TRUE, TRUE, ci95=[0.1, 0.1])
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ci95 must be finite and not negative"):
            metric(TRUE, TRUE, ci95=wrong)
    with pytest.raises(ValueError, match="must not be empty"):
        metric([], [], ci95=0.1)


def test_votes_must_be_votes():
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="mos_std must be finite and not negative"):
            ci95_of_votes(wrong, 20)
    for wrong in (0, float("inf")):
        with pytest.raises(ValueError, match="n_votes must be finite and at least 1"):
            ci95_of_votes(0.5, wrong)


# -- By source, and between panels ----------------------------------------------------------------


@pytest.fixture
def judged():
    rng = np.random.default_rng(4)
    source = np.array(["b", "a", "c"])[rng.integers(0, 3, 60)]
    true = rng.uniform(1, 5, 60) + (source == "a")
    return true, true + rng.normal(0, 0.3, 60) + 2.0 * (source == "c"), source


def test_agreement_is_pooled_and_by_source(judged):
    true, pred, source = judged
    found = measure_agreement(true, pred, source)
    pooled = found.plcc, found.srocc, found.krocc, found.rmse
    assert pooled == tuple(metric(true, pred) for metric in (plcc, srocc, krocc, rmse))
    assert (found.n_rows, found.n_sources) == (60, 3)
    assert [each.source for each in found.by_source] == ["a", "b", "c"]
    for each in found.by_source:
        own = source == each.source
        figures = own.sum(), plcc(true[own], pred[own]), rmse(true[own], pred[own])
        assert (each.n_rows, each.plcc, each.rmse) == figures
    within = [each.plcc.value for each in found.by_source]
    assert found.mean_within_plcc.value == pytest.approx(np.mean(within), rel=FLOAT64)
    assert found.worst_plcc.plcc.value == min(within)
    assert found.worst_rmse.source == "c"


def test_an_offset_of_a_source_lowers_pooled_figures_only(judged):
    true, pred, source = judged
    found = measure_agreement(true, pred, source)
    level = measure_agreement(true, pred - 2.0 * (source == "c"), source)
    assert level.plcc.value > found.plcc.value + 0.1
    same = found.mean_within_plcc.value
    assert level.mean_within_plcc.value == pytest.approx(same, rel=FLOAT64)


def test_a_source_without_a_plcc_is_named_and_not_left_out():
    found = measure_agreement([1, 2, 3, 1, 2], [1, 2, 4, 3, 3], list("aabcc"))
    assert found.mean_within_plcc.value is None
    said = "no PLCC within b (1 value, two are needed), c (y_pred is constant)"
    assert found.mean_within_plcc.reason == said
    assert found.worst_plcc.source == "a"
    assert measure_agreement([1.0], [2.0], ["a"]).worst_plcc is None


def test_agreement_of_nothing_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        measure_agreement([], [], [])
    with pytest.raises(ValueError, match=r"as long as y_true, got \(1,\) and \(2,\)"):
        measure_agreement([1, 2], [1, 2], ["a"])


def test_panels_leave_a_model_no_more_than_their_agreement():
    # The best model of a panel is the truth that both panels rate with noise of their own.
    rng = np.random.default_rng(9)
    truth = rng.uniform(1, 5, 20_000)
    first, second = (truth + rng.normal(0, 0.5, len(truth)) for _ in range(2))
    found = panel_agreement(first, second)
    assert (found.plcc, found.rmse) == (plcc(first, second), rmse(first, second))
    assert found.n_clips == 20_000
    # Five standard errors of a correlation near 0.92 and of an RMSE, at 20,000 clips.
    assert found.plcc_ceiling.value == pytest.approx(plcc(first, truth).value, abs=0.005)
    assert found.rmse_floor == pytest.approx(rmse(first, truth), rel=0.025)


def test_panels_that_do_not_agree_leave_no_ceiling():
    apart = panel_agreement([1, 2, 3], [3, 2, 1])
    assert apart.plcc_ceiling.reason == "the panels do not correlate"
    assert apart.rmse_floor == pytest.approx(np.sqrt(8 / 3 / 2), rel=FLOAT64)
    flat = panel_agreement([1, 2, 3], [2, 2, 2])
    assert flat.plcc.reason == flat.plcc_ceiling.reason == "scores_b is constant"
    with pytest.raises(ValueError, match="must not be empty"):
        panel_agreement([], [])
