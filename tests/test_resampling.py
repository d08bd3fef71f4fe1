import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loso.metrics import (
    BySource,
    Resampled,
    beats,
    bootstrap,
    jackknife,
    plcc,
    plcc_by_source,
    rmse,
    rmse_by_source,
    rmse_gain_by_source,
    rows_by_source,
    srocc,
)

# Sums by source add the same float64 terms in another order.
FLOAT64 = 1e-10

SOURCE = np.repeat(["d", "a", "c", "b", "e"], [3, 9, 5, 1, 7])  # ascending: 9, 1, 5, 3, 7 rows


def table(seed=0):
    rng = np.random.default_rng(seed)
    true = rng.uniform(1, 5, len(SOURCE))
    return true, true + rng.normal(0, 0.3, len(SOURCE)), true + rng.normal(0, 0.5, len(SOURCE))


def mean_of(values):
    """The mean over sources of one value each, in the form that is resampled."""
    values = np.asarray(values)
    return BySource(len(values), lambda counts: counts @ values / counts.sum(axis=1))


# -- Figures from sums ----------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=5, max_size=5).filter(lambda c: c[0] or c[2]))
def test_figures_from_sums_are_those_of_the_repeated_rows(counts):
    true, pred, baseline = table()
    rows = np.concatenate(
        [
            np.tile(np.flatnonzero(name == SOURCE), n)
            for name, n in zip("abcde", counts, strict=True)
        ]
    )
    at = [np.array([counts, np.ones(5)])]  # among others, as it is resampled
    model = rmse(true[rows], pred[rows])
    assert rmse_by_source(true, pred, SOURCE).at(*at)[0] == pytest.approx(model, rel=FLOAT64)
    gain = rmse(true[rows], baseline[rows]) - model
    found = rmse_gain_by_source(true, pred, baseline, SOURCE).at(*at)[0]
    assert found == pytest.approx(gain, abs=FLOAT64)
    linear = plcc(true[rows], pred[rows]).value
    assert plcc_by_source(true, pred, SOURCE).at(*at)[0] == pytest.approx(linear, abs=FLOAT64)
    by_rows = rows_by_source(SOURCE, lambda own: plcc(true[own], pred[own]).value)
    assert by_rows.at(*at)[0] == pytest.approx(linear, abs=FLOAT64)


def test_moments_keep_their_digits_at_a_large_offset():
    true, pred, _ = table()
    far = plcc_by_source(true + 1e6, 1e9 * pred, SOURCE).at(np.ones((1, 5)))[0]
    assert far == pytest.approx(plcc(true, pred).value, abs=1e-8)


# -- Bootstrap ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bootstrap_of_one_row_a_source_is_scipys(level):
    values = np.random.default_rng(5).gamma(2.0, size=11)
    ours = bootstrap(mean_of(values), level=level, n_resamples=999, seed=7)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=999,
        method="percentile",
        confidence_level=level,
        rng=np.random.default_rng(7),  # draws source numbers in the same shape
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=FLOAT64)
    assert ours.value == pytest.approx(values.mean(), rel=FLOAT64)
    assert (ours.level, ours.method, ours.n_sources) == (level, "bootstrap", 11)


def test_one_seed_gives_the_same_resamples_to_every_figure():
    seen = []
    figure = mean_of(np.random.default_rng(8).normal(size=6))
    for _ in range(2):
        bootstrap(BySource(6, lambda counts: seen.append(counts) or figure.at(counts)), seed=3)
    resamples = [counts for counts in seen if len(counts) > 1]
    assert np.array_equal(*resamples)
    assert resamples[0].shape == (2000, 6)
    assert (resamples[0].sum(axis=1) == 6).all()
    assert bootstrap(figure, seed=3) == bootstrap(figure, seed=3)
    assert bootstrap(figure, seed=3) != bootstrap(figure, seed=4)


def test_a_gain_is_paired():
    # Errors differ between sources, their ratio does not: unpaired, the gain would look unsure.
    true = np.zeros(len(SOURCE))
    error = np.random.default_rng(1).gamma(1.0, size=5)[np.unique(SOURCE, return_inverse=True)[1]]
    gain = bootstrap(rmse_gain_by_source(true, error, error + 0.1, SOURCE))
    apart = [bootstrap(rmse_by_source(true, own, SOURCE)) for own in (error + 0.1, error)]
    assert gain.value == pytest.approx(apart[0].value - apart[1].value, abs=FLOAT64)
    assert beats(gain)
    assert apart[0].low < apart[1].high


# -- Jackknife ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_jackknife_of_a_mean_is_the_t_interval(level):
    values = np.random.default_rng(5).gamma(2.0, size=9)
    found = jackknife(mean_of(values), level=level)
    expected = stats.t.interval(level, 8, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=FLOAT64)
    assert (found.level, found.method, found.n_sources) == (level, "jackknife", 9)


def test_jackknife_leaves_out_whole_sources():
    true, pred, _ = table()
    without = np.array(
        [srocc(true[k], pred[k]).value for k in (name != SOURCE for name in "abcde")]
    )
    error = np.sqrt(4 / 5 * np.square(without - without.mean()).sum())
    value = srocc(true, pred).value
    found = jackknife(
        rows_by_source(SOURCE, lambda own: srocc(true[own], pred[own]).value, (-1.0, 1.0))
    )
    assert found.value == pytest.approx(value, rel=FLOAT64)
    assert found.low == pytest.approx(value - stats.t.ppf(0.975, 4) * error, rel=FLOAT64)


