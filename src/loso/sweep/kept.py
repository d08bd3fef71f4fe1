"""What is kept of a sweep so far, so that one that was killed goes on without repeating."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from loso.files import read_hashed, write_hashed
from loso.recipe import Recipe
from loso.sweep.scores import RecipeScores

__all__ = ["Kept", "Predicted"]

_FLOATS: Final = "<f8"

_OTHERWISE: Final = (ValueError, LookupError, TypeError, AttributeError)
"""What reading JSON of another shape may raise."""


@dataclass
class Predicted:
    """By held-out source: predictions of its rows by the network without it, or why none."""

    y_pred: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)

    def has(self, source: str) -> bool:
        """Tell whether there is an answer for that source, of either kind."""
        return source in self.y_pred or source in self.out


@dataclass(frozen=True)
class Kept:
    """A folder with one file for each recipe's scores, and one for each of its seeds' predictions.

    `making` gives all that decides them for a recipe (corpus, recipe, engine, versions); a file is
    named by a hash of that and of its seed, so what was made otherwise is not found. A file has two
    lines: the sha256 of the second, and a JSON object. What does not match its hash or its name
    counts as not there.
    """

    folder: Path
    making: Callable[[Recipe], Mapping[str, Any]]

    def scores(self, recipe: Recipe, seed: int, judged: Sequence[str]) -> RecipeScores | None:
        """Return a recipe's scores by one seed, for that choice of judged sources, or None."""
        content = self._load(self._name(recipe, seed, judged))
        try:
            return None if content is None else RecipeScores.model_validate(content)
        except ValidationError:
            return None

    def keep_scores(
        self, recipe: Recipe, seed: int, judged: Sequence[str], scores: RecipeScores
    ) -> None:
        """Write a recipe's scores."""
        self._save(self._name(recipe, seed, judged), scores.model_dump(mode="json"))

    def predicted(self, recipe: Recipe, seed: int) -> Predicted:
        """Return what is there of one seed's predictions of held-out sources."""
        content = self._load(self._name(recipe, seed))
        if content is None:
            return Predicted()
        try:
            return Predicted(
                y_pred={
                    source: np.frombuffer(base64.b64decode(text), _FLOATS).astype(np.float64)
                    for source, text in content["y_pred"].items()
                },
                out=dict(content["out"]),
            )
        except _OTHERWISE:
            return Predicted()

    def keep_predicted(self, recipe: Recipe, seed: int, more: Predicted) -> None:
        """Write one seed's predictions, beside those of other sources that are there."""
        there = self.predicted(recipe, seed)
        content = {
            "y_pred": {
                source: base64.b64encode(values.astype(_FLOATS).tobytes()).decode()
                for source, values in (there.y_pred | more.y_pred).items()
            },
            "out": there.out | more.out,
        }
        self._save(self._name(recipe, seed), content)

    def _name(self, recipe: Recipe, seed: int, judged: Sequence[str] = ()) -> str:
        made_of = {"making": self.making(recipe), "seed": seed, "judged": list(judged)}
        text = json.dumps(made_of, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _load(self, name: str) -> dict[str, Any] | None:
        content = read_hashed(self.folder / f"{name}.kept")
        try:
            kept: dict[str, Any] | None = content["content"] if content["name"] == name else None
        except _OTHERWISE:
            return None
        return kept

    def _save(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps({"name": name, "content": content}, sort_keys=True, allow_nan=False)
        write_hashed(self.folder / f"{name}.kept", text)
