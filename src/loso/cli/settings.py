"""Command-line options made from the fields of settings classes, so that each lives once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any, Final, get_type_hints

import typer

from loso.recipe import Compute, GateThresholds, Recipe, TrainingNeeds

__all__ = ["with_settings"]

_PANELS: Final = {
    Recipe: "Recipe",
    TrainingNeeds: "Least corpus",
    GateThresholds: "Gate",
    Compute: "Machine",
}
"""Settings classes, and the headings under which their options stand in a command's help."""


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with each settings parameter replaced by one option for each of its fields.

    A field becomes an option where it has a help text; the command gets the validated object.
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
        options = [_option(hint, f) for f in fields(hint) if "help" in f.metadata]
        groups[parameter.name] = (hint, [option.name for option in options])
        made += options

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        for name, (settings, options) in groups.items():
            given[name] = settings(**{option: given.pop(option) for option in options})
        command(**given)

    parameters = [*plain, *made]
    wrapped.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def _option(settings: type, field: Field[Any]) -> inspect.Parameter:
    kind = get_type_hints(settings)[field.name]
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[
            kind, typer.Option(help=field.metadata["help"], rich_help_panel=_PANELS[settings])
        ],
    )
