"""Coverage is asserted on many new simulated sources, by the very code that judges a real run."""

from dataclasses import replace
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest

import loso.coverage
from loso.coverage import Questions, choose_judged, measure_coverage
from loso.errors import BadSettings
from loso.intervals import POOLS, Rule, fit_rule, source_quantiles

FRAMES = 6


class Simulated:
    """A corpus of sources with an effect of their own, and ridge ensembles in place of networks.

    Sources differ in offset, slope, noise and number of clips, and those with many clips are the
    easier ones, as in real corpora a short clip of hard content stands beside long easy ones. The
    seeds of the ensemble weigh the training sources at random, so sigma says something, not all.
    """

    def __init__(self, seed, n_sources=10, seeds=3):
        random = np.random.default_rng(seed)
        self.random_weight = random.exponential(size=(seeds, n_sources))
        hardness = random.lognormal(0, 1, n_sources)
        clips = np.clip(24 / hardness, 1, 40).astype(int)
        self.source = np.repeat(np.arange(n_sources), clips * FRAMES)
        rows = len(self.source)
        x = np.column_stack([np.ones(rows), random.normal(size=(rows, 2))])
        slope = np.array([80.0, 3.0, -2.0]) + hardness[:, None] * random.normal(
            size=(n_sources, 3)
        ) * [1.0, 0.3, 0.3]
        noise = hardness[self.source] * random.normal(size=rows)
        self.x, self.y = x, (x * slope[self.source]).sum(axis=1) + noise
        self.grams = np.stack([x[self.source == k].T @ x[self.source == k] for k in self.codes])
        self.moments = np.stack(
            [x[self.source == k].T @ self.y[self.source == k] for k in self.codes]
        )
        names = tuple(f"s{k}" for k in self.codes)
        self.questions = Questions(self.y, self.source, np.arange(rows) // FRAMES, names)

    @property
    def codes(self):
        return range(self.random_weight.shape[1])

    def predict(self, unseen):
        """Predictions (seeds, rows) of the rows of the sources `unseen` by models without them."""
        rows = np.isin(self.source, unseen)
        weight = self.random_weight.copy()
        weight[:, list(unseen)] = 0.0
        gram = np.einsum("sk,kij->sij", weight, self.grams) + 1e-3 * np.eye(3)
        moment = np.einsum("sk,ki->si", weight, self.moments)
        return np.linalg.solve(gram, moment[:, :, None])[:, :, 0] @ self.x[rows].T

    def leaving_out(self, pairs):
        return (self.predict(pair) for pair in pairs)

    def out_of_fold(self):
        predictions = np.empty((len(self.random_weight), len(self.y)))
        for k in self.codes:
            predictions[:, self.source == k] = self.predict([k])
        return predictions

    def measure(self, judged, levels=(0.5, 0.8)):
        return measure_coverage(
            self.questions, self.out_of_fold(), self.leaving_out, levels, judged
        )


def coverage_of_new_sources(corpora, method="hierarchical"):
    """Coverage of one new source of each corpus, calibrated on nine: (corpora, pools, levels)."""
    found = []
    for seed in range(corpora):
        by_pool = Simulated(seed).measure(judged=[seed % 10]).by_pool
        found.append(
            [[getattr(by_pool[pool], method)[key].mean for key in ("0.5", "0.8")] for pool in POOLS]
        )
    return np.array(found)


CORPORA = 600
NOMINAL = np.array([0.5, 0.8])
SLACK = 2.0 * np.sqrt(NOMINAL * (1 - NOMINAL) / CORPORA)
"""Two binomial standard errors: a source's own coverage varies less than a single hit or miss."""


def test_new_sources_are_covered_as_often_as_nominal():
    mean = coverage_of_new_sources(CORPORA).mean(axis=0)
    assert (mean >= NOMINAL - SLACK).all(), mean


def test_rows_taken_as_exchangeable_would_fail_that_test(monkeypatch):
    """The same procedure with one quantile of the pooled rows: sources with many rows decide."""

    def pooled(scores, levels):
        flat = np.sort(np.concatenate(scores))
        ranks = {f"{level:g}": int(np.ceil((len(flat) + 1) * level)) - 1 for level in levels}
        return {key: float(flat[rank]) for key, rank in ranks.items()}

    monkeypatch.setattr("loso.intervals.source_quantiles", pooled)
    mean = coverage_of_new_sources(150).mean(axis=0)
    assert (mean[:, 1] < 0.8 - SLACK[1]).all(), mean


def test_clips_as_the_unit_have_one_pool_that_is_what_frames_had():
    corpus = Simulated(1)
    of_frames = corpus.measure(judged=[2, 7]).by_pool["frame"]
    corpus.questions = replace(corpus.questions, unit="clip")
    assert corpus.measure(judged=[2, 7]).by_pool == {"clip": of_frames}


# -- By hand --------------------------------------------------------------------------------------


def judged_by_hand(corpus, own, level):
    """Coverage and width of a source's frames, by the definition, row by row."""
    points = []
    for other in corpus.codes:
        if other == own:
            continue
        pair = sorted((own, other))
        of_other = corpus.source[np.isin(corpus.source, pair)] == other
        predicted = corpus.predict(pair)[:, of_other]
        y_true = corpus.y[corpus.source == other]
        points.append(
            loso.coverage.Points(
                np.abs(y_true - predicted.mean(axis=0)), predicted.std(axis=0, ddof=1)
            )
        )
    rule = fit_rule(points, [0.5, 0.8])
    predicted = corpus.predict([own])
    half = rule.half_width(predicted.std(axis=0, ddof=1), level)
    error = np.abs(corpus.y[corpus.source == own] - predicted.mean(axis=0))
    return rule, (error <= half).mean(), 2 * half.mean()


def test_measured_coverage_is_what_its_definition_gives():
    corpus = Simulated(5, n_sources=6)
    frame = corpus.measure(judged=[1, 4]).by_pool["frame"]
    for own in (1, 4):
        for level in (0.5, 0.8):
            rule, coverage, width = judged_by_hand(corpus, own, level)
            found = frame.hierarchical[f"{level:g}"].by_source[f"s{own}"]
            assert found.coverage == pytest.approx(coverage)
            assert found.width == pytest.approx(width)
            assert frame.rules[f"s{own}"].quantiles == pytest.approx(rule.quantiles)
    summary = frame.hierarchical["0.8"]
    of_source = {name: own.coverage for name, own in summary.by_source.items()}
    assert summary.mean == pytest.approx(np.mean(list(of_source.values())))
    assert summary.worst == of_source[summary.worst_source] == min(of_source.values())


def test_the_gaussian_beside_it_is_mu_and_z_sigma():
    corpus = Simulated(2, n_sources=5)
    predicted = corpus.predict([3])
    sigma = predicted.std(axis=0, ddof=1)
    half = NormalDist().inv_cdf(0.9) * sigma
    error = np.abs(corpus.y[corpus.source == 3] - predicted.mean(axis=0))
    found = corpus.measure(judged=[3]).by_pool["frame"].gaussian["0.8"].by_source["s3"]
    assert found.coverage == pytest.approx((error <= half).mean())
    assert found.width == pytest.approx(2 * half.mean())


def test_split_conformal_beside_it_covers_rows_of_the_same_sources():
    """Where rows are exchangeable, half of them calibrate the rest: crepes' own promise."""
    random = np.random.default_rng(0)
    others = [loso.coverage.Points(np.abs(random.normal(size=999)), np.ones(999))] * 2
    found = loso.coverage._split_quantile(others, 0.8)
    assert found == pytest.approx(NormalDist().inv_cdf(0.9), abs=0.1)
    few = [loso.coverage.Points(np.ones(2), np.ones(2))]
    assert loso.coverage._split_quantile(few, 0.8) == np.inf


def test_a_clip_is_judged_by_the_pool_of_the_mean_and_of_each_seed():
    corpus = Simulated(1, n_sources=5)
    rows = np.flatnonzero(corpus.source == 2)
    predicted = corpus.predict([2])
    found = corpus.questions.points(rows, predicted)
    assert tuple(found) == POOLS
    by_clip = predicted.reshape(3, -1, FRAMES)
    truth = corpus.y[rows].reshape(-1, FRAMES)
    for pool, of in (
        ("mean", lambda x: x.mean(axis=-1)),
        ("p5", lambda x: np.percentile(x, 5, axis=-1)),
        ("hmean", lambda x: FRAMES / (1 / (x + 1)).sum(axis=-1) - 1),
    ):
        np.testing.assert_allclose(found[pool].error, np.abs(of(truth) - of(by_clip.mean(axis=0))))
        np.testing.assert_allclose(found[pool].sigma, of(by_clip).std(axis=0, ddof=1))


# -- Who meets what -------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [0, 3])
def test_what_a_source_is_judged_by_never_saw_it(own):
    """Change its rows: form, s0 and quantiles that it meets stay the same to the bit."""
    before, edited = Simulated(7, n_sources=6), Simulated(7, n_sources=6)
    edited.y[edited.source == own] *= -3.0
    edited.x[edited.source == own] += 1.0
    for k in edited.codes:
        mine = edited.source == k
        edited.grams[k] = edited.x[mine].T @ edited.x[mine]
        edited.moments[k] = edited.x[mine].T @ edited.y[mine]
    one, two = (corpus.measure(judged=range(6)).by_pool for corpus in (before, edited))
    name, other = f"s{own}", f"s{own + 1}"
    for pool in POOLS:
        assert one[pool].rules[name] == two[pool].rules[name]
        assert one[pool].rules[other] != two[pool].rules[other]
    assert one["frame"].hierarchical["0.8"].mean != two["frame"].hierarchical["0.8"].mean


def test_each_pair_is_fitted_once_and_serves_both():
    corpus, asked = Simulated(3, n_sources=5), []

    def leaving_out(pairs):
        asked.extend(pairs)
        return corpus.leaving_out(pairs)

    oof = corpus.out_of_fold()
    found = measure_coverage(corpus.questions, oof, leaving_out, [0.5], range(5))
    assert asked == list(combinations(range(5), 2))
    assert (found.n_pairs, found.n_pairs_possible, found.capped) == (10, 10, False)
    asked.clear()
    found = measure_coverage(corpus.questions, oof, leaving_out, [0.5], [0, 4])
    assert asked == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 4), (2, 4), (3, 4)]
    assert (found.n_pairs, found.n_pairs_possible, found.capped) == (7, 10, True)
    assert found.judged_sources == ("s0", "s4")


