"""Which recipes take part: every combination of what varies, each checked before work begins."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Final, get_type_hints

from loso.errors import BadSettings
from loso.features import load_feature_set
from loso.files import read_file
from loso.recipe import InputSpec, Recipe
from loso.spelling import did_you_mean

__all__ = ["Candidate", "build_grid", "parse_vary", "read_grid", "setting_text"]

_SHARED: Final = ("target", "unit", "group_by", "drop_first_frame")
"""What stays the same: recipes that are judged on other rows or scores cannot be compared."""

_LISTS: Final = ("conditions", "statistics")
_SWITCHES: Final = ("standardise_target", "codec_block")
_OF_INPUTS: Final = ("features", *_LISTS, "codec_block")
_VARIES: Final = (
    *(f.name for f in fields(Recipe) if f.name not in {*_SHARED, "inputs"}),
    *_OF_INPUTS,
)
_OTHER_NAMES: Final = {"condition": "conditions", "statistic": "statistics"}
"""What command lines call a field that takes several."""

_NONE: Final = "none"
_MOST: Final = 10_000
"""Recipes of one sweep: more are a slip of the pen."""


@dataclass(frozen=True)
class Candidate:
    """A recipe that takes part, and its values of the fields that vary, by name."""

    recipe: Recipe
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its values in one line.

        >>> Candidate(Recipe(), {"epochs": 200, "conditions": []}).name
        'epochs=200 conditions=none'
        """
        return " ".join(f"{name}={setting_text(value)}" for name, value in self.settings.items())


def setting_text(value: Any) -> str:
    """Return a value of a field as --vary would have it."""
    if isinstance(value, list):
        return "+".join(value) or _NONE
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def read_grid(path: Path) -> dict[str, list[Any]]:
    """Return what a TOML file varies: `epochs = [100, 200]` and the like, by field.

    BadSettings where it cannot be read, and for a field that does not exist or cannot vary.
    """
    where = str(path)
    try:
        content = tomllib.loads(read_file(path).decode())
    except OSError as error:
        raise BadSettings(f"cannot be read ({error.strerror})", where=where) from None
    except (ValueError, RecursionError) as error:  # not TOML, or not UTF-8
        raise BadSettings(f"not valid TOML ({error})", where=where) from None
    varied: dict[str, list[Any]] = {}
    for key, values in content.items():
        name = _field(key, where)
        if not isinstance(values, list) or not values:
            raise BadSettings(
                f"{key} needs a list of values",
                where=where,
                expected=f"such as {key} = [A, B]",
                found=repr(values),
            )
        varied.setdefault(name, []).extend(_typed(name, value, where) for value in values)
    return varied


def parse_vary(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Return what texts such as "epochs=100,200" vary, by field; lists for one field are joined.

    Of fields that take several columns, `+` joins those of one value, and `none` is none of them.
    BadSettings for anything else, and for a field that does not exist or cannot vary.

    >>> parse_vary(["epochs=100,200", "conditions=none,fps+log2:height"])
    {'epochs': [100, 200], 'conditions': [[], ['fps', 'log2:height']]}
    """
    varied: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        words = [word.strip() for word in listed.split(",")]
        where = f"--vary {text}"
        if not equals or not all(words):
            raise BadSettings(
                "--vary takes a field and its values",
                expected="such as epochs=100,200",
                found=repr(text),
            )
        name = _field(key.strip(), where)
        values = [_typed(name, _read(name, word), where) for word in words]
        varied.setdefault(name, []).extend(values)
    return varied


def _field(key: str, where: str) -> str:
    """Return the field that a key names; BadSettings unless it is one that can vary."""
    plain = key.replace("-", "_")
    name = _OTHER_NAMES.get(plain, plain)
    if name in _SHARED:
        raise BadSettings(
            f"{key} cannot vary: recipes on other rows or scores cannot be compared",
            where=where,
            fix="sweep each by itself",
        )
    if name not in _VARIES:
        raise BadSettings(
            f"a recipe has no {key}",
            where=where,
            expected=" or ".join(_VARIES),
            fix=did_you_mean(name, _VARIES),
        )
    return name


def _read(name: str, word: str) -> Any:
    """Return a word as TOML has it; what is no number stays text, for the field to refuse."""
    if name in _LISTS:
        return [] if word == _NONE else word.split("+")
    if name in _SWITCHES:
        return {"true": True, "false": False}.get(word.lower(), word)
    if name == "features":
        return word
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _typed(name: str, value: Any, where: str) -> Any:
    """Return a value as its field holds it; numbers are the recipe's own to refuse."""
    if name in _SWITCHES:
        expected, good = "true or false", isinstance(value, bool)
    elif name in _LISTS:
        expected = "a list of text"
        good = isinstance(value, list) and all(isinstance(each, str) for each in value)
    elif name == "features":
        expected, good = "text", isinstance(value, str)
    else:
        whole = get_type_hints(Recipe)[name] is int
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number and not whole and math.isfinite(value) else value
    if not good:
        raise BadSettings(f"{name} needs {expected}", where=where, found=repr(value))
    return value


def build_grid(
    base: Recipe, varied: Mapping[str, Sequence[Any]]
) -> tuple[tuple[Candidate, ...], int]:
    """Return every recipe of a grid over `base`, each once, and the place of `base` among them.

    `base` comes first where no combination gives it. BadSettings where nothing varies, and by the
    recipe's own refusal where a combination is none.

    >>> grid, usual = build_grid(Recipe(), {"epochs": [100, 200], "hidden": [32, 64]})
    >>> [candidate.name for candidate in grid][usual]
    'epochs=200 hidden=64'
    """
    if not varied:
        raise BadSettings(
            "nothing varies", fix="give --vary epochs=100,200 and the like, or --grid FILE.toml"
        )
    count = math.prod(len(values) for values in varied.values())
    if count > _MOST:
        raise BadSettings(
            "too many recipes for one sweep", expected=f"at most {_MOST}", found=f"{count}"
        )
    once: dict[Recipe, Candidate] = {}
    for values in product(*varied.values()):
        candidate = _candidate(base, dict(zip(varied, values, strict=True)))
        once.setdefault(candidate.recipe, candidate)
    if base in once:
        return tuple(once.values()), list(once).index(base)
    usual = Candidate(base, {name: _of(base, name) for name in varied})
    return (usual, *once.values()), 0


def _of(recipe: Recipe, name: str) -> Any:
    """Return a recipe's value of a field as grids write it."""
    value = getattr(recipe.inputs if name in _OF_INPUTS else recipe, name)
    if name == "features":
        return value.name
    return list(value) if name in _LISTS else value


def _candidate(base: Recipe, settings: dict[str, Any]) -> Candidate:
    changed = dict(settings)
    inputs = {name: changed.pop(name) for name in _OF_INPUTS if name in changed}
    inputs |= {name: tuple(inputs[name]) for name in _LISTS if name in inputs}
    if "features" in inputs:
        inputs["features"] = load_feature_set(inputs["features"])
    try:
        spec: InputSpec = replace(base.inputs, **inputs)
        return Candidate(replace(base, inputs=spec, **changed), settings)
    except BadSettings as error:
        raise BadSettings(
            error.problem,
            where=f"recipe {Candidate(base, settings).name}",
            expected=error.expected,
            found=error.found,
            fix=error.fix,
        ) from None
