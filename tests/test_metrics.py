import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import root_mean_squared_error

from loso.metrics import plcc, rmse, srocc

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


@pytest.mark.parametrize("metric", [plcc, srocc])
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


@pytest.mark.parametrize("metric", [plcc, srocc, rmse])
def test_lengths_must_agree(metric):
    with pytest.raises(ValueError, match=r"vectors of one length.*\(2,\) and \(3,\)"):
        metric([1, 2], [1, 2, 3])


@pytest.mark.parametrize("metric", [plcc, srocc, rmse])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(metric, value):
    with pytest.raises(ValueError, match="must be finite"):
        metric([1.0, value], [1.0, 2.0])
    with pytest.raises(ValueError, match="must be finite"):
        metric([1.0, 2.0], [1.0, value])


def test_an_error_of_nothing_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        rmse([], [])
