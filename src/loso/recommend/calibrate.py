"""What other clips need, whose truth is measured: the grounds of a bound on estimates.

Of each clip the setting is found by whole encodes that is the best to miss the target, and what its
segments alone say of that setting. Both are kept: the next question finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from loso.corpus.choices import Choice
from loso.intervals import choose_level
from loso.recommend.answer import Subject, search
from loso.recommend.bound import NO_NEED, Bound, fit_bound
from loso.recommend.desk import Desk
from loso.recommend.judge import Judge
from loso.recommend.question import Question
from loso.video.clips import Clip

__all__ = ["Grounds"]


class Grounds:
    """Clips of other sources, cut up as the clip in question is; each bound is made once."""

    def __init__(
        self,
        desk: Desk,
        clips: Sequence[Clip],
        judge: Judge,
        question: Question,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._desk, self._judge, self._question, self._say = desk, judge, question, say
        self._cut = {clip: desk.cut(clip, question.sampling) for clip in clips}
        for clip in [clip for clip, segments in self._cut.items() if not segments]:
            say(f"warning: {clip.src} is too short to be cut up, and says nothing of segments")
            del self._cut[clip]
        self._needs: dict[tuple[str, Choice, int | None, float], float] = {}

    def bound(
        self, clip: Clip, choice: Choice, target: float, *, height: int | None = None
    ) -> Bound | None:
        """Return the bound for one clip and one way of coding, from all clips but itself.

        None where there are no others and no confidence was asked for; BadSettings where they do
        not support it.
        """
        others = [other for other in self._cut if other.sha256 != clip.sha256]
        if not others and self._question.confidence is None:
            return None
        choose_level(len(others), self._question.confidence)  # refused before the work
        needs = {other.src: [self._need(other, choice, height, target)] for other in others}
        return fit_bound(needs, self._question.confidence)

    def _need(self, clip: Clip, choice: Choice, height: int | None, target: float) -> float:
        key = clip.src, choice, height, target
        if key not in self._needs:
            self._needs[key] = self._measure(clip, choice, height, target)
        return self._needs[key]

    def _measure(self, clip: Clip, choice: Choice, height: int | None, target: float) -> float:
        # A clip that is smaller than the height asked for is coded at its own.
        height = None if height is None else min(height, clip.height)
        whole = Subject.of(self._desk, clip, choice, self._judge, self._question, height=height)
        bracket, _ = search(whole, whole.stored(), target, self._question.max_encodes)
        # Where the encodes do not settle it, the best that may miss: the need is no less.
        missing = bracket.meets + 1
        if missing == len(whole.scale):
            return NO_NEED
        cut = replace(whole, segments=self._cut[clip])
        found = cut.stored().get(missing) or cut.probe(missing)
        return found.score - target
