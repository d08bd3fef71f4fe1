"""Words about clips become values: sizes, lists of heights, frame rates."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from loso.errors import BadSettings
from loso.spelling import did_you_mean

__all__ = ["rates_of", "size_of", "whole_numbers"]


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the numbers of a comma-separated list; BadSettings on anything else."""
    try:
        return tuple(int(item) for item in text.split(",") if item.strip())
    except ValueError:
        raise BadSettings(
            "not a list of whole numbers",
            where=option,
            expected="such as 720,540",
            found=repr(text),
        ) from None


def size_of(option: str, text: str | None) -> tuple[int, int] | None:
    """Return width and height of `640x360`, None where nothing was given."""
    if text is None:
        return None
    size = re.fullmatch(r"(\d+)x(\d+)", text)
    if size is None:
        raise BadSettings("not a size", where=option, expected="such as 640x360", found=repr(text))
    return int(size[1]), int(size[2])


def rates_of(texts: list[str], clips: list[Path]) -> tuple[Fraction | None, dict[str, Fraction]]:
    """Return the rate for all clips that carry none, and those said for one clip by its stem."""
    for_all, for_one = None, {}
    stems = [clip.stem for clip in clips]
    for text in texts:
        stem, equals, rate = text.rpartition("=")
        if equals and stem not in stems:
            raise BadSettings(
                "names none of the clips",
                where="--fps",
                found=repr(stem),
                fix=did_you_mean(stem, stems) or "give the clip's file name without its ending",
            )
        try:
            value = Fraction(rate)
        except (ValueError, ZeroDivisionError):
            value = Fraction(0)
        if value <= 0:
            raise BadSettings(
                "not a frame rate", where="--fps", expected="such as 25 or 30000/1001", found=text
            )
        if equals:
            for_one[stem] = value
        else:
            for_all = value
    return for_all, for_one
