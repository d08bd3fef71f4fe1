"""Nested choice: against a plain loop over everything, never touched by what it is judged on."""

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import loso.crossval
import loso.sweep.fits
from loso.corpus.load import load_corpus
from loso.corpus.view import view
from loso.crossval import fit_each, run_loso, target_scale
from loso.engine import Member, TrainingPlan, train_members
from loso.errors import BadCorpus, BadSettings, Busy, Diverged, Refused
from loso.inputs import Scaler, build_inputs
from loso.locks import folder_lock
from loso.metrics import CubicMapping
from loso.recipe import Compute, InputSpec, Recipe
from loso.sweep.choose import choose_recipe, mean_score
from loso.sweep.fits import cost_of
from loso.sweep.grid import build_grid
from loso.sweep.nested import sweep_recipes
from loso.sweep.records import SWEEP_FILE
from loso.sweep.scores import Score

SHORT = Recipe(epochs=2, hidden=16, batch_size=16)
OF_MOS = replace(SHORT, target="mos", unit="clip", standardise_target=True)
SOURCES = ("ant", "bee", "cat", "dog", "elk")
GRID = {"epochs": [2, 12], "lr": [5e-4, 2e-2]}
DIGITS = 1e-12
"""Relative: the same numbers summed in another order."""


def rate(_, row):
    """Scores follow VMAF along a cubic, and a little the encoder."""
    place = row["vmaf"] / 50 - 1
    row["mos"] = 3 + 1.2 * place + 0.3 * place**3 + 0.1 * (row["encoder"] == "libx264")
    row["bitrate_kbps"] = 5000.0 / row["cq"]


@pytest.fixture
def corpus(make_corpus):
    return load_corpus(make_corpus(sources=SOURCES, edit=rate))


@pytest.fixture
def fits(monkeypatch):
    """Every call that fits networks: recipe, seeds, and what each fold holds out."""
    calls = []

    def spy(inputs, folds, recipe, seeds, **options):
        calls.append((recipe, tuple(seeds), [fold.held_out for fold in folds]))
        return fit_each(inputs, folds, recipe, seeds, **options)

    monkeypatch.setattr(loso.sweep.fits, "fit_each", spy)
    return calls


# -- By hand --------------------------------------------------------------------------------------


def fit_alone(corpus, recipe, unseen, place):
    """Predictions of every row by one network that lacks the sources `unseen`."""
    inputs = build_inputs(corpus, recipe)
    train = np.flatnonzero(~np.isin(corpus.rows["src"].to_numpy(), unseen)).astype(np.int32)
    scaler = Scaler.fit(inputs.matrix[train], inputs.scaled)
    scale = target_scale(inputs.target[train], recipe)
    member = Member(0, place, "", train, scaler.mean, scaler.std, *scale)
    matrix, target = (each.astype(np.float32) for each in (inputs.matrix, inputs.target))
    # Twice: of a member that is all alone, torch rounds the products in another way.
    network, _ = train_members(TrainingPlan(matrix, target, (member, member), recipe)).networks
    return network.predict(scaler.transform(inputs.matrix))


def score_by_hand(y_true, y_pred, source, by):
    scores = []
    for name in sorted(set(source)):
        own = source == name
        if by == "rmse":
            scores.append(np.sqrt(np.mean((y_true[own] - y_pred[own]) ** 2)))
        elif np.ptp(y_pred[own]) == 0:
            return None  # undefined: the recipe cannot be chosen
        else:
            scores.append(np.corrcoef(y_true[own], y_pred[own])[0, 1])
    return np.mean(scores)


def map_by_hand(y_true, y_pred, source):
    """Predictions of each source by a cubic fitted on the others of the same fold."""
    mapped = y_pred.copy()
    for name in set(source):
        own = source == name
        mapped[own] = CubicMapping.fit(y_pred[~own], y_true[~own]).apply(y_pred[own])
    return mapped


