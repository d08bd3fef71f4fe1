"""The command `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.console import answer, hint, print_json, print_line, print_table, show_progress
from loso.cli.options import JsonOption, KeyOption, StemOption

if TYPE_CHECKING:
    from loso.verify import Verification

__all__ = ["verify"]


def verify(
    model_dir: Annotated[
        Path,
        typer.Argument(metavar="MODEL_DIR", help="Folder of an export.", show_default=False),
    ],
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN_DIR", help="Run that the model was exported from."),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", metavar="FILE", help="Corpus that the model was trained on."),
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Train the weights again: needs --run and --corpus.")
    ] = False,
    key: KeyOption = None,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", metavar="KEY", help="Key (PEM) of who signed the folder."),
    ] = None,
    name: StemOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the whole chain behind a model again and report all that is wrong.

    Exit 0 clean, 1 findings, 2 where the folder holds no model.

    Example: loso verify model --run runs/first --corpus corpus.jsonl
    """
    from loso.verify import verify_model

    with show_progress("refit", kept="nothing is ever written here") as progress:
        found = verify_model(
            model_dir,
            stem=name,
            run_dir=run,
            corpus=corpus,
            key=key or (),
            refit=refit,
            public_key=public_key,
            progress=progress,
        )
    if as_json:
        print_json(found.to_dict())
    else:
        _print_findings(found)
    for note in found.notes:
        hint(f"note: {note}")
    for what, given in (("--run", run), ("--corpus", corpus)):
        if given is None:
            hint(f"note: without {what} the model is not held against what it was made from")
    if not found.clean:
        raise typer.Exit(1)


def _print_findings(found: Verification) -> None:
    """Print the findings and the answer."""
    if found.findings:
        rows = [(finding.check, finding.file, str(finding)) for finding in found.findings]
        print_table(("check", "file", "finding"), rows)
        print_line()
    count = len(found.findings)
    text = "clean" if found.clean else f"{count} finding{'s' * (count > 1)}"
    verdict = answer(text, good=found.clean)
    print_line(f"{', '.join(found.models)}: ", verdict, f" in {found.n_files} files")
