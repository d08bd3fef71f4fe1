import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import loso.crossval
from loso.calibration import calibrate_run, standing_intervals
from loso.corpus.load import load_corpus
from loso.engine import train_members
from loso.errors import BadEvidence, BadSettings, Busy
from loso.files import sha256_of
from loso.inputs import Scaler, build_inputs
from loso.intervals import POOLS, Points, fit_rule, parse_intervals
from loso.locks import folder_lock
from loso.metrics.pooling import pool_scores
from loso.recipe import Compute, Recipe
from loso.run_folder import train_into
from loso.verdict import validate_run

SHORT = Recipe(epochs=3, hidden=8, batch_size=16)
SOURCES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture
def make_trained(make_corpus, tmp_path):
    """Train a made-up corpus of five sources; return its folder and the corpus."""

    def make(name="run", *, seeds=(0, 1), key=(), exclude_sources=(), **options):
        path = make_corpus(f"{name}.jsonl", **({"sources": SOURCES} | options))
        corpus = load_corpus(path, key=key)
        train_into(tmp_path / name, corpus, SHORT, seeds, exclude_sources=exclude_sources)
        return tmp_path / name, corpus

    return make


def out_of_fold(folder, seeds=(0, 1)):
    return [pl.read_parquet(folder / f"oof_seed{seed}.parquet") for seed in seeds]


# -- What is written ------------------------------------------------------------------------------


def test_intervals_say_what_they_were_made_from(make_trained):
    folder, corpus = make_trained()
    found = calibrate_run(folder, corpus, [0, 1])
    path = folder / "intervals.json"
    assert parse_intervals(path.read_bytes(), path) == found
    assert found.corpus_sha256 == corpus.sha256
    assert found.predictions == {s: sha256_of(folder / f"oof_seed{s}.parquet") for s in (0, 1)}
    assert (found.seeds, found.target, found.default_level) == ((0, 1), "vmaf", 0.8)
    assert (found.sources, found.n_calibration_sources) == (SOURCES, 5)
    assert found.excluded_sources == ()
    coverage = found.coverage
    assert coverage.judged_sources == SOURCES
    assert (coverage.n_pairs, coverage.n_pairs_possible, coverage.capped) == (10, 10, False)
    assert set(found.by_pool) == set(coverage.by_pool) == set(POOLS)
    for pool in coverage.by_pool.values():
        for method in (pool.hierarchical, pool.gaussian):
            assert set(method) == {"0.5", "0.8"}
            assert all(set(of_level.by_source) == set(SOURCES) for of_level in method.values())
    assert not {"certified", "guaranteed"} & set(path.read_text().split())


def test_every_key_is_documented(make_trained):
    folder, corpus = make_trained()
    calibrate_run(folder, corpus, [0, 1])
    record = json.loads((folder / "intervals.json").read_text())
    words = dict.fromkeys(POOLS, "POOL") | dict.fromkeys(SOURCES, "SRC")
    words |= {"0.5": "LEVEL", "0.8": "LEVEL"}
    words |= dict.fromkeys(("hierarchical", "gaussian", "permuted_split"), "METHOD")

    def leaves(value, path):
        if isinstance(value, dict) and path not in documented:
            for key, inner in value.items():
                # `mean` is a pool, and below a level a figure
                word = key if path.endswith("LEVEL") else words.get(key, key)
                yield from leaves(inner, f"{path}.{word}".strip("."))
        else:
            yield path

    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = text.split("### `intervals.json`")[1].split("\n### ")[0]
    documented = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    assert set(leaves(record, "")) == documented


def test_the_rules_come_from_the_runs_own_predictions(make_trained):
    folder, corpus = make_trained()
    found = calibrate_run(folder, corpus, [0, 1], level=0.6)
    tables = out_of_fold(folder)
    by_pool = {pool: [] for pool in POOLS}
    for source in SOURCES:
        own = [table.filter(pl.col("src") == source) for table in tables]
        predicted = np.stack([table["y_pred"] for table in own])
        y_true, mu = own[0]["y_true"].to_numpy(), predicted.mean(axis=0)
        by_pool["frame"].append(Points(abs(y_true - mu), predicted.std(axis=0, ddof=1)))
        clip = own[0].select(pl.struct("encoder", "cq").rank("dense")).to_series()
        pools = [pool_scores(scores, clip) for scores in (y_true, mu, predicted)]
        for pool in POOLS[1:]:
            truth, middle, seeds = (of[pool] for of in pools)
            by_pool[pool].append(Points(abs(truth - middle), seeds.std(axis=0, ddof=1)))
            assert len(truth) == 6
    for pool, points in by_pool.items():
        rule = fit_rule(points, [0.5, 0.6, 0.8])
        assert found.by_pool[pool].form == rule.form
        assert found.by_pool[pool].quantiles == pytest.approx(rule.quantiles)
    assert found.default_level == 0.6


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r["by_pool"]["mean"]["quantiles"].update({"0.8": 0.001}), "by_pool.mean is not"),
        (lambda r: r["by_pool"]["p5"].update(s0=r["by_pool"]["p5"]["s0"] + 1), "by_pool.p5 is not"),
        (lambda r: r["by_pool"]["frame"]["quantiles"].pop("0.5"), "by_pool.frame is not"),
        (lambda r: r.update(n_calibration_sources=50), "n_calibration_sources is not"),
    ],
)
def test_a_verdict_takes_no_rules_that_predictions_do_not_give(make_trained, edit, message):
    folder, corpus = make_trained()
    calibrate_run(folder, corpus, [0, 1])
    verdict, _ = validate_run(folder, [0, 1], corpus=corpus)
    assert verdict.evidence["intervals_sha256"]
    path = folder / "intervals.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))
    with pytest.raises(BadEvidence, match=message):
        validate_run(folder, [0, 1], corpus=corpus)


