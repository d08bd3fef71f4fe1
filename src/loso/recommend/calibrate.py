"""What other clips need, whose truth is measured: the grounds of a bound on estimates.

Of each clip the setting is found by whole encodes that is the best to miss the target, and what its
segments alone say of that setting. Both are kept: the next question finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import product

from loso.errors import BadSettings, CannotRun, LosoError
from loso.intervals import LEAST_SOURCES, choose_level
from loso.recommend.answer import Subject, Way, search
from loso.recommend.bound import NO_NEED, Bound, fit_bound
from loso.recommend.desk import Desk
from loso.recommend.judge import Judge
from loso.recommend.question import Question
from loso.recommend.segments import Segment
from loso.recommend.work import Work, carry_out
from loso.video.clips import Clip

__all__ = ["Grounds"]


class Grounds:
    """Clips of other sources, cut up as the clips in question are, and what each of them needs."""

    def __init__(
        self,
        desk: Desk,
        clips: Sequence[Clip],
        judge: Judge,
        question: Question,
        *,
        confidence: float | None,
        say: Callable[[str], None],
    ) -> None:
        self._desk, self._judge, self._question, self._say = desk, judge, question, say
        self.confidence = confidence
        self._known = list(clips)
        for clip in [clip for clip in clips if not question.sampling.counts(clip)[0]]:
            say(f"warning: {clip.src} is too short to be cut up, and says nothing of segments")
            self._known.remove(clip)
        for clip in _repeated(self._known):
            say(f"warning: {clip.src} is a clip of --calibrate-on once more, and counts once")
            self._known.remove(clip)
        self._needs: dict[tuple[Clip, Way, float], float] = {}

    def refuse_few(self, clips: Sequence[Clip]) -> None:
        """Refuse, as BadSettings, where the others do not support the confidence for `clips`."""
        for clip in [clip for clip in clips if self._is_needed(clip)]:
            if len(self.others(clip)) < LEAST_SOURCES:
                raise BadSettings(
                    "too few other clips to calibrate a bound on",
                    where="--calibrate-on",
                    expected=f"at least {LEAST_SOURCES} that are long enough to be cut up",
                    found=f"{len(self.others(clip))}",
                )
            choose_level(len(self.others(clip)), self.confidence)

    def measure(self, clips: Sequence[Clip], ways: Sequence[Way]) -> None:
        """Measure what `bound` will be asked for: for `clips` in question, coded in these `ways`.

        A clip that fails is left out, with a warning. BadSettings where too few remain.
        """
        if not any(map(self._is_needed, clips)):
            return
        self.refuse_few(clips)
        cuts: dict[Clip, tuple[Segment, ...]] = {}
        cut = self._desk.cut(self._known, self._question.sampling)
        for clip, segments in zip(list(self._known), cut, strict=True):
            if isinstance(segments, CannotRun):
                self._leave_out(clip, segments)
            else:
                cuts[clip] = segments
        keys = list(product(cuts, ways, self._question.targets))
        works = [self._need(clip, cuts[clip], way, target) for clip, way, target in keys]
        for key, need in zip(keys, carry_out(self._desk, works), strict=True):
            if isinstance(need, LosoError):
                self._leave_out(key[0], need)
            else:
                self._needs[key] = need
        self.refuse_few(clips)

    def _leave_out(self, clip: Clip, failure: LosoError) -> None:
        if clip in self._known:
            self._known.remove(clip)
            self._say(f"warning: left out of --calibrate-on: {failure}")

    def bound(self, clip: Clip, way: Way, target: float) -> Bound | None:
        """Return the bound for a clip, from all others; None where nothing is known or asked."""
        if not self._is_needed(clip):
            return None
        needs = {other.src: [self._needs[other, way, target]] for other in self.others(clip)}
        return fit_bound(needs, self.confidence)

    def _is_needed(self, clip: Clip) -> bool:
        return bool(self.others(clip)) or self.confidence is not None

    def others(self, clip: Clip) -> tuple[Clip, ...]:
        """Return the clips of other content than `clip`, which its bound rests on."""
        return tuple(other for other in self._known if other.sha256 != clip.sha256)

    def _need(
        self, clip: Clip, segments: tuple[Segment, ...], way: Way, target: float
    ) -> Work[float]:
        # What the segments have to show is the target and the margin that the judge asks for.
        of_judge = self._judge.bound(clip, way.choice.encoder.name, target, self.confidence)
        target += of_judge.margin if of_judge else 0.0
        # A clip that is smaller than the height asked for is coded at its own.
        own = replace(way, height=min(way.height or clip.height, clip.height))
        whole = Subject.of(self._desk, clip, own, self._judge, self._question)
        bracket, _ = yield from search(whole, whole.stored(), target, self._question.max_encodes)
        # Where the encodes do not settle it, the best that may miss: the need is no less.
        missing = bracket.meets + 1
        if missing == len(whole.scale):
            return NO_NEED
        cut = replace(whole, segments=segments)
        found = yield from cut.probe(missing)
        return found.score.lower - target


def _repeated(clips: Iterable[Clip]) -> list[Clip]:
    """Return the clips whose content was there before, under another name."""
    seen: set[str] = set()
    again = []
    for clip in clips:
        if clip.sha256 in seen:
            again.append(clip)
        seen.add(clip.sha256)
    return again
