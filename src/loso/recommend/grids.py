"""What a model's own run says of choosing by it: grids of sources that it had not seen.

A corpus holds each source coded at several qualities: a grid. Of each cell the run has the truth,
and what the members made of it that were trained without that source. So for every target it shows
how far above the target the estimate still stands where the truth has just fallen below it; that is
what a choice on this source would have needed as a margin (see `bound`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.calibration import OpenedRun, clip_numbers, open_run
from loso.corpus.load import Corpus
from loso.corpus.view import FILE_SOURCE
from loso.errors import BadEvidence, BadSettings
from loso.files import sha256_of
from loso.intervals import CLIP, LEAST_SOURCES
from loso.metrics.pooling import pool_scores
from loso.model.files import Manifest
from loso.model.grounds import read_promote
from loso.predict import Predictor
from loso.recommend.bound import Bound, fit_bound
from loso.recommend.curve import Curve, falling
from loso.run_folder import VERDICT_FILES

__all__ = ["Grid", "RunGrounds", "grids_of"]

_SAME: Final = ("src", FILE_SOURCE, "encoder", "preset", "height", "rate_control")
"""Columns that are the same in all cells of a source's grid, where a corpus has them."""

_STEPS: Final = 1001
"""Places between the ends of a grid at which its curves are looked at."""

_PURPOSE: Final = "calibrate choices on"
_PROMOTE, _ = VERDICT_FILES


@dataclass(frozen=True, eq=False)
class Grid:
    """One source coded in one way: (settings,) quality, rising, with truth and estimate of each."""

    src: str
    encoder: str
    cq: NDArray[np.float64]
    truth: NDArray[np.float64]
    estimate: NDArray[np.float64]
    file_src: str = ""
    """The source in the corpus's file, where the recipe groups such to sources of its own."""

    def need(self, target: float) -> float | None:
        """Return the margin that a choice on this source needs, None where the grid cannot say.

        It says nothing of a target that none of its settings truly meets, or that all do: where the
        truth crosses that lies beyond it. Between the settings both curves are interpolated as
        falling ones, and the truth's may make good what a setting misses; an estimate of a setting
        that misses counts wherever it stands, as it could be chosen.
        """
        misses = self.truth < target
        if misses.all() or not misses.any():
            return None
        truth, estimate = (self._curve(values) for values in (self.truth, self.estimate))
        places = np.linspace(self.cq[0], self.cq[-1], _STEPS)
        first = places[truth(places) < target][:1]
        return float(max([*estimate(first), self.estimate[misses].max()])) - target

    def _curve(self, values: NDArray[np.float64]) -> Curve:
        return falling(list(zip(self.cq.tolist(), values.tolist(), strict=True)))


def grids_of(opened: OpenedRun, pool: str) -> list[Grid]:
    """Return the grids of a run, of two settings and more; scores of frames pooled by clip."""
    clip = clip_numbers(opened.seen)
    _, first = np.unique(clip, return_index=True)
    both = np.vstack([opened.inputs.target, opened.out_of_fold.mean(axis=0)])
    # Of clips as the unit each row is one, and the mean of one is itself.
    pooled = pool_scores(both, clip)["mean" if opened.recipe.unit == CLIP else pool]
    columns = [name for name in _SAME if name in opened.seen.rows.columns]
    cells = opened.seen.rows.select(*columns, "cq")[first].with_columns(
        truth=pl.Series(pooled[0]), estimate=pl.Series(pooled[1])
    )
    grids = []
    for group in cells.sort(*columns, "cq").partition_by(columns, maintain_order=True):
        own = group.group_by("cq", maintain_order=True).agg(pl.col("truth", "estimate").mean())
        if own.height > 1:
            cq, truth, estimate = (
                own.select("cq", "truth", "estimate").cast(pl.Float64).to_numpy().T
            )
            one = group.row(0, named=True)
            names = one["src"], one["encoder"]
            grids.append(Grid(*names, cq, truth, estimate, one.get(FILE_SOURCE, "")))
    return grids


def _in_common(manifest: Manifest, opened: OpenedRun) -> Iterator[tuple[str, object, object]]:
    """Yield what a model has in common with its own run: its name, as the model and the run say it.

    Other runs on the corpus differ in the verdict, where the model names one, and in what that
    judged.
    """
    yield "the corpus", manifest.corpus_sha256, opened.seen.sha256
    yield "the target", manifest.target, opened.recipe.target
    yield "the inputs", manifest.inputs, opened.recipe.inputs
    if manifest.verdict_sha256 is not None:
        path = opened.evidence.loso_dir / _PROMOTE
        found = sha256_of(path) if path.is_file() else "none"
        yield "the verdict", manifest.verdict_sha256, found
        judged = read_promote(path).evidence.predictions
        for seed, sha256 in opened.evidence.predictions_sha256.items():
            yield f"the table of predictions of seed {seed}", judged.get(seed), sha256


class RunGrounds:
    """The grids behind a model, and the bound that they give for a target."""

    def __init__(self, grids: Sequence[Grid]) -> None:
        self._grids = grids

    @classmethod
    def of(cls, predictor: Predictor, run_dir: Path, corpus: Corpus, pool: str) -> RunGrounds:
        """Return the grounds of a model's own run; BadEvidence where it is another's."""
        seeds = [member.seed for member in predictor.manifest.members]
        opened = open_run(run_dir, corpus, seeds, _PURPOSE)
        for what, of_model, of_run in _in_common(predictor.manifest, opened):
            if of_model != of_run:
                raise BadEvidence(
                    f"is not the run of this model: {what} is another",
                    where=str(run_dir),
                    expected=f"{of_model}",
                    found=f"{of_run}",
                    fix="name the run that the model was exported from, as it was judged then, or "
                    "export the model again from this one",
                )
        grids = grids_of(opened, pool)
        if not grids:
            raise BadEvidence(
                "no source was coded at two qualities: nothing shows how a choice goes",
                where=str(corpus.path),
                fix="leave out --run, or build a corpus with more qualities",
            )
        return cls(grids)

    def bound(
        self, encoder: str, target: float, confidence: float | None, *, without: str = ""
    ) -> Bound:
        """Return how far a promise stays below the model's score; grids of `encoder` count first.

        `without` names the clip in question: where it is one of the run's own sources, that one is
        left out, with all that it is grouped with, as a promise is about clips that are new.
        BadSettings where the others do not support the confidence.
        """
        own = {grid.src for grid in self._grids if without == (grid.file_src or grid.src)}
        others = [grid for grid in self._grids if grid.src not in own]
        of_encoder = [grid for grid in others if grid.encoder == encoder]
        grids = of_encoder or others
        needs: dict[str, list[float]] = {}
        for grid in grids:
            if (need := grid.need(target)) is not None:
                needs.setdefault(grid.src, []).append(need)
        if len(needs) < LEAST_SOURCES:
            raise BadSettings(
                f"too few {'other ' if own else ''}sources of the run were coded to above and "
                f"below {target:g}",
                where="--run",
                expected=f"at least {LEAST_SOURCES}",
                found=f"{len(needs)}",
                fix="leave out --run and --corpus, or choose a target that the corpus spans",
            )
        lacks = f", whose run has no {encoder}{' of another source' if own else ''}"
        by = f"by the model{'' if of_encoder else lacks}"
        return fit_bound(needs, confidence, estimated=f"estimated {by}")
