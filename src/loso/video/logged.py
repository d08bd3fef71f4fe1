"""What libvmaf's logs call the features, from build to build and from tool to tool."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from loso.schema import CANONICAL_6

__all__ = ["logged_names"]

_LONG: Final = re.compile(r"VMAF_(integer_)?feature_(.+)_score")
"""The name inside libvmaf, which its Python tools and features without an alias show."""


def logged_names(logged: Iterable[str]) -> dict[str, str]:
    """Return each feature of a log by its bare name, with the name that it goes by there.

    Where a log has both kinds of a feature, the integer one is taken: it is what VMAF v0.6.1 reads.

    >>> logged_names(["VMAF_score", "adm2", "integer_adm2", "VMAF_feature_motion2_score"])
    {'vmaf': 'VMAF_score', 'adm2': 'integer_adm2', 'motion2': 'VMAF_feature_motion2_score'}
    """
    names: dict[str, str] = {}
    for name in logged:
        bare, is_integer = _bare(name)
        if is_integer or bare not in names:
            names[bare] = name
    return names


def _bare(name: str) -> tuple[str, bool]:
    """Return a logged name without what surrounds it, and whether it is an integer feature's."""
    # Builds before 2.0 quote some names.
    text = name.strip("'")
    if long := _LONG.fullmatch(text):
        return long[2], bool(long[1])
    if text == "VMAF_score":
        return "vmaf", False
    # A score may be called vmaf_4k, after its model: only a known feature loses such a prefix.
    if text.removeprefix("vmaf_") in CANONICAL_6:
        return text.removeprefix("vmaf_"), False
    return text.removeprefix("integer_"), text.startswith("integer_")
