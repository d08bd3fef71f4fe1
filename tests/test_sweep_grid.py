import json
from dataclasses import replace

import pytest

from loso.errors import BadInput, BadSettings
from loso.recipe import InputSpec, Recipe
from loso.sweep.grid import Candidate, build_grid, parse_vary, read_grid


def recipes(base, varied):
    return [candidate.recipe for candidate in build_grid(base, varied)[0]]


def test_a_grid_is_every_combination_in_the_order_given():
    grid, usual = build_grid(Recipe(), parse_vary(["epochs=100,200", "lr=0.0005,0.001"]))
    assert [candidate.recipe for candidate in grid] == [
        Recipe(epochs=epochs, lr=lr) for epochs in (100, 200) for lr in (5e-4, 1e-3)
    ]
    assert [candidate.name for candidate in grid][1] == "epochs=100 lr=0.001"
    assert grid[usual].recipe == Recipe()


def test_the_usual_recipe_comes_first_where_no_combination_gives_it():
    grid, usual = build_grid(Recipe(), {"epochs": [10, 20]})
    assert [candidate.recipe.epochs for candidate in grid] == [200, 10, 20]
    assert (usual, grid[0].settings) == (0, {"epochs": 200})


def test_duplicates_are_one():
    varied = parse_vary(["lr=0.001,1e-3", "lr=0.0005", "hidden=8,8"])
    assert varied == {"lr": [1e-3, 1e-3, 5e-4], "hidden": [8, 8]}
    assert recipes(Recipe(hidden=8), varied) == [
        Recipe(hidden=8, lr=1e-3),
        Recipe(hidden=8, lr=5e-4),
    ]


def test_what_goes_in_can_vary(tmp_path):
    path = tmp_path / "two.json"
    path.write_text(json.dumps({"name": "two", "features": ["adm2", "motion2"]}))
    varied = parse_vary(
        [
            *("condition=none,fps+log2:height", "codec-block=true,false"),
            *(f"features=canonical6,{path}", "statistics=mean,mean+p5"),
        ]
    )
    base = Recipe(unit="clip")
    grid, usual = build_grid(base, varied)
    assert len(grid) == 16
    assert grid[usual].recipe == base
    last = grid[-1]
    assert last.recipe.inputs.features.features == ("adm2", "motion2")
    assert replace(last.recipe.inputs, features=base.inputs.features) == InputSpec(
        conditions=("fps", "log2:height"), codec_block=False, statistics=("mean", "p5")
    )
    assert last.name == (
        f"conditions=fps+log2:height codec_block=false features={path} statistics=mean+p5"
    )


def test_a_value_that_a_line_cannot_say_is_said_in_a_file(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('epochs = [5, 6]\nlr = [1]\nconditions = [[], ["a+b", "c,d"]]\n')
    varied = read_grid(path)
    assert varied == {"epochs": [5, 6], "lr": [1.0], "conditions": [[], ["a+b", "c,d"]]}
    assert recipes(Recipe(), varied)[-1].inputs.conditions == ("a+b", "c,d")


def test_the_name_of_a_recipe_is_what_the_line_says():
    line = "epochs=7 lr=1e-05 standardise_target=true conditions=none"
    (candidate,) = build_grid(
        Recipe(epochs=7, lr=1e-5, standardise_target=True), parse_vary(line.split())
    )[0]
    assert candidate.name == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch=1", r"--vary epoch=1: a recipe has no epoch, expected .*; did you mean epochs\?"),
        ("x=1", "a recipe has no x, expected standardise_target or epochs .* codec_block$"),
        ("unit=clip", "unit cannot vary: recipes on other rows or scores .* sweep each by itself"),
        ("group-by=x", "group-by cannot vary"),
        ("epochs", "takes a field and its values, expected such as epochs=100,200, found 'epochs'"),
        ("epochs=1,,2", "takes a field and its values"),
        ("epochs=", "takes a field and its values"),
        ("codec_block=maybe", "codec_block needs true or false, found 'maybe'"),
        ("features=canonical7", "no such feature set, .*found canonical7"),
    ],
)
def test_what_a_line_cannot_mean_is_refused(text, message):
    with pytest.raises(BadInput, match=message):
        build_grid(Recipe(), parse_vary([text]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 5", r"grid.toml: epochs needs a list of values, .*A, B\], found 5"),
        ("epochs = []", "epochs needs a list of values"),
        ("conditions = ['fps']", "conditions needs a list of text, found 'fps'"),
        ("statistics = [[1]]", "statistics needs a list of text"),
        ("features = [1]", "features needs text, found 1"),
        ("standardise_target = [1]", "standardise_target needs true or false, found 1"),
        ("hiden = [5]", r"a recipe has no hiden, .*did you mean hidden\?"),
        ("epochs = [", "not valid TOML"),
    ],
)
def test_what_a_file_cannot_mean_is_refused(tmp_path, text, message):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(BadSettings, match=message):
        read_grid(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadSettings, match=r"no\.toml: cannot be read \(No such file"):
        read_grid(tmp_path / "no.toml")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["lr=0.001,0", "epochs=5"], r"^recipe lr=0 epochs=5: lr is out of range, expected a num"),
        (["epochs=1.5"], r"recipe epochs=1.5: epochs is out of range, expected a whole.*found 1.5"),
        (["epochs=many"], "recipe epochs=many: epochs is out of range, .*found 'many'"),
        (["lr=nan"], "recipe lr=nan: lr is out of range"),
        (["statistics=p5"], "recipe statistics=p5: a frame has no statistics; use --unit clip"),
        (["conditions=a+a"], r"recipe conditions=a\+a: conditions stand there twice"),
    ],
)
def test_a_combination_that_is_no_recipe_is_refused_by_the_recipe_and_named(lines, message):
    with pytest.raises(BadSettings, match=message):
        build_grid(Recipe(), parse_vary(lines))


def test_a_grid_has_recipes_and_not_too_many():
    with pytest.raises(BadSettings, match="nothing varies; give --vary epochs=100,200"):
        build_grid(Recipe(), {})
    many = {"epochs": list(range(1, 102)), "hidden": list(range(1, 101))}
    with pytest.raises(BadSettings, match=r"too many recipes .* at most 10000, found 10100"):
        build_grid(Recipe(), many)


def test_numbers_are_named_as_they_were_given():
    assert Candidate(Recipe(), {"lr": 0.0005, "weight_decay": 1e-05}).name == (
        "lr=0.0005 weight_decay=1e-05"
    )