def nested_by_hand(corpus, grid, by, *, mapped):
    """For each source: the scores of all recipes without it, the best, and how that one does."""
    seen = view(corpus, grid[0])
    source = seen.rows["src"].to_numpy()
    y_true = build_inputs(seen, grid[0]).target
    places = {pair: 5 + i for i, pair in enumerate(combinations(SOURCES, 2))}
    found = {}
    for held_out in SOURCES:
        scores, mappings = [], []
        for recipe in grid:
            inner = np.full(len(y_true), np.nan)
            for other in set(SOURCES) - {held_out}:
                pair = tuple(sorted((held_out, other)))
                y_pred = fit_alone(seen, recipe, pair, places[pair])
                inner[source == other] = y_pred[source == other]
            rows = source != held_out
            judged = inner[rows]
            if mapped:
                mappings.append(CubicMapping.fit(inner[rows], y_true[rows]))
                judged = map_by_hand(y_true[rows], inner[rows], source[rows])
            scores.append(score_by_hand(y_true[rows], judged, source[rows], by))
        there = [number for number, score in enumerate(scores) if score is not None]
        best = (min if by == "rmse" else max)(there, key=scores.__getitem__)
        own = source == held_out
        mean = np.mean(
            [
                result.predictions["y_pred"].to_numpy()[own]
                for result in run_loso(corpus, grid[best], [0, 1]).seeds
            ],
            axis=0,
        )
        if mapped:
            mean = mappings[best].apply(mean)
        figures = (
            np.corrcoef(y_true[own], mean)[0, 1],
            np.sqrt(np.mean((y_true[own] - mean) ** 2)),
        )
        found[held_out] = (scores, best, figures)
    return found


@pytest.mark.parametrize("by", ["rmse", "plcc"])
@pytest.mark.parametrize("base", [SHORT, OF_MOS], ids=["vmaf", "mos"])
def test_choices_and_scores_are_those_of_a_plain_nested_loop(corpus, tmp_path, base, by):
    swept = sweep_recipes(tmp_path, corpus, base, GRID, [0, 1], by=by)
    grid = [candidate.recipe for candidate in build_grid(base, GRID)[0]]
    by_hand = nested_by_hand(corpus, grid, by, mapped=base is OF_MOS)
    assert [fold.held_out for fold in swept.record.folds] == list(SOURCES)
    for fold in swept.record.folds:
        scores, best, (plcc, rmse) = by_hand[fold.held_out]
        for number, (ours, by_hand_score) in enumerate(zip(fold.scores, scores, strict=True)):
            assert (ours is None) == (str(number) in fold.reasons) == (by_hand_score is None)
            assert ours is None or ours == pytest.approx(by_hand_score, rel=DIGITS)
        assert fold.chosen == best
        own = swept.record.nested.by_source[fold.held_out]
        assert (own.plcc, own.rmse) == pytest.approx((plcc, rmse), rel=DIGITS)
    means = np.mean([of[2] for of in by_hand.values()], axis=0)
    nested = swept.record.nested
    assert (nested.mean_plcc, nested.mean_rmse) == pytest.approx(tuple(means), rel=DIGITS)
    chosen_by = [recipe.chosen_by for recipe in swept.record.recipes]
    for number, sources in enumerate(chosen_by):
        assert set(sources) == {name for name, of in by_hand.items() if of[1] == number}


def test_the_flattered_figure_and_the_usual_one_are_those_of_plain_runs(corpus, tmp_path):
    record = sweep_recipes(tmp_path, corpus, SHORT, GRID, [0, 1]).record
    grid = [candidate.recipe for candidate in build_grid(SHORT, GRID)[0]]
    runs = [run_loso(corpus, recipe, [0, 1]).seeds for recipe in grid]
    plain = [run[0].summary["mean_rmse"] for run in runs]
    assert [own.plain_score for own in record.recipes] == pytest.approx(plain, rel=DIGITS)
    assert (record.chosen, record.usual) == (int(np.argmin(plain)), 0)
    y_true = corpus.rows["vmaf"].to_numpy()
    for figures, number in ((record.flattered, record.chosen), (record.as_usual, 0)):
        mean = np.mean([result.predictions["y_pred"] for result in runs[number]], axis=0)
        assert figures.recipe == number
        assert figures.pooled_rmse == pytest.approx(np.sqrt(np.mean((y_true - mean) ** 2)))
        assert figures.pooled_plcc == pytest.approx(np.corrcoef(y_true, mean)[0, 1])
        source = corpus.rows["src"].to_numpy()
        assert figures.mean_rmse == pytest.approx(score_by_hand(y_true, mean, source, "rmse"))
    gain = record.gain_over_usual
    assert gain.rmse_gain == record.as_usual.pooled_rmse - record.nested.pooled_rmse
    assert record.flattery_rmse == record.nested.pooled_rmse - record.flattered.pooled_rmse
    assert record.flattery_plcc == record.flattered.mean_plcc - record.nested.mean_plcc


