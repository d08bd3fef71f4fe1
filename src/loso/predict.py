"""A model folder scores rows: each frame, and each clip's pooled scores, with their intervals.

Folders of the replaced exporter are read too. Nothing of a folder is run that was not checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.errors import BadInput, BadSettings
from loso.intervals import level_key, pools_of
from loso.metrics.pooling import CLIP_POOLS, pool_scores
from loso.model.feed import REMEASURE, Feed, make_feed
from loso.model.files import ENSEMBLE_OUTPUTS, Manifest
from loso.model.opening import GAUSSIAN, OpenModel, open_model
from loso.schema import CANONICAL_6, ENCODER_VOCAB, VMAF_RANGE
from loso.video.clips import ClipSettings
from loso.video.ffmpeg import find_ffmpeg
from loso.video.pair import measure_pair

__all__ = ["MEASURED", "Prediction", "Predictor", "measure_rows", "number_clips"]

MEASURED = (
    *("src", "encoder", "preset", "cq", "clip", "frame_index", *CANONICAL_6),
    *("height", "width", "fps", "bitrate_kbps"),
)
"""The columns that two videos can give."""

_Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Scores of frames and of clips in the target's unit, and what to know about them.

    `frames` has a row for each row that was given, in its order: the columns that name it, `mu
    sigma lower upper`, `outside` (names of the inputs outside the range of training, or null) and
    `unseen_encoder` (null where the folder does not say). `clips` has a row for each clip, in order
    of appearance: what names it, `n_frames n_outside unseen_encoder`, and `mu sigma lower upper` of
    each pool, as `mean_mu` and so on. Bounds are null where the folder has no intervals. Of a model
    that scores clips, not frames, `clips` is the result: what names it, `n_frames` and the columns
    of a frame beside it. `frames` is that same table.
    """

    frames: pl.DataFrame
    clips: pl.DataFrame
    level: float | None
    interval: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model folder, checked and opened."""

    model: OpenModel

    @classmethod
    def load(cls, folder: str | Path, stem: str | None = None) -> Predictor:
        """Return the ensemble in a model folder, that of `stem` where several share it.

        BadInput where the folder is not whole or not safe to open: see `loso.model.opening`.
        """
        return cls(open_model(Path(folder), stem))

    @property
    def manifest(self) -> Manifest:
        """The ensemble's record."""
        return self.model.manifest

    @property
    def training_ranges(self) -> dict[str, tuple[float, float]]:
        """The range in training of each input that has one on record."""
        return {"cq": self.model.cq_range} | (self.manifest.training_ranges or {})

    def interval_of(self, level: float | None = None) -> tuple[float | None, str]:
        """Return the level in force and what its intervals rest on; BadSettings without such."""
        confidence = self.manifest.confidence
        if confidence is None:
            if level is not None:
                raise BadSettings("this model has no intervals", fix="leave out the level")
            return None, "none"
        if level is not None and not 0.0 < level < 1.0:
            raise BadSettings("the level must lie between 0 and 1", found=f"{level:g}")
        chosen = confidence.nominal_coverage if level is None else level
        if confidence.by_pool is None:
            return chosen, GAUSSIAN
        rules = [confidence.by_pool.get(pool) for pool in pools_of(self.model.unit)]
        known = [set(rule.quantiles) if rule else set() for rule in rules]
        if level_key(chosen) not in set.intersection(*known):
            raise BadSettings(
                "this model has no intervals of that level",
                expected=" or ".join(sorted(set.intersection(*known))) or "none",
                found=level_key(chosen),
                fix="calibrate and export it with that level",
            )
        sources = confidence.n_calibration_sources
        return chosen, f"{confidence.method}, supported by {sources} sources"

    def predict(
        self, frame: pl.DataFrame, *, level: float | None = None, key: Sequence[str] = ()
    ) -> Prediction:
        """Return the scores of rows with the columns that the model reads, `encoder` and `cq`.

        `src preset clip frame_index` name a row where they are there, and the columns of `key`.
        BadInput names a row that cannot be scored, BadSettings a level that the model has no
        intervals of.
        """
        self.interval_of(level)  # refused before the work
        return self.score(make_feed(self.model, frame, key), level=level)

    def score(self, feed: Feed, *, level: float | None = None) -> Prediction:
        """Return the scores of what `loso.model.feed.make_feed` made of rows."""
        chosen, interval = self.interval_of(level)
        mu, sigma, scores = self.model.run(feed.matrix)
        lost = np.flatnonzero(~np.isfinite(mu + sigma))
        if len(lost):
            where = f"{'row' if self.model.unit == 'frame' else 'clip'} {lost[0] + 1}"
            raise BadInput("the score is not finite", where=where, fix=REMEASURE)
        row_pool, *clip_pools = pools_of(self.model.unit)
        counted = [] if clip_pools else [feed.rows["n_frames"].cast(pl.Int64)]
        rows = feed.rows[list(feed.names)].hstack(
            [
                *counted,
                *self._bounds(row_pool, mu, sigma, chosen),
                self._outside(feed.values, len(mu)),
                self._unseen(feed.rows),
            ]
        )
        notes = (*self.model.warnings, *feed.warnings, *_about(rows, self.model.unit))
        clips = rows if not clip_pools else self._pooled(feed, rows, mu, scores, chosen)
        return Prediction(rows, clips, chosen, interval, notes)

    def _pooled(
        self, feed: Feed, frames: pl.DataFrame, mu: _Vector, scores: _Vector, level: float | None
    ) -> pl.DataFrame:
        """Return what is known of each clip whose frames were scored one by one."""
        keys = [name for name in feed.names if name != "frame_index"]
        clip = number_clips(frames[keys])
        _, first, count = np.unique(clip, return_index=True, return_counts=True)
        outside = np.bincount(clip, frames["outside"].is_not_null().to_numpy())
        columns = [
            pl.Series("n_frames", count, dtype=pl.Int64),
            pl.Series("n_outside", outside.astype(np.int64)),
            frames["unseen_encoder"][first],
        ]
        pooled = pool_scores(np.vstack([mu, scores]), clip)
        for pool in CLIP_POOLS:
            of_mu, of_members = pooled[pool][0], pooled[pool][1:]
            sigma = of_members.std(axis=0, ddof=1)
            columns += self._bounds(pool, of_mu, sigma, level, prefix=f"{pool}_")
        return frames[keys][first].hstack(columns)

    def _bounds(
        self, pool: str, mu: _Vector, sigma: _Vector, level: float | None, prefix: str = ""
    ) -> list[pl.Series]:
        confidence = self.manifest.confidence
        low = high = np.full(len(mu), np.nan)
        if confidence is not None and level is not None:
            if confidence.by_pool is not None:
                half = confidence.by_pool[pool].half_width(sigma, level)
            else:
                z = confidence.gaussian_z if level == confidence.nominal_coverage else None
                half = sigma * (z or NormalDist().inv_cdf((1.0 + level) / 2.0))
            limits = self._target_range() or (-np.inf, np.inf)
            low, high = np.clip(mu - half, *limits), np.clip(mu + half, *limits)
        values = zip(ENSEMBLE_OUTPUTS, (mu, sigma, low, high), strict=True)
        return [pl.Series(prefix + name, column, nan_to_null=True) for name, column in values]

    def _target_range(self) -> tuple[float, float] | None:
        if self.manifest.target_range is None and self.manifest.target == "vmaf":
            return VMAF_RANGE
        return self.manifest.target_range

    def _outside(self, values: Mapping[str, _Vector], n_rows: int) -> pl.Series:
        """Return for each row the names of the inputs outside their range in training."""
        names: dict[int, list[str]] = {}
        ranges = self.training_ranges
        for name in (name for name in values if name in ranges):
            low, high = ranges[name]
            for row in np.flatnonzero((values[name] < low) | (values[name] > high)).tolist():
                names.setdefault(row, []).append(name)
        listed = [", ".join(names[row]) if row in names else None for row in range(n_rows)]
        return pl.Series("outside", listed, dtype=pl.String)

    def _unseen(self, rows: pl.DataFrame) -> pl.Series:
        seen = self.manifest.encoders_seen
        if seen is None:
            return pl.Series("unseen_encoder", [None] * rows.height, dtype=pl.Boolean)
        known = {name: name not in seen for name in rows["encoder"].unique()}
        return pl.Series("unseen_encoder", [known[name] for name in rows["encoder"]])