def test_a_level_that_the_others_do_not_support_is_left_out_with_a_reason():
    found = Simulated(0, n_sources=4).measure(judged=range(4)).by_pool["frame"]
    assert set(found.hierarchical) == {"0.5"}
    assert set(found.gaussian) == {"0.5", "0.8"}
    assert found.left_out["hierarchical"] == {
        "0.8": "3 sources are left to calibrate a judged one, and do not support it"
    }
    assert set(found.rules["s0"].quantiles) == {"0.5"}


def test_nothing_is_wrong_with_a_model_that_is_right():
    corpus = Simulated(0, n_sources=5)
    right = np.tile(corpus.y, (2, 1))
    found = measure_coverage(
        corpus.questions,
        right,
        lambda pairs: (right[:, np.isin(corpus.source, pair)] for pair in pairs),
        [0.5],
        range(5),
    )
    summary = found.by_pool["frame"].hierarchical["0.5"]
    assert (summary.mean, summary.mean_width) == (1.0, 0.0)
    assert found.by_pool["p5"].rules["s1"] == Rule(
        form="absolute", s0=0.0, quantiles=source_quantiles([np.zeros(1)] * 4, [0.5])
    )


# -- How many -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "pairs", "judged"),
    [
        *((12, None, 12), (13, None, 7), (20, None, 3), (67, None, 1), (100, None, 1)),
        *((12, 66, 12), (12, 65, 10), (12, 11, 1), (13, 78, 13), (20, 10**6, 20)),
    ],
)
def test_as_many_sources_are_judged_as_pairs_allow(sources, pairs, judged):
    chosen = choose_judged(sources, pairs)
    assert len(chosen) == judged
    assert sorted(set(chosen)) == list(chosen)
    assert set(chosen) <= set(range(sources))
    needed = {frozenset((s, k)) for s in chosen for k in range(sources) if k != s}
    assert len(needed) <= (pairs or max(66, sources - 1))
    assert choose_judged(sources, pairs) == chosen


def test_too_few_pairs_for_one_source_are_refused():
    with pytest.raises(BadSettings, match=r"expected at least 12: .*, found 11; give --pairs 12"):
        choose_judged(13, 11)
