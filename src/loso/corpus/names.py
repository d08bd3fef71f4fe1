"""What the name of a file says: a pattern with fields in braces, read back into columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Self

from loso.errors import BadInput, BadSettings
from loso.schema import ENCODER_VOCAB, REQUIRED_NUMBERS
from loso.video.allowed import has_control
from loso.video.encoders import ENCODERS

__all__ = [
    "NUMBERS",
    "NamePattern",
    "Value",
    "by_clip",
    "known_encoder",
    "listed",
    "read_names",
    "read_setting",
]

NUMBERS: Final = ("cq", "bitrate_kbps", "height", "width", "fps", "enc_bytes", "enc_time_ms")
"""Columns that are numbers, whether a name or `--set` fills them; every other one is text."""

_MEASURED: Final = ("clip", *(name for name in REQUIRED_NUMBERS if name != "cq"))
"""Columns that come from the log and the name of its file as a whole."""

_ALIASES: Final = {
    **dict.fromkeys(("h264", "h.264", "avc", "avc1", "x264"), "libx264"),
    **dict.fromkeys(("h265", "h.265", "hevc", "x265"), "libx265"),
    **dict.fromkeys(("av1", "svtav1", "svt-av1"), "libsvtav1"),
    **dict.fromkeys(("vvc", "h266", "h.266", "vvenc"), "libvvenc"),
    **dict.fromkeys(("vp9", "libvpx", "vpx-vp9"), "libvpx-vp9"),
}
"""What people call the software encoder of a format; loso's own files never say so."""

_NUMBER: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
_COLUMN: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)

_MOST_READINGS: Final = 2**12
"""Of one name: 250 underscores can be read in billions of ways."""

Value = str | int | float


def known_encoder(name: str) -> str | None:
    """Return the encoder of ffmpeg that `name` means, None where it is not known.

    >>> known_encoder("x265"), known_encoder("av1_nvenc"), known_encoder("theora")
    ('libx265', 'av1_nvenc', None)
    """
    if name in ENCODERS or name in ENCODER_VOCAB:
        return name
    return _ALIASES.get(name.lower())


def listed(names: Sequence[str], most: int = 20) -> str:
    """Return `names` as a sentence lists them, the first `most` in full.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_setting(text: str) -> tuple[str, Value]:
    """Return the column and the value of `COL=VALUE`; BadSettings on anything else."""
    column, equals, value = text.partition("=")
    _check_column(column if equals and value else "", where="--set", found=text)
    if column not in NUMBERS:
        return column, value
    if not _NUMBER.fullmatch(value):
        raise BadSettings(f"{column} is a number", where="--set", found=repr(text))
    return column, _number(value)


def _check_column(column: str, *, where: str, found: str) -> None:
    if not _COLUMN.fullmatch(column):
        raise BadSettings(
            "names no column",
            where=where,
            expected="letters, digits and _, such as height"
            + ("=720" if where == "--set" else " in {height}"),
            found=repr(found),
        )
    if column in _MEASURED:
        raise BadSettings(
            f"{column} comes from the log itself",
            where=where,
            found=repr(found),
            fix="leave it out",
        )


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value == int(value) else value


@dataclass(frozen=True)
class NamePattern:
    """Literals and fields by turns, a literal at both ends: `literals[0]`, `fields[0]`, ..."""

    text: str
    literals: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the pattern in `text`; BadSettings where it is not one or cannot be told apart.

        Before `kbps` a quality is a bitrate: there `{cq}` is read as `{bitrate_kbps}`.

        >>> NamePattern.parse("{src}_{cq}kbps").fields
        ('src', 'bitrate_kbps')
        """
        where = "--name-pattern"
        parts = re.split(r"\{([^{}]*)\}", text)
        literals, fields = parts[::2], parts[1::2]
        if any(mark in literal for literal in literals for mark in "{}"):
            raise BadSettings(
                "a brace without its partner", where=where, expected="{column}", found=repr(text)
            )
        for at, name in enumerate(fields):
            _check_column(name, where=where, found=text)
            if name == "cq" and literals[at + 1].lower().startswith("kbps"):
                fields[at] = "bitrate_kbps"
        twice = [name for name in fields if fields.count(name) > 1]
        if twice:
            raise BadSettings(f"{twice[0]} stands there twice", where=where, found=repr(text))
        for at, literal in enumerate(literals[1:-1]):
            if not literal:
                raise BadSettings(
                    f"nothing tells where {fields[at]} ends and {fields[at + 1]} begins",
                    where=where,
                    found=repr(text),
                    fix=f"put text between them, such as {{{fields[at]}}}_{{{fields[at + 1]}}}",
                )
        return cls(text, tuple(literals), tuple(fields))

    def read(self, stem: str) -> dict[str, Value] | None:
        """Return the columns in a file's stem, None where it does not match.

        Numbers are digits with or without a decimal point; a text is at least one character.
        Where a stem can be read in several ways, those with a known encoder count; BadInput where
        that leaves several.

        >>> NamePattern.parse("{src}_{encoder}_crf{cq}").read("a_b_h264_nvenc_crf23")
        {'src': 'a_b', 'encoder': 'h264_nvenc', 'cq': 23}
        """
        if not stem.startswith(self.literals[0]):
            return None
        rest, dead = stem[len(self.literals[0]) :], set[tuple[int, int]]()
        readings = list(islice(self._readings(0, rest, dead), _MOST_READINGS + 1))
        if len(readings) > _MOST_READINGS:
            raise BadInput(
                f"its name can be read in more than {_MOST_READINGS} ways",
                where=stem,
                expected=self.text,
                fix="rename the logs, or give what the pattern cannot tell with --set",
            )
        known = [r for r in readings if known_encoder(r.get("encoder", ""))]
        readings = known or readings
        if len(readings) > 1:
            one, other = (
                ", ".join(f"{name} {value}" for name, value in reading.items())
                for reading in readings[:2]
            )
            raise BadInput(
                f"its name can be read as {one}, and as {other}",
                where=stem,
                expected=self.text,
                fix="rename the logs, or give what the pattern cannot tell with --set",
            )
        if not readings:
            return None
        return {
            name: _number(text) if name in NUMBERS else text for name, text in readings[0].items()
        }

    def _readings(
        self, at: int, rest: str, dead: set[tuple[int, int]]
    ) -> Iterator[Mapping[str, str]]:
        """Yield every way in which the fields from `at` on fill `rest`.

        `dead` keeps which fields cannot fill how much of the end, so that none is tried twice.
        """
        if (at, len(rest)) in dead:
            return
        if at == len(self.fields):
            if not rest:
                yield {}
            return
        name, literal, is_dead = self.fields[at], self.literals[at + 1], True
        is_last = at + 1 == len(self.fields)
        ends = [len(rest) - len(literal)] if is_last else range(1, len(rest) - len(literal) + 1)
        for end in ends:
            value = rest[:end] if end > 0 else ""
            if not value or not rest.startswith(literal, end):
                continue
            if name in NUMBERS and not _NUMBER.fullmatch(value):
                continue
            for others in self._readings(at + 1, rest[end + len(literal) :], dead):
                is_dead = False
                yield {name: value, **others}
        if is_dead:
            dead.add((at, len(rest)))


