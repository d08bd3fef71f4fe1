"""Ensembles that report: predictions of each held-out source by networks that never saw it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loso.errors import Diverged
from loso.recipe import Recipe
from loso.sweep.fits import Found, Job
from loso.sweep.kept import Kept, Predicted

__all__ = ["Ensembles"]


@dataclass(frozen=True)
class Ensembles:
    """What each recipe's seeds predict, as far as it is kept, and what is still to be fitted.

    `names` are all sources, sorted.
    """

    kept: Kept
    seeds: tuple[int, ...]
    names: tuple[str, ...]
    _read: dict[tuple[Recipe, int], Predicted] = field(default_factory=dict)

    def lacking(self, needed: Mapping[Recipe, Iterable[str]]) -> list[Job]:
        """Return the jobs that give what is needed and not there, one for each recipe at most."""
        jobs = []
        for recipe, sources in needed.items():
            lacking = [
                (seed, source)
                for seed in self.seeds
                for source in sources
                if not self._of(recipe, seed).has(source)
            ]
            if lacking:
                places = sorted({self.names.index(source) for _, source in lacking})
                seeds = tuple(seed for seed in self.seeds if seed in {s for s, _ in lacking})
                jobs.append(Job(recipe, seeds, tuple((place,) for place in places)))
        return jobs

    def add(self, recipe: Recipe, found: Found) -> None:
        """Keep what networks without a single source predict; those without two are not kept."""
        for seed, predicted in found.items():
            more = Predicted()
            for left_out, y_pred in predicted.items():
                if len(left_out) > 1:
                    continue
                source = self.names[left_out[0]]
                if isinstance(y_pred, Diverged):
                    more.out[source] = str(y_pred)
                else:
                    more.y_pred[source] = y_pred
            self.kept.keep_predicted(recipe, seed, more)
            self._read.pop((recipe, seed), None)

    def lost(self, recipe: Recipe, source: str) -> str | None:
        """Return why a recipe's ensemble does not predict a source, as far as that is known."""
        reasons = (self._of(recipe, seed).out.get(source) for seed in self.seeds)
        return next((reason for reason in reasons if reason), None)

    def mean(self, recipe: Recipe, source: str) -> NDArray[np.float64]:
        """Return the mean over seeds of what they predict of a source's rows, ascending."""
        members = [self._of(recipe, seed).y_pred[source] for seed in self.seeds]
        mean: NDArray[np.float64] = np.mean(members, axis=0)
        return mean

    def _of(self, recipe: Recipe, seed: int) -> Predicted:
        if (recipe, seed) not in self._read:
            self._read[recipe, seed] = self.kept.predicted(recipe, seed)
        return self._read[recipe, seed]
