"""A table of scores meets the logs: one score a clip, and nothing left over in silence."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from loso.corpus.names import NUMBERS, Value, known_encoder, listed
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
    """Return the scores in a .parquet file, or in a text table: commas, semicolons or tabs.

    BadInput where a column is missing or is one that libvmaf measures, where `mos` has no finite
    number or one outside `scale`, and where a clip has two scores.
    """
    table = _read_table(path, texts=(*_TEXTS, *by))
    where = str(path)
    for name in (*by, SCORE):
        if name not in table.columns:
            lower = {column.lower(): column for column in table.columns}
            near = difflib.get_close_matches(name, lower, n=1)
            raise BadInput(
                f"there is no column {name}",
                where=where,
                found=listed(table.columns),
                fix=f"rename {lower[near[0]]} to {name}" if near else "rename the column",
            )
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


def _read_table(path: Path, *, texts: Sequence[str]) -> pl.DataFrame:
    where = str(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput("file not found", where=where) from None
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=where) from None
    try:
        if content.startswith(b"PAR1"):
            table = pl.read_parquet(content)
        else:
            header = content.partition(b"\n")[0].decode(errors="replace")
            table = pl.read_csv(
                content, separator=max(",;\t", key=header.count), infer_schema=False
            )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(
            f"not a table ({reason})",
            where=where,
            expected="a line of column names and a row for each clip, or Parquet",
        ) from None
    if table.is_empty():
        raise BadInput("holds no scores", where=where)
    # polars numbers a column that comes again: mos_duplicated_0.
    names = [re.sub(r"_duplicated_[0-9]+$", "", name).strip() for name in table.columns]
    wrong = [name for name in names if not name or names.count(name) > 1]
    if wrong:
        raise BadInput(
            f"two columns are named {wrong[0]}" if wrong[0] else "a column without a name",
            where=where,
            found=listed(names),
            fix="rename it or drop it",
        )
    table.columns = names
    nested = [name for name, kind in table.schema.items() if kind.is_nested()]
    if nested:
        raise BadInput(f"{nested[0]} is a list or an object", where=where, fix="drop the column")
    return table.select(_typed(column, as_text=column.name in texts) for column in table)


def _typed(column: pl.Series, *, as_text: bool) -> pl.Series:
    """Return a column of numbers where every cell is one, of text otherwise; empty is null."""
    if column.dtype.is_integer():
        return column.cast(pl.Int64)
    if column.dtype.is_float():
        return column.cast(pl.Float64).fill_nan(None)
    text = column.cast(pl.String).str.strip_chars().replace("", None)
    if as_text:
        return text
    for kind in (pl.Int64, pl.Float64):
        numbers = text.cast(kind, strict=False)
        if numbers.null_count() == text.null_count() and numbers.is_finite().all():
            return numbers
    return text


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