def by_clip(paths: Sequence[Path]) -> dict[str, Path]:
    """Return each log by its clip, sorted: the file's name without its ending and `.gz`."""
    found: dict[str, Path] = {}
    for path in paths:
        clip = Path(path.name.removesuffix(".gz")).stem
        try:
            clip.encode()
        except UnicodeEncodeError:
            raise BadInput(
                "its name is not UTF-8", where=repr(str(path)), fix="rename the log"
            ) from None
        if has_control(path.name):
            raise BadInput(
                "its name holds a line end or another control character",
                where=repr(str(path)),
                fix="rename the log",
            )
        if clip in found:
            raise BadInput(
                f"two logs are named {clip}, and the name is the clip",
                where=f"{found[clip]} and {path}",
                fix="give one of them, or rename one",
            )
        found[clip] = path
    return dict(sorted(found.items()))


def read_names(
    clips: Iterable[str], pattern: NamePattern, given: Mapping[str, Value]
) -> tuple[list[dict[str, Value]], dict[str, str]]:
    """Return the columns that name each clip, and `old -> new` of clips whose encoder was renamed.

    The columns are `clip`, those of the pattern, those `given`; `cq` is the negative of
    `bitrate_kbps` where nothing else says it, and `rate_control` says which of the two it is.
    BadInput lists the clips that the pattern does not fit, and names two that come out alike.
    """
    where = "--name-pattern"
    both = [name for name in pattern.fields if name in given]
    if both:
        raise BadSettings(
            f"{both[0]} is in the name and given with --set", where=where, found=pattern.text
        )
    columns = {*pattern.fields, *given}
    if "bitrate_kbps" in columns:
        columns.add("cq")
    missing = [name for name in ("src", "encoder", "cq") if name not in columns]
    if missing:
        raise BadSettings(
            f"nothing says the {', '.join(missing)} of a log",
            where=where,
            found=repr(pattern.text),
            fix=f"put {{{missing[0]}}} into the pattern, or give --set {missing[0]}=VALUE",
        )
    read = {clip: pattern.read(clip) for clip in clips}
    strange = [clip for clip, columns in read.items() if columns is None]
    if strange:
        raise BadInput(
            f"{len(strange)} of {len(read)} logs are not named by the pattern",
            expected=pattern.text,
            found=listed(strange),
            fix="rename these, or correct --name-pattern",
        )
    aliases: dict[str, str] = {}
    named: list[dict[str, Value]] = []
    seen: dict[frozenset[tuple[str, Value]], str] = {}
    for clip, columns_read in read.items():
        row = {**given, **(columns_read or {})}
        called = str(row["encoder"])
        row["encoder"] = known_encoder(called) or called
        if row["encoder"] != called:
            aliases[clip] = f"{called} -> {row['encoder']}"
        is_bitrate = "cq" not in row
        if is_bitrate:
            row["cq"] = -row["bitrate_kbps"]  # type: ignore[operator]  # a number by its name
        row.setdefault("rate_control", "bitrate" if is_bitrate else "quality")
        twin = seen.setdefault(frozenset(row.items()), clip)
        if twin != clip:
            raise BadInput(
                f"logs {twin} and {clip} say that they are of the same encode",
                found=", ".join(f"{name} {value}" for name, value in row.items()),
                fix="give one of them",
            )
        named.append({"clip": clip, **row})
    return named, aliases