def test_the_same_run_gives_the_same_bytes(make_trained):
    folder, corpus = make_trained()
    calibrate_run(folder, corpus, [0, 1])
    first = (folder / "intervals.json").read_bytes()
    calibrate_run(folder, corpus, [1, 0], compute=Compute(threads=1))
    assert (folder / "intervals.json").read_bytes() == first


def test_excluded_sources_take_no_part(make_trained):
    folder, corpus = make_trained(exclude_sources=["bee"])
    found = calibrate_run(folder, corpus, [0, 1])
    assert found.sources == ("ant", "cat", "dog", "elk")
    assert found.excluded_sources == ("bee",)
    assert set(found.coverage.by_pool["frame"].hierarchical) == {"0.5"}


def test_a_key_tells_clips_apart(make_trained):
    """Half of each encode's frames go by another `test`: the clips are others without the key."""
    folder, corpus = make_trained(key=["test"], edit=lambda i, row: row.update(test=i % 2))
    keyed = calibrate_run(folder, corpus, [0, 1]).by_pool
    whole = calibrate_run(folder, load_corpus(corpus.path), [0, 1]).by_pool
    assert keyed["frame"] == whole["frame"]
    assert keyed["mean"] != whole["mean"]


def test_pairs_cap_the_refits_and_the_file_says_so(make_trained):
    folder, corpus = make_trained()
    found = calibrate_run(folder, corpus, [0, 1], pairs=5).coverage
    assert (found.n_pairs, found.n_pairs_possible, found.capped) == (4, 10, True)
    assert len(found.judged_sources) == 1
    assert len(found.by_pool["frame"].hierarchical["0.8"].by_source) == 1


# -- The refits -----------------------------------------------------------------------------------


@pytest.fixture
def refits(monkeypatch):
    """Every plan that is trained, with what came of it."""
    seen = []

    def spy(plan, **options):
        seen.append((plan, train_members(plan, **options)))
        return seen[-1][1]

    monkeypatch.setattr(loso.crossval, "train_members", spy)
    return seen


def test_every_pair_is_trained_once_a_seed_without_its_two_sources(make_trained, refits):
    folder, corpus = make_trained(seeds=(3, 1))
    run = {(m.seed, m.fold) for m in refits.pop()[0].members}
    calibrate_run(folder, corpus, [1, 3])
    ((plan, _),) = refits
    assert plan.recipe == SHORT
    source = corpus.rows["src"].to_numpy()
    inputs = build_inputs(corpus)
    matrix = inputs.matrix
    left_out = []
    for member in plan.members:
        unseen = sorted(set(source) - set(source[member.train]))
        left_out.append((member.seed, *unseen))
        np.testing.assert_array_equal(member.train, np.flatnonzero(~np.isin(source, unseen)))
        scaler = Scaler.fit(matrix[member.train], inputs.scaled)
        np.testing.assert_array_equal(member.mean, scaler.mean)
        np.testing.assert_array_equal(member.std, scaler.std)
        assert member.held_out == " and ".join(unseen)
    assert sorted(left_out) == [(s, *pair) for s in (1, 3) for pair in combinations(SOURCES, 2)]
    addresses = {(m.seed, m.fold) for m in plan.members}
    assert len(addresses) == len(plan.members)
    assert not addresses & run


