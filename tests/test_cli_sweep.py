import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from loso.cli.settings import with_settings
from loso.cli.sweep import recipe_words
from loso.features import load_feature_set
from loso.recipe import RECIPES, InputSpec, Recipe
from loso.sweep.records import SWEEP_FILE

FEW = ["--epochs", 2, "--hidden", 4, "--seeds", "0,1", "--min-rows", 1]
SOURCES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def corpus(make_corpus):
    def edit(_, row):
        row["score"] = row["vmaf"] * (1e30 if row["src"] == "dog" else 1.0)

    return make_corpus(sources=SOURCES, edit=edit)


def test_sweep_prints_what_each_source_is_judged_by(loso, corpus, tmp_path):
    words = ["sweep", "--corpus", corpus, "--out-dir", tmp_path / "out", *FEW]
    code, out, err = loso(*words, "--vary", "epochs=1,2,9", "--vary", "lr=0.0005,0.02")
    assert code == 0, err
    blocks = [block.splitlines() for block in out.split("\n\n")]
    heading, figures, worth, choices, recipes, (ending,) = blocks
    assert heading == [
        "vmaf of frames, 6 recipes, 4 sources",
        "chosen by the mean RMSE of seed 0 on the other sources, reported by 2 seeds together",
    ]
    record = json.loads((tmp_path / "out" / SWEEP_FILE).read_text())
    names = [
        f"epochs={each['settings']['epochs']} lr={each['settings']['lr']:g}"
        for each in record["recipes"]
    ]
    assert re.split(" {2,}", figures[0]) == [
        *("on unseen sources", "PLCC", "SROCC", "RMSE", "pooled RMSE", "recipe")
    ]
    for line, start, key, recipe in (
        (figures[1], "nested choice", "nested", "each source its own"),
        (figures[2], "best of 6, flattered", "flattered", names[record["chosen"]]),
        (figures[3], "usual recipe", "as_usual", names[record["usual"]]),
    ):
        own = record[key]
        expected = [f"{own['mean_plcc']:.5f}", f"{own['mean_srocc']:.5f}"]
        expected += [f"{own['mean_rmse']:.4g}", f"{own['pooled_rmse']:.4g}"]
        assert re.split(" {2,}", line) == [start, *expected, recipe]
    gain = record["gain_over_usual"]["rmse_gain"]
    assert worth[0].startswith(f"choosing gains {gain:+.4g} of pooled RMSE over the usual recipe: ")
    assert f"nested choice by {record['flattery_rmse']:+.4g} of pooled RMSE and" in worth[1]
    for line, fold in zip(choices[1:5], record["folds"], strict=True):
        cells = re.split(" {2,}", line)
        assert (cells[0], cells[-1]) == (fold["held_out"], names[fold["chosen"]])
        assert cells[4] == f"{fold['scores'][fold['chosen']]:.5g}"
    assert choices[5].startswith("different choices: ")
    assert choices[5].endswith(" of 4 sources")
    assert recipes[0].split() == ["epochs", "lr", "all", "sources,", "RMSE", "chosen"]
    scores = [float(line.split()[2]) for line in recipes[1:]]
    assert scores == sorted(scores)
    assert len(scores) == 6
    assert recipes[1].endswith("best")
    assert sum(line.endswith("usual") for line in recipes) == 1
    assert re.fullmatch(r"fitted 6, kept 0 of the recipes in \d+\.\d s", ending)
    assert re.search(r"^sweep: 100%.*, choosing, recipe 6 of 6, ", err, re.MULTILINE)
    assert re.search(r"^sweep: 100%.*, reporting, recipe ", err, re.MULTILINE)
    assert f"wrote {tmp_path / 'out' / SWEEP_FILE}\n" in err

    command = shlex.split(err.splitlines()[-1].removeprefix("next: "))
    assert command[:2] == ["loso", "train"]
    assert command[-6:] == [
        *("--out-dir", f"{tmp_path / 'out' / 'chosen'}"),
        *("--seeds", "0,1", "--min-rows", "1"),
    ]
    assert loso(*command[1:])[0] == 0
    trained = json.loads((tmp_path / "out" / "chosen" / "loso_seed0.json").read_text())
    plain = record["recipes"][record["chosen"]]["plain_score"]
    assert trained["mean_rmse"] == pytest.approx(plain, rel=1e-12)


def test_the_next_command_trains_where_and_what_the_sweep_did(loso, make_corpus, tmp_path):
    corpus = make_corpus(sources=SOURCES, frames=1)
    words = ["sweep", "--corpus", corpus, "--out-dir", tmp_path / "a sweep", *FEW, "--min-rows", 7]
    machine = ["--min-sources", 4, "--engine", "reference", "--device", "cpu", "--threads", 1]
    code, _, err = loso(*words, *machine, "--vary", "epochs=1,2")
    assert code == 0, err
    command = shlex.split(err.splitlines()[-1].removeprefix("next: "))
    assert command[-10:] == [
        *("--min-rows", "7", "--min-sources", "4"),
        *("--engine", "reference", "--device", "cpu", "--threads", "1"),
    ]
    code, _, err = loso(*command[1:])
    assert code == 0, err
    trained = json.loads((tmp_path / "a sweep" / "chosen" / "loso_seed0.json").read_text())
    assert trained["engine"] == "reference"


def test_a_recipe_that_is_best_and_usual_is_called_both(loso, corpus, tmp_path):
    words = ["sweep", "--corpus", corpus, "--out-dir", tmp_path / "out", *FEW]
    code, out, _ = loso(*words, "--epochs", 20, "--lr", 0.02, "--vary", "epochs=1,20")
    assert code == 0
    record = json.loads((tmp_path / "out" / SWEEP_FILE).read_text())
    assert record["chosen"] == record["usual"]
    assert re.findall(r" {2}(best|usual|best, usual)$", out, re.MULTILINE) == ["best, usual"]


