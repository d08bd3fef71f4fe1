"""A log of libvmaf becomes columns: JSON, CSV or XML, told apart by content, packed or not."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat  # document types, and so entities, are refused below

from loso.errors import BadInput
from loso.files import open_regular
from loso.schema import CANONICAL_6
from loso.stored import unpack
from loso.video.logged import logged_names

__all__ = ["Log", "read_log"]

_NEEDED: Final = ("vmaf", *CANONICAL_6)
_AGAIN: Final = "copy or make the log again"
_FREE_UNPACKED: Final = 2**28
"""A quarter of a million frames with everything that libvmaf knows."""
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class Log:
    """What one log holds, frame by frame from frame 0."""

    path: Path
    kind: str
    """json, csv or xml."""
    libvmaf: str | None
    """Version that wrote the log; CSV does not say."""
    names: Mapping[str, str]
    """Each feature by its bare name, with the name it goes by in the log."""
    columns: Mapping[str, Sequence[float | None]]
    """Each feature, by its bare name; None where one beside the needed seven has no number."""
    left_out: tuple[str, ...]
    """Logged names of a feature that the log holds in another kind as well."""

    @property
    def frames(self) -> int:
        """How many frames were scored."""
        return len(self.columns["vmaf"])


@dataclass(frozen=True)
class _Table:
    """Numbers of frames, and what was logged of each, as it stands in the file."""

    kind: str
    libvmaf: str | None
    numbers: list[float]
    metrics: list[dict[str, float]]


def read_log(path: Path) -> Log:
    """Return what a log of libvmaf says of each frame; memory grows with the log's size.

    BadInput where the file is no such log or not a whole one, where its frames do not count up
    from 0, and where VMAF or one of the canonical six is not there or not finite.
    """
    where = str(path)
    table = _parse(_read_bytes(path), where)
    if not table.metrics:
        raise BadInput("the log holds no frames", where=where, fix=_AGAIN)
    _refuse_gaps(table.numbers, where)
    logged = list(dict.fromkeys(name for frame in table.metrics for name in frame))
    names = logged_names(logged)
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise BadInput(
            f"the log was made without {', '.join(missing)}",
            where=where,
            found=", ".join(logged[:40]) or "no features",
            fix="measure again with a model of VMAF v0.6.1, and feature=name=adm|name=vif|"
            "name=motion",
        )
    columns = {
        bare: [_finite(frame.get(name)) for frame in table.metrics] for bare, name in names.items()
    }
    for bare in _NEEDED:
        if None in columns[bare]:
            frame = columns[bare].index(None)
            raise BadInput(
                f"frame {frame} has no {bare}",
                where=where,
                expected="a finite number",
                found=str(table.metrics[frame].get(names[bare], "nothing")),
                fix="measure again, or leave the log out",
            )
    return Log(
        path=path,
        kind=table.kind,
        libvmaf=table.libvmaf,
        names=names,
        columns=columns,
        left_out=tuple(name for name in logged if name not in names.values()),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _refuse_gaps(numbers: Sequence[float], where: str) -> None:
    for at, number in enumerate(numbers):
        if number != at:
            raise BadInput(
                f"frame {number:g} is there twice"
                if number in numbers[:at]
                else "the numbers of its frames do not count up from 0",
                where=where,
                expected=f"frame {at}",
                found=f"frame {number:g}",
                fix="measure every frame once, without n_subsample",
            )


def _read_bytes(path: Path) -> bytes:
    where = str(path)
    try:
        with open_regular(path) as stream:
            content = stream.read()
    except FileNotFoundError:
        raise BadInput("file not found", where=where) from None
    except IsADirectoryError:
        raise BadInput("a folder, not a log", where=where, fix="name the logs inside it") from None
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENXIO}:  # ENXIO is what a socket gives
            raise BadInput("a pipe or a device, not a log", where=where) from None
        raise BadInput(f"cannot be read ({error.strerror})", where=where) from None
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return unpack(content, free_bytes=_FREE_UNPACKED)
    except ValueError as error:
        raise BadInput(str(error), where=where, fix=_AGAIN) from None


def _parse(content: bytes, where: str) -> _Table:
    start = content.removeprefix(_BOM).lstrip()
    if start.startswith(b"{"):
        return _parse_json(content, where)
    if start.startswith(b"<"):
        return _parse_xml(content, where)
    if start.startswith(b"Frame,"):
        return _parse_csv(start, where)
    raise BadInput(
        "not a log of libvmaf" if start else "the file is empty",
        where=where,
        expected='JSON ({"version": ...), XML (<VMAF ...>) or CSV (Frame,...)',
        found=repr(start[:40].decode(errors="replace")) if start else "",
        fix=_AGAIN,
    )


def _parse_json(content: bytes, where: str) -> _Table:
    try:
        log: Any = json.loads(content.removeprefix(_BOM))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not a whole JSON file ({error})", where=where, fix=_AGAIN) from None
    try:
        # Netflix's Python tools put what they measured beside the number of a frame.
        frames = [frame.get("metrics", frame) for frame in log["frames"]]
        numbers = [_number(frame["frameNum"]) for frame in log["frames"]]
        metrics = [
            {k: math.nan if v is None else _number(v) for k, v in frame.items() if k != "frameNum"}
            for frame in frames
        ]
        for name in {name for frame in metrics for name in frame}:
            name.encode()  # half a character (a lone surrogate) cannot name a column
    except (LookupError, TypeError, AttributeError, OverflowError, UnicodeEncodeError):
        raise BadInput(
            "its frames cannot be read",
            where=where,
            expected='{"frames": [{"frameNum": 0, "metrics": {"vmaf": ...}}, ...]}',
            fix="give logs of libvmaf: log_fmt=json, csv or xml",
        ) from None
    version = log.get("version")
    return _Table("json", None if version is None else str(version), numbers, metrics)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return float(value)


def _parse_csv(content: bytes, where: str) -> _Table:
    if not content.endswith(b"\n"):
        raise BadInput("cut off: the last line has no end", where=where, fix=_AGAIN)
    header, *lines = content.decode(errors="replace").splitlines()
    cells = header.split(",")
    # libvmaf ends every line with a comma.
    names = [name for name in cells[1:] if name]
    if len(names) < len(cells) - 2 or len(set(names)) < len(names):
        raise BadInput("cannot read its header", where=where, found=header[:200], fix=_AGAIN)
    numbers, metrics = [], []
    for at, line in enumerate(lines, start=2):
        values = line.split(",")
        if len(values) != len(cells):
            # libvmaf leaves out what it did not measure, and the values after it move up.
            raise BadInput(
                "a line that does not fill the columns, or is cut off",
                where=f"{where} line {at}",
                expected=f"{len(cells)} cells",
                found=str(len(values)),
                fix=f"{_AGAIN}, as JSON or XML",
            )
        try:
            number, *rest = (float(value) for value in values[: len(names) + 1])
        except ValueError as error:
            raise BadInput(
                f"not a number ({error})", where=f"{where} line {at}", fix=_AGAIN
            ) from None
        numbers.append(number)
        metrics.append(dict(zip(names, rest, strict=True)))
    return _Table("csv", None, numbers, metrics)


def _parse_xml(content: bytes, where: str) -> _Table:
    """Read `<frame frameNum="0" vmaf="90.1" .../>` elements as they come; no tree is kept."""
    table = _Table("xml", None, [], [])
    version: list[str] = []
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "VMAF":
            version.append(attributes.get("version", ""))
        if tag == "frame":
            table.numbers.append(float(attributes.pop("frameNum")))
            table.metrics.append({name: float(text) for name, text in attributes.items()})

    def declared(*_: object) -> None:
        # An entity can stand for gigabytes or for another file, and a log needs none.
        raise BadInput("an XML log that declares a document type", where=where, fix=_AGAIN)

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = declared
    try:
        parser.Parse(content, True)  # noqa: FBT003  # expat takes it by place
    except expat.ExpatError as error:
        raise BadInput(f"not a whole XML file ({error})", where=where, fix=_AGAIN) from None
    except (LookupError, ValueError) as error:
        raise BadInput(
            f"a frame that cannot be read ({error!r})",
            where=f"{where} line {parser.CurrentLineNumber}",
            expected='<frame frameNum="0" vmaf="90.1" .../>',
            fix=_AGAIN,
        ) from None
    return _Table("xml", "".join(version) or None, table.numbers, table.metrics)
