import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loso.errors import BadEvidence, BadSettings
from loso.intervals import (
    POOLS,
    IntervalsFile,
    Points,
    Rule,
    choose_level,
    fit_rule,
    level_key,
    parse_intervals,
    pools_of,
    source_quantiles,
    supports,
    write_intervals,
)
from loso.metrics.pooling import CLIP_POOLS, pool_scores

ROUNDING = 1e-12
"""Sums of a few hundred float64 numbers, in another order."""

values = st.floats(0, 100, allow_subnormal=False)


@st.composite
def sources(draw, least=1):
    """Scores of a few sources, each with rows of its own number."""
    sizes = draw(st.lists(st.integers(1, 8), min_size=least, max_size=8))
    return [draw(arrays(float, size, elements=values)) for size in sizes]


# -- Pools ----------------------------------------------------------------------------------------


@given(
    arrays(float, st.tuples(st.just(2), st.integers(1, 40)), elements=st.floats(-5, 100)),
    st.randoms(),
)
def test_pools_are_what_numpy_gives_clip_by_clip(scores, random):
    clip = np.array([random.choice([3, 7, 8]) for _ in range(scores.shape[1])])
    pooled = pool_scores(scores, clip)
    assert tuple(pooled) == CLIP_POOLS
    for place, name in enumerate(np.unique(clip)):
        own = scores[:, clip == name]
        expected = {
            "mean": own.mean(axis=1),
            "hmean": own.shape[1] / (1 / (np.maximum(own, 0) + 1)).sum(axis=1) - 1,
            "p1": np.percentile(own, 1, axis=1),
            "p5": np.percentile(own, 5, axis=1),
        }
        for pool, value in expected.items():
            np.testing.assert_allclose(pooled[pool][:, place], value, rtol=1e-9, atol=1e-9)


def test_pools_of_one_vector_and_of_one_frame():
    assert {k: v.tolist() for k, v in pool_scores([70.0, -3.0], [1, 0]).items()} == {
        "mean": [-3.0, 70.0],
        "hmean": [0.0, 70.0],
        "p1": [-3.0, 70.0],
        "p5": [-3.0, 70.0],
    }
    assert ("frame", *CLIP_POOLS) == POOLS


# -- Quantiles ------------------------------------------------------------------------------------


@given(arrays(float, st.integers(4, 60), elements=values), st.floats(0.02, 0.98))
def test_with_one_row_a_source_it_is_ordinary_split_conformal(scores, level):
    """crepes and numpy know only rows; where every source is one row, so does the theory."""
    from crepes import ConformalRegressor

    count = len(scores)
    rank = (count + 1) * level
    if abs(rank - round(rank)) < 1e-6 or rank > count:  # crepes truncates a rounded product there
        return
    (found,) = source_quantiles(scores[:, None], [level]).values()
    share = np.ceil(rank) / count
    assert found == np.quantile(scores, share, method="inverted_cdf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ((low, high),) = ConformalRegressor().fit(scores).predict_int(np.zeros(1), confidence=level)
    assert (-low, high) == (found, found)


@pytest.mark.parametrize("count", [4, 9, 10, 19, 39, 49])
def test_at_the_highest_level_it_is_the_largest_residual(count):
    random = np.random.default_rng(count)
    scores = [random.uniform(size=random.integers(1, 200)) for _ in range(count)]
    (found,) = source_quantiles(scores, [count / (count + 1)]).values()
    assert found == max(map(np.max, scores))


@pytest.mark.parametrize("count", [9, 19, 99])
def test_a_level_on_a_step_takes_that_step(count):
    """Floats make 0.1 + 0.1 + 0.1 more than 0.3 and eight tenths less than 0.8."""
    scores = np.arange(1.0, count + 1)[:, None]
    levels = [rank / (count + 1) for rank in range(1, count + 1)]
    found = [source_quantiles(scores, [level])[level_key(level)] for level in levels]
    assert found == list(range(1, count + 1))


def test_each_source_weighs_the_same_however_many_rows_it_has():
    """By hand: 1/4 for each source; the four rows of the first weigh 1/16 each."""
    scores = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.5]), np.array([9.0])]
    for level, expected in ((0.06, 1), (0.125, 2), (0.2, 2.5), (0.4, 3), (0.5, 4), (0.75, 9)):
        assert source_quantiles(scores, [level]) == {level_key(level): expected}


@given(sources(), st.randoms(), st.floats(0.01, 0.5))
def test_order_and_repetition_of_rows_are_irrelevant(scores, random, level):
    found = source_quantiles(scores, [level])
    shuffled = [np.array(random.sample(own.tolist(), len(own))) for own in scores]
    random.shuffle(shuffled)
    assert source_quantiles(shuffled, [level]) == found
    at = random.randrange(len(scores))
    again = [np.tile(own, 3) if i == at else own for i, own in enumerate(scores)]
    assert source_quantiles(again, [level]) == found


