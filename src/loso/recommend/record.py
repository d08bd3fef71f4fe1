"""What was found of a clip as JSON: what was asked, what is promised, every probe behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from loso.recommend.answer import Answer, Coding, Tried
from loso.recommend.apply import Applied
from loso.recommend.compare import Beside, compare
from loso.recommend.desk import Probe
from loso.recommend.judge import Judge
from loso.recommend.question import Question

__all__ = ["MEASURED_WHOLE", "NO_BOUND", "evidence_of", "lower_of", "record_of"]

MEASURED_WHOLE: Final = "measured on the whole clip"
"""What a score rests on that is the clip's own, and no estimate."""

NO_BOUND: Final = "estimated from segments, no clips to calibrate a bound on"

_SCHEMA_VERSION: Final = 1


def record_of(
    codings: Sequence[Coding], judge: Judge, question: Question, applied: Applied | None = None
) -> dict[str, Any]:
    """Return the record of one clip, coded in one way or several."""
    clip = codings[0].clip
    return {
        "schema_version": _SCHEMA_VERSION,
        "clip": {
            "src": clip.src,
            "sha256": clip.sha256,
            "frames": clip.frames,
            "fps": float(clip.fps),
            "width": clip.width,
            "height": clip.height,
            "remarks": list(clip.remarks),
        },
        "metric": judge.name,
        "pool": question.pool,
        "max_encodes": question.max_encodes,
        "codings": [_coding(coding) for coding in codings],
        "comparison": [_beside(beside) for beside in compare(codings)] if codings[1:] else [],
        "applied": None if applied is None else _applied(applied),
    }


def _coding(coding: Coding) -> dict[str, Any]:
    return {
        "encoder": coding.choice.encoder.name,
        "preset": coding.choice.preset,
        "extra": list(coding.choice.extra),
        "height": coding.height,
        "segments": [
            {"first_frame": segment.first, "frames": segment.clip.frames}
            for segment in coding.segments
        ],
        "encodes": coding.encodes,
        "answers": [_answer(coding, answer) for answer in coding.answers],
        "probes": [
            _probe(tried, probe, coding.segments[at].first if coding.segments else 0)
            for tried in coding.tried
            for at, probe in enumerate(tried.probes)
        ],
    }


def _beside(beside: Beside) -> dict[str, Any]:
    bd = beside.bd
    return {
        "encoder": beside.coding.choice.encoder.name,
        "preset": beside.coding.choice.preset,
        "bitrates_at_targets_kbps": [
            None if kbps is None else round(kbps, 3) for kbps in beside.bitrates_kbps
        ],
        "bd_rate_percent": None if bd is None else bd.percent,
        "bd_rate_from_score": None if bd is None else bd.low,
        "bd_rate_to_score": None if bd is None else bd.high,
        "bd_rate_overlap": None if bd is None else bd.overlap,
        "bd_rate_reason": beside.reason,
    }


def lower_of(coding: Coding, answer: Answer) -> float | None:
    """Return the lower bound of the score that an answer promises, None where there is none."""
    if answer.chosen is None or (coding.segments and answer.bound is None):
        return None
    return answer.chosen.score - (answer.bound.margin if answer.bound else 0.0)


def evidence_of(coding: Coding, answer: Answer) -> str:
    """Return what the lower bound rests on."""
    if not coding.segments:
        return MEASURED_WHOLE
    return NO_BOUND if answer.bound is None else answer.bound.evidence


def _answer(coding: Coding, answer: Answer) -> dict[str, Any]:
    chosen = answer.chosen
    found: dict[str, Any] = {
        "target": answer.target,
        "verdict": answer.verdict,
        "settled": answer.settled,
        "quality": None,
        "cq": None,
        "score": None,
        "lower": None,
        "level": None if answer.bound is None else answer.bound.level,
        "n_calibration_sources": None if answer.bound is None else answer.bound.n_sources,
        "bitrate_kbps": None,
        "evidence": evidence_of(coding, answer),
    }
    if chosen is not None:
        found |= {
            "quality": chosen.rate.value,
            "cq": chosen.cq,
            "score": chosen.score,
            "lower": lower_of(coding, answer),
            "bitrate_kbps": round(chosen.bitrate_kbps, 3),
        }
    return found


def _probe(tried: Tried, probe: Probe, first: int) -> dict[str, Any]:
    return {
        "quality": tried.rate.value,
        "cq": tried.cq,
        "first_frame": first,
        "frames": probe.cell.clip.frames,
        "score": tried.score,
        "bitrate_kbps": round(tried.bitrate_kbps, 3),
        "enc_bytes": sum(probe.measured.packet_bytes),
        "seconds": round(probe.measured.seconds, 3),
        "stored": probe.stored,
        "part": probe.mark,
    }


def _applied(applied: Applied) -> dict[str, Any]:
    return {
        "file": str(applied.path),
        "score": applied.score,
        "bitrate_kbps": round(applied.bitrate_kbps, 3),
        "held": applied.held,
    }
