import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from loso.ablation import ablate_run, standing_baselines
from loso.baselines import measure_figures, paired_gain, parse_baselines
from loso.corpus.load import load_corpus
from loso.corpus.view import view
from loso.crossval import run_loso
from loso.errors import BadEvidence, Busy
from loso.files import sha256_of
from loso.inputs import build_inputs
from loso.locks import folder_lock
from loso.metrics import (
    ci95_of_votes,
    map_out_of_fold,
    outlier_ratio,
    panel_agreement,
    rmse,
    rmse_star,
)
from loso.recipe import Compute, InputSpec, Recipe
from loso.ridge import ridge_out_of_fold
from loso.run_folder import train_into
from loso.verdict import validate_run

SHORT = Recipe(epochs=3, hidden=8, batch_size=16)
OF_MOS = replace(
    SHORT,
    target="mos",
    unit="clip",
    standardise_target=True,
    inputs=InputSpec(conditions=("log2:bitrate_kbps",)),
)
SOURCES = ("ant", "bee", "cat", "dog", "elk")


def rate(_, row):
    """Scores follow VMAF along a gentle cubic, and a little the encoder."""
    place = row["vmaf"] / 50 - 1
    row["mos"] = 3 + 1.2 * place + 0.3 * place**3 + 0.1 * (row["encoder"] == "libx264")
    row["bitrate_kbps"] = 5000.0 / row["cq"]


@pytest.fixture
def make_trained(make_corpus, tmp_path):
    """Train a made-up corpus of five sources; return its folder and the corpus."""

    def make(recipe=OF_MOS, name="run", *, edit=rate, key=(), exclude_sources=(), **options):
        options = {"sources": SOURCES, "edit": edit} | options
        corpus = load_corpus(make_corpus(f"{name}.jsonl", **options), key=key)
        train_into(tmp_path / name, corpus, recipe, [0, 1], exclude_sources=exclude_sources)
        return tmp_path / name, corpus

    return make


def clips_of(corpus):
    names = ["src", "encoder", "cq"]
    numbers = pl.col("vmaf", "mos").mean()
    return corpus.rows.group_by(names, maintain_order=True).agg(numbers)


# -- What is written ------------------------------------------------------------------------------


def test_the_record_says_what_it_was_made_from(make_trained):
    folder, corpus = make_trained(exclude_sources=["bee"])
    found = ablate_run(folder, corpus, [1, 0])
    path = folder / "baselines.json"
    assert parse_baselines(path.read_bytes(), path) == found == standing_baselines(folder, [0, 1])
    assert found.corpus_sha256 == corpus.sha256
    assert found.seeds == (0, 1)
    assert found.predictions == {s: sha256_of(folder / f"oof_seed{s}.parquet") for s in (0, 1)}
    assert (found.target, found.unit) == ("mos", "clip")
    assert found.mapping == "cubic without the held-out source"
    assert found.sources == ("ant", "cat", "dog", "elk")
    assert found.excluded_sources == ("bee",)
    assert set(found.ridge_penalty) == set(found.sources)
    named = {"model", "vmaf", "ridge", "without_codec_block", "without_conditions"}
    assert {unit: set(of_unit) for unit, of_unit in found.figures.items()} == {"clip": named}
    assert set(found.gains["clip"]) == named - {"model"}
    assert set(found.not_computed) == {"rmse_star", "outlier_ratio"}
    assert found.panels_told_apart_by == found.panels == ()


def test_the_same_run_gives_the_same_bytes(make_trained):
    folder, corpus = make_trained()
    ablate_run(folder, corpus, [0, 1])
    first = (folder / "baselines.json").read_bytes()
    ablate_run(folder, corpus, [1, 0], compute=Compute(threads=1))
    assert (folder / "baselines.json").read_bytes() == first


