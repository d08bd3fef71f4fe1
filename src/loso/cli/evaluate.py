"""The command that holds a model against a new corpus: `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.console import print_json, print_line, print_table, warn_all
from loso.cli.options import JsonOption, KeyOption, ModelOption, StemOption

if TYPE_CHECKING:
    from loso.evaluate import Agreement, Evaluation

__all__ = ["evaluate"]


def evaluate(
    model: ModelOption,
    corpus: Annotated[
        Path, typer.Option("--corpus", help="A corpus the model has not seen.", show_default=False)
    ],
    key: KeyOption = None,
    name: StemOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a model against a corpus that it has not seen: agreement, coverage, drift of inputs.

    Example: loso evaluate --model models --corpus other.jsonl
    """
    from loso.corpus.load import load_corpus
    from loso.evaluate import evaluate_model
    from loso.predict import Predictor

    predictor = Predictor.load(model, name)
    evaluation = evaluate_model(predictor, load_corpus(corpus, key=key or ()))
    warn_all(evaluation.warnings)
    if as_json:
        print_json(evaluation.to_dict())
    else:
        _print_evaluation(evaluation)


def _print_evaluation(evaluation: Evaluation) -> None:
    """Print a table for each pool, then how far each input has drifted."""
    print_line(
        f"{evaluation.model} on {evaluation.corpus}: {evaluation.rows} rows, {evaluation.clips} "
        f"clips, target {evaluation.target}"
    )
    titles = {"frame": "frames", "mean": "clips, mean of their frames", "clip": "clips"}
    figures = ("n", "PLCC", "SROCC", "RMSE", "inside", "width")
    seen = evaluation.trained_on
    for pool, title in titles.items():
        if pool not in evaluation.pools:
            continue
        judged = evaluation.pools[pool]
        by_source = ((f"{s} *" if s in seen else s, own) for s, own in judged.by_source.items())
        lines = [*by_source, ("together *" if seen else "together", judged.pooled)]
        if judged.mapped is not None:
            lines.append(("together, mapped *" if seen else "together, mapped", judged.mapped))
        print_line()
        print_line(title)
        rows = [(source, *_agreement(agreement)) for source, agreement in lines]
        print_table(("source", *figures), rows, align="<>>>>>>")
    notes = []
    if seen:
        notes.append("*: of sources that the model was trained on, and says nothing about new ones")
    if any(judged.mapped for judged in evaluation.pools.values()):
        notes.append("mapped: by a rising cubic, fitted on the other sources each time")
    for note in notes:
        print_line()
        print_line(note)
    print_line()
    if evaluation.level is not None:
        level = f"{100 * evaluation.level:g} %"
        print_line(f"inside: share within intervals of {level}, mean over sources")
    print_line(f"intervals: {evaluation.interval}")
    print_line()
    drifts = [
        (
            drift.name,
            "-" if drift.mean_shift is None else f"{drift.mean_shift:+.2f} sd",
            _figure(drift.outside_share, ".1%"),
        )
        for drift in evaluation.inputs
    ]
    print_table(("input", "shift of the mean", "outside of training"), drifts, align="<>>")


def _agreement(found: Agreement) -> tuple[str, ...]:
    return (
        f"{found.n}",
        _figure(found.plcc, ".4f"),
        _figure(found.srocc, ".4f"),
        f"{found.rmse:.2f}",
        _figure(found.coverage, ".3f"),
        _figure(found.mean_width, ".2f"),
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
