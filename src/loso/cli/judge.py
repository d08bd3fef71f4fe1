"""Commands that judge: `gate`, `calibrate` and `validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from loso.cli.console import (
    NOTHING_WRITTEN,
    Coloured,
    answer,
    hint,
    print_json,
    print_line,
    print_table,
    show_progress,
    warn_all,
)
from loso.cli.options import (
    DEFAULT_SEEDS_TEXT,
    CorpusRootOption,
    JsonOption,
    KeyOption,
    SchedulerOption,
    SeedsOption,
    computing,
    parse_seeds,
    require_given,
)
from loso.cli.settings import with_settings
from loso.recipe import DEFAULT_CORPUS, Compute, GateThresholds, is_mapped

if TYPE_CHECKING:
    from loso.gate import GateReport
    from loso.intervals import IntervalsFile, LevelCoverage
    from loso.verdict import Verdict

__all__ = ["calibrate", "gate", "print_verdict", "validate"]

_BASELINE_NOT_JUDGED: Final = (
    "whether the model of {target} beats its VMAF baseline was not judged: that takes "
    "loso validate --corpus"
)
_SCORES_AS_THEY_STAND: Final = (
    "scores are taken from the seed files; loso validate recomputes them from the predictions"
)

LosoDir = Annotated[
    Path, typer.Argument(metavar="LOSO_DIR", help="Folder of a training run.", show_default=False)
]


@with_settings
def gate(
    loso_dir: LosoDir,
    thresholds: GateThresholds,
    seeds: SeedsOption = DEFAULT_SEEDS_TEXT,
    as_json: JsonOption = False,
) -> None:
    """Hold the scores in a run's seed files against the limits: exit 0 pass, 1 fail.

    They are taken from there as they stand; loso validate recomputes them from the predictions.
    Exit 2 where the run cannot be judged.

    Example: loso gate runs/first
    """
    from loso.evidence import collect_evidence
    from loso.gate import evaluate_gate
    from loso.seedfile import recipe_of

    evidence = collect_evidence(loso_dir, parse_seeds(seeds))
    report = evaluate_gate(evidence, thresholds)
    warn_all(evidence.warnings)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_gate(report)
        print_line()
        print_line("gate: ", _pass(report.passed))
    if evidence.predictions_sha256:
        hint(_SCORES_AS_THEY_STAND)
    target = recipe_of(next(iter(evidence.seed_files.values()))).target
    if is_mapped(target):
        hint(_BASELINE_NOT_JUDGED.format(target=target))
    if not report.passed:
        raise typer.Exit(1)


@with_settings
def calibrate(
    loso_dir: LosoDir,
    compute: Compute,
    corpus: Annotated[
        Path, typer.Option("--corpus", help="Corpus that the seeds were trained on.")
    ] = DEFAULT_CORPUS,
    level: Annotated[
        float | None,
        typer.Option(
            help="Share of points that intervals are to cover; by default the highest "
            "of 0.95, 0.9 and 0.8 that the sources support with room to spare."
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(help="Most refits a seed, each without two sources; 66 by default."),
    ] = None,
    key: KeyOption = None,
    seeds: SeedsOption = DEFAULT_SEEDS_TEXT,
    scheduler: SchedulerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Calibrate a run's intervals over its sources and measure their coverage by refits.

    Exit 2 where the run cannot be judged or its sources do not support the level; then nothing is
    written.

    Example: loso calibrate runs/first --corpus corpus.jsonl
    """
    chosen = parse_seeds(seeds)
    require_given(corpus)
    from loso.calibration import calibrate_run
    from loso.corpus.load import load_corpus
    from loso.run_folder import INTERVALS_FILE, VERDICT_FILES

    opened = load_corpus(corpus, key=key or ())
    with (
        computing(compute, scheduler) as trainer,
        show_progress("calibrating", kept=NOTHING_WRITTEN) as progress,
    ):
        intervals = calibrate_run(
            loso_dir, opened, chosen, level=level, pairs=pairs, compute=trainer, progress=progress
        )
    warn_all(opened.warnings)
    if as_json:
        print_json(intervals.model_dump(mode="json"))
    else:
        _print_intervals(intervals)
    hint(f"wrote {loso_dir / INTERVALS_FILE}")
    if any((loso_dir / name).exists() for name in VERDICT_FILES):
        hint("the verdict in this folder was given before: validate again")


