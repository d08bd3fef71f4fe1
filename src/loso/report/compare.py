"""Two runs beside each other: what they were made with, and what changed for each source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from plotly import graph_objects as go

from loso.intervals import LevelCoverage
from loso.metrics.correlation import defined_mean
from loso.report.bounds import shown_level
from loso.report.figures import MOST_SOURCES, SPLIT, escaped, figure, named, rounded
from loso.report.parts import Chart, Note, Part, Section, Table
from loso.report.provenance import recipe_rows
from loso.report.reading import RunRecords
from loso.report.scores import SourceScores, by_source

__all__ = ["sections"]

_Scores = Mapping[str, SourceScores]


def sections(one: RunRecords, other: RunRecords) -> tuple[Section, ...]:
    """Return what changed from `one` to `other`."""
    return (
        Section("verdicts", "Verdicts", tuple(_verdicts(one, other))),
        Section("sources", "What changed, source by source", tuple(_sources(one, other))),
        Section("intervals", "Intervals", tuple(_intervals(one, other))),
        Section("settings", "What they were made with", tuple(_settings(one, other))),
    )


def _verdicts(one: RunRecords, other: RunRecords) -> Iterator[Part]:
    if one.first.corpus_sha256 != other.first.corpus_sha256:
        yield Note(
            "The runs are of different corpora: a source of one name need not hold the same rows.",
            "warn",
        )
    if one.recipe.target != other.recipe.target or one.recipe.unit != other.recipe.unit:
        yield Note("The runs predict different things: only their correlations compare.", "warn")
    for records in (one, other):
        for remark in records.remarks:
            yield Note(f"{records.run_dir}: {remark}", "warn")
    numbers: tuple[tuple[str, Callable[[RunRecords], float | None]], ...] = (
        ("mean PLCC", lambda run: run.verdict.gate.mean_plcc if run.verdict else None),
        ("spread of seeds", lambda run: run.verdict.gate.plcc_spread if run.verdict else None),
        (
            "lowest seed",
            lambda run: min(run.verdict.gate.per_seed_plccs.values()) if run.verdict else None,
        ),
        ("mean RMSE", lambda run: defined_mean(file.mean_rmse for file in run.seed_files)),
    )
    answers = [run.verdict.verdict if run.verdict else "not judged" for run in (one, other)]
    yield Table(
        ("", *_names(one, other), "change"),
        (
            ("verdict", *answers, "" if answers[0] == answers[1] else "changed"),
            *((name, *_change(take(one), take(other))) for name, take in numbers),
        ),
        numbers=(*_names(one, other), "change"),
    )


def _names(one: RunRecords, other: RunRecords) -> tuple[str, str]:
    """Return two names that differ: the folders', or their paths where those are equal."""
    first, second = one.run_dir.resolve(), other.run_dir.resolve()
    if first.name != second.name:
        return first.name, second.name
    return f"A: {one.run_dir}", f"B: {other.run_dir}"


def _change(before: float | None, after: float | None) -> tuple[str, str, str]:
    texts = ["undefined" if value is None else f"{value:.4f}" for value in (before, after)]
    change = "" if before is None or after is None else f"{after - before:+.4f}"
    return texts[0], texts[1], change


def _sources(one: RunRecords, other: RunRecords) -> Iterator[Part]:
    before, after = by_source(one), by_source(other)
    shared = [source for source in before if source in after]
    for run, mine, theirs in ((one, before, after), (other, after, before)):
        alone = [source for source in mine if source not in theirs]
        if alone:
            yield Note(f"In {run.run_dir} alone: {', '.join(alone)}", "warn")
    if not shared:
        yield Note("They share no source.", "bad")
        return

    def moved(source: str) -> float:
        ends = before[source].mean("plcc"), after[source].mean("plcc")
        return -abs(ends[1] - ends[0]) if ends[0] is not None and ends[1] is not None else -2.0

    order = sorted(shared, key=moved)
    yield _chart(order[:MOST_SOURCES], before, after, _names(one, other), len(order))
    yield Table(
        ("source", "PLCC before", "after", "change", "RMSE before", "after ", "change "),
        tuple(
            (
                source,
                *_change(before[source].mean("plcc"), after[source].mean("plcc")),
                *_change(before[source].mean("rmse"), after[source].mean("rmse")),
            )
            for source in order
        ),
        numbers=("PLCC before", "after", "change", "RMSE before", "after ", "change "),
        caption="Means over seeds; the largest change of PLCC first.",
    )


def _chart(
    shown: list[str], before: _Scores, after: _Scores, names: tuple[str, str], count: int
) -> Chart:
    traces = [
        go.Scatter(
            x=[rounded(scores[source].mean("plcc")) for source in shown],
            y=list(range(len(shown))),
            text=[escaped(source) for source in shown],
            mode="markers",
            name=escaped(name),
            marker={"size": 10, "color": colour, "symbol": symbol},
            hovertemplate="%{text}: PLCC %{x:.4f}<extra>%{fullData.name}</extra>",
        )
        for scores, name, colour, symbol in (
            (before, names[0], SPLIT[0], "circle"),
            (after, names[1], SPLIT[1], "square"),
        )
    ]
    few = f" {len(shown)} of {count} sources." if len(shown) < count else ""
    return Chart(
        "PLCC of each source in both runs",
        figure(
            traces,
            "mean PLCC over seeds",
            "",
            yaxis={**named(shown), "autorange": "reversed", "automargin": True},
        ),
        f"The largest change on top.{few}",
        height=110 + 24 * len(shown),
    )


def _intervals(one: RunRecords, other: RunRecords) -> Iterator[Part]:
    rows: list[tuple[str, ...]] = []
    for records, name in zip((one, other), _names(one, other), strict=True):
        intervals = records.intervals
        if intervals is None:
            rows.append((name, "not calibrated", "", "", "", ""))
            continue
        level = shown_level(intervals)
        measured = intervals.coverage.by_pool[intervals.unit]
        over: LevelCoverage = measured.hierarchical[level]
        rows.append(
            (
                name,
                level,
                f"{over.mean:.3f}",
                f"{over.worst:.3f}",
                f"{over.mean_width:.4g}",
                f"{measured.gaussian[level].mean:.3f}",
            )
        )
    columns = ("run", "level", "covered", "worst source", "width", "mu +- z sigma covers")
    yield Table(columns, tuple(rows), numbers=columns[1:])


def _settings(one: RunRecords, other: RunRecords) -> Iterator[Part]:
    ours, theirs = dict(_made_with(one)), dict(_made_with(other))
    differing = [key for key in (ours | theirs) if ours.get(key) != theirs.get(key)]
    if not differing:
        yield Note("Corpus, recipe, engine, seeds and versions are the same.")
        return
    yield Table(
        ("setting", *_names(one, other)),
        tuple(
            (key, ours.get(key, "not recorded"), theirs.get(key, "not recorded"))
            for key in differing
        ),
        caption="What differs; everything else is the same.",
    )


def _made_with(records: RunRecords) -> Iterator[tuple[str, str]]:
    first = records.first
    yield "corpus sha256", first.corpus_sha256 or "not recorded"
    yield "engine", first.engine or "not recorded"
    yield from recipe_rows(records)
    for program, version in sorted((first.versions or {}).items()):
        yield f"version of {program}", version