# -- What a choice may see ------------------------------------------------------------------------


def edited(corpus, source):
    """The corpus with every number in a source's rows changed, qualities apart."""
    own = pl.col("src") == source
    names = ["vmaf", "mos", "adm2", "vif_scale0", "motion2", "bitrate_kbps"]
    changes = [
        pl.when(own).then(pl.col(n) * 0.5 + 0.1).otherwise(pl.col(n)).alias(n) for n in names
    ]
    # As many rows as before: a product of matrices rounds by how many rows stand beside a row.
    others = {"libx264": "libvvenc", "libsvtav1": "libvpx-vp9"}
    encoder = pl.when(own).then(pl.col("encoder").replace(others)).otherwise(pl.col("encoder"))
    return replace(corpus, rows=corpus.rows.with_columns(*changes, encoder), sha256="0" * 64)


@pytest.mark.parametrize("base", [SHORT, OF_MOS], ids=["vmaf", "mos"])
@pytest.mark.parametrize("source", ["ant", "dog"])
def test_nothing_fitted_or_chosen_for_a_source_has_touched_it(
    corpus, tmp_path, monkeypatch, base, source
):
    """Change its rows: choice, scores, mapping and networks without it are the same to the bit."""
    varied = GRID | {"conditions": [[], ["log2:bitrate_kbps"]]}
    versions = [corpus, edited(corpus, source)]
    folds, states, kept = [], [], []
    for number, version in enumerate(versions):
        state = {}

        def spy(plan, state=state, **options):
            trained = train_members(plan, **options)
            for member, network in zip(plan.members, trained.networks, strict=True):
                arrays = (member.mean, member.std, *network.weights, *network.biases)
                scale = np.array([member.target_mean, member.target_std])
                key = (plan.recipe, member.seed, member.held_out)
                state[key] = b"".join(each.tobytes() for each in (*arrays, scale))
            return trained

        with monkeypatch.context() as patch:
            patch.setattr(loso.crossval, "train_members", spy)
            swept = sweep_recipes(tmp_path / str(number), version, base, varied, [0, 1])
        folds.append({fold.held_out: fold for fold in swept.record.folds})
        states.append(state)
        kept.append(kept_scores(tmp_path / str(number)))
    one, two = folds
    assert one[source] == two[source]
    assert kept[0][source] == kept[1][source]
    before, after = states
    lacking = [key for key in before if source in key[2].split(" and ")]
    for key in lacking:
        if key[1] == 0 or key[0] == chosen_recipe(base, varied, one[source]):
            assert before[key] == after[key], key
    assert len([key for key in lacking if key[1] == 0]) == 5 * 8
    other = next(name for name in SOURCES if name != source)
    assert one[other].scores != two[other].scores
    assert any(before[key] != after.get(key) for key in before if key not in lacking)


def kept_scores(folder):
    """What is kept of each recipe for each source, in the order of its content."""
    found = {}
    for path in (folder / "fits").glob("*.kept"):
        content = json.loads(path.read_bytes().partition(b"\n")[2])["content"]
        for source, inner in content.get("inner", {}).items():
            found.setdefault(source, []).append(json.dumps(inner, sort_keys=True))
    return {source: sorted(texts) for source, texts in found.items()}


def chosen_recipe(base, varied, fold):
    return build_grid(base, varied)[0][fold.chosen].recipe