def test_every_key_is_documented(make_trained):
    def panel(i, row):
        rate(i, row)
        row["mos"] += 0.2 * (i % 2)
        row |= {"frame_index": i // 2, "test": f"p{i % 2}", "mos_ci": 0.2}

    folder, corpus = make_trained(edit=panel, key=["test"])
    ablate_run(folder, corpus, [0, 1])
    record = json.loads((folder / "baselines.json").read_text())
    words = dict.fromkeys(SOURCES, "SRC") | dict.fromkeys(("frame", "clip"), "UNIT")
    words |= dict.fromkeys(record["figures"]["clip"], "NAME")

    def leaves(value, path):
        if isinstance(value, dict) and path not in documented:
            for key, inner in value.items():
                yield from leaves(inner, f"{path}.{words.get(key, key)}".strip("."))
        else:
            yield path
            for item in value if path == "panels" else ():
                yield from (f"panels[].{key}" for key in item)

    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = text.split("### `baselines.json`")[1].split("\n### ")[0]
    documented = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    assert set(leaves(record, "")) == documented
    assert len(record["panels"]) == 1


# -- What the baselines are -----------------------------------------------------------------------


def test_the_vmaf_baseline_is_a_cubic_of_the_column_by_numpy(make_trained):
    folder, corpus = make_trained()
    found = ablate_run(folder, corpus, [0, 1], networks=False)
    clips = clips_of(corpus)
    x, y, source = (clips[name].to_numpy() for name in ("vmaf", "mos", "src"))
    mapped = np.empty(len(y))
    for own in SOURCES:
        held_out = source == own
        low, high = x[~held_out].min(), x[~held_out].max()
        cubic = np.polynomial.Polynomial.fit(x[~held_out], y[~held_out], 3)
        assert cubic.deriv()(np.linspace(low, high, 99)).min() > 0  # so it is that of the rules
        inside = np.clip(x[held_out], low, high)
        beyond = cubic.deriv()(inside) * (x[held_out] - inside)
        mapped[held_out] = cubic(inside) + beyond
    figures = found.figures["clip"]["vmaf"]
    assert figures.n_rows == 30
    assert figures.rmse == pytest.approx(np.sqrt(np.mean((mapped - y) ** 2)), rel=1e-9)
    assert figures.plcc == pytest.approx(np.corrcoef(mapped, y)[0, 1], rel=1e-9)
    everything = np.polynomial.Polynomial.fit(x, y, 3)
    squares = np.square(everything(x) - y).sum()
    assert figures.rmse_in_sample == pytest.approx(np.sqrt(squares / 26), rel=1e-9)


def test_every_predictor_is_judged_by_the_same_rules(make_trained):
    folder, corpus = make_trained()
    found = ablate_run(folder, corpus, [0, 1])
    seen = view(corpus, OF_MOS)
    inputs, source = build_inputs(seen, OF_MOS), seen.rows["src"].to_numpy()
    ridge = ridge_out_of_fold(inputs.matrix, inputs.target, source)
    tables = [pl.read_parquet(folder / f"oof_seed{seed}.parquet") for seed in (0, 1)]
    model = np.mean([table["y_pred"] for table in tables], axis=0)

    def trained_again(**changes):
        recipe = replace(OF_MOS, inputs=replace(OF_MOS.inputs, **changes))
        seeds = run_loso(corpus, recipe, [0, 1]).seeds
        return np.mean([result.predictions["y_pred"] for result in seeds], axis=0)

    predicted = {
        "model": model,
        "ridge": ridge.y_pred,
        "without_codec_block": trained_again(codec_block=False),
        "without_conditions": trained_again(conditions=()),
    }
    for name, y_pred in predicted.items():
        figures = measure_figures("mos", inputs.target, y_pred, source)
        assert found.figures["clip"][name] == figures, name
        if name != "model":
            gain = paired_gain("mos", inputs.target, model, y_pred, source)
            assert found.gains["clip"][name] == gain, name
    assert dict(zip(SOURCES, ridge.penalty, strict=True)) == found.ridge_penalty


def test_with_frames_as_the_unit_clips_stand_beside_them(make_trained):
    folder, corpus = make_trained(replace(OF_MOS, unit="frame"))
    found = ablate_run(folder, corpus, [0, 1], networks=False)
    tables = [pl.read_parquet(folder / f"oof_seed{seed}.parquet") for seed in (0, 1)]
    mean = (tables[0]["y_pred"] + tables[1]["y_pred"]) / 2
    clips = (
        tables[0]
        .with_columns(y_pred=mean, vmaf=corpus.rows["vmaf"])
        .group_by("src", "encoder", "cq", maintain_order=True)
        .agg(pl.col("y_true", "y_pred", "vmaf").mean())
    )
    y_true, source = clips["y_true"].to_numpy(), clips["src"].to_numpy()
    for name, column in (("model", "y_pred"), ("vmaf", "vmaf")):
        expected = measure_figures("mos", y_true, clips[column].to_numpy(), source)
        assert found.figures["clip"][name].rmse == pytest.approx(expected.rmse)
        assert found.figures["clip"][name].n_rows == 30
        assert found.figures["frame"][name].n_rows == 120
    assert found.figures["frame"].keys() == found.figures["clip"].keys()


def test_vmaf_is_no_baseline_of_itself_and_nothing_is_mapped(make_trained):
    folder, corpus = make_trained(SHORT)
    found = ablate_run(folder, corpus, [0, 1], networks=False)
    tables = [pl.read_parquet(folder / f"oof_seed{seed}.parquet") for seed in (0, 1)]
    mean = np.mean([table["y_pred"] for table in tables], axis=0)
    assert found.figures["frame"]["model"].rmse == rmse(tables[0]["y_true"], mean)
    assert found.mapping == "none"
    assert set(found.figures["frame"]) == {"model", "ridge"}
    assert found.not_computed == {
        "vmaf": "it is the target",
        "without_codec_block": "it takes training: loso ablate does that",
        "without_conditions": "the recipe has no conditions",
        "rmse_star": found.not_computed["rmse_star"],
        "outlier_ratio": found.not_computed["rmse_star"],
    }
    trained = ablate_run(folder, corpus, [0, 1])
    assert "without_codec_block" in trained.gains["frame"]


def test_a_recipe_without_a_codec_block_has_no_such_ablation(make_trained):
    inputs = InputSpec(codec_block=False)
    folder, corpus = make_trained(replace(OF_MOS, inputs=inputs))
    found = ablate_run(folder, corpus, [0, 1])
    assert found.not_computed["without_codec_block"] == "the recipe has no codec block"
    assert set(found.figures["clip"]) == {"model", "vmaf", "ridge"}


# -- What the votes and the panels say ------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"mos_ci": 0.3, "mos_std": 9.0, "votes": 4}, ("mos_ci",)),
        ({"mos_std": 0.7, "mos_n": 20, "votes": 4}, ("mos_std", "mos_n")),
        ({"mos_std": 0.7, "votes": 16}, ("mos_std", "votes")),
    ],
)
def test_errors_within_a_scores_own_interval_are_forgiven(make_trained, columns, names):
    folder, corpus = make_trained(edit=lambda i, row: rate(i, row) or row.update(columns))
    found = ablate_run(folder, corpus, [0, 1], networks=False)
    assert found.half_width_from == names
    half = 0.3 if names == ("mos_ci",) else float(ci95_of_votes(0.7, columns[names[1]]))
    clips = clips_of(corpus)
    y_true, vmaf, source = (clips[name].to_numpy() for name in ("mos", "vmaf", "src"))
    mapped = map_out_of_fold(y_true, vmaf, source)
    figures = found.figures["clip"]["vmaf"]
    assert figures.rmse_star == pytest.approx(rmse_star(y_true, mapped, ci95=half))
    assert figures.outlier_ratio == outlier_ratio(y_true, mapped, ci95=half)
    assert "rmse_star" not in found.not_computed


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (
            {"mos_std": 0.7},
            "the corpus has none of mos_ci, mos_std with mos_n, mos_std with votes",
        ),
        ({"mos_ci": None}, "mos_ci has no usable number in some rows"),
        ({"mos_ci": -0.1}, "mos_ci has no usable number in some rows"),
        (
            {"mos_std": 0.7, "votes": "many"},
            "mos_std or votes has no usable number in some rows",
        ),
        ({"mos_std": 0.7, "votes": 0}, "votes is below 1 in some rows"),
    ],
)
def test_half_widths_that_cannot_be_used_are_left_out_with_the_reason(
    make_trained, columns, reason
):
    def edit(i, row):
        rate(i, row)
        row.update(columns if i < 4 or None not in columns.values() else {"mos_ci": 0.2})

    folder, corpus = make_trained(edit=edit)
    found = ablate_run(folder, corpus, [0, 1], networks=False)
    assert found.not_computed["rmse_star"] == reason
    assert found.not_computed["outlier_ratio"] == found.not_computed["rmse_star"]
    assert found.figures["clip"]["model"].rmse_star is None
    assert found.half_width_from == ()


