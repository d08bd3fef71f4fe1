"""A question is asked of clips: every clip in every way of coding, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product

from loso.corpus.choices import Choice
from loso.errors import CannotRun, LosoError
from loso.recommend.answer import Aim, Answer, Coding, Subject, Way, answer
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
    long = [clip for clip in clips if question.sampling.counts(clip)[0]]
    if judge.measures and (known or confidence is not None):
        for clip in [clip for clip in clips if clip not in long]:
            say(f"warning: {clip.src} is coded whole: nothing about it is estimated or bounded")
    # Of two bounds each may fail half as often.
    shares = 1 if judge.grounds is None else 2
    each = None if confidence is None else 1.0 - (1.0 - confidence) / shares
    grounds = Grounds(desk, known if long else (), judge, question, confidence=each, say=say)
    # What can be refused is refused before the work.
    grounds.refuse_few(long)
    subjects = [
        [(Subject.of(desk, clip, way, judge, question), way) for way in own]
        for clip, own in zip(clips, ways, strict=True)
    ]
    for (one, _), target in product(chain(*subjects), question.targets):
        sure = each if one.clip in long else confidence
        judge.bound(one.clip, one.choice.encoder.name, target, sure)
    cuts = desk.cut(clips, question.sampling)
    grounds.measure(long, [*dict.fromkeys(way for own in ways for way in own)])
    works: list[Work[Coding]] = []
    for own_subjects, segments in zip(subjects, cuts, strict=True):
        if not isinstance(segments, CannotRun):
            for whole, way in own_subjects:
                one = replace(whole, segments=segments)
                aim_at = partial(_aim, grounds, one, way, confidence)
                works.append(answer(one, question, aim_at=aim_at))
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


def _aim(
    grounds: Grounds, subject: Subject, way: Way, confidence: float | None, target: float
) -> Aim:
    """Return how far a promise stays below: as the judge is no measure, and segments no clip."""
    clip, encoder, judge = subject.clip, way.choice.encoder.name, subject.judge
    of_judge = judge.bound(
        clip, encoder, target, grounds.confidence if subject.segments else confidence
    )
    of_segments = grounds.bound(clip, way, target) if subject.segments else None
    if of_judge is not None and of_segments is not None:
        both = of_judge.beside(of_segments)
        return Aim(margin=both.margin, bound=both)
    one = of_judge or of_segments
    if one is None:
        return Aim()
    # Segments that nobody bounds leave no bound at all; what the model needs still counts.
    unbounded = subject.segments and of_segments is None
    return Aim(margin=one.margin, bound=None if unbounded else one)


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