def test_a_noisy_target_flatters_the_best_recipe(make_corpus, tmp_path):
    """Nothing can be learnt: the best of many is best by luck, which the nested choice shows."""
    random = np.random.default_rng(4)
    path = make_corpus(
        sources=SOURCES, edit=lambda _, row: row.update(score=50 + 10 * random.normal())
    )
    base = replace(SHORT, target="vmaf", standardise_target=True, epochs=20)
    corpus = load_corpus(path)
    corpus = replace(corpus, rows=corpus.rows.with_columns(vmaf=pl.col("score")))
    varied = {"lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], "hidden": [4, 8, 16], "dropout": [0.0, 0.3]}
    record = sweep_recipes(tmp_path / "out", corpus, base, varied, [0]).record
    assert len(record.recipes) == 31
    assert record.flattery_rmse > 0
    assert record.flattered.mean_rmse < record.nested.mean_rmse
    # With one seed the flattered mean is the very score that the best was chosen by.
    assert record.flattered.mean_rmse == pytest.approx(
        min(own.plain_score for own in record.recipes), rel=DIGITS
    )


# -- Choices --------------------------------------------------------------------------------------


def scores(*values):
    return {name: Score(plcc=value, rmse=value) for name, value in zip("abc", values, strict=False)}


def test_the_mean_over_sources_decides_and_of_equals_the_cheaper():
    of_recipes = [scores(0.5, 0.7), scores(0.6, 0.6), scores(0.9, 0.9), scores(0.6, 0.6)]
    costs = [9, 3, 1, 2]
    by_plcc = choose_recipe(of_recipes, costs, "plcc", out={}, where="")
    assert by_plcc.order == (2, 3, 1, 0)
    by_rmse = choose_recipe(of_recipes, costs, "rmse", out={3: "it diverged"}, where="")
    assert by_rmse.order == (1, 0, 2)
    assert by_rmse.values == (0.6, 0.6, 0.9, None)
    assert by_rmse.reasons == {3: "it diverged"}
    assert choose_recipe(of_recipes[1:2] * 2, [1, 1], "rmse", out={}, where="").order == (0, 1)


def test_an_undefined_correlation_is_named_and_its_recipe_is_not_chosen():
    lost = {**scores(0.9), "b": Score(plcc=None, rmse=0.1, reason="y_pred is constant")}
    choice = choose_recipe([lost, scores(0.1, 0.1)], [1, 1], "plcc", out={}, where="")
    assert choice.order == (1,)
    assert choice.reasons == {0: "no PLCC within b (y_pred is constant)"}
    assert mean_score(lost, "rmse") == (pytest.approx(0.5), None)


def test_where_no_recipe_is_left_it_is_refused():
    with pytest.raises(Refused, match=r"held out a: no recipe is left .*found of recipe 0: it div"):
        choose_recipe([{}], [1], "rmse", out={0: "it diverged"}, where="held out a")


def test_a_recipe_costs_its_parameters_as_often_as_rows_are_passed():
    # 20 inputs: 6 features and the codec block.
    assert cost_of(Recipe()) == 200 * ((20 + 1) * 64 + (64 + 1) * 64 + 65)
    no_block = Recipe(epochs=1, depth=1, inputs=InputSpec(codec_block=False))
    assert cost_of(no_block) == (6 + 1) * 64 + 65


def test_a_constant_target_has_no_plcc_to_choose_by(make_corpus, tmp_path):
    def still(_, row):
        row["vmaf"] = 50.0 if row["src"] == "bee" else row["vmaf"]

    corpus = load_corpus(make_corpus(sources=SOURCES, edit=still))
    with pytest.raises(Refused, match=r"held out ant: .*no PLCC within bee \(y_true is constant\)"):
        sweep_recipes(tmp_path / "out", corpus, SHORT, {"epochs": [1, 2]}, [0], by="plcc")
    record = sweep_recipes(tmp_path / "out", corpus, SHORT, {"epochs": [1, 2]}, [0]).record
    assert record.nested.mean_plcc is None
    assert record.flattery_plcc is None
    assert record.nested.by_source["bee"].reason == "y_true is constant"


# -- Recipes that diverge -------------------------------------------------------------------------


def test_a_recipe_that_diverges_is_out_where_it_does_and_ends_nothing(make_corpus, tmp_path):
    """The scores of elk are beyond float32 once squared: raw, only what lacks elk trains."""

    def blow_up(_, row):
        row["score"] = row["vmaf"] * (1e30 if row["src"] == "elk" else 1.0)

    corpus = load_corpus(make_corpus(sources=SOURCES, edit=blow_up))
    base, varied = replace(SHORT, target="score"), {"standardise_target": [False, True]}
    record = sweep_recipes(tmp_path / "out", corpus, base, varied, [0, 1]).record
    *others, elk = record.folds
    assert elk.reasons == {}
    for fold in others:
        assert fold.chosen == 1
        (reason,) = fold.reasons.values()
        assert reason.startswith(f"seed 0, held out {fold.held_out}: training diverged")
    assert record.recipes[0].plain_score is None
    assert "training diverged" in record.recipes[0].reason
    assert record.chosen == 1
    assert (record.as_usual, record.gain_over_usual) == (None, None)
    assert "training diverged" in record.as_usual_reason


def test_what_diverges_with_another_seed_only_gives_way_to_the_next_best(
    corpus, tmp_path, monkeypatch
):
    plain = sweep_recipes(tmp_path / "plain", corpus, SHORT, GRID, [0, 1]).record
    best = plain.folds[1].chosen
    recipes = [candidate.recipe for candidate in build_grid(SHORT, GRID)[0]]

    def lose(inputs, folds, recipe, seeds, **options):
        found, losses = fit_each(inputs, folds, recipe, seeds, **options)
        for of_seed, seed in zip(found, seeds, strict=True):
            for i, fold in enumerate(folds):
                if (recipe, seed, fold.held_out) == (recipes[best], 1, "bee"):
                    of_seed[i] = Diverged("training diverged", where="seed 1, held out bee")
        return found, losses

    monkeypatch.setattr(loso.sweep.fits, "fit_each", lose)
    record = sweep_recipes(tmp_path / "lost", corpus, SHORT, GRID, [0, 1]).record
    bee = record.folds[1]
    assert (bee.held_out, bee.chosen) == ("bee", plain.folds[1].runner_up)
    assert bee.reasons == {str(best): "seed 1, held out bee: training diverged"}
    assert record.folds[0] == plain.folds[0]
    assert record.chosen != best


# -- What is kept ---------------------------------------------------------------------------------


def test_a_recipe_is_one_plan_to_choose_by_and_one_to_report_with(corpus, tmp_path, fits):
    swept = sweep_recipes(tmp_path, corpus, SHORT, GRID, [0, 1, 2])
    pairs = [f"{one} and {two}" for one, two in combinations(SOURCES, 2)]
    assert [held_out for _, _, held_out in fits[:4]] == [[*SOURCES, *pairs]] * 4
    assert {seeds for _, seeds, _ in fits[:4]} == {(0,)}
    reporting = fits[4:]
    assert {seeds for _, seeds, _ in reporting} == {(1, 2)}
    needed = {swept.record.usual, swept.record.chosen, *(f.chosen for f in swept.record.folds)}
    assert len(reporting) == len(needed)
    assert (swept.fitted, swept.kept) == (4, 0)


def test_the_same_sweep_again_fits_nothing_and_writes_the_same_bytes(corpus, tmp_path, fits):
    first = sweep_recipes(tmp_path, corpus, SHORT, GRID, [0, 1])
    content, calls = (tmp_path / SWEEP_FILE).read_bytes(), len(fits)
    again = sweep_recipes(tmp_path, corpus, SHORT, GRID, [0, 1], compute=Compute(threads=1))
    assert len(fits) == calls
    assert (again.fitted, again.kept) == (0, 4)
    assert again.record == first.record
    assert (tmp_path / SWEEP_FILE).read_bytes() == content
    elsewhere = sweep_recipes(tmp_path / "new", corpus, SHORT, GRID, [0, 1])
    assert elsewhere.record == first.record


def test_a_killed_sweep_goes_on_without_repeating(corpus, tmp_path, monkeypatch, fits):
    expected = sweep_recipes(tmp_path / "whole", corpus, SHORT, GRID, [0, 1])
    whole = list(fits)
    for killed_at in (1, 3, 5):
        fits.clear()
        counted = loso.sweep.fits.fit_each

        def kill(*call, counted=counted, at=killed_at, **options):
            if len(fits) == at:
                raise KeyboardInterrupt
            return counted(*call, **options)

        folder = tmp_path / str(killed_at)
        with monkeypatch.context() as patch:
            patch.setattr(loso.sweep.fits, "fit_each", kill)
            with pytest.raises(KeyboardInterrupt):
                sweep_recipes(folder, corpus, SHORT, GRID, [0, 1])
        assert not (folder / SWEEP_FILE).exists()
        swept = sweep_recipes(folder, corpus, SHORT, GRID, [0, 1])
        assert fits == whole
        assert swept.record == expected.record


def test_more_recipes_and_another_criterion_use_what_is_kept(corpus, tmp_path, fits):
    sweep_recipes(tmp_path, corpus, SHORT, GRID, [0, 1])
    fits.clear()
    by_plcc = sweep_recipes(tmp_path, corpus, SHORT, GRID, [0, 1], by="plcc")
    assert by_plcc.kept == 4
    assert all(seeds == (1,) for _, seeds, _ in fits)
    fits.clear()
    more = sweep_recipes(tmp_path, corpus, SHORT, {**GRID, "epochs": [2, 12, 3]}, [0, 1])
    assert (more.fitted, more.kept) == (2, 4)
    assert {recipe.epochs for recipe, seeds, _ in fits if seeds == (0,)} == {3}


def test_what_was_made_otherwise_is_not_used(corpus, tmp_path, make_corpus, fits):
    def fitted(*given, **options):
        fits.clear()
        sweep_recipes(tmp_path / "out", *given, SHORT, {"epochs": [1, 2]}, [0], **options)
        return len(fits)

    assert fitted(corpus) == 2
    assert fitted(corpus) == 0
    assert fitted(load_corpus(make_corpus("other.jsonl", sources=SOURCES, seed=1))) == 2
    assert fitted(corpus, exclude_sources=["bee"]) == 2
    assert fitted(corpus, compute=Compute(engine="reference")) == 2
    assert fitted(replace(corpus, key=("row",))) == 2
    assert fitted(corpus) == 0


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b.replace(b"a", b"b"), lambda _: b""]
)
def test_a_damaged_file_counts_as_missing(corpus, tmp_path, fits, damage):
    expected = sweep_recipes(tmp_path, corpus, SHORT, GRID, [0, 1]).record
    paths = sorted((tmp_path / "fits").glob("*.kept"))
    calls = len(fits)
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))
    assert sweep_recipes(tmp_path, corpus, SHORT, GRID, [0, 1]).record == expected
    assert len(fits) > calls