def test_json_is_what_the_file_holds(loso, corpus, tmp_path):
    words = ["sweep", "--corpus", corpus, "--out-dir", tmp_path / "out", *FEW]
    code, out, _ = loso(*words, "--vary", "epochs=1,2", "--pairs", 3, "--json")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "out" / SWEEP_FILE).read_text())
    _, out, _ = loso(*words, "--vary", "epochs=1,2", "--pairs", 3)
    assert "1 of 4 sources are judged: recipes were fitted without 3 of 6 pairs of sources" in out
    assert "fitted 0, kept 2 of the recipes" in out


def test_a_line_changes_what_the_file_of_the_grid_varies(loso, corpus, tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text("epochs = [1, 2]\nlr = [0.01, 0.001]\n")
    words = ["sweep", "--corpus", corpus, "--out-dir", tmp_path / "out", *FEW, "--grid", grid]
    _, out, _ = loso(*words, "--vary", "lr=0.02", "--json")
    settings = [recipe["settings"] for recipe in json.loads(out)["recipes"]]
    usual = {"epochs": 2, "lr": 0.0005}
    assert settings == [usual, {"epochs": 1, "lr": 0.02}, {"epochs": 2, "lr": 0.02}]


def test_what_is_out_is_said_with_its_reason(loso, corpus, tmp_path):
    """The scores of dog are beyond float32 once squared: raw, what trains on them diverges."""
    words = ["sweep", "--corpus", corpus, "--out-dir", tmp_path / "out", *FEW]
    vary = ["--target", "score", "--vary", "standardise_target=false,true"]
    code, out, err = loso(*words, *vary)
    assert code == 0, err
    assert "score of frames, 2 recipes, 4 sources, mapped without the held-out source" in out
    lost = r"seed 0, held out \w+: training diverged: the loss is not finite, found epoch 0; .*"
    assert re.search(rf"^no figures of the usual recipe: {lost}$", out, re.MULTILINE)
    assert re.search(rf"^out: standardise_target=false: {lost}$", out, re.MULTILINE)
    assert re.search(r"^ +false +out +\d  usual$", out, re.MULTILINE)
    assert "choosing gains" not in out
    assert err.splitlines()[-1].startswith("next: loso train --recipe ")


def test_a_recipe_without_codec_block_has_no_command(loso, corpus, tmp_path):
    words = ["sweep", "--corpus", corpus, "--out-dir", tmp_path / "out", *FEW]
    code, _, err = loso(*words, "--epochs", 9, "--lr", 0.02, "--vary", "codec_block=true,false")
    assert code == 0
    record = json.loads((tmp_path / "out" / SWEEP_FILE).read_text())
    best = record["recipes"][record["chosen"]]["settings"]["codec_block"]
    last = err.splitlines()[-1]
    assert last.startswith("next: loso train" if best else "no command trains the chosen recipe: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vary", "epoch=3"], r"loso: --vary epoch=3: a recipe has no epoch, .*mean epochs\?"),
        (["--vary", "epochs=0"], "loso: recipe epochs=0: epochs is out of range"),
        (["--vary", "epochs=1", "--by", "plc"], "loso: no such criterion, .*mean plcc"),
        (["--grid", "no.toml"], r"loso: no\.toml: cannot be read"),
        ([], "loso: nothing varies; give --vary"),
    ],
)
def test_what_cannot_be_used_exits_with_2_and_writes_nothing(
    loso, corpus, tmp_path, words, message
):
    code, _, err = loso("sweep", "--corpus", corpus, "--out-dir", tmp_path / "out", *FEW, *words)
    assert code == 2
    assert re.search(message, err)
    assert not (tmp_path / "out").exists()


# -- The command that trains a recipe -------------------------------------------------------------

TWO = {"name": "two", "features": ["adm2", {"motion": "motion2"}]}


@pytest.mark.parametrize(
    "recipe",
    [
        *RECIPES.values(),
        Recipe(epochs=7, lr=1e-7, weight_decay=0.0, standardise_target=True, dropout=0.0),
        replace(RECIPES["clip-mos"], standardise_target=False, hidden=9, batch_size=1),
        replace(
            RECIPES["clip-mos"],
            inputs=InputSpec(
                conditions=("log2:fps", "a b"),
                statistics=("mean", "std"),
                drop_first_frame=True,
                group_by="film",
            ),
        ),
    ],
)
@pytest.mark.parametrize("features", ["canonical6", "two.json"])
def test_the_words_of_a_recipe_make_that_recipe(tmp_path, recipe, features):
    path = tmp_path / features
    if features == "two.json":
        path.write_text(json.dumps(TWO))
        features = str(path)
    inputs = replace(recipe.inputs, features=load_feature_set(features))
    recipe = replace(recipe, inputs=inputs)
    made = []

    @with_settings
    def train(recipe: Recipe) -> None:
        made.append(recipe)

    single = typer.Typer()
    single.command()(train)
    words = recipe_words(recipe, features)
    typer.main.get_command(single).main(words, standalone_mode=False)
    assert made == [recipe]
    assert (features in words) == (features != "canonical6")


def test_features_of_unknown_origin_are_named_after_their_set(tmp_path):
    path = Path(tmp_path / "a.json")
    path.write_text(json.dumps(TWO))
    recipe = Recipe(inputs=InputSpec(features=load_feature_set(str(path))))
    assert recipe_words(recipe)[-2:] == ["--features", "two.json"]
