"""Command-line options made from the fields of settings classes, so that each lives once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import typer

from loso.cli.options import one_of
from loso.errors import BadSettings
from loso.recipe import RECIPES, Compute, GateThresholds, InputSpec, Recipe, Tracking, TrainingNeeds
from loso.spelling import did_you_mean

__all__ = ["with_settings"]

_PANELS: Final = {
    Recipe: "Recipe",
    TrainingNeeds: "Least corpus",
    GateThresholds: "Gate",
    Compute: "Machine",
    Tracking: "Tracking",
}
"""Settings classes, and the headings under which their options stand in a command's help."""

_USUAL: Final = next(iter(RECIPES))

_INPUTS: Final = {
    "features": (str, "--features", "Features: canonical6, or a .json file that names others."),
    "conditions": (
        list[str],
        "--condition",
        "Column that goes in beside the codec block: COL or log2:COL; repeatable.",
    ),
    "statistics": (
        list[str],
        "--statistic",
        "Of each feature over a clip's frames: mean, p5, std; repeatable.",
    ),
    "drop_first_frame": (bool, "--drop-first-frame", "Leave out frame 0, whose motion is 0."),
    "group_by": (str, "--group-by", "Column whose values are the sources to hold out."),
}
"""Fields of InputSpec that are options: type, name and help."""

_NAMES: Final = {
    "unit": one_of("loso.recipe:UNITS"),
    "statistics": one_of("loso.recipe:STATISTICS"),
    "engine": one_of("loso.engine:ENGINES"),
    "device": one_of("loso.engine:DEVICES"),
}
"""What completes the values of fields that take one of a few."""


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with each settings parameter replaced by one option for each of its fields.

    A field becomes an option where it has a help text; the command gets the validated object. A
    recipe begins as the one that --recipe names, limits of the gate as the file of --gate has them,
    and options change them where they are given.
    """
    hints = get_type_hints(command, include_extras=True)
    plain: list[inspect.Parameter] = []
    made: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if hint not in _PANELS:
            plain.append(parameter.replace(annotation=hint))
            continue
        if hint is Recipe:
            options = _recipe_options()
        elif hint is GateThresholds:
            options = _gate_options()
        else:
            options = [_option(hint, f) for f in fields(hint) if "help" in f.metadata]
        groups[parameter.name] = (hint, [option.name for option in options])
        made += options

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        for name, (settings, options) in groups.items():
            values = {option: given.pop(option) for option in options}
            given[name] = _MAKERS.get(settings, settings)(**values)
        command(**given)

    parameters = [*plain, *made]
    wrapped.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def _option(settings: type, field: Field[Any]) -> inspect.Parameter:
    kind = get_type_hints(settings)[field.name]
    info = typer.Option(
        help=field.metadata["help"],
        rich_help_panel=_PANELS[settings],
        autocompletion=_NAMES.get(field.name),
    )
    return _parameter(field.name, Annotated[kind, info], field.default)


def _recipe_options() -> list[inspect.Parameter]:
    """Return options whose default is "not given", and whose help shows the usual recipe's."""
    text = f"A whole recipe, {' or '.join(RECIPES)}, which the options below change."
    names = one_of("loso.recipe:RECIPES")
    info = typer.Option(
        "--recipe", help=text, rich_help_panel=_PANELS[Recipe], autocompletion=names
    )
    options = [_parameter("recipe_name", Annotated[str, info], _USUAL)]
    kinds = get_type_hints(Recipe)
    for field in fields(Recipe):
        if "help" in field.metadata:
            help_text, shown = field.metadata["help"], f"{field.default}"
            options.append(_unset(field.name, kinds[field.name], (), help_text, shown))
    usual = InputSpec()
    for name, (kind, option, help_text) in _INPUTS.items():
        default = getattr(usual, name)
        shown = ", ".join(default) if isinstance(default, tuple) else getattr(default, "name", "")
        options.append(_unset(name, kind, (option,), help_text, shown or f"{default}"))
    return options


def _gate_options() -> list[inspect.Parameter]:
    """Return a file of limits, and limits whose default is "not given"; help shows the usual."""
    panel = _PANELS[GateThresholds]
    info = typer.Option(
        "--gate", help="TOML file of limits, which the options below change.", rich_help_panel=panel
    )
    options = [_parameter("gate_file", Annotated[Path | None, info], None)]
    kinds = get_type_hints(GateThresholds)
    for field in fields(GateThresholds):
        if "help" in field.metadata:
            text, shown = field.metadata["help"], f"{field.default}"
            options.append(_unset(field.name, kinds[field.name], (), text, shown, panel))
    return options


def _unset(
    name: str,
    kind: Any,
    names: tuple[str, ...],
    text: str,
    shown: str,
    panel: str = _PANELS[Recipe],
) -> inspect.Parameter:
    show = shown if shown not in {"", "()", "False"} else False
    info = typer.Option(
        *names,
        help=text,
        rich_help_panel=panel,
        show_default=show,
        autocompletion=_NAMES.get(name),
    )
    return _parameter(name, Annotated[kind | None, info], None)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _recipe(recipe_name: str, **given: Any) -> Recipe:
    """Return the recipe of that name, changed by the options that were given."""
    if recipe_name not in RECIPES:
        raise BadSettings(
            "no such recipe",
            expected=" or ".join(RECIPES),
            found=recipe_name,
            fix=did_you_mean(recipe_name, RECIPES),
        )
    changed = {name: value for name, value in given.items() if value is not None}
    inputs: dict[str, Any] = {name: changed.pop(name) for name in _INPUTS if name in changed}
    if "features" in inputs:
        from loso.features import load_feature_set

        inputs["features"] = load_feature_set(inputs["features"])
    inputs |= {n: tuple(inputs[n]) for n in ("conditions", "statistics") if n in inputs}
    recipe = RECIPES[recipe_name]
    if inputs:
        changed["inputs"] = replace(recipe.inputs, **inputs)
    return replace(recipe, **changed)


def _gate(gate_file: Path | None, **given: float | None) -> GateThresholds:
    """Return the limits in that file, or the usual ones, changed by the options that were given."""
    base = GateThresholds()
    if gate_file is not None:
        from loso.thresholds import load_thresholds

        base = load_thresholds(gate_file)
    return replace(base, **{name: value for name, value in given.items() if value is not None})


_MAKERS: Final[dict[type, Callable[..., Any]]] = {Recipe: _recipe, GateThresholds: _gate}
"""What makes settings of options that may not be given; others are made of theirs as they are."""