def test_scores_whose_predictions_are_gone_need_only_those_again(corpus, tmp_path, fits):
    expected = sweep_recipes(tmp_path, corpus, SHORT, GRID, [0]).record
    fits.clear()
    for path in (tmp_path / "fits").glob("*.kept"):
        if b"y_pred" in path.read_bytes():
            path.unlink()
    swept = sweep_recipes(tmp_path, corpus, SHORT, GRID, [0])
    assert swept.record == expected
    assert swept.kept == 4
    assert all(" and " not in name for _, _, held_out in fits for name in held_out)


def test_plans_are_cut_where_memory_asks_for_it(corpus, tmp_path, monkeypatch, fits):
    expected = sweep_recipes(tmp_path / "whole", corpus, SHORT, GRID, [0, 1]).record
    fits.clear()
    monkeypatch.setattr(loso.sweep.fits, "_MOST_ROW_NUMBERS", 4 * len(corpus))
    assert sweep_recipes(tmp_path / "cut", corpus, SHORT, GRID, [0, 1]).record == expected
    assert max(len(held_out) for _, _, held_out in fits) == 4


def test_progress_never_goes_back_within_a_stage_and_ends_at_its_total(corpus, tmp_path):
    seen = []
    sweep_recipes(
        *(tmp_path, corpus, SHORT, GRID, [0, 1]),
        progress=lambda done, total, note="": seen.append((note.partition(",")[0], done / total)),
    )
    for stage in ("choosing", "reporting"):
        shares = [share for name, share in seen if name == stage]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1.0)


