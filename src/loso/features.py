"""Which columns of a corpus a network reads: a feature set, and conditions beside it.

A feature set is data, not code: libvmaf renames and adds features, and a model must say by name
what it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loso.errors import BadCorpus, BadInput, BadSettings
from loso.files import read_json
from loso.records import OneFault
from loso.schema import CANONICAL, FeatureSet
from loso.spelling import did_you_mean

__all__ = ["Condition", "column_values", "load_feature_set"]


class _FeatureFile(OneFault, BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    features: Annotated[list[str | dict[str, str]], Field(min_length=1, max_length=1024)]


def load_feature_set(name: str) -> FeatureSet:
    """Return the feature set of that name, or that of the JSON file of that name.

    Such a file reads `{"name": "vmaf-v1", "features": ["adm3", {"motion": "motion3_v2"}]}`: a
    feature is the column of its name, or of the name given to it. BadInput on anything else.

    >>> load_feature_set("canonical6").features[:2]
    ('adm2', 'vif_scale0')
    """
    if name == CANONICAL.name:
        return CANONICAL
    path = Path(name)
    if path.suffix != ".json":
        raise BadSettings(
            "no such feature set",
            expected=f"{CANONICAL.name} or a .json file",
            found=name,
            fix=did_you_mean(name, [CANONICAL.name]),
        )
    try:
        content = _FeatureFile.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadInput(
            f"{'.'.join(map(str, first['loc'])) or 'the file'} cannot be used: {first['msg']}",
            where=str(path),
            expected='{"name": "...", "features": ["column", {"feature": "column"}]}',
        ) from None
    pairs = [
        pair
        for feature in content.features
        for pair in ([(feature, feature)] if isinstance(feature, str) else feature.items())
    ]
    if not pairs:
        raise BadInput("names no features", where=str(path), expected='"column" in its list')
    features, columns = (tuple(part) for part in zip(*pairs, strict=True))
    twice = sorted({f for f in features if features.count(f) > 1})
    if twice:
        raise BadInput(f"feature {twice[0]} stands there twice", where=str(path))
    return FeatureSet(content.name, features, columns)


@dataclass(frozen=True)
class Condition:
    """A column that goes into the network beside the codec block, as it is or as its log2."""

    column: str
    log2: bool = False

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Return the condition that `COL` or `log2:COL` names; BadSettings on anything else.

        >>> Condition.parse("log2:bitrate_kbps")
        Condition(column='bitrate_kbps', log2=True)
        """
        transform, _, column = text.rpartition(":")
        if transform not in {"", "log2"} or not column:
            raise BadSettings("no such condition", expected="COL or log2:COL", found=repr(text))
        return cls(column, log2=bool(transform))

    @property
    def name(self) -> str:
        """What files call it."""
        return f"log2:{self.column}" if self.log2 else self.column

    def values(self, rows: pl.DataFrame, where: str) -> NDArray[np.float64]:
        """Return the condition of every row; BadCorpus where one has none."""
        values = column_values(rows, self.column, where)
        if not self.log2:
            return values
        least = float(values.min()) if len(values) else math.inf
        if least <= 0:
            raise BadCorpus(
                f"log2 of {self.column} needs numbers above 0", where=where, found=f"{least:g}"
            )
        return np.log2(values)


def column_values(rows: pl.DataFrame, name: str, where: str) -> NDArray[np.float64]:
    """Return a column as float64; BadCorpus unless it is there, whole, and finite numbers."""
    if name not in rows.columns:
        raise BadCorpus(
            f"no column {name}",
            where=where,
            found=_listed(rows.columns),
            fix=did_you_mean(name, rows.columns) or "add it to the corpus, or leave it out",
        )
    column = rows[name]
    if not column.dtype.is_numeric():
        raise BadCorpus(f"{name} is not a number", where=where, found=str(column.dtype))
    values = column.cast(pl.Float64)
    bad = values.is_null() | ~values.is_finite()
    if bad.any():
        at = bad.arg_max() or 0
        raise BadCorpus(
            f"{name} has no finite value in {bad.sum()} of {rows.height} rows",
            where=where,
            found=f"{column[at]} for source {rows['src'][at]}",
            fix="measure them, or drop those rows",
        )
    return values.to_numpy()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:40])
