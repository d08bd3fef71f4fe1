"""What was found of a clip as JSON: what was asked, what is promised, every probe behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from loso.corpus.choices import Choice
from loso.recommend.answer import Answer, Coding, Tried
from loso.recommend.apply import Applied
from loso.recommend.ask import Found
from loso.recommend.bound import joint_level
from loso.recommend.compare import Beside, compare
from loso.recommend.desk import Probe
from loso.recommend.hull import hull_of
from loso.recommend.judge import Judge
from loso.recommend.question import Question

__all__ = ["NO_BOUND", "evidence_of", "level_of", "lower_of", "record_of"]

NO_BOUND: Final = (
    "estimated from segments without a bound: --calibrate-on other clips gives one, --segments 0 "
    "codes all"
)

_SCHEMA_VERSION: Final = 1


def record_of(
    found: Found, judge: Judge, question: Question, applied: Applied | None = None
) -> dict[str, Any]:
    """Return the record of one clip, coded in one way or several."""
    clip, codings = found.clip, found.codings
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
        "step": question.step,
        "confidence": question.confidence,
        "calibrated_on": [
            {"src": known.src, "sha256": known.sha256} for known in found.calibrated_on
        ],
        "codings": [_coding(coding, judge) for coding in codings],
        "cheapest": [_cheapest(found, at) for at in range(len(question.targets))],
        "comparison": [_beside(beside) for beside in compare(codings)] if codings[1:] else [],
        "hulls": [_hull(choice, own) for choice, own in found.by_choice() if own[1:]],
        "failures": [str(failure) for failure in found.failures],
        "applied": None if applied is None else _applied(applied),
    }


def _cheapest(found: Found, at: int) -> int | None:
    """Return the place, among the codings, of the cheapest answer to one target."""
    best = found.cheapest(at)
    return None if best is None else found.codings.index(best[0])


def _hull(choice: Choice, codings: Sequence[Coding]) -> dict[str, Any]:
    return {
        "encoder": choice.encoder.name,
        "preset": choice.preset,
        "points": [
            {
                "height": coding.height,
                "quality": tried.rate.value,
                "score": tried.score.value,
                "bitrate_kbps": round(tried.bitrate_kbps, 3),
            }
            for coding, tried in hull_of(codings)
        ],
    }


def _coding(coding: Coding, judge: Judge) -> dict[str, Any]:
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
        "answers": [_answer(coding, answer, judge) for answer in coding.answers],
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
        "height": beside.coding.height,
        "bitrates_at_targets_kbps": [
            None if kbps is None else round(kbps, 3) for kbps in beside.bitrates_kbps
        ],
        "bd_rate_percent": None if bd is None else bd.percent,
        "bd_rate_from_score": None if bd is None else bd.low,
        "bd_rate_to_score": None if bd is None else bd.high,
        "bd_rate_overlap": None if bd is None else bd.overlap,
        "bd_rate_reason": beside.reason,
    }


def lower_of(coding: Coding, answer: Answer, judge: Judge) -> float | None:
    """Return the lower bound of the score that an answer promises, None where there is none."""
    if answer.chosen is None or not judge.promises:
        return None
    if coding.segments and answer.bound is None:
        return None
    return answer.chosen.score.lower - (answer.bound.margin if answer.bound else 0.0)


def level_of(coding: Coding, answer: Answer, judge: Judge) -> float | None:
    """Return with which probability the lower bound holds, None where it is measured or none."""
    if answer.bound is None:
        return None if coding.segments else judge.level
    level = answer.bound.level
    return level if judge.level is None else joint_level(level, judge.level)


def evidence_of(coding: Coding, answer: Answer, judge: Judge) -> str:
    """Return what the lower bound rests on."""
    if answer.bound is None:
        return NO_BOUND if coding.segments else judge.evidence
    own = [answer.bound.evidence]
    return "; ".join(own if judge.level is None else [*own, judge.evidence])


def _answer(coding: Coding, answer: Answer, judge: Judge) -> dict[str, Any]:
    chosen = answer.chosen
    found: dict[str, Any] = {
        "target": answer.target,
        "verdict": answer.verdict,
        "settled": answer.settled,
        "quality": None,
        "cq": None,
        "score": None,
        "lower": None,
        "level": None
        if lower_of(coding, answer, judge) is None
        else level_of(coding, answer, judge),
        "n_calibration_sources": None if answer.bound is None else answer.bound.n_sources,
        "bitrate_kbps": None,
        "evidence": evidence_of(coding, answer, judge),
        "remarks": [],
    }
    if chosen is not None:
        found |= {
            "quality": chosen.rate.value,
            "cq": chosen.cq,
            "score": chosen.score.value,
            "lower": lower_of(coding, answer, judge),
            "bitrate_kbps": round(chosen.bitrate_kbps, 3),
            "remarks": list(chosen.score.remarks),
        }
    return found


def _probe(tried: Tried, probe: Probe, first: int) -> dict[str, Any]:
    return {
        "quality": tried.rate.value,
        "cq": tried.cq,
        "first_frame": first,
        "frames": probe.cell.clip.frames,
        "score": tried.score.value,
        "bitrate_kbps": round(tried.bitrate_kbps, 3),
        "enc_bytes": sum(probe.measured.packet_bytes),
        "seconds": round(probe.measured.seconds, 3),
        "stored": probe.stored,
        "part": probe.mark,
    }


def _applied(applied: Applied) -> dict[str, Any]:
    return {
        "file": str(applied.path),
        "score": applied.score.value,
        "lower": applied.lower,
        "bitrate_kbps": round(applied.bitrate_kbps, 3),
        "held": applied.held,
    }
