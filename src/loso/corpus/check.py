"""What is in a corpus, and what about it deserves a second look before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import polars as pl

from loso.corpus.load import Corpus, require_trainable
from loso.corpus.twins import twin_warnings
from loso.errors import BadCorpus
from loso.recipe import TrainingNeeds
from loso.schema import CANONICAL_6, VMAF_RANGE

__all__ = ["CorpusSummary", "EncoderSummary", "Rise", "SourceSummary", "Spread", "describe_corpus"]

_THIN: Final = 0.5
"""A source with fewer than this share of the median rows weighs as much as any other in the
mean over sources, on less evidence."""

_RISE: Final = 0.5
"""VMAF points a clip may gain from a cheaper setting: encoders are that uneven from one quality
step to the next, and more points to mixed-up labels or another scale of cq."""

_SATURATED: Final = 0.1
"""Share of rows at the top of VMAF's range from which clipping shapes what a model can learn."""

_USUAL: Final = {**dict.fromkeys(CANONICAL_6, (0.0, 1.2)), "motion2": (0.0, float("inf"))}
"""Where features lie: adm2 and vif were seen up to 1.18, above 1 where a distortion sharpens."""


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the largest of some numbers."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class SourceSummary:
    """One source: its rows, its clips (encodes), its encoders and its mean VMAF."""

    source: str
    rows: int
    clips: int
    encoders: tuple[str, ...]
    vmaf_mean: float


@dataclass(frozen=True)
class EncoderSummary:
    """One encoder: its rows, and the presets and qualities that stand in them, sorted."""

    encoder: str
    rows: int
    presets: tuple[str, ...]
    cq: tuple[float, ...]


@dataclass(frozen=True)
class Rise:
    """A step to a cheaper quality on which mean VMAF rose by `vmaf_rise` points."""

    clip: str
    cq_from: float
    cq_to: float
    vmaf_rise: float