# -- Which sources --------------------------------------------------------------------------------


def test_pairs_cap_the_judged_sources_and_the_file_says_so(corpus, tmp_path):
    whole = sweep_recipes(tmp_path / "whole", corpus, SHORT, GRID, [0, 1]).record
    assert (whole.n_pairs, whole.n_pairs_possible, whole.capped) == (10, 10, False)
    record = sweep_recipes(tmp_path / "capped", corpus, SHORT, GRID, [0, 1], pairs=7).record
    assert (record.n_pairs, record.n_pairs_possible, record.capped) == (7, 10, True)
    assert len(record.judged_sources) == 2
    assert record.sources == SOURCES
    assert list(record.folds) == [f for f in whole.folds if f.held_out in record.judged_sources]
    assert set(record.nested.by_source) == set(record.judged_sources)
    assert record.chosen == whole.chosen
    with pytest.raises(BadSettings, match=r"too few pairs to judge .* give --pairs 4"):
        sweep_recipes(tmp_path / "few", corpus, SHORT, GRID, [0, 1], pairs=3)


def test_excluded_sources_and_groups_are_those_of_the_recipe(make_corpus, tmp_path):
    def group(_, row):
        row["film"] = {"ant": "x", "bee": "x"}.get(row["src"], row["src"])

    corpus = load_corpus(make_corpus(sources=SOURCES, edit=group))
    base = replace(SHORT, inputs=InputSpec(group_by="film"))
    record = sweep_recipes(tmp_path, corpus, base, GRID, [0], exclude_sources=["elk"]).record
    assert record.sources == ("cat", "dog", "x")
    assert record.excluded_sources == ("elk",)


