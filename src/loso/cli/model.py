"""Commands on models: `export`, and `registry` with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loso.cli.console import hint, print_json, show_progress, warn_all
from loso.cli.options import JsonOption, KeyOption
from loso.cli.settings import with_settings
from loso.recipe import DEFAULT_CORPUS, Compute

__all__ = ["export", "registry_app"]

registry_app = typer.Typer(
    name="registry",
    help="Which exported models are for production: list, flip, unflip.",
    no_args_is_help=True,
    add_completion=False,
)

RunDir = Annotated[
    Path, typer.Argument(metavar="RUN_DIR", help="Folder of a promoted run.", show_default=False)
]
ModelDir = Annotated[
    Path, typer.Argument(metavar="MODEL_DIR", help="Folder of an export.", show_default=False)
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="STEM", help="Which model, where several share the folder."),
]
SignOption = Annotated[
    Path | None,
    typer.Option("--sign", metavar="KEY", help="Private key (PEM) that signs the folder."),
]


@with_settings
def export(
    run_dir: RunDir,
    compute: Compute,
    corpus: Annotated[Path, typer.Option("--corpus", help="Corpus of the run.")] = DEFAULT_CORPUS,
    out_dir: Annotated[Path, typer.Option("--out-dir", help="Folder of the model.")] = Path(
        "model"
    ),
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="STEM", help="What the model's files are called."),
    ] = None,
    sign: SignOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a promoted run's seeds on the whole corpus; write graphs, records and a card.

    Exit 1 without a PROMOTE.json that speaks of the run and the corpus as they stand.

    Example: loso export runs/first --corpus corpus.jsonl --out-dir model
    """
    from loso.corpus.load import load_corpus
    from loso.export import export_model
    from loso.model.files import DEFAULT_STEM

    with show_progress("final fit") as progress:
        exported = export_model(
            run_dir,
            load_corpus(corpus, key=key or ()),
            out_dir,
            stem=DEFAULT_STEM if name is None else name,
            compute=compute,
            sign_key=sign,
            progress=progress,
        )
    warn_all(exported.warnings)
    manifest = exported.manifest
    if as_json:
        print_json(
            {
                "out_dir": str(out_dir),
                "id": manifest.id,
                "files": list(exported.files),
                "members": {member.id: member.sha256 for member in manifest.members},
                "ensemble_sha256": manifest.sha256,
                "engine": exported.engine,
                "signed": sign is not None,
            }
        )
    else:
        for member in manifest.members:
            typer.echo(f"{member.sha256}  {member.onnx}")
        typer.echo(f"{manifest.sha256}  {manifest.onnx}")
        typer.echo(f"{manifest.id}: {manifest.ensemble_size} members and their ensemble")
    hint(f"wrote {out_dir}; members are marked smoke: true")
    hint(f"next: loso registry flip {out_dir} --verdict {run_dir / 'PROMOTE.json'}")


@registry_app.command("list")
def list_registry(model_dir: ModelDir, as_json: JsonOption = False) -> None:
    """List the models of a folder, and whether their graphs are the ones that it names."""
    from loso.registry import list_models

    models = list_models(model_dir)
    if as_json:
        records = [{**m.entry.model_dump(mode="json"), "state": m.state} for m in models]
        print_json({"models": records})
        return
    width = max((len(model.entry.id) for model in models), default=0)
    for model in models:
        use = "trial" if model.entry.smoke else "production"
        typer.echo(f"{model.entry.id:{width}}  {use:10}  {model.state:8}  {model.entry.onnx}")


@registry_app.command()
def flip(
    model_dir: ModelDir,
    verdict: Annotated[
        Path, typer.Option("--verdict", metavar="FILE", help="PROMOTE.json of the exported run.")
    ],
    accept_limits: Annotated[
        bool,
        typer.Option("--accept-limits", help="Take limits looser than the standard; recorded."),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Take a model back that was withdrawn.")
    ] = False,
    name: NameOption = None,
    sign: SignOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mark a model's members as production, on the verdict that they were exported on.

    Exit 1 where anything does not match; then nothing is written.
    """
    from loso.model.files import promotion_name
    from loso.registry import flip as flip_model

    record = flip_model(
        model_dir, verdict, stem=name, sign_key=sign, accept_limits=accept_limits, again=again
    )
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        typer.echo(f"{record.id}: {len(record.members)} members are for production (smoke: false)")
    hint(f"wrote {model_dir / promotion_name(record.id)}")


@registry_app.command()
def unflip(
    model_dir: ModelDir,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, in one line.")],
    name: NameOption = None,
    sign: SignOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a model's members out of production, with the reason recorded."""
    from loso.model.files import promotion_name
    from loso.registry import unflip as unflip_model

    record, left = unflip_model(model_dir, reason, stem=name, sign_key=sign)
    warn_all(left)
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        typer.echo(f"{record.id}: {len(record.members)} members are on trial (smoke: true)")
    hint(f"wrote {model_dir / promotion_name(record.id)}")
