from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import loso.crossval
from loso.corpus.load import load_corpus
from loso.crossval import run_loso, score_folds
from loso.engine import train_members
from loso.errors import BadCorpus
from loso.inputs import Scaler, build_inputs
from loso.recipe import Recipe

SHORT = Recipe(epochs=3, hidden=8, batch_size=8)


@pytest.fixture
def corpus(make_corpus):
    return load_corpus(make_corpus())


def test_every_row_is_predicted_once_by_the_member_that_never_saw_its_source(corpus, monkeypatch):
    plans = []

    def spy(plan, **options):
        plans.append((plan, train_members(plan, **options)))
        return plans[-1][1]

    monkeypatch.setattr(loso.crossval, "train_members", spy)
    run = run_loso(corpus, SHORT, seeds=[3, 1])
    ((plan, trained),) = plans
    assert [result.seed for result in run.seeds] == [3, 1]
    inputs = build_inputs(corpus)
    matrix = inputs.matrix
    source = corpus.rows["src"].to_numpy()
    for member, network in zip(plan.members, trained.networks, strict=True):
        unseen = np.flatnonzero(source == member.held_out)
        assert not set(unseen) & set(member.train)
        assert len(unseen) + len(member.train) == len(corpus)
        scaler = Scaler.fit(matrix[source != member.held_out], inputs.scaled)
        expected = network.predict(scaler.transform(matrix[unseen]))
        (result,) = (r for r in run.seeds if r.seed == member.seed)
        own = result.predictions.filter(pl.col("src") == member.held_out)
        np.testing.assert_array_equal(own["row"], unseen)
        np.testing.assert_array_equal(own["y_pred"], expected)
        np.testing.assert_array_equal(own["y_true"], corpus.rows["vmaf"].to_numpy()[unseen])


@pytest.mark.parametrize("column", ["adm2", "motion2", "vmaf", "encoder"])
def test_a_held_out_row_never_touches_what_is_fitted_in_its_fold(corpus, column, monkeypatch):
    """Change one row of `bee`: the member that holds `bee` out is the same to the bit."""
    fitted = []

    def spy(plan, **options):
        trained = train_members(plan, **options)
        fitted.append({m.held_out: (m, n) for m, n in zip(plan.members, trained.networks)})  # noqa: B905
        return trained

    monkeypatch.setattr(loso.crossval, "train_members", spy)
    row = corpus.rows["src"].to_list().index("bee")
    values = corpus.rows[column].to_list()
    values[row] = "libvvenc" if column == "encoder" else values[row] * 0.5 + 0.1
    edited = replace(corpus, rows=corpus.rows.with_columns(pl.Series(column, values)))
    for version in (corpus, edited):
        run_loso(version, SHORT, seeds=[0])
    before, after = fitted
    assert state(*before["bee"]) == state(*after["bee"])
    assert state(*before["ant"]) != state(*after["ant"])


def state(member, network):
    arrays = (member.mean, member.std, *network.weights, *network.biases)
    return b"".join(array.tobytes() for array in arrays)


def test_scores_are_what_the_predictions_give(corpus):
    (result,) = run_loso(corpus, SHORT, seeds=[0]).seeds
    for fold in result.folds:
        own = result.predictions.filter(pl.col("src") == fold.held_out)
        assert fold.plcc == pytest.approx(np.corrcoef(own["y_true"], own["y_pred"])[0, 1])
        assert (fold.n_train, fold.n_val) == (len(corpus) - own.height, own.height)
    assert result.summary["mean_plcc"] == pytest.approx(np.mean([f.plcc for f in result.folds]))
    assert result.summary["std_plcc"] == pytest.approx(
        np.std([f.plcc for f in result.folds], ddof=1)
    )


def test_an_undefined_fold_is_null_with_a_reason():
    table = pl.DataFrame(
        {"fold": [0, 0, 1, 1], "y_true": [5.0, 5.0, 1.0, 2.0], "y_pred": [1.0, 2.0, 1.0, 3.0]}
    )
    constant, defined = score_folds(table, ["a", "b"])
    assert (constant.plcc, constant.srocc, constant.reason) == (None, None, "y_true is constant")
    assert defined.plcc == pytest.approx(1.0)
    assert defined.reason is None


def test_excluded_sources_take_no_part(corpus):
    (result,) = run_loso(corpus, SHORT, seeds=[0], exclude_sources=["ant"]).seeds
    assert [fold.held_out for fold in result.folds] == ["bee", "cat"]
    # `row` is the place in the corpus file, not among the rows that are left.
    expected = np.flatnonzero(corpus.rows["src"].to_numpy() != "ant")
    np.testing.assert_array_equal(result.predictions["row"], expected)


def test_excluding_an_unknown_source_is_refused(corpus):
    with pytest.raises(BadCorpus, match=r"cannot exclude dog: no such source, .*ant, bee, cat"):
        run_loso(corpus, SHORT, exclude_sources=["dog"])


def test_one_source_is_refused(make_corpus):
    with pytest.raises(BadCorpus, match="needs two sources"):
        run_loso(load_corpus(make_corpus(sources=["ant"])), SHORT)


def test_a_few_hundred_steps_learn_the_made_up_corpus(make_corpus):
    corpus = load_corpus(make_corpus(sources=["a", "b", "c", "d"], frames=8))
    run = run_loso(corpus, Recipe(epochs=150, lr=5e-3, hidden=16), seeds=[0, 1])
    assert all(result.summary["min_plcc"] > 0.9 for result in run.seeds)
    assert run.seeds[0].losses.shape == (4, 150)
    assert (run.seeds[0].losses[:, -1] < run.seeds[0].losses[:, 0] / 20).all()
