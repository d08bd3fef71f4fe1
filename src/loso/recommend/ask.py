"""A question is asked of clips: every clip in every way of coding, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from loso.corpus.choices import Choice
from loso.errors import CannotRun, LosoError
from loso.recommend.answer import Answer, Coding, Subject, Way, answer
from loso.recommend.bound import Bound
from loso.recommend.calibrate import Grounds
from loso.recommend.desk import Desk
from loso.recommend.judge import Judge
from loso.recommend.question import Question
from loso.recommend.work import Work, carry_out
from loso.video.clips import Clip

__all__ = ["Found", "ask"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of one clip: a coding for each way that did not fail."""

    clip: Clip
    codings: tuple[Coding, ...]
    failures: tuple[LosoError, ...]
    calibrated_on: tuple[Clip, ...] = ()
    """The clips of other sources that bounds on estimates from segments rest on."""

    def cheapest(self, at: int) -> tuple[Coding, Answer] | None:
        """Return the cheapest answer to the target at that place, None where there is none."""
        costs = {
            chosen.bitrate_kbps: coding
            for coding in self.codings[::-1]  # of equals, the one that was named first
            if (chosen := coding.answers[at].chosen) is not None
        }
        if not costs:
            return None
        coding = costs[min(costs)]
        return coding, coding.answers[at]

    def by_choice(self) -> list[tuple[Choice, list[Coding]]]:
        """Return the codings of each choice, which differ in height."""
        choices = dict.fromkeys(coding.choice for coding in self.codings)
        return [(one, [c for c in self.codings if c.choice == one]) for one in choices]


def ask(
    desk: Desk,
    clips: Sequence[Clip],
    judge: Judge,
    question: Question,
    *,
    known: Sequence[Clip] = (),
    say: Callable[[str], None] = lambda _: None,
) -> list[Found]:
    """Return what was found of each clip, in their order; encodes of all are made side by side.

    `known` are clips of other sources that a bound on estimates is calibrated on. BadClip where all
    heights are above a clip's own, BadSettings where `known` cannot support the confidence.
    """
    confidence = question.confidence
    choices, heights = desk.settings.choices, desk.settings.heights
    ways = [[*_ways(clip, choices, heights, say)] for clip in clips]
    cuts = desk.cut(clips, question.sampling)
    long = [
        clip
        for clip, segments in zip(clips, cuts, strict=True)
        if segments and not isinstance(segments, CannotRun)
    ]
    if judge.grounds is None and (known or confidence is not None):
        for clip in clips:
            if clip not in long:
                say(f"warning: {clip.src} is coded whole: nothing about it is estimated or bounded")
    # Of two bounds each may fail half as often.
    shares = 1 if judge.grounds is None else 2
    each = None if confidence is None else 1.0 - (1.0 - confidence) / shares
    grounds = Grounds(desk, known if long else (), judge, question, confidence=each, say=say)
    for choice, target in product(choices, question.targets):  # refused before the work
        judge.bound(choice.encoder.name, target, each if long else confidence)
    grounds.measure(long, [*dict.fromkeys(way for own in ways for way in own)])
    works: list[Work[Coding]] = []
    for clip, own, segments in zip(clips, ways, cuts, strict=True):
        if isinstance(segments, CannotRun):
            continue
        for way in own:
            one = Subject.of(desk, clip, way, judge, question, segments=segments)
            bound_of = partial(_bound, grounds, one, way, confidence)
            works.append(answer(one, question, bound_of=bound_of))
    outcomes = iter(carry_out(desk, works))
    found = []
    for clip, own, segments in zip(clips, ways, cuts, strict=True):
        if isinstance(segments, CannotRun):
            found.append(Found(clip=clip, codings=(), failures=(segments,)))
            continue
        of_clip = [next(outcomes) for _ in own]
        found.append(
            Found(
                clip=clip,
                codings=tuple(each for each in of_clip if isinstance(each, Coding)),
                failures=tuple(each for each in of_clip if isinstance(each, LosoError)),
                calibrated_on=grounds.others(clip) if segments else (),
            )
        )
    return found


def _bound(
    grounds: Grounds, subject: Subject, way: Way, confidence: float | None, target: float
) -> Bound | None:
    """Return how far a promise stays below: as the judge is no measure, and segments no clip."""
    encoder, judge = way.choice.encoder.name, subject.judge
    if not subject.segments:
        return judge.bound(encoder, target, confidence)
    of_segments = grounds.bound(subject.clip, way, target)
    of_judge = judge.bound(encoder, target, grounds.confidence)
    if of_judge is None or of_segments is None:
        return of_segments
    return of_judge.beside(of_segments)


def _ways(
    clip: Clip, choices: Sequence[Choice], heights: Sequence[int], say: Callable[[str], None]
) -> Sequence[Way]:
    """Return how one clip is coded: of several heights those that are not above its own."""
    own = [height for height in heights if height <= clip.height]
    if own and len(own) < len(heights):
        above = ", ".join(f"{height}" for height in heights if height not in own)
        say(f"warning: {clip.src} is {clip.height} high: not coded at {above}")
    # A height that is alone, or where all are too high, is refused when it is used.
    at: Sequence[int | None] = own or heights or [None]
    return [Way(choice=choice, height=height) for choice in choices for height in at]