def test_panels_that_rated_the_same_clips_bound_any_model(make_trained):
    """Three panels: every clip by the first two, one source by the third as well."""
    random = np.random.default_rng(2)
    noise = {(p, c): random.normal(0, 0.2) for p in range(3) for c in range(30)}

    def edit(i, row):
        rate(i, row)
        clip, frame = i // 6, i % 6
        panel = frame // 2 if row["src"] == "ant" else frame % 2
        row["mos"] = 3.0 + clip % 6 / 3 + noise[panel, clip]
        row |= {"test": panel, "frame_index": frame}

    folder, corpus = make_trained(edit=edit, key=["test"], frames=6)
    found = ablate_run(folder, corpus, [0, 1], networks=False)
    assert found.panels_told_apart_by == ("test",)
    assert [(each.panels, each.n_clips) for each in found.panels] == [
        (("0", "1"), 30),
        (("0", "2"), 6),
        (("1", "2"), 6),
    ]
    scores = [[3.0 + c % 6 / 3 + noise[p, c] for c in range(30)] for p in (0, 1)]
    expected = panel_agreement(*scores)
    assert found.panels[0].plcc == pytest.approx(expected.plcc.value)
    assert found.panels[0].rmse == pytest.approx(expected.rmse)
    assert found.panels[0].plcc_ceiling == pytest.approx(expected.plcc_ceiling.value)
    assert found.panels[0].rmse_floor == pytest.approx(expected.rmse_floor)
    assert found.panels[0].reason is None