def test_a_source_meets_the_others_under_models_that_saw_neither(make_trained, refits):
    folder, corpus = make_trained()
    found = calibrate_run(folder, corpus, [0, 1])
    plan, trained = refits[-1]
    inputs, source = build_inputs(corpus), corpus.rows["src"].to_numpy()
    points = []
    for other in sorted({*SOURCES} - {"cat"}):
        own = source == other
        predicted = [
            network.predict((inputs.matrix[own] - member.mean) / member.std)
            for member, network in zip(plan.members, trained.networks, strict=True)
            if not {"cat", other} & set(source[member.train])
        ]
        assert len(predicted) == 2
        error = abs(inputs.target[own] - np.mean(predicted, axis=0))
        points.append(Points(error, np.std(predicted, axis=0, ddof=1)))
    expected = fit_rule(points, [0.5, 0.8])
    rule = found.coverage.by_pool["frame"].rules["cat"]
    assert rule.quantiles == pytest.approx(expected.quantiles)
    tables = [table.filter(pl.col("src") == "cat") for table in out_of_fold(folder)]
    scores = np.stack([table["y_pred"] for table in tables])
    half = expected.half_width(scores.std(axis=0, ddof=1), 0.8)
    inside = abs(tables[0]["y_true"].to_numpy() - scores.mean(axis=0)) <= half
    measured = found.coverage.by_pool["frame"].hierarchical["0.8"].by_source["cat"]
    assert measured.coverage == pytest.approx(inside.mean())
    assert measured.width == pytest.approx(2 * half.mean())


def test_a_judged_sources_rows_never_touch_what_it_meets(make_trained):
    """Change rows of `bee`: form, s0 and quantiles that it meets are the same to the bit."""

    def edit(_, row):
        if row["src"] == "bee":
            row |= {"vmaf": row["vmaf"] / 2, "adm2": row["adm2"] - 0.1, "motion2": 9.0}

    before, after = (
        calibrate_run(*make_trained(name, edit=change), [0, 1]).coverage.by_pool
        for name, change in (("before", None), ("after", edit))
    )
    for pool in POOLS:
        assert before[pool].rules["bee"] == after[pool].rules["bee"]
        assert before[pool].rules["ant"] != after[pool].rules["ant"]


# -- Standing intervals ---------------------------------------------------------------------------


def test_intervals_stand_while_they_are_of_the_seeds(make_trained):
    folder, corpus = make_trained(seeds=(0, 1, 2))
    assert standing_intervals(folder, [0, 1]) is None
    found = calibrate_run(folder, corpus, [0, 1])
    assert standing_intervals(folder, [1, 0]) == found
    assert standing_intervals(folder, [0, 1, 2]) is None
    (folder / "intervals.json").write_text("{")
    assert standing_intervals(folder, [0, 1]) is None


# -- Refusals write nothing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 0.9}, "5 sources do not support .* at most 0.833, found 0.9; .* on 9 sources"),
        ({"level": 1.5}, "the level must lie between 0 and 1"),
        ({"pairs": 3}, "too few pairs to judge a single source, expected at least 4"),
        ({"seeds": [0]}, "seeds must be whole numbers .*, 2 of them or more, found 0"),
        ({"compute": Compute(engine="jax")}, "no such engine"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_refit(make_trained, refits, options, message):
    folder, corpus = make_trained()
    refits.clear()
    with pytest.raises(BadSettings, match=message):
        calibrate_run(folder, corpus, **({"seeds": [0, 1]} | options))
    assert not refits
    assert not (folder / "intervals.json").exists()


def test_too_few_sources_are_refused(make_trained):
    folder, corpus = make_trained(sources=("ant", "bee", "cat"))
    with pytest.raises(BadSettings, match="too few sources for intervals, expected at least 4"):
        calibrate_run(folder, corpus, [0, 1])


def test_a_run_of_another_corpus_is_refused(make_trained, make_corpus):
    folder, _ = make_trained()
    other = load_corpus(make_corpus("other.jsonl", sources=SOURCES, seed=1))
    with pytest.raises(BadEvidence, match="not the corpus that the seeds were trained on"):
        calibrate_run(folder, other, [0, 1])
    assert not (folder / "intervals.json").exists()


def test_files_without_predictions_are_refused_with_what_to_do(make_run, tmp_path):
    def old(_, content):
        for key in content.keys() - {"seed", "folds", "mean_plcc", "corpus"}:
            del content[key]

    folder, corpus = make_run(edit=old), load_corpus(tmp_path / "corpus.jsonl")
    before = sorted(folder.iterdir())
    for call in (
        lambda: calibrate_run(folder, corpus, [0, 1]),
        lambda: standing_intervals(folder, [0, 1]),
    ):
        with pytest.raises(
            BadEvidence, match=r"no predictions of seed 0, 1 .*loso train --out-dir"
        ):
            call()
    assert sorted(folder.iterdir()) == before


def test_a_folder_that_is_none_is_not_made(make_corpus, tmp_path):
    with pytest.raises(BadEvidence, match="not a folder"):
        calibrate_run(tmp_path / "nowhere", load_corpus(make_corpus()), [0, 1])
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_in_use_is_left_alone(make_trained):
    folder, corpus = make_trained()
    with folder_lock(folder, "training"), pytest.raises(Busy, match="calibration"):
        calibrate_run(folder, corpus, [0, 1])
    assert json.loads((folder / "loso_seed0.json").read_text())["seed"] == 0
