"""Commands that judge: `gate` and `validate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from loso.cli.console import hint, print_json, warn_all
from loso.cli.options import (
    DEFAULT_SEEDS_TEXT,
    CorpusRootOption,
    JsonOption,
    KeyOption,
    SeedsOption,
    parse_seeds,
)
from loso.cli.settings import with_settings
from loso.recipe import GateThresholds

if TYPE_CHECKING:
    from loso.gate import GateReport
    from loso.verdict import Verdict

__all__ = ["gate", "print_verdict", "validate"]

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
    if not report.passed:
        raise typer.Exit(1)


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
