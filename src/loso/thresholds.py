"""The gate's limits from a file: a target of one's own has limits of its own."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

from loso.errors import BadSettings
from loso.files import read_file
from loso.recipe import GateThresholds
from loso.spelling import did_you_mean

__all__ = ["load_thresholds"]


def load_thresholds(path: Path) -> GateThresholds:
    """Return the limits in a TOML file; those that it does not name are the usual ones.

    It reads `mean_plcc_threshold = 0.9` and the like. BadSettings where it cannot be read, names
    what is no limit, or gives a value out of its range.
    """
    where = str(path)
    try:
        content = tomllib.loads(read_file(path).decode())
    except OSError as error:
        raise BadSettings(f"cannot be read ({error.strerror})", where=where) from None
    except (ValueError, RecursionError) as error:  # not TOML, or not UTF-8
        raise BadSettings(f"not valid TOML ({error})", where=where) from None
    known = [field.name for field in fields(GateThresholds) if "help" in field.metadata]
    for name in content:
        if name not in known:
            raise BadSettings(
                f"no such limit: {name}",
                where=where,
                expected=" or ".join(known),
                fix=did_you_mean(name, known),
            )
    try:
        return GateThresholds(**content)
    except BadSettings as error:
        raise BadSettings(
            error.problem, where=where, expected=error.expected, found=error.found, fix=error.fix
        ) from None