# -- What is documented ---------------------------------------------------------------------------


def test_every_key_is_documented(corpus, tmp_path):
    sweep_recipes(tmp_path, corpus, SHORT, GRID, [0])
    record = json.loads((tmp_path / SWEEP_FILE).read_text())
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = text.split("### `sweep.json`")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    words = dict.fromkeys(("nested", "flattered", "as_usual"), "FIGURES")
    words |= dict.fromkeys(SOURCES, "SRC")

    def leaves(value, path):
        if isinstance(value, dict) and path not in documented:
            for key, inner in value.items():
                yield from leaves(inner, f"{path}.{words.get(key, key)}".strip("."))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield path
            for each in value:
                yield from leaves(each, f"{path}[]")
        else:
            yield path

    assert sorted(set(leaves(record, ""))) == sorted(documented)


# -- What is refused ------------------------------------------------------------------------------


def refused(tmp_path, kind, message, corpus, varied=GRID, **options):
    with pytest.raises(kind, match=message):
        sweep_recipes(tmp_path / "out", corpus, SHORT, varied, **options)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_used_is_refused_before_anything_is_written(corpus, tmp_path):
    message = r"no such criterion, expected rmse or plcc, found plc; did you mean plcc\?"
    refused(tmp_path, BadSettings, message, corpus, by="plc")
    message = r"recipe conditions=nosuch, .*corpus.jsonl: no column nosuch"
    refused(tmp_path, BadCorpus, message, corpus, {"conditions": [[], ["nosuch"]]})
    message = r"nested choice needs three sources: .*found 2 \(ant, bee\); add clips"
    refused(tmp_path, BadCorpus, message, corpus, exclude_sources=SOURCES[2:])
    refused(tmp_path, BadSettings, "seeds must be whole", corpus, seeds=[])
    refused(tmp_path, BadSettings, "no such engine", corpus, compute=Compute(engine="no"))


def test_two_sweeps_do_not_share_a_folder(corpus, tmp_path):
    with folder_lock(tmp_path, "a sweep"), pytest.raises(Busy, match="this folder for a sweep"):
        sweep_recipes(tmp_path, corpus, SHORT, GRID, [0])
