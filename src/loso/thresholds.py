"""The gate's limits from a file: a target of one's own has limits of its own."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import fields
from pathlib import Path

from loso.errors import BadSettings
from loso.recipe import GateThresholds

__all__ = ["load_thresholds"]


def load_thresholds(path: Path) -> GateThresholds:
    """Return the limits in a TOML file; those that it does not name are the usual ones.

    It reads `mean_plcc_threshold = 0.9` and the like. BadSettings where it cannot be read, names
    what is no limit, or gives a value out of its range.
    """
    where = str(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"cannot be read ({error.strerror})", where=where) from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise BadSettings(f"not valid TOML ({error})", where=where) from None
    known = [field.name for field in fields(GateThresholds) if "help" in field.metadata]
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise BadSettings(
                f"no such limit: {name}",
                where=where,
                expected=" or ".join(known),
                fix=f"did you mean {near[0]}?" if near else "",
            )
    try:
        return GateThresholds(**content)
    except BadSettings as error:
        raise BadSettings(
            error.problem, where=where, expected=error.expected, found=error.found, fix=error.fix
        ) from None