def measure_rows(
    reference: Path,
    distorted: Path,
    *,
    encoder: str,
    cq: float,
    preset: str | None = None,
    raw_size: tuple[int, int] | None = None,
    raw_pixel_format: str = "yuv420p",
    ffmpeg: str = "",
    given: Mapping[str, float | str] | None = None,
) -> pl.DataFrame:
    """Return a row for each frame of a distorted video, measured against its reference.

    Beside the features stand `height width fps bitrate_kbps` of the distorted video, as far as it
    tells them: raw YUV has no bitrate, and like a stream without a container no rate. `given` are
    columns to take instead, such as `fps`. `raw_size` and `raw_pixel_format` are those of `.yuv`
    files. BadClip where a video cannot be decoded and where the two differ in frames, MissingTool
    without an ffmpeg that has libvmaf.
    """
    given = given or {}
    settings = ClipSettings(raw_size=raw_size, raw_pixel_format=raw_pixel_format)
    pair = measure_pair(reference, distorted, find_ffmpeg(ffmpeg), settings=settings)
    coding: dict[str, float | str] = {"height": pair.height, "width": pair.width}
    fps = given.get("fps", pair.fps)
    if isinstance(fps, int | float):
        coding["fps"] = fps
        if pair.coded_bytes is not None:
            coding["bitrate_kbps"] = pair.coded_bytes * 8 * fps / pair.frames / 1000
    coding |= given
    rows = pl.DataFrame(pair.features).select(
        pl.lit(reference.stem).alias("src"),
        pl.lit(encoder).alias("encoder"),
        pl.lit(preset, dtype=pl.String).alias("preset"),
        pl.lit(float(cq)).alias("cq"),
        pl.lit(distorted.stem).alias("clip"),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("frame_index"),
        *CANONICAL_6,
    )
    return rows.with_columns(pl.lit(value).alias(name) for name, value in coding.items())


