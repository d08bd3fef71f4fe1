"""One clip and one way of coding: probes are made until the question is settled, or paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loso.corpus.choices import Choice
from loso.corpus.plan import Cell, refuse_height
from loso.errors import CannotRun
from loso.recommend.bound import Bound
from loso.recommend.desk import Desk, Probe
from loso.recommend.judge import Judge, Score
from loso.recommend.question import Question
from loso.recommend.scale import Scale, scale_of
from loso.recommend.search import Bracket, bracket_of, next_setting
from loso.recommend.segments import Segment
from loso.recommend.work import Work
from loso.video.clips import Clip
from loso.video.encoders import Rate

__all__ = [
    "Aim",
    "Answer",
    "Coding",
    "Subject",
    "Tried",
    "Verdict",
    "Way",
    "answer",
    "named",
    "search",
]

Verdict = Literal["met", "met_by_the_cheapest", "out_of_reach", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a clip is coded, its quality setting apart: `choice` at any rate, and a height."""

    choice: Choice
    height: int | None = None
    """The clip's own unless given."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One setting that was probed, and what the clip scores with it: measured, or estimated."""

    place: int
    """On the scale, 0 the best."""
    rate: Rate
    cq: float
    score: Score
    bitrate_kbps: float
    probes: tuple[Probe, ...]


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What an estimate has to be above a target, and the bound that this makes, if it makes one."""

    margin: float = 0.0
    bound: Bound | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The cheapest setting whose lower bound was seen to meet a target, None where none was.

    `beyond` is the best setting that was seen to miss it and is cheaper than that one. Where the
    answer is settled they are neighbours: nothing cheaper meets the target, as scores fall along
    the scale. `bound` is None where the score was measured, and where nothing says how far an
    estimate may be off.
    """

    target: float
    verdict: Verdict
    settled: bool
    chosen: Tried | None
    beyond: Tried | None
    bound: Bound | None


@dataclass(frozen=True, kw_only=True)
class Coding:
    """All that is known of one clip coded in one way, and an answer for each target.

    `segments` is empty where the whole clip was coded. `tried` holds every setting with a probe,
    best first, whenever that was made; `encodes` counts those that this call made.
    """

    clip: Clip
    choice: Choice
    height: int
    segments: tuple[Segment, ...]
    tried: tuple[Tried, ...]
    answers: tuple[Answer, ...]
    encodes: int


def answer(subject: Subject, question: Question, *, aim_at: Callable[[float], Aim]) -> Work[Coding]:
    """Find the cheapest setting of `subject` that meets each target, and all that was probed.

    What is stored of the clip is looked at first. `aim_at` gives for a target what an estimate has
    to be above it. BadSettings where a target is no score, CannotRun where a probe fails.
    """
    tried = subject.stored()
    encodes = 0
    answers = []
    for target in question.targets:
        subject.judge.refuse_target(target)
        aim = aim_at(target)
        bracket, made = yield from search(subject, tried, target + aim.margin, question.max_encodes)
        encodes += made
        answers.append(_answer(tried, bracket, target, aim.bound, len(subject.scale)))
    return Coding(
        clip=subject.clip,
        choice=subject.choice,
        height=subject.height,
        segments=subject.segments,
        tried=tuple(tried[place] for place in sorted(tried)),
        answers=tuple(answers),
        encodes=encodes,
    )


def search(
    subject: Subject, tried: dict[int, Tried], target: float, most: int
) -> Work[tuple[Bracket, int]]:
    """Probe up to `most` settings into `tried`; return what is known then, and how many it took."""
    n_settings = len(subject.scale)
    made = 0
    while True:
        scores = {at: each.score.lower for at, each in tried.items()}
        place = next_setting(scores, target, subject.usual, made=made)
        if place is None or made == most:
            return bracket_of(scores, target, n_settings), made
        tried[place] = yield from subject.probe(place)
        made += 1


def _answer(
    tried: dict[int, Tried], bracket: Bracket, target: float, bound: Bound | None, n_settings: int
) -> Answer:
    return Answer(
        target=target,
        verdict=_verdict(bracket, n_settings),
        settled=bracket.settled,
        chosen=tried.get(bracket.meets),
        beyond=tried.get(bracket.misses),
        bound=bound,
    )


def _verdict(bracket: Bracket, n_settings: int) -> Verdict:
    if bracket.meets == n_settings - 1:
        return "met_by_the_cheapest"
    if bracket.meets >= 0:
        return "met"
    return "out_of_reach" if bracket.misses == 0 else "undecided"


@contextmanager
def named(clip: Clip, choice: Choice, rate: Rate) -> Iterator[None]:
    """Say of a CannotRun inside which encode failed, where it does not say so itself."""
    try:
        yield
    except CannotRun as failure:
        coded = f"{choice.encoder.name} {choice.preset} at {rate.number}"
        failure.where = failure.where or f"{clip.src}, {coded}"
        raise


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A clip, or segments that stand for it, and a way of coding it, whose settings are probed."""

    desk: Desk
    clip: Clip
    segments: tuple[Segment, ...]
    choice: Choice
    judge: Judge
    scale: Scale
    height: int

    @classmethod
    def of(
        cls,
        desk: Desk,
        clip: Clip,
        way: Way,
        judge: Judge,
        question: Question,
        *,
        segments: tuple[Segment, ...] = (),
    ) -> Subject:
        """Return what is asked about; BadClip for a height above the clip's."""
        height = way.height or clip.height
        refuse_height(clip, height)
        scale = scale_of(way.choice.encoder, question.step)
        return cls(
            desk=desk,
            clip=clip,
            segments=segments,
            choice=way.choice,
            judge=judge,
            scale=scale,
            height=height,
        )

    @property
    def usual(self) -> NDArray[np.float64]:
        """What each setting usually scores, (settings,): where the search begins."""
        return self.judge.prior(self.scale.usual_places)

    def stored(self) -> dict[int, Tried]:
        """Return what the part store knows already, by its place on the scale."""
        found = ((at, self.desk.find(self._cells(at))) for at in range(len(self.scale)))
        return {at: self._tried(at, probes) for at, probes in found if probes is not None}

    def probe(self, place: int) -> Work[Tried]:
        """Return what coding at one setting gives; CannotRun, which names it, where that fails."""
        with named(self.clip, self.choice, self.scale.rates[place]):
            probes = yield self._cells(place)
        return self._tried(place, probes)

    def _cells(self, place: int) -> Sequence[Cell]:
        rate = self.scale.rates[place]
        coded = [segment.clip for segment in self.segments] or [self.clip]
        return [self.desk.cell(one, self.choice, rate, self.height) for one in coded]

    def _tried(self, place: int, probes: tuple[Probe, ...]) -> Tried:
        rate = self.scale.rates[place]
        coded_bytes = sum(sum(probe.measured.packet_bytes) for probe in probes)
        frames = sum(len(probe.measured.packet_bytes) for probe in probes)
        return Tried(
            place=place,
            rate=rate,
            cq=self.choice.encoder.cq(rate),
            score=self.judge.score(
                [(probe.cell, probe.measured) for probe in probes], is_cut=bool(self.segments)
            ),
            bitrate_kbps=float(coded_bytes * 8 * self.clip.fps / frames) / 1000,
            probes=probes,
        )
