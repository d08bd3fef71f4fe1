import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from loso.engine import Member, TrainingPlan, train_members
from loso.errors import BadCorpus, BadSettings
from loso.intervals import Rule
from loso.recipe import Recipe
from loso.sklearn import LosoRegressor

SMALL = {"epochs": 30, "hidden": 8, "lr": 1e-2, "seeds": (0, 1, 2)}
RECIPE = Recipe(epochs=30, hidden=8, lr=1e-2)
EXACT = 1e-9
"""Float64 arithmetic on the same weights, in another order."""


def problem(rows=120, columns=3, groups=6, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal([5, -3, 100][:columns], [1, 0.1, 20][:columns], (rows, columns))
    group = np.arange(rows) % groups
    effect = random.normal(0, 0.5, groups)[group]
    return x, 3 * (x[:, 0] - 5) + 10 * (x[:, 1] + 3) + effect, group


@pytest.fixture(scope="module")
def fitted():
    return LosoRegressor(**SMALL).fit(*problem())


@parametrize_with_checks([LosoRegressor(epochs=60, hidden=16, lr=1e-2, seeds=(0, 1))], legacy=True)
def test_scikit_learn_takes_it_for_one_of_its_own(estimator, check):
    """Scikit-learn itself skips one: that on array API inputs, where SCIPY_ARRAY_API is not set."""
    check(estimator)


def test_defaults_are_those_of_the_recipe():
    given = LosoRegressor().get_params()
    recipe = Recipe()
    for name in set(given) - {"seeds", "standardise_target", "engine", "device", "threads"}:
        assert given[name] == getattr(recipe, name)
    assert given["seeds"] == (0, 1, 2, 3, 4)


def test_it_is_the_ensemble_of_the_engine(fitted):
    x, y, _ = problem()
    mean, std = x.mean(axis=0), x.std(axis=0)
    rows = np.arange(len(x), dtype=np.int32)
    scale = y.mean(), y.std()
    members = tuple(Member(seed, 0, "", rows, mean, std, *scale) for seed in (0, 1, 2))
    plan = TrainingPlan(x.astype(np.float32), y.astype(np.float32), members, RECIPE)
    scores = [n.predict((x - mean) / std) for n in train_members(plan).networks]
    mu, sigma = fitted.predict(x, return_std=True)
    np.testing.assert_allclose(mu, np.mean(scores, axis=0), atol=EXACT)
    np.testing.assert_allclose(sigma, np.std(scores, axis=0, ddof=1), atol=EXACT)


def test_it_learns():
    x, y, _ = problem()
    model = LosoRegressor(epochs=200, hidden=16, lr=1e-2, dropout=0.0, seeds=(0, 1)).fit(x, y)
    assert model.score(x, y) > 0.9


@pytest.mark.parametrize(("offset", "unit"), [(1e6, 1.0), (0.0, 1e-6), (-5e3, 1e4)])
def test_the_targets_unit_is_of_no_matter(offset, unit):
    x, y, group = problem()
    model, other = LosoRegressor(**SMALL), LosoRegressor(**SMALL)
    plain = model.fit(x, y, groups=group).predict_interval(x)
    moved = other.fit(x, offset + unit * y, groups=group).predict_interval(x)
    tolerance = 1e-2 * np.ptp(y) + 1e-6 * abs(offset) / unit  # float32 holds the target
    for before, after in zip(plain, moved, strict=True):
        np.testing.assert_allclose((after - offset) / unit, before, atol=tolerance)


def test_a_raw_target_is_that_of_loso_train():
    x, y, _ = problem()
    rows = np.arange(len(x), dtype=np.int32)
    members = (Member(3, 0, "", rows, x.mean(axis=0), x.std(axis=0)),)
    plan = TrainingPlan(x.astype(np.float32), y.astype(np.float32), members, RECIPE)
    (network,) = train_members(plan).networks
    model = LosoRegressor(**SMALL | {"seeds": (3,)}, standardise_target=False).fit(x, y)
    expected = network.predict((x - x.mean(axis=0)) / x.std(axis=0))
    np.testing.assert_allclose(model.predict(x), expected, atol=EXACT)


def test_groups_change_no_prediction(fitted):
    x, y, _ = problem()
    alone = LosoRegressor(**SMALL).fit(x, y)
    assert np.array_equal(alone.predict(x), fitted.predict(x))


def test_residuals_are_of_networks_that_did_not_see_the_group(fitted):
    x, y, group = problem()
    assert fitted.groups_ == ("0", "1", "2", "3", "4", "5")
    changed = y.copy()
    changed[group == 2] += 1000.0
    again = LosoRegressor(**SMALL).fit(x, changed, groups=group)
    before, after = fitted.calibration_[2], again.calibration_[2]
    # The group's own targets moved its residuals by as much, and its predictions not at all.
    assert np.array_equal(before.sigma, after.sigma)
    np.testing.assert_allclose(after.error, 1000.0, atol=50)
    assert not np.array_equal(fitted.calibration_[1].sigma, again.calibration_[1].sigma)


def test_residuals_are_those_of_the_engine(fitted):
    x, y, group = problem()
    train, unseen = group != 4, group == 4
    mean, std = x[train].mean(axis=0), x[train].std(axis=0)
    scale = y[train].mean(), y[train].std()
    rows = np.flatnonzero(train).astype(np.int32)
    members = tuple(Member(seed, 5, "", rows, mean, std, *scale) for seed in (0, 1, 2))
    plan = TrainingPlan(x.astype(np.float32), y.astype(np.float32), members, RECIPE)
    scores = [n.predict((x[unseen] - mean) / std) for n in train_members(plan).networks]
    error = np.abs(y[unseen] - np.mean(scores, axis=0))
    np.testing.assert_allclose(fitted.calibration_[4].error, error, atol=EXACT)


def test_intervals_are_hierarchical_quantiles_of_the_residuals(fitted):
    x, _, _ = problem(seed=5)
    lower, upper = fitted.predict_interval(x, level=0.8)
    mu, sigma = fitted.predict(x, return_std=True)
    np.testing.assert_allclose((lower + upper) / 2, mu, atol=EXACT)
    half = (upper - lower) / 2
    # Half the width is q or q (sigma + s0): a line in sigma.
    slope, least = np.polyfit(sigma, half, 1)
    np.testing.assert_allclose(half, slope * sigma + least, atol=1e-6)
    # In that unit the quantile holds 0.8 of the weight, of which infinity has 1/7.
    weight = 0.0
    for own in fitted.calibration_:
        weight += np.mean(own.error <= slope * own.sigma + least + 1e-9) / 7
    assert 0.8 <= weight + 1e-9 < 0.8 + 2 / len(x)


def test_the_default_level_is_what_the_groups_support(fitted):
    x, _, _ = problem()
    assert np.array_equal(fitted.predict_interval(x)[0], fitted.predict_interval(x, level=0.8)[0])
    with pytest.raises(BadSettings, match="6 sources do not support an interval at that level"):
        fitted.predict_interval(x, level=0.95)


CORPORA, GROUPS, NEW = 16, 12, 200
SLACK = 2 * stats.beta(11, 2).std() / np.sqrt(CORPORA)
"""Two standard errors: of 12 groups the 11th residual is the 0.8 quantile, its coverage of new ones
follows that beta distribution, and 200 new groups add next to nothing."""


def grouped(groups, seed, rows=480):
    """Groups with an offset of their own; most rows are of few groups, and those differ least."""
    random = np.random.default_rng(seed)
    hardness = random.lognormal(0, 1, groups)
    group = random.choice(groups, rows, p=(share := 1 / hardness**2) / share.sum())
    group[:groups] = range(groups)
    x = random.normal(size=(rows, 3))
    offset = (2 * hardness * random.choice([-1, 1], groups))[group]
    return x, 3 * x[:, 0] + offset + 0.3 * random.normal(size=rows), group


def coverage_of_new_groups(corpora=CORPORA):
    """Mean over new groups of the share of their rows inside intervals of 80 %, of each corpus."""
    found = []
    for seed in range(corpora):
        model = LosoRegressor(**SMALL).fit(*grouped(GROUPS, seed))
        x, y, group = grouped(NEW, 100 + seed, rows=2000)
        lower, upper = model.predict_interval(x, level=0.8)
        inside = (lower <= y) & (y <= upper)
        found.append(np.mean([inside[group == one].mean() for one in range(NEW)]))
    return np.array(found)


def test_intervals_cover_new_groups_as_often_as_they_say():
    assert coverage_of_new_groups().mean() > 0.8 - SLACK


def test_narrower_intervals_would_fail_that_test(monkeypatch):
    half_width = Rule.half_width
    monkeypatch.setattr(Rule, "half_width", lambda *given: 0.6 * half_width(*given))
    assert coverage_of_new_groups().mean() < 0.8 - SLACK


def test_a_quantile_of_all_rows_would_fail_that_test(monkeypatch):
    def pooled(scores, levels):
        flat = np.sort(np.concatenate(scores))
        return {f"{one:g}": float(flat[int(np.ceil((len(flat) + 1) * one)) - 1]) for one in levels}

    monkeypatch.setattr("loso.intervals.source_quantiles", pooled)
    assert coverage_of_new_groups().mean() < 0.8 - SLACK


def test_a_single_seed_has_no_spread():
    x, y, group = problem()
    model = LosoRegressor(**SMALL | {"seeds": (7,)}).fit(x, y, groups=group)
    assert np.array_equal(model.predict(x, return_std=True)[1], np.zeros(len(x)))
    lower, upper = model.predict_interval(x)
    assert np.ptp(upper - lower) < EXACT


def test_a_fit_without_groups_forgets_those_of_an_earlier_one():
    x, y, group = problem()
    model = LosoRegressor(**SMALL).fit(x, y, groups=group).fit(x, y)
    assert not hasattr(model, "groups_")
    with pytest.raises(BadSettings, match="calibrated over groups, and there were none; fit"):
        model.predict_interval(x)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_it_takes_data_frames(frame, fitted):
    x, y, group = problem()
    names = ["one", "two", "three"]
    table = frame(dict(zip(names, x.T, strict=True)))
    series = type(table[names[0]])
    model = LosoRegressor(**SMALL).fit(table, series(y), groups=series(group))
    assert list(model.feature_names_in_) == names
    assert model.n_features_in_ == 3
    assert np.array_equal(model.predict(table), fitted.predict(x))
    assert model.groups_ == fitted.groups_
    if frame is pd.DataFrame:
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(table[names[::-1]])


def test_it_works_in_a_pipeline_across_groups():
    x, y, group = problem()
    pipeline = make_pipeline(FunctionTransformer(), LosoRegressor(**SMALL))
    out_of_fold = cross_val_predict(pipeline, x, y, groups=group, cv=LeaveOneGroupOut())
    assert np.corrcoef(out_of_fold, y)[0, 1] > 0.9
    direct = LosoRegressor(**SMALL).fit(x[group != 3], y[group != 3]).predict(x[group == 3])
    assert np.array_equal(out_of_fold[group == 3], direct)


def test_groups_are_routed_to_fit_and_to_the_splitter():
    x, y, group = problem()
    with sklearn.config_context(enable_metadata_routing=True):
        model = LosoRegressor(**SMALL).set_fit_request(groups=True)
        cross_val_predict(model, x, y, params={"groups": group}, cv=GroupKFold(3))
        pipeline = make_pipeline(FunctionTransformer(), model).fit(x, y, groups=group)
    assert len(pipeline[-1].calibration_) == 6


def test_a_clone_and_a_pickle_predict_the_same(fitted):
    x, y, _ = problem()
    assert np.array_equal(clone(fitted).fit(x, y).predict(x), fitted.predict(x))
    thawed = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(thawed.predict_interval(x), fitted.predict_interval(x))


def test_what_cannot_be_fitted_is_refused():
    x, y, group = problem()
    with pytest.raises(BadSettings, match="hidden is out of range, expected a whole number in 1"):
        LosoRegressor(hidden=0).fit(x, y)
    with pytest.raises(BadSettings, match="seeds must be whole numbers"):
        LosoRegressor(seeds=()).fit(x, y)
    with pytest.raises(BadSettings, match="no such engine"):
        LosoRegressor(engine="abacus").fit(x, y)
    with pytest.raises(BadCorpus, match="needs two sources, found 1"):
        LosoRegressor().fit(x, y, groups=np.zeros(len(x)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LosoRegressor().fit(x, y, groups=group[1:])
    for missing in (None, float("nan")):
        with pytest.raises(BadSettings, match="a row has no group; name the group of every row"):
            LosoRegressor().fit(x, y, groups=[missing, *group[1:]])
    with pytest.raises(NotFittedError):
        LosoRegressor().predict_interval(x)


def test_too_few_groups_for_intervals_still_predict():
    x, y, group = problem(groups=3)
    model = LosoRegressor(**SMALL).fit(x, y, groups=group)
    assert np.isfinite(model.predict(x)).all()
    with pytest.raises(BadSettings, match="too few sources for intervals, expected at least 4"):
        model.predict_interval(x)


def test_without_scikit_learn_the_message_names_the_install():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from loso.errors import MissingExtra\n"
        "try: import loso.sklearn\n"
        "except MissingExtra as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == (
        "LosoRegressor needs scikit-learn, 1.6 or later; pip install 'loso[sklearn]'"
    )