def number_clips(keys: pl.DataFrame) -> NDArray[np.intp]:
    """Return the number of each row's clip; clips count in order of appearance."""
    clip = np.zeros(keys.height, dtype=np.intp)
    if keys.height > 1:
        groups = keys.with_row_index("row number").group_by(keys.columns, maintain_order=True)
        of_clip = groups.agg("row number")["row number"]
        clip[of_clip.explode().to_numpy()] = np.repeat(np.arange(len(of_clip)), of_clip.list.len())
    return clip


def _about(rows: pl.DataFrame, unit: str) -> Iterator[str]:
    """Yield what people should know about rows, or clips, that were scored."""
    kind = "rows" if unit == "frame" else "clips"
    outside = rows["outside"].drop_nulls()
    if not outside.is_empty():
        counts = outside.str.split(", ").explode().value_counts(sort=True).iter_rows()
        yield (
            f"{len(outside)} of {rows.height} {kind} lie outside the range of training, where "
            "scores and intervals have no support: "
            + ", ".join(f"{name} {n}" for name, n in counts)
        )
    if rows["unseen_encoder"].any():
        unseen = rows.filter("unseen_encoder", pl.col("encoder").is_in(ENCODER_VOCAB))
        counts = unseen.group_by("encoder").len().sort("encoder").iter_rows()
        listed = ", ".join(f"{name} {n}" for name, n in counts)
        yield f"encoders without a row in training; {kind} of each: {listed}"
