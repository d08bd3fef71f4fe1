"""Commands on models: `export`, and `registry` with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loso.cli.console import (
    answer,
    hint,
    print_json,
    print_line,
    print_table,
    show_progress,
    warn_all,
)
from loso.cli.lazy import Group
from loso.cli.options import JsonOption, KeyOption, StemOption, require_given
from loso.cli.settings import with_settings
from loso.recipe import DEFAULT_CORPUS, Compute

__all__ = ["export", "registry_app"]

registry_app = typer.Typer(
    name="registry",
    help="Which exported models are for production: list, flip, unflip.",
    cls=Group,
    add_completion=False,
)

RunDir = Annotated[
    Path, typer.Argument(metavar="RUN_DIR", help="Folder of a promoted run.", show_default=False)
]
ModelDir = Annotated[
    Path, typer.Argument(metavar="MODEL_DIR", help="Folder of an export.", show_default=False)
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
    require_given(corpus)
    from loso.corpus.load import load_corpus
    from loso.export import export_model
    from loso.model.files import DEFAULT_STEM

    kept = "the same command begins anew, and completes what is half written"
    with show_progress("final fit", kept=kept) as progress:
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
        sums = [(member.sha256, member.onnx) for member in manifest.members]
        for sha256, graph in (*sums, (manifest.sha256, manifest.onnx)):
            print_line(f"{sha256}  {graph}")
        print_line(f"{manifest.id}: {manifest.ensemble_size} members and their ensemble")
    hint(f"wrote {out_dir}; members are marked smoke: true")
    hint(f"next: loso registry flip {out_dir} --verdict {run_dir / 'PROMOTE.json'}")


@registry_app.command("list")
def list_registry(model_dir: ModelDir, as_json: JsonOption = False) -> None:
    """List the models of a folder, and whether their graphs are the ones that it names.

    Example: loso registry list model
    """
    from loso.registry import list_models

    models = list_models(model_dir)
    if as_json:
        records = [{**m.entry.model_dump(mode="json"), "state": m.state} for m in models]
        print_json({"models": records})
        return
    rows = [
        (
            model.entry.id,
            "trial" if model.entry.smoke else "production",
            answer(model.state, good=model.state == "whole"),
            model.entry.onnx,
        )
        for model in models
    ]
    print_table(("model", "use", "state", "graph"), rows)


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
    name: StemOption = None,
    sign: SignOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mark a model's members as production, on the verdict that they were exported on.

    Exit 1 where anything does not match; then nothing is written.

    Example: loso registry flip model --verdict runs/first/PROMOTE.json
    """
    from loso.model.files import promotion_name
    from loso.registry import flip as flip_model

    record = flip_model(
        model_dir, verdict, stem=name, sign_key=sign, accept_limits=accept_limits, again=again
    )
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        print_line(f"{record.id}: {len(record.members)} members are for production (smoke: false)")
    hint(f"wrote {model_dir / promotion_name(record.id)}")


@registry_app.command()
def unflip(
    model_dir: ModelDir,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, in one line.")],
    name: StemOption = None,
    sign: SignOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a model's members out of production, with the reason recorded.

    Example: loso registry unflip model --reason "scores of dark scenes are off"
    """
    from loso.model.files import promotion_name
    from loso.registry import unflip as unflip_model

    record, left = unflip_model(model_dir, reason, stem=name, sign_key=sign)
    warn_all(left)
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        print_line(f"{record.id}: {len(record.members)} members are on trial (smoke: true)")
    hint(f"wrote {model_dir / promotion_name(record.id)}")
