"""A table of scores meets the logs: one score a clip, and nothing left over in silence."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loso.corpus.names import NUMBERS, Value, known_encoder, listed
from loso.corpus.table import read_table, require_column
from loso.errors import BadInput, BadSettings
from loso.schema import CANONICAL_6

__all__ = ["Joined", "Scores", "join_scores", "read_scale", "read_scores"]

SCORE: Final = "mos"
_RESERVED: Final = ("frame_index", "vmaf", *CANONICAL_6)
_TEXTS: Final = ("src", "encoder", "preset", "clip", "rate_control")

Key = tuple[str | float, ...]


@dataclass(frozen=True)
class Scores:
    """Scores by the values of the columns that name a clip, and all columns beside those."""

    path: Path
    by: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Mapping[Key, Mapping[str, Value | None]]


@dataclass(frozen=True)
class Joined:
    """What joined: one row a log; and the names of what did not, on both sides."""

    rows: Sequence[Mapping[str, Value | None]]
    logs: tuple[str, ...]
    scores: tuple[str, ...]


def read_scale(text: str) -> tuple[float, float]:
    """Return the ends of a scale such as 1..5; BadSettings on anything else.

    >>> read_scale("1..5")
    (1.0, 5.0)
    """
    number = r"-?[0-9]+(?:\.[0-9]+)?"
    match = re.fullmatch(rf"({number})\.\.({number})", text)
    low, high = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if low >= high:
        raise BadSettings(
            "not a scale", where="--scale", expected="LOW..HIGH, such as 1..5", found=repr(text)
        )
    return low, high


def read_scores(path: Path, by: Sequence[str], scale: tuple[float, float] | None) -> Scores:
    """Return the scores in a table, see `read_table`.

    BadInput where a column is missing or is one that libvmaf measures, where `mos` has no finite
    number or one outside `scale`, and where a clip has two scores.
    """
    table = read_table(path, texts=(*_TEXTS, *by))
    where = str(path)
    if table.is_empty():
        raise BadInput("holds no scores", where=where)
    for name in (*by, SCORE):
        require_column(name, table.columns, where)
    taken = [name for name in _RESERVED if name in table.columns]
    if taken:
        raise BadInput(f"{taken[0]} comes from the logs", where=where, fix="rename the column")
    others = [name for name in table.columns if name not in by]
    rows: dict[Key, Mapping[str, Value | None]] = {}
    for at, row in enumerate(table.iter_rows(named=True), start=1):
        key = tuple(_key(name, row[name], f"{where} row {at}") for name in by)
        _check_score(row[SCORE], scale, f"{where} row {at}")
        if key in rows:
            raise BadInput(
                f"two scores for {_named(key)}",
                where=f"{where} row {at}",
                found=f"{SCORE} {rows[key][SCORE]} and {row[SCORE]}",
                fix="keep one; of several panels filter one, or name the panel's column: "
                "--set panel=A --join clip,panel",
            )
        rows[key] = {name: row[name] for name in others}
    return Scores(path, tuple(by), tuple(others), rows)


def _key(name: str, value: Value | None, where: str) -> str | float:
    if value is None:
        raise BadInput(f"{name} is empty", where=where, fix="fill it in or drop the row")
    if name in NUMBERS:
        try:
            return float(value)
        except ValueError:
            raise BadInput(f"{name} is a number", where=where, found=repr(value)) from None
    return (known_encoder(str(value)) or str(value)) if name == "encoder" else str(value)


def _check_score(value: Value | None, scale: tuple[float, float] | None, where: str) -> None:
    if value is None:
        raise BadInput(f"{SCORE} is empty", where=where, fix="fill it in or drop the row")
    try:
        # One cell that is no number makes the whole column text: this one may not be the one.
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(
            f"{SCORE} is not a finite number",
            where=where,
            found=str(value),
            fix="correct it or drop the row",
        )
    if scale and not scale[0] <= number <= scale[1]:
        raise BadInput(
            f"{SCORE} must lie in {scale[0]:g}..{scale[1]:g}",
            where=where,
            found=f"{number:g}",
            fix="drop the row, or correct --scale",
        )


def _named(key: Key) -> str:
    return " ".join(f"{part:g}" if isinstance(part, float) else part for part in key)


def join_scores(
    logs: Sequence[Mapping[str, Value | None]], scores: Scores, *, allow_unjoined: bool
) -> Joined:
    """Return the rows of logs, which have a `clip`, with their scores.

    BadInput names what has no partner, unless `allow_unjoined` and some join: then it is left out.
    """
    missing = [name for name in scores.by if name not in logs[0]]
    if missing:
        raise BadSettings(
            f"the logs have no column {missing[0]}",
            where="--join",
            expected=f"one of {', '.join(logs[0])}",
            fix="put it into --name-pattern, or give it with --set",
        )
    rows: list[Mapping[str, Value | None]] = []
    unjoined: list[str] = []
    used: set[Key] = set()
    for log in logs:
        key = tuple(_key(name, log[name], f"{log['clip']}") for name in scores.by)
        if key in scores.rows:
            used.add(key)
            rows.append(_merged(log, scores.rows[key], scores.path))
        else:
            unjoined.append(str(log["clip"]))
    left = [_named(key) for key in scores.rows if key not in used]
    if (unjoined or left) and not (allow_unjoined and rows):
        sides = [
            f"{len(names)} {side}{'s' if len(names) > 1 else ''} without a {other} "
            f"({listed(names)})"
            for names, side, other in ((unjoined, "log", "score"), (left, "score", "log"))
            if names
        ]
        raise BadInput(
            f"logs and scores do not match: {', '.join(sides)}",
            where=str(scores.path),
            fix="name them alike, or leave these out with --allow-unjoined"
            if rows
            else f"none match: give the columns that name a clip in both with --join, "
            f"not {','.join(scores.by)}",
        )
    return Joined(rows, tuple(unjoined), tuple(left))


def _merged(
    log: Mapping[str, Value | None], score: Mapping[str, Value | None], path: Path
) -> dict[str, Value | None]:
    """Return both, once the columns that are on both sides say the same."""
    for name in score.keys() & log.keys():
        told, known = score[name], log[name]
        if told is not None and _key(name, told, str(path)) != _key(name, known, str(path)):
            raise BadInput(
                f"{name} of {log['clip']} is {told} here and {known} by its log's name",
                where=str(path),
                fix="correct one of them, or drop the column here",
            )
    return {**score, **log}