def test_an_interval_stays_in_the_figures_range():
    rows = np.arange(4.0), np.array([0.0, 1.0, 3.0, 2.0]), list("aabb")
    correlation = jackknife(plcc_by_source(*rows))
    assert (correlation.low, correlation.high) == (-1.0, 1.0)
    assert jackknife(rmse_by_source(*rows)).low == 0.0


# -- The source is the unit -----------------------------------------------------------------------


@pytest.mark.parametrize("interval", [bootstrap, jackknife])
@pytest.mark.parametrize("by_source", [rmse_by_source, plcc_by_source])
def test_more_rows_of_the_same_sources_make_nothing_surer(interval, by_source):
    true, pred, _ = table()
    once = interval(by_source(true, pred, SOURCE))
    often = interval(by_source(*(np.tile(column, 50) for column in (true, pred, SOURCE))))
    assert (often.low, often.high) == pytest.approx((once.low, once.high), rel=1e-8)


@pytest.mark.parametrize("interval", [bootstrap, jackknife])
def test_the_order_of_rows_does_not_matter(interval):
    true, pred, _ = table()
    order = np.random.default_rng(2).permutation(len(SOURCE))
    once = interval(plcc_by_source(true, pred, SOURCE))
    other = interval(plcc_by_source(true[order], pred[order], SOURCE[order]))
    assert (other.low, other.high) == pytest.approx((once.low, once.high), rel=FLOAT64)


def test_coverage_with_nine_sources_is_what_the_documents_say():
    # 1500 corpora of nine sources whose errors share an offset; figures whose truth is known.
    rng = np.random.default_rng(20)
    source = np.repeat(np.arange(9), 12)
    true = np.zeros(len(source))
    model_rmse, baseline_rmse = np.sqrt(2 * 0.25**2), np.sqrt(0.4**2 + 0.25**2)
    inside = []
    for seed in range(1500):
        pred, baseline = (
            rng.normal(0, spread, 9)[source] + rng.normal(0, 0.25, len(source))
            for spread in (0.25, 0.4)
        )
        figures = (
            (mean_of(np.bincount(source, weights=pred) / 12), 0.0),
            (rmse_gain_by_source(true, pred, baseline, source), baseline_rmse - model_rmse),
        )
        found = [
            (interval.low <= truth <= interval.high)
            for figure, truth in figures
            for interval in (bootstrap(figure, n_resamples=300, seed=seed), jackknife(figure))
        ]
        inside.append(found)
    mean_boot, mean_jack, gain_boot, gain_jack = np.sum(inside, axis=0)
    low, high = stats.binom.interval(0.999, 1500, 0.95)
    assert low <= mean_jack <= high
    assert mean_boot < stats.binom.ppf(0.001, 1500, 0.93)
    assert gain_jack > stats.binom.ppf(0.001, 1500, 0.90)
    assert gain_boot < stats.binom.ppf(0.999, 1500, 0.88)
    assert gain_boot < gain_jack - 50


# -- Outcomes without an interval, and refusals ---------------------------------------------------


@pytest.mark.parametrize(
    ("low", "answer"), [(0.01, True), (0.0, False), (-0.1, False), (None, False)]
)
def test_a_model_beats_a_baseline_by_the_lower_end_of_its_gain(low, answer):
    assert beats(Resampled(0.2, low, 0.3, 0.95, "jackknife", 9)) is answer


@pytest.mark.parametrize("interval", [bootstrap, jackknife])
def test_one_source_has_a_value_and_no_interval(interval):
    found = interval(rmse_by_source([1.0, 2.0], [1.0, 4.0], ["a", "a"]))
    assert found.value == pytest.approx(np.sqrt(2))
    assert (found.low, found.high, found.reason) == (None, None, "1 source, two are needed")


def test_a_figure_that_some_resamples_lack_has_no_interval():
    constant = plcc_by_source([1, 2, 3.0, 3.1], [0.7, 0.7, 1.9, 1.7], list("aabb"))
    found = jackknife(constant)
    assert found.value is not None
    assert found.low is None
    assert found.reason == "undefined on 1 of 2 resamples"
    drawn = bootstrap(constant)
    assert drawn.low is None
    # A quarter of the resamples holds the first source alone, within six standard errors.
    undefined = int(drawn.reason.removeprefix("undefined on ").removesuffix(" of 2000 resamples"))
    assert 380 < undefined < 620


def test_a_figure_that_is_undefined_on_all_rows_says_so():
    found = bootstrap(plcc_by_source([1, 2, 3], [5, 5, 5], list("abc")))
    assert (found.value, found.low, found.reason) == (None, None, "undefined on all rows")
    by_rows = jackknife(rows_by_source(list("abc"), lambda _: None))
    assert (by_rows.value, by_rows.reason) == (None, "undefined on all rows")


@pytest.mark.parametrize("level", [0.0, 1.0, 95, float("nan")])
def test_a_level_is_a_share(level):
    for interval in (bootstrap, jackknife):
        with pytest.raises(ValueError, match="level must lie between 0 and 1"):
            interval(mean_of([1.0, 2.0]), level=level)


def test_what_cannot_be_resampled_is_refused():
    with pytest.raises(ValueError, match="n_resamples must be at least 1, got 0"):
        bootstrap(mean_of([1.0, 2.0]), n_resamples=0)
    with pytest.raises(ValueError, match=r"one name for each row, got \(1,\) for 2 rows"):
        rmse_by_source([1, 2], [1, 2], ["a"])
    with pytest.raises(ValueError, match=r"one name for each row, got \(0,\) for 0 rows"):
        rmse_by_source([], [], [])
