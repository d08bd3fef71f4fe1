"""What `recommend` found, in words: one answer in sentences, several as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loso.cli.console import print_json, print_line, print_table, relay, warn_all
from loso.errors import Incomplete, LosoError, Refused

if TYPE_CHECKING:
    from loso.recommend.answer import Answer, Coding, Tried
    from loso.recommend.apply import Applied
    from loso.recommend.ask import Found
    from loso.recommend.judge import Judge
    from loso.recommend.question import Question

__all__ = ["conclude"]


def conclude(
    found: Sequence[Found],
    applied: Sequence[Applied | None],
    judge: Judge,
    question: Question,
    *,
    as_json: bool,
) -> None:
    """Print what was found of each clip; refuse where one lacks an answer, or a promise broke.

    Of one clip its own refusal is raised; of several each is said, and Incomplete raised.
    """
    from loso.recommend.record import record_of

    refusals = []
    for at, (own, coded) in enumerate(zip(found, applied, strict=True)):
        refusal = _refusal(own, coded, judge, question)
        warn_all(_remarks(own))
        _tell_failures(own, refusal)
        if as_json:
            print_json(record_of(own, judge, question, coded))
        elif _has_answers(own, question):
            if at:
                print_line()
            _print_found(own, judge, question)
            if coded is not None and coded.held:
                kept = f"the target of {coded.target:g} is met"
                print_line(f"{coded.path}: {_scored(coded, judge)}, {kept}")
        if refusal is not None:
            refusals.append(refusal)
    if len(found) == 1 and refusals:
        raise refusals[0]
    for refusal in refusals:
        relay(f"failed: {refusal}")
    if refusals:
        raise Incomplete(
            f"{len(refusals)} of {len(found)} clips have no answer that holds",
            fix="their reasons stand above; what was coded is kept",
        )


def _remarks(found: Found) -> tuple[str, ...]:
    """Return what the judge has to say of the answers' scores, with the clip's name.

    Where there is no answer, of the best score that it was refused by.
    """
    answers = ((answer, coding.tried) for coding in found.codings for answer in coding.answers)
    looked_at = (answer.chosen or tried[0] for answer, tried in answers)
    said = (remark for tried in looked_at for remark in tried.score.remarks)
    return tuple(f"{found.clip.src}: {remark}" for remark in dict.fromkeys(said))


def _tell_failures(found: Found, refusal: LosoError | None) -> None:
    """Say why ways of coding failed, but for the one that the clip is refused for."""
    for failure in found.failures:
        if failure is not refusal:
            relay(f"failed: {failure}")


# -- Refusals -------------------------------------------------------------------------------------


def _refusal(
    found: Found, applied: Applied | None, judge: Judge, question: Question
) -> LosoError | None:
    """Return why a clip has no answer, or none that held; None where all is well."""
    if applied is not None and not applied.held:
        least = judge.text(applied.lower)
        bounded = f", at least {least}" if applied.lower < applied.score.value else ""
        was_cut = any(coding.segments for coding in found.codings)
        return Refused(
            f"the target of {applied.target:g} is missed: it {_scored(applied, judge)}{bounded}",
            where=str(applied.path),
            fix="the file stays"
            + ("; --segments 0 codes all of a clip before it promises" if was_cut else ""),
        )
    if found.failures:
        return found.failures[0]
    unanswered = _unanswered(found, question)
    if unanswered:
        return _no_answer(found, unanswered[0], judge, question)
    return None


def _has_answers(found: Found, question: Question) -> bool:
    """Tell whether there is anything to print: of several targets one may be met."""
    return len(_unanswered(found, question)) < len(question.targets)


def _unanswered(found: Found, question: Question) -> list[int]:
    """Return the places of the targets that no way of coding was seen to meet."""
    return [at for at in range(len(question.targets)) if found.cheapest(at) is None]


def _no_answer(found: Found, at: int, judge: Judge, question: Question) -> Refused:
    from loso.recommend.record import level_of

    coding = max(found.codings, key=lambda coding: coding.tried[0].score.lower)
    answer, name, best = coding.answers[at], coding.choice.encoder.name, coding.tried[0]
    told = f"{best.rate.number}, scores {judge.text(best.score.value)}"
    reach, whom = "reach", f"{name}, nor of the others," if found.codings[1:] else name
    level = level_of(coding, answer, judge)
    if coding.segments and level is None:
        told = f"{best.rate.number}, scores about {judge.text(best.score.value)} by its segments"
    if level is not None:
        least = best.score.lower - (answer.bound.margin if answer.bound else 0.0)
        told = f"{best.rate.number}, at least {judge.text(least)} with {100 * level:g} %"
        reach = "be promised to reach"
    if all(one.answers[at].verdict == "out_of_reach" for one in found.codings):
        return Refused(
            f"no setting of {whom} can {reach} {answer.target:g}: the best, {told}",
            where=coding.clip.src,
            fix="lower the --target",
        )
    encodes = "encode" if question.max_encodes == 1 else "encodes"
    return Refused(
        f"{question.max_encodes} {encodes} showed no setting that can {reach} {answer.target:g} "
        f"yet: the best tried, {told}",
        where=coding.clip.src,
        fix="allow more with --max-encodes: these are kept",
    )


# -- Answers --------------------------------------------------------------------------------------


def _print_found(found: Found, judge: Judge, question: Question) -> None:
    """Print every answer for one clip, and how the ways of coding compare."""
    if len(found.codings) == 1 and len(question.targets) == 1:
        _print_answer(found.codings[0], judge, question)
        return
    _print_table(found, judge, question)
    _print_comparison(found, judge)
    from loso.recommend.record import evidence_of

    basis = (evidence_of(c, answer, judge) for c in found.codings for answer in c.answers)
    for evidence in dict.fromkeys(basis):
        print_line(f"scores: {evidence}")


def _print_table(found: Found, judge: Judge, question: Question) -> None:
    from loso.recommend.compare import compare
    from loso.recommend.record import lower_of

    print_line(f"{found.clip.src}: {judge.name}, {question.pool}")
    print_line()
    of_heights = any(own[1:] for _, own in found.by_choice())
    cheapest = [found.cheapest(at) for at in range(len(question.targets))]
    rows = []
    for beside in compare(found.codings):
        coding = beside.coding
        for at, (answer, exact) in enumerate(
            zip(coding.answers, beside.bitrates_kbps, strict=True)
        ):
            best = cheapest[at]
            is_best = bool(found.codings[1:]) and best is not None and best[1] is answer
            rows.append(
                (
                    coding.choice.encoder.name,
                    coding.choice.preset,
                    *([f"{coding.height}"] if of_heights else []),
                    f"{answer.target:g}",
                    *_chosen(answer.chosen, lower_of(coding, answer, judge), judge),
                    "-" if exact is None else f"{exact:.0f}",
                    "the cheapest" if is_best else _VERDICTS[answer.verdict, answer.settled],
                )
            )
    titles = [*("encoder", "preset"), *(["height"] if of_heights else []), "target", "quality"]
    titles += ["score", "at least", "kbit/s", "at target", ""]
    print_table(titles, rows, align="<<" + ">" * (len(titles) - 3) + "<")
    print_line()


def _chosen(chosen: Tried | None, lower: float | None, judge: Judge) -> tuple[str, ...]:
    if chosen is None:
        return "-", "-", "-", "-"
    return (
        chosen.rate.number,
        judge.text(chosen.score.value),
        "-" if lower is None else judge.text(lower),
        f"{chosen.bitrate_kbps:.0f}",
    )


def _print_comparison(found: Found, judge: Judge) -> None:
    """Print what each choice costs beside the first, and which heights are worth having."""
    from loso.recommend.compare import compare

    for beside in compare(found.codings)[1:]:
        coding, bd = beside.coding, beside.bd
        if coding.choice == found.codings[0].choice:  # another height: the hull tells of it
            continue
        told = f"{coding.choice.encoder.name} {coding.choice.preset} against the first: "
        if coding.height != found.codings[0].height:
            told = f"{coding.height} high, {told}"
        if bd is None:
            print_line(told + beside.reason)
        else:
            low, high = judge.text(bd.low), judge.text(bd.high)
            print_line(
                f"{told}{bd.percent:+.1f} % bitrate at equal quality (BD-rate, {low} to {high}, "
                f"{100 * bd.overlap:.0f} % of the range of both)"
            )
    from loso.recommend.hull import hull_of

    for choice, own in found.by_choice():
        if own[1:]:
            name = f"{choice.encoder.name} {choice.preset}"
            print_line(f"{name}, convex hull: {', '.join(_spans(hull_of(own), judge))}")


def _spans(hull: Sequence[tuple[Coding, Tried]], judge: Judge) -> list[str]:
    """Return which height is worth having from which bitrate and score on."""
    spans = []
    before = 0
    for coding, tried in hull:
        if coding.height != before:
            score, kbps = tried.score.value, tried.bitrate_kbps
            spans.append(f"{coding.height} from {kbps:.0f} kbit/s ({judge.text(score)})")
            before = coding.height
    return spans


_VERDICTS = {
    ("met", True): "",
    ("met", False): "cheaper ones not tried",
    ("met_by_the_cheapest", True): "the cheapest setting",
    ("out_of_reach", True): "out of reach",
    ("undecided", False): "more encodes needed",
}


def _print_answer(coding: Coding, judge: Judge, question: Question) -> None:
    """Print the one answer to the one target of a clip coded in one way."""
    (answer,), choice = coding.answers, coding.choice
    chosen = answer.chosen
    if chosen is None:
        return
    from loso.recommend.record import evidence_of, level_of, lower_of

    about = "about " if coding.segments else ""
    size = "" if coding.height == coding.clip.height else f" at height {coding.height}"
    print_line(
        f"{coding.clip.src}, {choice.encoder.name} {choice.preset}{size}: quality "
        f"{chosen.rate.number} scores {judge.text(chosen.score.value)} ({judge.name}, "
        f"{question.pool}) at {about}{chosen.bitrate_kbps:.0f} kbit/s"
    )
    lower, evidence = lower_of(coding, answer, judge), evidence_of(coding, answer, judge)
    level = level_of(coding, answer, judge)
    if lower is None or level is None:
        print_line(evidence)
    else:
        print_line(f"at least {judge.text(lower)} with {100 * level:g} %: {evidence}")
    _print_what_is_cheaper(answer, judge, is_bounded=level is not None)


def _print_what_is_cheaper(answer: Answer, judge: Judge, *, is_bounded: bool) -> None:
    beyond = answer.beyond
    if answer.verdict == "met_by_the_cheapest":
        print_line(f"it is the cheapest setting there is, and even that reaches {answer.target:g}")
    elif beyond is not None and answer.settled:
        scores = judge.text(beyond.score.value)
        least = beyond.score.lower - (answer.bound.margin if answer.bound else 0.0)
        bounded = (
            f", at least {judge.text(least)}" if is_bounded and least < beyond.score.value else ""
        )
        print_line(f"the next cheaper, {beyond.rate.number}, scores {scores}{bounded}")
    else:
        known = "" if beyond is None else f" and {beyond.rate.number}"
        print_line(
            f"cheaper settings between it{known or ' and the end of the scale'} were not tried: "
            "allow more with --max-encodes"
        )


def _scored(applied: Applied, judge: Judge) -> str:
    kbps = f"{applied.bitrate_kbps:.0f} kbit/s"
    return f"scores {judge.text(applied.score.value)} ({judge.name}) at {kbps}"
