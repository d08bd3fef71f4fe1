"""The command `verify`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.console import hint, print_json
from loso.cli.options import JsonOption, KeyOption

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
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="STEM", help="Which model, where several share the folder."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the whole chain behind a model again and report all that is wrong.

    Exit 0 clean, 1 findings, 2 where the folder holds no model.

    Example: loso verify model --run runs/first --corpus corpus.jsonl
    """
    from loso.verify import verify_model

    found = verify_model(
        model_dir,
        stem=name,
        run_dir=run,
        corpus=corpus,
        key=key or (),
        refit=refit,
        public_key=public_key,
    )
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo("\n".join(_lines(found)))
    for note in found.notes:
        hint(f"note: {note}")
    for what, given in (("--run", run), ("--corpus", corpus)):
        if given is None:
            hint(f"note: without {what} the model is not held against what it was made from")
    if not found.clean:
        raise typer.Exit(1)


def _lines(found: Verification) -> Iterator[str]:
    """Yield the findings, two lines each, and the answer."""
    width = max((len(finding.check) for finding in found.findings), default=0)
    for finding in found.findings:
        yield f"{finding.check:{width}}  {finding.file}"
        yield f"{'':{width}}  {finding}"
    if found.findings:
        yield ""
    count = len(found.findings)
    answer = "clean" if found.clean else f"{count} finding{'s' * (count > 1)}"
    yield f"{', '.join(found.models)}: {answer} in {found.n_files} files"