def _print_intervals(intervals: IntervalsFile) -> None:
    """Print the rule of each pool and how it did beside mu +- z sigma."""
    from loso.intervals import level_key

    level, coverage = level_key(intervals.default_level), intervals.coverage
    judged = f"{len(coverage.judged_sources)} of {intervals.n_calibration_sources}"
    print_line(
        f"intervals of level {level}, supported by {intervals.n_calibration_sources} sources"
    )
    print_line()
    rows = []
    for pool, rule in intervals.by_pool.items():
        form = f"mu +- {rule.quantiles[level]:.4g}"
        if rule.form == "scaled":
            form += f" x (sigma + {rule.s0:.3g})"
        measured = coverage.by_pool[pool]
        ours, gaussian = measured.hierarchical.get(level), measured.gaussian.get(level)
        rows.append((pool, form, *_covered(ours), *_covered(gaussian)))
    figures = ("coverage", "worst", "width")
    print_table(("pool", "interval", *figures, "mu +- z sigma", *figures[1:]), rows, align=_COVERED)
    of_rows = coverage.by_pool[intervals.unit]
    print_line()
    print_line(
        f"coverage is measured by refits on {judged} sources: mean, worst source, mean width"
    )
    if level in of_rows.hierarchical:
        worst = of_rows.hierarchical[level].worst_source
        print_line(f"worst source of {intervals.unit}s: {worst}")
    else:
        print_line(f"no coverage at level {level}: {of_rows.left_out['hierarchical'][level]}")


_COVERED: Final = "<<>>>>>>"


def _covered(found: LevelCoverage | None) -> tuple[str, str, str]:
    if found is None:
        return "-", "-", "-"
    return f"{found.mean:.3f}", f"{found.worst:.3f}", f"{found.mean_width:.3g}"


@with_settings
def validate(
    loso_dir: LosoDir,
    thresholds: GateThresholds,
    corpus_root: CorpusRootOption = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Corpus file: every prediction is held against its row there."
        ),
    ] = None,
    key: KeyOption = None,
    seeds: SeedsOption = DEFAULT_SEEDS_TEXT,
    as_json: JsonOption = False,
) -> None:
    """Recompute a run's scores from its predictions, then write PROMOTE.json or HOLD.json.

    Exit 0 promote, 1 hold, 2 where the run cannot be judged; then nothing is written.

    Example: loso validate runs/first --corpus corpus.jsonl
    """
    from loso.corpus.load import load_corpus
    from loso.verdict import validate_run

    verdict, path = validate_run(
        loso_dir,
        parse_seeds(seeds),
        thresholds,
        corpus_root=corpus_root,
        corpus=None if corpus is None else load_corpus(corpus, key=key or ()),
    )
    print_verdict(verdict, path, as_json=as_json)


def print_verdict(verdict: Verdict, path: Path, *, as_json: bool) -> None:
    """Print a verdict and end the command: exit 1 on HOLD."""
    warn_all(verdict.warnings)
    if as_json:
        print_json(verdict.to_dict())
    else:
        _print_gate(verdict.gate)
        print_line()
        promoted = answer(verdict.verdict, good=verdict.verdict == "PROMOTE")
        print_line(promoted, ": ", verdict.recommendation)
        for sentence in verdict.diagnosis["try"]:
            print_line("  try: ", sentence)
    hint(f"wrote {path}")
    if verdict.verdict == "HOLD":
        raise typer.Exit(1)


def _print_gate(report: GateReport) -> None:
    """Print the numbers beside their limits, those of each seed, and what has no say."""
    from loso.gate import limits, margin_text

    rows = [
        (
            limit.name,
            f"{limit.value:.4f}",
            f"{limit.sign} {limit.limit:g}",
            margin_text(limit.margin),
            _pass(limit.passed),
        )
        for limit in limits(report.to_dict())
    ]
    print_table(("PLCC on unseen sources", "value", "limit", "margin", ""), rows, align="<>>>")
    gain = report.gain_over_vmaf
    if gain is not None:
        low = "none" if gain.bootstrap.low is None else f"{gain.bootstrap.low:.4g}"
        of_vmaf = f"that of VMAF {gain.baseline_rmse:.4g}"
        own = ("RMSE, mapped", f"{gain.model_rmse:.4g}", of_vmaf, "")
        beats = (f"{gain.rmse_gain:.4g}", f"lower end {low} > 0", _pass(gain.beats))
        print_line()
        print_table((), [own, ("gain over VMAF", *beats)], align="<>")
    print_line()
    seeds = ((f"seed {seed}", f"{plcc:.4f}") for seed, plcc in report.per_seed_plccs.items())
    print_table((), seeds, align="<>")
    if report.advisory:
        advised = [(a.check.replace("_", " "), f"{a.value:.4g}", a.note) for a in report.advisory]
        print_line()
        print_line("Beside the gate, without a say in it")
        print_table((), advised, align="<>")


def _pass(passed: bool) -> Coloured:
    return answer("pass" if passed else "FAIL", good=passed)
