"""What the seed files say of each held-out source, every seed beside the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loso.metrics.correlation import defined_mean
from loso.report.reading import RunRecords
from loso.seedfile import FoldScore

__all__ = ["SourceScores", "by_source"]


@dataclass(frozen=True)
class SourceScores:
    """The folds of one held-out source, one of each seed."""

    folds: tuple[FoldScore, ...]

    def of_seeds(self, key: str) -> list[float | None]:
        """Return the score `key` (plcc, srocc, rmse) by seed, None where it is undefined."""
        return [getattr(fold, key) for fold in self.folds]

    def mean(self, key: str) -> float | None:
        """Return the mean over seeds of the score `key`."""
        return defined_mean(self.of_seeds(key))

    @property
    def reason(self) -> str:
        """Why a score is undefined, by the first seed that says so; else nothing."""
        return next((fold.reason for fold in self.folds if fold.reason), "")


def by_source(records: RunRecords) -> Mapping[str, SourceScores]:
    """Return the scores of every held-out source, in the order of the folds."""
    folds: dict[str, list[FoldScore]] = {}
    for file in records.seed_files:
        for fold in file.folds:
            folds.setdefault(fold.held_out, []).append(fold)
    return {source: SourceScores(tuple(own)) for source, own in folds.items()}
