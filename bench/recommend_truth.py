"""The truth that `bench/recommend.py` judges by: what whole encodes score, by exhaustive search."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from pathlib import Path

from loso.corpus.plan import BuildSettings
from loso.errors import CannotRun, LosoError
from loso.recommend.answer import Subject, Tried, Way
from loso.recommend.desk import Desk, at_desk
from loso.recommend.judge import MetricJudge
from loso.recommend.question import Question
from loso.recommend.search import bracket_of
from loso.recommend.segments import Sampling, Segment
from loso.recommend.work import Work, carry_out
from loso.video.clips import Clip
from loso.video.ffmpeg import Ffmpeg

JUDGE = MetricJudge("vmaf", "mean")
STRIDE = 5
"""The truth is sampled so far apart first; between the settings about the targets all are coded."""
ABOVE, BELOW = 2.0, 6.0
"""So many points beyond the highest and the lowest target count as near."""


@dataclass(frozen=True)
class Kind:
    """Clips of one kind, and how they are opened and coded."""

    name: str
    paths: Sequence[Path]
    settings: BuildSettings


@dataclass(kw_only=True)
class Truth:
    """What whole encodes of a clip score, by place on the scale; every one in `near` is there."""

    scores: dict[int, float]
    kbps: dict[int, float]
    near: tuple[int, int]
    segments: dict[int, float] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)
    """Settings whose encode did not decode."""

    def cheapest(self, target: float) -> int:
        """Return the cheapest setting that meets a target, -1 where none does."""
        return bracket_of(self.scores, target, max(self.scores) + 1).meets

    def rises(self) -> list[float]:
        """Return by how much the score rises to the next cheaper setting, wherever it does."""
        low, high = self.near
        near = [score for at, score in sorted(self.scores.items()) if low <= at <= high]
        steps = [after - before for before, after in pairwise(near)]
        return [step for step in steps if step > 0]


def cut_up(desk: Desk) -> list[tuple[Clip, tuple[Segment, ...]]]:
    """Return each clip of a desk with the segments that stand for it."""
    found = []
    for clip, segments in zip(desk.clips, desk.cut(desk.clips, Sampling()), strict=True):
        if isinstance(segments, CannotRun):
            raise segments
        found.append((clip, segments))
    return found


def tell(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


def exhaust(
    whole: Subject, segments: Sequence[Segment], targets: Sequence[float], also: Collection[int]
) -> Work[Truth]:
    """Return the truth of a clip: every setting near the targets, and those of `also`."""
    settings = len(whole.scale)
    tried: dict[int, Tried] = {}
    failed: list[int] = []

    def measure(places: Iterable[int]) -> Work[None]:
        for place in places:
            if place not in tried:
                try:
                    tried[place] = yield from whole.probe(place)
                except CannotRun:
                    failed.append(place)

    sparse = sorted({*range(0, settings, STRIDE), settings - 1})
    yield from measure(sparse)
    sparse = [at for at in sparse if at in tried]
    above = [at for at in sparse if tried[at].score.value >= max(targets) + ABOVE]
    below = [at for at in sparse if tried[at].score.value < min(targets) - BELOW]
    near = max(above, default=0), min(below, default=settings - 1)
    yield from measure([*range(near[0], near[1] + 1), *also])
    found = Truth(
        scores={at: each.score.value for at, each in sorted(tried.items())},
        kbps={at: each.bitrate_kbps for at, each in sorted(tried.items())},
        near=near,
        failed=failed,
    )
    if segments:
        cut = replace(whole, segments=tuple(segments))
        for place in range(near[0], near[1] + 1):
            probed = yield from cut.probe(place)
            found.segments[place] = probed.score.value
    return found


def truths_of(
    kind: Kind,
    targets: Sequence[float],
    ffmpeg: Ffmpeg,
    parts: Path,
    *,
    jobs: int,
    also: Mapping[tuple[str, str], Collection[int]],
) -> dict[tuple[str, str], Truth]:
    """Return the truth by clip and encoder; what `parts` holds is not coded again.

    `also` names settings that it must hold, wherever they lie.
    """

    def progress(done: float, total: float, note: str = "") -> None:
        del total
        if done and done % 100 == 0:
            tell(f"{kind.name}: the truth, {done:.0f} encodes, {note}")

    question = Question(targets=tuple(targets), step=1.0)
    with at_desk(
        kind.paths, kind.settings, ffmpeg, parts=parts, jobs=jobs, progress=progress
    ) as desk:
        works, keys = [], []
        for (clip, segments), choice in product(cut_up(desk), kind.settings.choices):
            key = clip.src, choice.encoder.name
            whole = Subject.of(desk, clip, Way(choice=choice), JUDGE, question)
            works.append(exhaust(whole, segments, targets, also.get(key, ())))
            keys.append(key)
        found = {}
        for key, truth in zip(keys, carry_out(desk, works), strict=True):
            if isinstance(truth, LosoError):
                raise truth
            found[key] = truth
        return found


def print_truths(truths: Mapping[tuple[str, str], Truth]) -> None:
    """Print where each clip's curve was looked at, how it rises, and how far segments are off."""
    for (clip, encoder), truth in truths.items():
        low, high = truth.near
        errors = [score - truth.scores[at] for at, score in truth.segments.items()]
        off = f", segments {min(errors):+.2f}..{max(errors):+.2f}" if errors else ""
        rises = truth.rises()
        print(
            f"{clip:28}{encoder:11}{low:3}..{high:<3}{len(rises):3} rises, "
            f"most {max(rises, default=0.0):.3f}{off}"
        )
