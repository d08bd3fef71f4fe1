"""A model's card: what it is, for what, how it was measured, and what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loso.gate import mean_per_fold
from loso.intervals import IntervalsFile, level_key
from loso.model.files import Manifest
from loso.model.grounds import Grounds
from loso.schema import encoder_index

__all__ = ["TrainingSet", "model_card"]


@dataclass(frozen=True)
class TrainingSet:
    """What the rows that a model was fitted on hold."""

    corpus: str
    rows: int
    sources: Sequence[str]
    encoders: Sequence[str]
    excluded_sources: Sequence[str]


def model_card(manifest: Manifest, grounds: Grounds, training: TrainingSet) -> str:
    """Return the card in Markdown; whatever comes from data is escaped, so it stays text."""
    return "\n".join(
        [
            *_what(manifest),
            *_measured(grounds, manifest.target),
            *_intervals(grounds.intervals),
            *_trained_on(manifest, training),
            *_limits(manifest, training),
            *_how_to_verify(manifest, grounds),
        ]
    )


def _plain(text: object) -> str:
    """Return data as Markdown that shows it letter by letter, on one line."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", line)


def _what(manifest: Manifest) -> Iterator[str]:
    yield f"# {manifest.id}"
    yield ""
    unit = manifest.unit
    of_what = f"of the {unit}" if unit == "frame" else "of its frames"
    yield (
        f"An ensemble of {manifest.ensemble_size} small networks that predict "
        f"{_plain(manifest.target)} of a {unit} from {len(manifest.feature_order)} features "
        f"{of_what} and from how it was encoded. It is made for full-reference work in encoding "
        "pipelines, where source and encode are both at hand."
    )
    yield ""
    if unit == "clip":
        statistics = ", ".join(manifest.inputs.statistics)
        without = ", frame 0 left out" if manifest.inputs.drop_first_frame else ""
        yield f"A feature goes in by these numbers over a clip's frames: {statistics}{without}."
        yield ""
    if manifest.inputs.conditions:
        listed = ", ".join(map(_plain, manifest.inputs.conditions))
        yield f"Of the encode it is told {listed} too, standardised as the manifest says."
        yield ""
    yield f"- `{manifest.onnx}`: raw inputs in, mean, spread and bounds out"
    yield from (f"- `{member.onnx}`: member of seed {member.seed}" for member in manifest.members)
    yield ""
    yield (
        "Whether the members are for production stands in `registry.json` (`smoke`), with the "
        "grounds in the promotion file beside it."
    )
    yield ""


def _measured(grounds: Grounds, target: str) -> Iterator[str]:
    gate = grounds.promote.gate
    yield "## How it does on sources it has not seen"
    yield ""
    yield (
        "Every source was held out once, and each row predicted by networks that had not seen its "
        "source. The networks in this folder were then fitted on all sources with the same recipe; "
        "the figures are those of the recipe."
    )
    yield ""
    yield f"| seed | mean PLCC | worst source | PLCC there | mean RMSE, {_plain(target)} |"
    yield "|---|---|---|---|---|"
    for seed, record in grounds.evidence.seed_files.items():
        worst = min(record.folds, key=lambda fold: fold.plcc or 0.0)
        yield (
            f"| {seed} | {record.mean_plcc:.4f} | {_plain(worst.held_out)} | {worst.plcc:.4f} "
            f"| {record.mean_rmse:.3f} |"
        )
    yield ""
    of_source = mean_per_fold(grounds.evidence, "rmse")
    worst_source = max(of_source, key=of_source.__getitem__)
    yield (
        f"Mean PLCC {gate.mean_plcc:.4f} (limit {gate.mean_plcc_threshold:g}), difference between "
        f"seeds {gate.plcc_spread:.4f} (limit {gate.plcc_spread_max:g}). The source with the "
        f"largest error is {_plain(worst_source)}, RMSE {of_source[worst_source]:.3f}."
    )
    if target == "vmaf":
        yield ""
        yield (
            "VMAF is made of the same features, so a high correlation shows that the machinery "
            "works; it says nothing about agreement with viewers."
        )
    yield ""


def _intervals(intervals: IntervalsFile | None) -> Iterator[str]:
    yield "## Intervals"
    yield ""
    if intervals is None:
        yield "None were calibrated. The spread of the members is not an interval."
        yield ""
        return
    level = level_key(intervals.default_level)
    judged = len(intervals.coverage.judged_sources)
    yield (
        f"Bounds are meant to hold for {level} of a new source's values. They are supported by "
        f"{intervals.n_calibration_sources} sources; coverage was measured on {judged} of them, "
        "each with networks and a calibration that had not seen it."
    )
    yield ""
    yield "| interval for | measured coverage | worst source | coverage there | mean width |"
    yield "|---|---|---|---|---|"
    for pool, found in sorted(intervals.coverage.by_pool.items()):
        at = found.hierarchical.get(level)
        if at is None:
            yield f"| {_plain(pool)} | not measured | | | |"
            continue
        yield (
            f"| {_plain(pool)} | {at.mean:.3f} | {_plain(at.worst_source)} | {at.worst:.3f} "
            f"| {at.mean_width:.2f} |"
        )
    yield ""


def _trained_on(manifest: Manifest, training: TrainingSet) -> Iterator[str]:
    yield "## Trained on"
    yield ""
    yield (
        f"{_plain(training.corpus)}, sha256 `{manifest.corpus_sha256}`: {training.rows} rows of "
        f"{len(training.sources)} sources."
    )
    yield ""
    yield f"- Sources: {', '.join(map(_plain, training.sources))}"
    if training.excluded_sources:
        yield f"- Left out: {', '.join(map(_plain, training.excluded_sources))}"
    yield f"- Encoders: {', '.join(map(_plain, training.encoders))}"
    yield f"- Quality numbers: {manifest.cq_min:g} to {manifest.cq_max:g}"
    yield ""
    yield "| feature | least | largest |"
    yield "|---|---|---|"
    for name, (low, high) in (manifest.training_ranges or {}).items():
        yield f"| {_plain(name)} | {low:.6g} | {high:.6g} |"
    yield ""


def _limits(manifest: Manifest, training: TrainingSet) -> Iterator[str]:
    yield "## Limits"
    yield ""
    seen = {encoder_index(name) for name in training.encoders}
    unseen = [name for i, name in enumerate(manifest.encoder_vocab) if i not in seen]
    yield f"- No row of these encoders was seen: {', '.join(map(_plain, unseen)) or 'none'}."
    if manifest.preset_constant is not None:
        yield (
            f"- One preset value was seen ({manifest.preset_constant:g}): the preset tells the "
            "model nothing."
        )
    yield "- Outside the ranges above it extrapolates, and the intervals say nothing."
    yield "- Out of scope: no-reference scoring, comparing viewers, content unlike the sources."
    yield (
        "- Features must be measured as the corpus measured them: another version of libvmaf may "
        "name or compute them otherwise."
    )
    yield ""


def _how_to_verify(manifest: Manifest, grounds: Grounds) -> Iterator[str]:
    yield "## How to verify"
    yield ""
    yield "`sha256sum -c SHA256SUMS` checks the files against each other, `loso verify` the chain"
    yield "behind them: corpus, predictions, verdict, weights, registry."
    yield ""
    yield f"- Verdict: PROMOTE of {_plain(grounds.promote.generated_at_utc)}"
    yield f"- sha256 of its file: `{grounds.promote.sha256}`"
    yield f"- sha256 of the corpus: `{manifest.corpus_sha256}`"
    yield ""
