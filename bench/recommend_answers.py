"""The answers that `bench/recommend.py` got, beside the truth and beside the cost of bisection."""

from __future__ import annotations

import statistics
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recommend_truth import Truth


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question, answered in one way; `place` is on the encoder's scale, -1 for no answer."""

    kind: str
    clip: str
    encoder: str
    target: float
    way: str
    place: int
    settled: bool
    encodes: int
    frames: int
    seconds: float
    core_seconds: float
    margin: float = 0.0
    failure: str = ""


def judged(asked: Sequence[Asked], truths: Mapping[tuple[str, str], Truth]) -> list[dict[str, Any]]:
    """Return every answer beside the truth, and its cost beside that of bisection."""
    rival = {(one.clip, one.encoder, one.target): one for one in asked if one.way == "bisection"}
    rows = []
    for one in asked:
        truth = truths[one.clip, one.encoder]
        best = truth.cheapest(one.target)
        beside = rival[one.clip, one.encoder, one.target]
        if beside.failure:
            continue
        # The file itself: of whole encodes it is one of those, segments leave it to be coded.
        more = beside.seconds / beside.encodes if one.way.startswith("segments") else 0.0
        row = asdict(one) | {
            "best": best,
            "score": truth.scores.get(one.place),
            "met": None,
            "steps": None,
            "percent": None,
            "seconds_ratio": one.seconds / beside.seconds,
            "seconds_with_file_ratio": (one.seconds + more) / beside.seconds,
            "core_seconds_ratio": one.core_seconds / beside.core_seconds,
            "frames_ratio": one.frames / beside.frames,
        }
        if one.place >= 0:
            row["met"] = truth.scores[one.place] >= one.target
            row["steps"] = best - one.place
            if best >= 0:
                row["percent"] = 100 * (truth.kbps[one.place] / truth.kbps[best] - 1)
        rows.append(row)
    return rows


def summary(rows: Sequence[dict[str, Any]], synthetic: Container[str] = ()) -> list[dict[str, Any]]:
    """Return the figures of each kind of clips, encoder and way; of long ones by origin as well."""
    rows = [*rows]
    for row in [row for row in rows if row["kind"] == "long"]:
        rows.append(row | {"kind": "synthetic" if row["clip"] in synthetic else "spliced"})
    keys = dict.fromkeys((row["kind"], row["encoder"], row["way"]) for row in rows)
    found = []
    for key in sorted(keys):
        all_own = [row for row in rows if (row["kind"], row["encoder"], row["way"]) == key]
        own = [row for row in all_own if not row["failure"]]
        given = [row for row in own if row["place"] >= 0]
        kept = [row for row in given if row["met"]]
        percent = [row["percent"] for row in kept]
        figures = {
            "questions": len(all_own),
            "failed": len(all_own) - len(own),
            "answers": len(given),
            "met": len(kept),
            "settled": sum(row["settled"] for row in given),
            "short_by": max([0.0, *(row["target"] - row["score"] for row in given)]),
            "steps": statistics.median(row["steps"] for row in given) if given else None,
            "most_steps": max((row["steps"] for row in given), default=None),
            "percent": statistics.median(percent) if percent else None,
            "most_percent": max(percent, default=None),
            "encodes": statistics.mean(row["encodes"] for row in own),
            "seconds": statistics.median(row["seconds"] for row in own),
        }
        for name in (name for name in own[0] if name.endswith("_ratio")):
            by_clip: dict[str, list[float]] = {}
            for row in own:
                by_clip.setdefault(row["clip"], []).append(row[name])
            figures[name] = statistics.median(map(statistics.median, by_clip.values()))
        found.append(dict(zip(("kind", "encoder", "way"), key, strict=True)) | figures)
    return found


def print_answers(of_all: Sequence[dict[str, Any]]) -> None:
    """Print what `summary` returned."""
    print(
        f"{'':37}{'met':>9}{'':3}{'short by':>8}{'steps':>7}{'most':>5}{'bitrate':>9}{'most':>7}"
        f"{'encodes':>9}{'seconds':>9}{'ratio':>7}{'file':>6}{'cores':>7}"
        f"{'frames':>8}"
    )
    for of in of_all:
        line = f"{of['kind']:10}{of['encoder']:11}{of['way']:16}"
        line += f"{of['met']:>4} of {of['answers']:<3}/{of['questions']:<3}{of['short_by']:7.2f}"
        line += _cell(of["steps"], "7.1f") + _cell(of["most_steps"], "5")
        line += _cell(of["percent"], "8.1f") + "%" + _cell(of["most_percent"], "6.1f") + "%"
        line += f"{of['encodes']:9.2f}{of['seconds']:9.2f}"
        line += f"{of['seconds_ratio']:7.2f}{of['seconds_with_file_ratio']:6.2f}"
        line += f"{of['core_seconds_ratio']:7.2f}"
        print(f"{line}{of['frames_ratio']:8.2f}")


def _cell(value: float | None, form: str) -> str:
    """Return a figure in its column, a dash where no answer was given."""
    return f"{'-':>{form.partition('.')[0]}}" if value is None else f"{value:{form}}"
