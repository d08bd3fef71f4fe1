"""Commands that judge: `gate`, `calibrate` and `validate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from loso.cli.console import hint, print_json, show_progress, warn_all
from loso.cli.options import (
    DEFAULT_SEEDS_TEXT,
    CorpusRootOption,
    JsonOption,
    KeyOption,
    SeedsOption,
    parse_seeds,
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
        typer.echo("\n".join(_gate_lines(report)))
        typer.echo(f"\ngate: {'pass' if report.passed else 'FAIL'}")
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
    as_json: JsonOption = False,
) -> None:
    """Calibrate a run's intervals over its sources and measure their coverage by refits.

    Exit 2 where the run cannot be judged or its sources do not support the level; then nothing is
    written.
    """
    chosen = parse_seeds(seeds)
    from loso.calibration import calibrate_run
    from loso.corpus.load import load_corpus
    from loso.run_folder import INTERVALS_FILE, VERDICT_FILES

    opened = load_corpus(corpus, key=key or ())
    with show_progress("calibrating") as progress:
        intervals = calibrate_run(
            loso_dir, opened, chosen, level=level, pairs=pairs, compute=compute, progress=progress
        )
    warn_all(opened.warnings)
    if as_json:
        print_json(intervals.model_dump(mode="json"))
    else:
        typer.echo("\n".join(_interval_lines(intervals)))
    hint(f"wrote {loso_dir / INTERVALS_FILE}")
    if any((loso_dir / name).exists() for name in VERDICT_FILES):
        hint("the verdict in this folder was given before: validate again")


def _interval_lines(intervals: IntervalsFile) -> Iterator[str]:
    """Yield the rule of each pool and how it did beside mu +- z sigma."""
    from loso.intervals import level_key

    level, coverage = level_key(intervals.default_level), intervals.coverage
    judged = f"{len(coverage.judged_sources)} of {intervals.n_calibration_sources}"
    yield f"intervals of level {level}, supported by {intervals.n_calibration_sources} sources"
    yield ""
    yield f"{'pool':6}{'interval':34}{'coverage':>9}{'worst':>7}{'width':>8}   mu +- z sigma"
    for pool, rule in intervals.by_pool.items():
        quantile = f"{rule.quantiles[level]:.4g}"
        form = f"mu +- {quantile}"
        if rule.form == "scaled":
            form += f" x (sigma + {rule.s0:.3g})"
        measured = coverage.by_pool[pool]
        yield (
            f"{pool:6}{form:34}{_covered(measured.hierarchical.get(level))}"
            f"   {_covered(measured.gaussian.get(level))}"
        )
    of_rows = coverage.by_pool[intervals.unit]
    yield ""
    yield f"coverage is measured by refits on {judged} sources: mean, worst source, mean width"
    if level in of_rows.hierarchical:
        yield f"worst source of {intervals.unit}s: {of_rows.hierarchical[level].worst_source}"
    else:
        yield f"no coverage at level {level}: {of_rows.left_out['hierarchical'][level]}"


def _covered(found: LevelCoverage | None) -> str:
    if found is None:
        return f"{'-':>9}{'-':>7}{'-':>8}"
    return f"{found.mean:9.3f}{found.worst:7.3f}{found.mean_width:8.3g}"


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
        typer.echo("\n".join(_verdict_lines(verdict)))
    hint(f"wrote {path}")
    if verdict.verdict == "HOLD":
        raise typer.Exit(1)


def _verdict_lines(verdict: Verdict) -> Iterator[str]:
    """Yield a verdict as text: the gate's table, the answer, and on HOLD what to try."""
    yield from _gate_lines(verdict.gate)
    yield ""
    yield f"{verdict.verdict}: {verdict.recommendation}"
    for sentence in verdict.diagnosis["try"]:
        yield f"  try: {sentence}"


def _gate_lines(report: GateReport) -> Iterator[str]:
    seed, lowest = min(report.per_seed_plccs.items(), key=lambda item: item[1])
    limits = (
        ("mean over seeds", report.mean_plcc, 1, report.mean_plcc_threshold, report.mean_plcc_pass),
        (
            "spread of seeds",
            report.plcc_spread,
            -1,
            report.plcc_spread_max,
            report.plcc_spread_pass,
        ),
        (f"lowest, seed {seed}", lowest, 1, report.per_seed_min, report.per_seed_pass),
    )
    yield f"{'PLCC on unseen sources':24}{'value':>8}{'limit':>11}{'margin':>10}"
    for name, value, direction, limit, passed in limits:
        sign = ">=" if direction > 0 else "<="
        margin = _signed(direction * (value - limit))
        answer = "pass" if passed else "FAIL"
        yield f"{name:24}{value:8.4f}  {sign} {limit:6g}{margin:>10}  {answer}"
    gain = report.gain_over_vmaf
    if gain is not None:
        yield ""
        answer = "pass" if gain.beats else "FAIL"
        low = "none" if gain.bootstrap.low is None else f"{gain.bootstrap.low:.4g}"
        yield f"{'RMSE, mapped':24}{gain.model_rmse:8.4g}  that of VMAF {gain.baseline_rmse:.4g}"
        yield f"{'gain over VMAF':24}{gain.rmse_gain:8.4g}  lower end {low} > 0  {answer}"
    yield ""
    for number, plcc in report.per_seed_plccs.items():
        yield f"seed {number:<19}{plcc:8.4f}"
    if report.advisory:
        yield ""
        yield "Beside the gate, without a say in it"
    for advice in report.advisory:
        yield f"{advice.check.replace('_', ' '):24}{advice.value:8.4g}  {advice.note}"


def _signed(margin: float) -> str:
    """Return a margin with four places, or its size where those would show nothing of it."""
    if abs(margin) <= GateThresholds.tolerance:
        return "0"
    return f"{margin:+.4f}" if abs(margin) >= 5e-5 else f"{margin:+.0e}"