@given(sources(least=4), st.floats(0.01, 0.8), st.floats(0.01, 0.8))
def test_a_higher_level_is_never_narrower(scores, one, two):
    low, high = sorted([one, two])
    (narrow,), (wide,) = (source_quantiles(scores, [level]).values() for level in (low, high))
    assert narrow <= wide


# -- Levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [(4, 0.8), (5, 0.8), (9, 0.8), (18, 0.8), (19, 0.9), (38, 0.9), (39, 0.95), (500, 0.95)],
)
def test_the_default_level(count, expected):
    assert choose_level(count) == expected
    assert supports(count, expected)


@pytest.mark.parametrize(
    ("level", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)]
)
def test_a_level_needs_its_number_of_sources(level, needed):
    assert supports(needed, level)
    assert not supports(needed - 1, level)
    if needed >= 5:
        assert choose_level(needed, level) == level
        message = (
            rf"{needed - 1} sources do not support an interval at that level, expected at most "
            rf"[0-9.]+, found {level}; ask for less, or calibrate on {needed} sources"
        )
        with pytest.raises(BadSettings, match=message):
            choose_level(needed - 1, level)


@pytest.mark.parametrize(
    ("count", "asked", "message"),
    [
        (3, None, "too few sources for intervals, expected at least 4: .*, found 3; add clips"),
        (3, 0.5, "too few sources"),
        (10, 0.95, "10 sources do not support .* at most 0.909, found 0.95; .* 19 sources"),
        (10, 0.0, "the level must lie between 0 and 1, found 0"),
        (10, 1.0, "the level must lie between 0 and 1, found 1"),
        (10, float("nan"), "the level must lie between 0 and 1, found nan"),
        (10, 0.99999999, "the level must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_asked_is_refused(count, asked, message):
    with pytest.raises(BadSettings, match=message):
        choose_level(count, asked)


def test_a_quantile_is_never_infinite():
    with pytest.raises(BadSettings, match=r"2 sources do not support .* calibrate on 4 sources"):
        source_quantiles([np.ones(3), np.ones(3)], [0.8])


# -- The form -------------------------------------------------------------------------------------


def spread_points(random, *, told, count=9):
    """Errors of sources that differ in scale; sigma tells it where `told`."""
    points = []
    for _ in range(count):
        scale = random.lognormal(0, 1, 200)
        sigma = scale if told else random.permutation(scale)
        points.append(Points(scale * np.abs(random.normal(size=200)), sigma))
    return points


def test_the_form_follows_what_sigma_tells():
    random = np.random.default_rng(0)
    blind = fit_rule(spread_points(random, told=False), [0.5])
    assert blind.form == "absolute" or blind.s0 > 2.0  # ten times the typical sigma, all but flat
    told = fit_rule(spread_points(random, told=True), [0.8])
    # sigma is the scale itself: the least s0 of the grid, a tenth of the typical sigma
    assert told.form == "scaled"
    assert told.s0 == pytest.approx(0.1, rel=0.2)
    constant = [Points(own.error, np.ones_like(own.error)) for own in spread_points(random, told=1)]
    assert fit_rule(constant, [0.5]) == Rule(
        form="absolute", s0=0.0, quantiles=source_quantiles([p.error for p in constant], [0.5])
    )


def test_sigma_that_says_nothing_is_not_used():
    """One wide sigma on a right answer and a narrow one on a wrong answer: worse than none."""
    random = np.random.default_rng(1)
    lying = [Points(1.0 / own.sigma, own.sigma) for own in spread_points(random, told=True)]
    assert fit_rule(lying, [0.8]).form == "absolute"


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_no_error_and_no_sigma_have_an_answer(sigma):
    points = [Points(np.zeros(3), np.full(3, sigma)) for _ in range(4)]
    rule = fit_rule(points, [0.8])
    assert rule == Rule(form="absolute", s0=0.0, quantiles={"0.8": 0.0})


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1000), st.booleans())
def test_a_rule_scales_with_its_unit_and_knows_no_order(seed, scale, told):
    random = np.random.default_rng(seed)
    points = spread_points(random, told=told, count=4)
    rule = fit_rule(points, [0.5, 0.8])
    sigma = points[0].sigma
    larger = fit_rule([Points(scale * p.error, scale * p.sigma) for p in points], [0.5, 0.8])
    assert larger.form == rule.form
    for level in (0.5, 0.8):
        np.testing.assert_allclose(
            larger.half_width(scale * sigma, level), scale * rule.half_width(sigma, level)
        )
    other = []
    for own in reversed(points):
        order = random.permutation(len(own.error))
        other.append(Points(np.tile(own.error[order], 2), np.tile(own.sigma[order], 2)))
    same = fit_rule(other, [0.5, 0.8])
    assert same.form == rule.form
    assert same.s0 == pytest.approx(rule.s0, rel=ROUNDING)
    assert same.quantiles == pytest.approx(rule.quantiles, rel=ROUNDING)


def test_half_a_width_is_in_the_unit_of_the_target():
    sigma = np.array([0.0, 2.0])
    absolute = Rule(form="absolute", s0=0.0, quantiles={"0.8": 3.0})
    assert absolute.half_width(sigma, 0.8).tolist() == [3.0, 3.0]
    scaled = Rule(form="scaled", s0=0.5, quantiles={"0.8": 3.0})
    assert scaled.half_width(sigma, 0.80).tolist() == [1.5, 7.5]
    with pytest.raises(KeyError):
        scaled.half_width(sigma, 0.9)


# -- intervals.json -------------------------------------------------------------------------------

RULE = {"form": "scaled", "s0": 0.5, "quantiles": {"0.5": 1.0, "0.8": 2.0}}
LEVEL = {
    "mean": 0.6,
    "worst": 0.4,
    "worst_source": "bee",
    "mean_width": 2.0,
    "by_source": {"ant": {"coverage": 0.6, "width": 2.0}},
}
COVERAGE = {
    "hierarchical": {"0.5": LEVEL},
    "gaussian": {"0.5": LEVEL, "0.8": LEVEL},
    "permuted_split": {},
    "left_out": {"hierarchical": {"0.8": "too few"}},
    "rules": {"ant": RULE},
}
RECORD = {
    "schema_version": 1,
    "method": "hierarchical_conformal",
    "corpus_sha256": "a" * 64,
    "seeds": [0, 1],
    "predictions": {"0": "b" * 64, "1": "c" * 64},
    "target": "vmaf",
    "n_calibration_sources": 4,
    "sources": ["ant", "bee", "cat", "dog"],
    "excluded_sources": [],
    "default_level": 0.8,
    "by_pool": dict.fromkeys(POOLS, RULE),
    "coverage": {
        "judged_sources": ["ant", "bee", "cat", "dog"],
        "n_pairs": 6,
        "n_pairs_possible": 6,
        "capped": False,
        "by_pool": dict.fromkeys(POOLS, COVERAGE),
    },
}


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "intervals.json"
    write_intervals(path, IntervalsFile.model_validate(RECORD))
    assert json.loads(path.read_text()) == RECORD
    found = parse_intervals(path.read_bytes(), path)
    assert found == IntervalsFile.model_validate(RECORD)
    assert found.speaks_of("a" * 64, {1: "c" * 64, 0: "b" * 64})
    assert not found.speaks_of("b" * 64, {1: "c" * 64, 0: "b" * 64})
    assert not found.speaks_of("a" * 64, {1: "c" * 64})
    assert not found.speaks_of(None, {})


def test_intervals_of_clips_have_one_pool(tmp_path):
    assert pools_of("clip") == ("clip",)
    assert pools_of("frame") == POOLS
    coverage = RECORD["coverage"] | {"by_pool": {"clip": COVERAGE}}
    record = RECORD | {"by_pool": {"clip": RULE}, "coverage": coverage}
    path = tmp_path / "intervals.json"
    path.write_text(json.dumps(record))
    assert parse_intervals(path.read_bytes(), path).unit == "clip"
    assert IntervalsFile.model_validate(RECORD).unit == "frame"
    path.write_text(json.dumps(record | {"coverage": RECORD["coverage"]}))
    with pytest.raises(BadEvidence, match=r"pool clip is missing"):
        parse_intervals(path.read_bytes(), path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "the record cannot be used: Invalid JSON"),
        (b"[]", "the record cannot be used"),
        (b"{}", "corpus_sha256 cannot be used: Field required"),
        ({"schema_version": 2}, "schema_version cannot be used"),
        ({"default_level": 1.0}, "default_level cannot be used"),
        ({"by_pool": {"frame": {**RULE, "s0": -1.0}}}, r"by_pool\.frame\.s0 cannot be used"),
        ({"by_pool": {"frame": RULE}}, "the record cannot be used: .*pool mean is missing"),
        ({"default_level": 0.7}, ".*pool frame has no quantile of the default level"),
        (
            {
                "coverage": RECORD["coverage"]
                | {"by_pool": dict.fromkeys(POOLS, COVERAGE | {"hierarchical": {}})}
            },
            ".*pool frame has no measured coverage",
        ),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, content, message):
    path = tmp_path / "intervals.json"
    if isinstance(content, dict):
        content = json.dumps(RECORD | content).encode()
    with pytest.raises(BadEvidence, match=rf"intervals\.json: {message}.*calibrate again"):
        parse_intervals(content, path)
