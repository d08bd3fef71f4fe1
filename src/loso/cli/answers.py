"""What `recommend` found, in words: one answer in sentences, several as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loso.cli.console import print_line, print_table
from loso.errors import Refused

if TYPE_CHECKING:
    from loso.recommend.answer import Answer, Coding
    from loso.recommend.apply import Applied
    from loso.recommend.judge import Judge
    from loso.recommend.question import Question

__all__ = ["hold", "print_answers", "refuse_no_answer"]


def refuse_no_answer(codings: Sequence[Coding], question: Question) -> None:
    """Refuse where no way of coding was seen to meet a target: none is promised then."""
    for at in range(len(question.targets)):
        if all(coding.answers[at].chosen is None for coding in codings):
            _refuse(codings[0], codings[0].answers[at], question, alone=len(codings) == 1)


def _refuse(coding: Coding, answer: Answer, question: Question, *, alone: bool) -> None:
    name, best = coding.choice.encoder.name, coding.tried[0]
    told = f"{best.rate.number}, scores {best.score:.2f}"
    reach, whom = "reach", name if alone else f"{name}, nor of the others,"
    if answer.bound is not None:
        level = f"{100 * answer.bound.level:g} %"
        told = f"{best.rate.number}, at least {best.score - answer.bound.margin:.2f} with {level}"
        reach = "be promised to reach"
    if answer.verdict == "out_of_reach":
        raise Refused(
            f"no setting of {whom} can {reach} {answer.target:g}: the best, {told}",
            where=coding.clip.src,
            fix="lower the --target",
        )
    raise Refused(
        f"{question.max_encodes} encodes showed no setting that can {reach} {answer.target:g}: the "
        f"best tried, {told}",
        where=coding.clip.src,
        fix="allow more with --max-encodes: these are kept",
    )


def print_answers(codings: Sequence[Coding], judge: Judge, question: Question) -> None:
    """Print every answer, and how the ways of coding compare."""
    if len(codings) == 1 and len(question.targets) == 1:
        _print_answer(codings[0], codings[0].answers[0], judge, question)
        return
    from loso.recommend.compare import compare
    from loso.recommend.record import evidence_of, lower_of

    print_line(f"{codings[0].clip.src}: {judge.name}, {question.pool}")
    print_line()
    rows = []
    for beside in compare(codings):
        coding = beside.coding
        for answer, exact in zip(coding.answers, beside.bitrates_kbps, strict=True):
            chosen, lower = answer.chosen, lower_of(coding, answer)
            found = ["-", "-", "-", "-"]
            if chosen is not None:
                found = [
                    chosen.rate.number,
                    f"{chosen.score:.2f}",
                    "-" if lower is None else f"{lower:.2f}",
                    f"{chosen.bitrate_kbps:.0f}",
                ]
            own = [coding.choice.encoder.name, coding.choice.preset, f"{answer.target:g}"]
            told = "-" if exact is None else f"{exact:.0f}"
            rows.append([*own, *found, told, _VERDICTS[answer.verdict, answer.settled]])
    titles = ("encoder", "preset", "target", "quality", "score", "at least", "kbit/s", "at target")
    print_table((*titles, ""), rows, align="<<>>>>>><")
    print_line()
    for beside in compare(codings)[1:]:
        choice, bd = beside.coding.choice, beside.bd
        told = f"{choice.encoder.name} {choice.preset} against the first: "
        if bd is None:
            print_line(told + beside.reason)
        else:
            print_line(
                f"{told}{bd.percent:+.1f} % bitrate at equal quality (BD-rate, {bd.low:.1f} to "
                f"{bd.high:.1f}, {100 * bd.overlap:.0f} % of the range of both)"
            )
    for evidence in dict.fromkeys(evidence_of(c, answer) for c in codings for answer in c.answers):
        print_line(f"scores: {evidence}")


_VERDICTS = {
    ("met", True): "",
    ("met", False): "cheaper ones not tried",
    ("met_by_the_cheapest", True): "the cheapest setting",
    ("out_of_reach", True): "out of reach",
    ("undecided", False): "more encodes needed",
}


def _print_answer(coding: Coding, answer: Answer, judge: Judge, question: Question) -> None:
    chosen, choice = answer.chosen, coding.choice
    if chosen is None:
        return
    from loso.recommend.record import evidence_of, lower_of

    print_line(
        f"{coding.clip.src}, {choice.encoder.name} {choice.preset}: quality {chosen.rate.number} "
        f"scores {chosen.score:.2f} ({judge.name}, {question.pool}) at {chosen.bitrate_kbps:.0f} "
        "kbit/s"
    )
    lower, evidence = lower_of(coding, answer), evidence_of(coding, answer)
    if answer.bound is None:
        print_line(evidence)
    else:
        print_line(f"at least {lower:.2f} with {100 * answer.bound.level:g} %: {evidence}")
    if answer.verdict == "met_by_the_cheapest":
        print_line(f"it is the cheapest setting there is, and even that reaches {answer.target:g}")
    elif answer.beyond is not None and answer.settled:
        beyond = answer.beyond
        print_line(f"the next cheaper, {beyond.rate.number}, scores {beyond.score:.2f}")
    else:
        known = "" if answer.beyond is None else f" and {answer.beyond.rate.number}"
        print_line(
            f"cheaper settings between it{known or ' and the end of the scale'} were not tried: "
            "allow more with --max-encodes"
        )


def hold(applied: Applied, judge: Judge, target: float, *, as_json: bool) -> None:
    """Say whether the coded clip keeps the promise; Refused where it does not."""
    scored = f"scores {applied.score:.2f} ({judge.name}) at {applied.bitrate_kbps:.0f} kbit/s"
    if not applied.held:
        raise Refused(
            f"the promise of {target:g} was not kept: it {scored}",
            where=str(applied.path),
            fix="the file stays; --segments 0 measures the whole clip before it promises",
        )
    if not as_json:
        print_line(f"{applied.path}: {scored}, the promise of {target:g} is kept")