@dataclass(frozen=True)
class CorpusSummary:
    """What a corpus holds; `notes` are sentences about what deserves a second look.

    A clip is one encode of one source. Shares are of rows. `rises` are those of `steps`, pairs of
    neighbouring qualities, where the cheaper one scored better. `shortfall` says why the corpus
    cannot be trained on, and is empty where it can.
    """

    path: str
    sha256: str
    rows: int
    clips: int
    identity: tuple[str, ...]
    columns: tuple[str, ...]
    sources: tuple[SourceSummary, ...]
    encoders: tuple[EncoderSummary, ...]
    unknown_encoders: Mapping[str, int]
    rows_per_source: Spread
    frames_per_clip: Spread
    vmaf: Spread
    saturated_share: float
    features: Mapping[str, Spread]
    steps: int
    rises: tuple[Rise, ...]
    thin_sources: tuple[str, ...]
    single_encoder_sources: tuple[str, ...]
    notes: tuple[str, ...]
    trainable: bool
    shortfall: str

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as one JSON object."""
        return asdict(self)


def describe_corpus(corpus: Corpus, needs: TrainingNeeds | None = None) -> CorpusSummary:
    """Return what `corpus` holds, and whether it meets `needs`; nothing in it is refused."""
    rows = corpus.rows
    clips = rows.group_by(name for name in corpus.identity if name != "frame_index").len()
    sources = _describe_sources(rows, clips)
    rows_per_source = _spread(pl.Series([source.rows for source in sources]))
    steps = _quality_steps(corpus)
    rises = _rises(steps)
    shortfall = _shortfall(corpus, needs or TrainingNeeds())
    saturated_share = float((rows["vmaf"] == VMAF_RANGE[1]).sum() / len(corpus))
    features = {name: _spread(rows[name]) for name in CANONICAL_6}
    thin = tuple(s.source for s in sources if s.rows < _THIN * rows_per_source.median)
    encoders = _describe_encoders(rows)
    single = tuple(s.source for s in sources if len(s.encoders) == 1 < len(encoders))
    notes = (
        *corpus.warnings,
        *twin_warnings(rows),
        *_notes_on_sources(thin, single),
        *_notes_on_quality(rises, steps.height),
        *_notes_on_values(features, saturated_share),
    )
    return CorpusSummary(
        path=str(corpus.path),
        sha256=corpus.sha256,
        rows=len(corpus),
        clips=clips.height,
        identity=corpus.identity,
        columns=tuple(rows.columns),
        sources=sources,
        encoders=encoders,
        unknown_encoders=corpus.unknown_encoders,
        rows_per_source=rows_per_source,
        frames_per_clip=_spread(clips["len"]),
        vmaf=_spread(rows["vmaf"]),
        saturated_share=saturated_share,
        features=features,
        steps=steps.height,
        rises=rises,
        thin_sources=thin,
        single_encoder_sources=single,
        notes=notes,
        trainable=not shortfall,
        shortfall=shortfall,
    )


def _spread(values: pl.Series) -> Spread:
    low, middle, high = (values.quantile(q, "linear") for q in (0.0, 0.5, 1.0))
    return Spread(low, middle, high)  # type: ignore[arg-type]  # None where there are no values


def _describe_sources(rows: pl.DataFrame, clips: pl.DataFrame) -> tuple[SourceSummary, ...]:
    of_source = rows.group_by("src").agg(
        pl.len(), pl.col("encoder").unique().sort(), pl.col("vmaf").mean()
    )
    counts = clips.group_by("src").agg(clips=pl.len())
    table = (
        of_source.join(counts, on="src")
        .sort("src")
        .select("src", "len", "clips", "encoder", "vmaf")
    )
    return tuple(
        SourceSummary(source, height, n_clips, tuple(encoders), vmaf)
        for source, height, n_clips, encoders, vmaf in table.iter_rows()
    )


def _describe_encoders(rows: pl.DataFrame) -> tuple[EncoderSummary, ...]:
    preset = (
        pl.col("preset").cast(pl.String) if "preset" in rows.columns else pl.lit(None, pl.String)
    )
    table = rows.group_by("encoder").agg(
        pl.len(), preset.drop_nulls().unique().sort().alias("presets"), pl.col("cq").unique().sort()
    )
    return tuple(
        EncoderSummary(encoder, height, tuple(presets), tuple(cq))
        for encoder, height, presets, cq in table.sort("encoder").iter_rows()
    )


def _quality_steps(corpus: Corpus) -> pl.DataFrame:
    """Return pairs of neighbouring qualities of clips that differ in nothing else we know of.

    `cq` is the cheaper one, `cq_from` the other, `vmaf_rise` what mean VMAF gained.
    """
    conditions = [name for name in ("height", "rate_control") if name in corpus.rows.columns]
    ladder = [name for name in (*corpus.identity, *conditions) if name not in {"cq", "frame_index"}]
    if "clip" in ladder and _clip_names_an_encode(corpus.rows):
        ladder.remove("clip")
    # Bitrates stand as negative numbers: no step leads from there to a quality setting.
    ladder = [*dict.fromkeys(ladder), "is_bitrate"]
    rungs = corpus.rows.with_columns(is_bitrate=pl.col("cq") < 0).group_by(*ladder, "cq")
    return (
        rungs.agg(pl.col("vmaf").mean())
        .sort(*ladder, "cq")
        .with_columns(
            cq_from=pl.col("cq").shift().over(ladder),
            vmaf_rise=pl.col("vmaf").diff().over(ladder),
            ladder=pl.concat_str(
                pl.col(ladder[:-1]).cast(pl.String), separator=" ", ignore_nulls=True
            ),
        )
        .drop_nulls("cq_from")
    )


def _clip_names_an_encode(rows: pl.DataFrame) -> bool:
    """Tell whether each `clip` has one quality: then it names an encode, not a part of a source."""
    return rows.group_by("clip").agg(pl.col("cq").n_unique())["cq"].max() == 1


def _rises(steps: pl.DataFrame) -> tuple[Rise, ...]:
    rising = steps.filter(pl.col("vmaf_rise") > _RISE).sort("vmaf_rise", descending=True)
    columns = rising.select("ladder", "cq_from", "cq", "vmaf_rise")
    return tuple(Rise(*values) for values in columns.iter_rows())


def _notes_on_sources(thin: tuple[str, ...], single: tuple[str, ...]) -> Iterator[str]:
    if thin:
        yield f"sources with fewer than half the rows of the median source: {_names(thin)}"
    if single:
        yield f"sources with one encoder, where others have more: {_names(single)}"


def _notes_on_quality(rises: tuple[Rise, ...], steps: int) -> Iterator[str]:
    if len(rises) > steps / 2:
        yield (
            f"VMAF rises with cq on {len(rises)} of {steps} steps: a larger cq must be cheaper, "
            "turn the scale round"
        )
    elif rises:
        worst = rises[0]
        yield (
            f"VMAF rises by more than {_RISE:g} with a cheaper cq on {len(rises)} of {steps} "
            f"steps, most by {worst.vmaf_rise:.2f}: {worst.clip}, cq {worst.cq_from:g} to "
            f"{worst.cq_to:g}"
        )


def _notes_on_values(features: Mapping[str, Spread], saturated_share: float) -> Iterator[str]:
    if saturated_share > _SATURATED:
        yield f"VMAF stands at its top, where it is clipped, in {saturated_share:.0%} of the rows"
    for name, seen in features.items():
        low, high = _USUAL[name]
        if seen.min < low or seen.max > high:
            yield f"{name} leaves its usual {low:g}..{high:g}: {seen.min:.4g}..{seen.max:.4g}"


def _names(sources: tuple[str, ...], most: int = 5) -> str:
    more = f" and {len(sources) - most} more" if len(sources) > most else ""
    return ", ".join(sources[:most]) + more


def _shortfall(corpus: Corpus, needs: TrainingNeeds) -> str:
    try:
        require_trainable(corpus, needs)
    except BadCorpus as refusal:
        return str(refusal)
    return ""
