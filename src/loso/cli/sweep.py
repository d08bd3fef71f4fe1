"""The command that compares recipes, each chosen without the source it is judged on: `sweep`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from loso.cli.console import hint, print_json, print_line, print_table, show_progress, warn_all
from loso.cli.options import (
    DEFAULT_SEEDS_TEXT,
    JsonOption,
    KeyOption,
    SchedulerOption,
    SeedsOption,
    computing,
    one_of,
    parse_seeds,
    require_given,
)
from loso.cli.settings import with_settings
from loso.cli.train import CorpusOption, ExcludeOption
from loso.recipe import DEFAULT_CORPUS, RECIPES, Compute, Recipe, TrainingNeeds
from loso.schema import CANONICAL

if TYPE_CHECKING:
    from loso.baselines import Ends
    from loso.sweep.nested import Swept
    from loso.sweep.records import SweepFigures, SweepFile

__all__ = ["recipe_words", "sweep"]

_KEPT: Final = "finished recipes are kept: the same command goes on with the rest"
_LISTS: Final = {"conditions": "--condition", "statistics": "--statistic"}


@with_settings
def sweep(
    context: typer.Context,
    recipe: Recipe,
    needs: TrainingNeeds,
    compute: Compute,
    corpus: CorpusOption = DEFAULT_CORPUS,
    out_dir: Annotated[Path, typer.Option("--out-dir", help="Folder of the sweep.")] = Path(
        "runs/sweep"
    ),
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=A,B", help="Values of a field of the recipe; repeatable."),
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file of such fields, which --vary changes."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="What a choice goes by: rmse or plcc.",
            autocompletion=one_of("loso.sweep.choose:CRITERIA"),
        ),
    ] = "rmse",
    pairs: Annotated[
        int | None,
        typer.Option(help="Most pairs of sources to fit a recipe without; 1225 by default."),
    ] = None,
    seeds: SeedsOption = DEFAULT_SEEDS_TEXT,
    exclude_source: ExcludeOption = None,
    key: KeyOption = None,
    scheduler: SchedulerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a grid of recipes, each source judged by the one that the other sources choose.

    The first seed chooses, all seeds report. What is fitted is kept: the same command goes on.

    Example: loso sweep --corpus corpus.jsonl --vary epochs=100,200 --vary hidden=32,64
    """
    chosen = parse_seeds(seeds)
    require_given(corpus)
    from loso.pipeline import open_for_training
    from loso.sweep.grid import parse_vary, read_grid
    from loso.sweep.nested import sweep_recipes
    from loso.sweep.records import SWEEP_FILE

    varied = ({} if grid is None else read_grid(grid)) | parse_vary(vary or ())
    excluded, keys = exclude_source or (), key or ()
    opened = open_for_training(corpus, needs, recipe, exclude_sources=excluded, key=keys)
    with computing(compute, scheduler) as trainer, show_progress("sweep", kept=_KEPT) as progress:
        swept = sweep_recipes(
            out_dir,
            opened,
            recipe,
            varied,
            chosen,
            by=by,
            pairs=pairs,
            exclude_sources=excluded,
            compute=trainer,
            progress=progress,
        )
    warn_all((*opened.warnings, *swept.warnings))
    if as_json:
        print_json(swept.record.model_dump(mode="json"))
    else:
        _print_swept(swept)
    hint(f"wrote {out_dir / SWEEP_FILE}")
    best = swept.candidates[swept.record.chosen]
    words = recipe_words(best.recipe, best.settings.get("features", context.params.get("features")))
    if words is None:
        hint("no command trains the chosen recipe: without a codec block it is to compare with")
        return
    words += ["--corpus", str(corpus), "--out-dir", str(out_dir / "chosen"), "--seeds", seeds]
    words += [word for source in excluded for word in ("--exclude-source", source)]
    words += [word for column in keys for word in ("--key", column)]
    words += [*_given(needs), *_given(compute)]
    words += [] if scheduler is None else ["--scheduler", scheduler]
    hint(f"next: {shlex.join(['loso', 'train', *words])}")


def recipe_words(recipe: Recipe, features: str | None = None) -> list[str] | None:
    """Return the options by which `loso train` makes a recipe, None where no options do.

    `features` is what names its features on a command line, if they are not the usual ones.

    >>> recipe_words(Recipe(epochs=100, lr=0.001))
    ['--recipe', 'fr-regressor-v2', '--epochs', '100', '--lr', '0.001']
    """
    if not recipe.inputs.codec_block:
        return None
    ways = [["--recipe", name, *_changes(base, recipe)] for name, base in RECIPES.items()]
    words = min(ways, key=len)
    if recipe.inputs.features != CANONICAL:
        words += ["--features", features or f"{recipe.inputs.features.name}.json"]
    return words


def _changes(base: Recipe, recipe: Recipe) -> list[str]:
    """Return the options that make `recipe` of `base`, features apart."""
    words = []
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name != "inputs" and value != getattr(base, field.name):
            words += _option(field.name, value)
    spec = recipe.inputs
    for name in ("drop_first_frame", "group_by", *_LISTS):
        value = getattr(spec, name)
        if value != getattr(base.inputs, name):
            words += _option(name, value)
    return words


def _given(settings: TrainingNeeds | Compute) -> list[str]:
    """Return the options that make `settings`, but for those that are as usual."""
    values = (
        (field.name, getattr(settings, field.name), field.default) for field in fields(settings)
    )
    return [
        word for name, value, usual in values if value != usual for word in _option(name, value)
    ]


