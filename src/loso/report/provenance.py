"""What the run was made with and of: hashes, versions, recipe and commands, to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields

from loso.recipe import InputSpec
from loso.report.parts import Code, Note, Part, Section, Table
from loso.report.reading import RunRecords

__all__ = ["recipe_rows", "section"]


def section(records: RunRecords) -> Section:
    """Return a run's recipe, versions, commands and the sha256 of all that it rests on."""
    return Section("provenance", "Provenance", tuple(_parts(records)))


def _parts(records: RunRecords) -> Iterator[Part]:
    first = records.first
    yield Table(("setting", "value"), tuple(recipe_rows(records)), caption="Recipe")
    versions = sorted((first.versions or {}).items())
    yield Table(("program", "version"), tuple(versions), caption="Versions that trained it")
    hashes = [(f"corpus {first.corpus or ''}", first.corpus_sha256 or "not recorded")]
    hashes += sorted(records.hashes.items())
    yield Table(("file", "sha256"), tuple(hashes), caption="The bytes that this page draws")
    judged = records.verdict
    if judged is not None:
        which = "these very files" if records.fresh else "files that have changed since"
        yield Note(
            f"The verdict was given at {judged.generated_at_utc or 'no recorded time'}, of "
            f"{which}. The page renders records; it judges nothing again."
        )
    for call in records.calls:
        if call.command:
            yield Code(f"trained by, {call.started}", shlex.join(call.command))
    yield Code("to judge it again", _again(records))


def recipe_rows(records: RunRecords) -> Iterator[tuple[str, str]]:
    """Yield each setting that decides what a run trains, and its value."""
    recipe = records.recipe
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if not isinstance(value, InputSpec):
            yield field.name, f"{value:g}" if isinstance(value, float) else str(value)
    spec = recipe.inputs
    yield "features", " ".join(spec.features.columns)
    yield "codec block", "yes" if spec.codec_block else "no"
    yield "conditions", " ".join(spec.conditions) or "none"
    yield "statistics", " ".join(spec.statistics)
    yield "grouped by", spec.group_by
    yield "seeds", " ".join(str(file.seed) for file in records.seed_files)
    yield "excluded sources", ", ".join(records.first.excluded_sources) or "none"


def _again(records: RunRecords) -> str:
    seeds = ",".join(str(file.seed) for file in records.seed_files)
    corpus = records.first.corpus or "CORPUS"
    words = ["loso", "validate", str(records.run_dir), "--corpus", corpus, "--seeds", seeds]
    return shlex.join(words)