# -- Whose it is ----------------------------------------------------------------------------------


def test_training_removes_what_it_makes_stale(make_trained):
    folder, corpus = make_trained()
    ablate_run(folder, corpus, [0, 1], networks=False)
    train_into(folder, corpus, OF_MOS, [0, 1])
    assert (folder / "baselines.json").exists()
    train_into(folder, corpus, OF_MOS, [2])
    assert not (folder / "baselines.json").exists()


def test_baselines_of_other_seeds_do_not_stand(make_trained):
    folder, corpus = make_trained()
    assert standing_baselines(folder, [0, 1]) is None
    found = ablate_run(folder, corpus, [0, 1], networks=False)
    assert standing_baselines(folder, [1, 0]) == found
    assert standing_baselines(folder, [0]) is None
    path = folder / "baselines.json"
    train_into(folder, corpus, OF_MOS, [2])
    path.write_text(found.model_dump_json())
    with pytest.raises(BadEvidence) as refusal:
        validate_run(folder, [0, 1, 2], corpus=corpus)
    assert str(refusal.value) == (
        f"{path}: not made from the predictions of the seeds that are judged, expected seeds 0,1,2 "
        "as they stand in the folder, found seeds 0,1 as they stood; ablate again with "
        f"loso ablate {folder} --corpus CORPUS --seeds 0,1,2"
    )
    path.write_text("{")
    assert standing_baselines(folder, [0, 1]) is None


def test_what_cannot_be_judged_writes_nothing(make_trained, make_corpus, tmp_path):
    folder, corpus = make_trained()
    other = load_corpus(make_corpus("other.jsonl", sources=SOURCES, seed=1, edit=rate))
    with pytest.raises(BadEvidence, match="not the corpus that the seeds were trained on"):
        ablate_run(folder, other, [0, 1])
    with pytest.raises(BadEvidence, match=r"missing loso_seed2\.json"):
        ablate_run(folder, corpus, [0, 2])
    with folder_lock(folder, "a test"), pytest.raises(Busy, match="another process is using"):
        ablate_run(folder, corpus, [0, 1])
    assert not (folder / "baselines.json").exists()
    with pytest.raises(BadEvidence, match="not a folder"):
        ablate_run(tmp_path / "none", corpus, [0, 1])
    assert not (tmp_path / "none").exists()


def test_seeds_without_predictions_cannot_be_held_against_anything(make_run, tmp_path):
    def edit(_, content):
        for key in content.keys() - {"seed", "mean_plcc", "folds"}:
            del content[key]

    folder = make_run(edit=edit, seeds=(0, 1))
    with pytest.raises(BadEvidence, match="no predictions of seed 0, 1 to hold against baselines"):
        ablate_run(folder, load_corpus(tmp_path / "corpus.jsonl"), [0, 1])