def _option(name: str, value: Any) -> list[str]:
    if name in _LISTS:
        return [word for each in value for word in (_LISTS[name], each)]
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]


def _print_swept(swept: Swept) -> None:
    record, names = swept.record, [candidate.name for candidate in swept.candidates]
    _print_figures(record, names)
    print_line()
    _print_worth(record)
    print_line()
    _print_choices(record, names)
    print_line()
    _print_recipes(record, names)
    print_line()
    again = f"fitted {swept.fitted}, kept {swept.kept} of the recipes"
    print_line(f"{again} in {swept.wall_time_s:.1f} s")


def _print_figures(record: SweepFile, names: list[str]) -> None:
    count, sources = len(names), len(record.judged_sources)
    how = "" if record.mapping == "none" else ", mapped without the held-out source"
    print_line(f"{record.target} of {record.unit}s, {count} recipes, {sources} sources{how}")
    print_line(
        f"chosen by the mean {record.by.upper()} of seed {record.choosing_seed} on the other "
        f"sources, reported by {len(record.seeds)} seeds together"
    )
    if record.capped:
        print_line(
            f"{sources} of {len(record.sources)} sources are judged: recipes were fitted without "
            f"{record.n_pairs} of {record.n_pairs_possible} pairs of sources"
        )
    print_line()
    rows = [
        _figures("nested choice", record.nested, "each source its own"),
        _figures(f"best of {count}, flattered", record.flattered, names[record.chosen]),
    ]
    if record.as_usual is not None:
        rows.append(_figures("usual recipe", record.as_usual, names[record.usual]))
    titles = ("on unseen sources", "PLCC", "SROCC", "RMSE", "pooled RMSE", "recipe")
    print_table(titles, rows, align="<>>>>")
    if record.as_usual is None:
        print_line(f"no figures of the usual recipe: {record.as_usual_reason}")


def _figures(name: str, found: SweepFigures, recipe: str) -> tuple[str, ...]:
    correlations = (_correlation(found.mean_plcc), _correlation(found.mean_srocc))
    return name, *correlations, f"{found.mean_rmse:.4g}", f"{found.pooled_rmse:.4g}", recipe


def _correlation(value: float | None) -> str:
    return "undef." if value is None else f"{value:.5f}"


def _print_worth(record: SweepFile) -> None:
    """Print what choosing gains over the usual recipe, and by how much the best one flatters."""
    gain = record.gain_over_usual
    if gain is not None:
        print_line(
            f"choosing gains {gain.rmse_gain:+.4g} of pooled RMSE over the usual recipe: "
            f"bootstrap {_ends(gain.bootstrap)}, jackknife-t {_ends(gain.jackknife)}"
        )
    plcc = "" if record.flattery_plcc is None else f" and {record.flattery_plcc:+.2g} of PLCC"
    print_line(
        f"the best of all, in its own figures, is better than the nested choice by "
        f"{record.flattery_rmse:+.4g} of pooled RMSE{plcc}"
    )


def _ends(ends: Ends) -> str:
    return "none" if ends.low is None else f"{ends.low:+.4g}..{ends.high:+.4g}"


def _print_choices(record: SweepFile, names: list[str]) -> None:
    """Print what each held-out source's other sources chose, by what lead, and how it did."""
    rows = []
    for fold in record.folds:
        own, score = record.nested.by_source[fold.held_out], fold.scores[fold.chosen]
        second = None if fold.runner_up is None else fold.scores[fold.runner_up]
        lead = "" if score is None or second is None else f"{abs(second - score):.2g}"
        chosen_by = "" if score is None else f"{score:.5g}"
        scores = (_correlation(own.plcc), _correlation(own.srocc), f"{own.rmse:.4g}")
        rows.append((fold.held_out, *scores, chosen_by, lead, names[fold.chosen]))
    by = f"chosen by {record.by.upper()}"
    titles = ("held-out source", "PLCC", "SROCC", "RMSE", by, "lead", "recipe")
    print_table(titles, rows, align="<>>>>>")
    times = sorted((len(recipe.chosen_by) for recipe in record.recipes), reverse=True)
    counts = ", ".join(str(count) for count in times if count)
    print_line(
        f"different choices: {sum(count > 0 for count in times)}, by {counts} of "
        f"{len(record.folds)} sources"
    )


def _print_recipes(record: SweepFile, names: list[str]) -> None:
    """Print every recipe, the best over all sources first."""
    better = -1.0 if record.by == "plcc" else 1.0

    def place(number: int) -> tuple[bool, float, int]:
        score = record.recipes[number].plain_score
        return (score is None, better * (score or 0.0), number)

    rows = []
    for number in sorted(range(len(record.recipes)), key=place):
        own = record.recipes[number]
        score = "out" if own.plain_score is None else f"{own.plain_score:.5g}"
        remarks = (("best", record.chosen), ("usual", record.usual))
        remark = ", ".join(word for word, its in remarks if its == number)
        settings = [_setting(own.settings, name) for name in record.varied]
        rows.append((*settings, score, f"{len(own.chosen_by)}", remark))
    titles = (*record.varied, f"all sources, {record.by.upper()}", "chosen", "")
    print_table(titles, rows, align=">" * (len(record.varied) + 2))
    for own, name in zip(record.recipes, names, strict=True):
        if own.reason is not None:
            print_line(f"out: {name}: {own.reason}")


def _setting(settings: Mapping[str, Any], name: str) -> str:
    from loso.sweep.grid import setting_text

    return setting_text(settings[name])
