"""A promoted run becomes a model folder: graphs, their records, a card and the sums of all.

Everything is made and checked in memory before the first file changes. The folder may hold other
models: their files and registry entries stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loso.corpus.load import Corpus, load_corpus
from loso.errors import BadInput, BadSettings
from loso.files import make_folder, read_regular, remove_file, to_json, write_atomic
from loso.inputs import block_names, feature_names
from loso.locks import folder_lock
from loso.model.card import TrainingSet, model_card
from loso.model.files import (
    DEFAULT_STEM,
    MODEL_CARD,
    MOST_RECORD_BYTES,
    REGISTRY_FILE,
    Manifest,
    RegistryEntry,
    Sidecar,
    is_member_of,
    member_stem,
    promotion_name,
    read_record,
    registry_content,
)
from loso.model.final_fit import fit_final, make_graphs
from loso.model.grounds import find_grounds
from loso.model.records import Model, manifest_of, registry_entry_of, sidecar_of
from loso.model.signing import require_key, sign_folder
from loso.model.sums import refresh_sums
from loso.progress import Progress, silent
from loso.recipe import Compute, Recipe
from loso.seedfile import recipe_of

__all__ = ["Exported", "export_model", "files_of"]

_STEM: Final = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_LONGEST_ID: Final = 64


@dataclass(frozen=True)
class Exported:
    """What an export wrote: the manifest, the names of all files, and what to tell the user."""

    out_dir: Path
    manifest: Manifest
    files: tuple[str, ...]
    engine: str
    warnings: tuple[str, ...]


def export_model(
    run_dir: Path,
    corpus: Path | Corpus,
    out_dir: Path,
    *,
    stem: str = DEFAULT_STEM,
    compute: Compute | None = None,
    sign_key: Path | None = None,
    progress: Progress = silent,
) -> Exported:
    """Fit the seeds of a promoted run on the whole corpus and write them to `out_dir`.

    The same run, corpus, engine and loso give the same bytes. Members are marked `smoke: true`,
    those of an earlier promotion too: production takes a flip of its own. Refused where the verdict
    does not speak of the run and the corpus as they stand, BadInput where `out_dir` holds something
    else under these names. A failure before the first file is renamed leaves the folder as it was;
    after one in between, the same call completes it.
    """
    run_dir, out_dir = Path(run_dir), Path(out_dir)
    corpus = corpus if isinstance(corpus, Corpus) else load_corpus(corpus)
    if not run_dir.is_dir():
        raise BadInput("not a folder", where=str(run_dir), fix="name the folder of a training run")
    with folder_lock(run_dir, "exporting"):
        grounds = find_grounds(run_dir, corpus)
    _check_names(stem, grounds.promote.seeds)
    _check_folder(out_dir, stem, sign_key)
    record = next(iter(grounds.evidence.seed_files.values()))
    recipe = recipe_of(record)
    _check_recipe(run_dir, recipe)
    fit = fit_final(
        corpus,
        recipe,
        grounds.promote.seeds,
        exclude_sources=record.excluded_sources,
        compute=compute,
        progress=progress,
    )
    model = Model(stem, corpus, grounds, fit, make_graphs(fit, grounds.intervals))
    make_folder(out_dir)
    warnings = (*corpus.warnings, *fit.inputs.warnings, *grounds.evidence.warnings)
    with folder_lock(out_dir, "exporting"):
        if (out_dir / promotion_name(stem)).exists():
            back = "members that had been for production are on trial again, their"
            warnings += (f"{out_dir}: {back} {promotion_name(stem)} is removed",)
        _check_folder(out_dir, stem, sign_key)
        files, manifest = files_of(model, _card_name(out_dir, stem))
        _write(out_dir, model, files)
        if sign_key is not None:
            sign_folder(out_dir, sign_key)
    return Exported(
        out_dir=out_dir,
        manifest=manifest,
        files=tuple(sorted({*files, REGISTRY_FILE})),
        engine=fit.engine,
        warnings=warnings,
    )


def _check_recipe(run_dir: Path, recipe: Recipe) -> None:
    """Refuse a run whose networks read what a model's graphs and records cannot name."""
    if not recipe.inputs.codec_block:
        raise BadInput(
            "its networks do not read the codec block, which is an input of every model",
            where=str(run_dir),
            fix="they are for comparison alone; train with the codec block",
        )
    names = [*feature_names(recipe.inputs), *block_names(recipe.inputs)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(
            f"{twice[0]} is the name of two inputs, and records name each once",
            where=str(run_dir),
            fix="train with another name for the feature, or without the condition",
        )


def _check_names(stem: str, seeds: Sequence[int]) -> None:
    longest = max(len(member_stem(stem, seed)) for seed in seeds)
    if not _STEM.fullmatch(stem) or longest > _LONGEST_ID or f"{stem}.json" == REGISTRY_FILE:
        raise BadSettings(
            "not a name for a model",
            expected=f"a-z, 0-9, _ and -, at most {_LONGEST_ID} with the seed, not registry",
            found=repr(stem[:80]),
        )


def _check_folder(out_dir: Path, stem: str, sign_key: Path | None) -> None:
    """Refuse a folder whose files of these names are no export's, before anything is written."""
    if out_dir.exists() and not out_dir.is_dir():
        raise BadInput("not a folder", where=str(out_dir), fix="choose another --out-dir")
    require_key(out_dir, sign_key)
    registry_content(out_dir)
    path = out_dir / f"{stem}.json"
    if path.exists():
        try:
            read_record(path, Manifest)
        except BadInput as error:
            raise BadInput(
                f"holds something else than a manifest of loso ({error.problem})",
                where=str(path),
                fix="choose another --name or --out-dir",
            ) from None


def _card_name(out_dir: Path, stem: str) -> str:
    """Return the card's name: with the stem where another model's card stands there."""
    path = out_dir / MODEL_CARD
    if not path.exists():
        return MODEL_CARD
    first = read_regular(path, MOST_RECORD_BYTES).partition(b"\n")[0]
    return MODEL_CARD if first == f"# {stem}".encode() else f"{stem}.{MODEL_CARD}"


def files_of(model: Model, card_name: str) -> tuple[dict[str, bytes], Manifest]:
    """Return the content of every file of a model by name, the registry apart, and the manifest."""
    files, fit = {}, model.fit
    for seed, content in model.graphs.members.items():
        name, sidecar = member_stem(model.stem, seed), sidecar_of(model, seed)
        Sidecar.model_validate(sidecar)  # what is written here must be what is read elsewhere
        files[f"{name}.onnx"] = content
        files[f"{name}.json"] = to_json(sidecar).encode()
    files[f"{model.stem}.onnx"] = model.graphs.ensemble
    record = manifest_of(model)
    manifest = Manifest.model_validate(record)
    training = TrainingSet(
        corpus=model.corpus.path.name,
        rows=fit.rows.height,
        sources=fit.rows["src"].unique().sort().to_list(),
        encoders=fit.rows["encoder"].unique().sort().to_list(),
        excluded_sources=model.grounds.evidence.excluded_sources,
    )
    files[card_name] = model_card(manifest, model.grounds, training).encode()
    files[f"{model.stem}.json"] = to_json(record).encode()  # last: it vouches for all before it
    return files, manifest


def _write(out_dir: Path, model: Model, files: Mapping[str, bytes]) -> None:
    """Put the files in their places: the registry first, where members stop being for production.

    The manifest comes after what it names, the sums last of all. All are written under temporary
    names before the first takes its place, so that a full disk changes nothing.
    """
    stem = model.stem
    entries = [registry_entry_of(model, seed) for seed in model.graphs.members]
    registry = _with_entries(registry_content(out_dir), stem, entries)
    contents = {REGISTRY_FILE: to_json(registry).encode(), **files}
    with ExitStack() as places:
        for name, content in reversed(contents.items()):  # a stack: what enters last ends first
            places.enter_context(write_atomic(out_dir / name)).write_bytes(content)
    remove_file(out_dir / promotion_name(stem))
    for path in [*out_dir.glob("*.onnx"), *out_dir.glob("*.json")]:
        if is_member_of(stem, path.stem) and path.name not in contents:
            remove_file(path)  # of a seed that the ensemble no longer has
    refresh_sums(out_dir, contents)


def _with_entries(
    content: dict[str, Any], stem: str, entries: Sequence[RegistryEntry]
) -> dict[str, Any]:
    """Return a registry in which `entries` stand in the place of all members of `stem`."""
    models = content["models"]
    own = [i for i, entry in enumerate(models) if is_member_of(stem, str(entry.get("id")))]
    place = own[0] if own else len(models)
    kept = [entry for i, entry in enumerate(models) if i not in own]
    return {
        **content,
        "models": [*kept[:place], *(e.model_dump(mode="json") for e in entries), *kept[place:]],
    }
