"""What MLflow is told of a run: what the records in its folder say, under names that it takes."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import polars as pl

from loso.baselines import BaselinesFile, parse_baselines
from loso.files import sha256_of
from loso.intervals import IntervalsFile, level_key, parse_intervals
from loso.run_folder import (
    BASELINES_FILE,
    INTERVALS_FILE,
    LOSSES_FILE,
    RUN_FILE,
    read_losses,
)
from loso.run_records import Call, ShownVerdict, read_beside, read_calls, read_verdict
from loso.seedfile import (
    SeedFile,
    Summary,
    predictions_file_name,
    read_seed_file,
    recipe_of,
    seed_file_name,
)

__all__ = ["Entry", "describe_run", "metric_names"]

_SCORES: Final = ("plcc", "srocc", "rmse")
_LONGEST_NAME: Final = 100
_LONGEST_TEXT: Final = 5000
"""MLflow takes 6000 characters of a parameter and 8000 of a tag, its older servers 5000."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_. -]*[A-Za-z0-9_-])?")
_MARKED: Final = re.compile(r".*-[0-9a-f]{12}", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """One MLflow run: what is logged under which name; `losses` has the mean of every epoch.

    Times are milliseconds since 1970, None where no record says them. Every metric is finite.
    """

    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    losses: tuple[float, ...] = ()
    files: tuple[Path, ...] = ()
    started_ms: int | None = None
    ended_ms: int | None = None


@dataclass(frozen=True)
class _Folder:
    """The records of a run's folder that speak of the seeds asked for; what does not is None."""

    path: Path
    seed_files: tuple[SeedFile, ...]
    call: Call
    losses: pl.DataFrame
    intervals: IntervalsFile | None
    baselines: BaselinesFile | None
    verdict: ShownVerdict | None
    hashes: Mapping[int, str]


def describe_run(
    run_dir: Path, seeds: Sequence[int], *, report: Path | None = None
) -> tuple[Entry, tuple[Entry, ...]]:
    """Return the entry of a run and those of its seeds, from the records in `run_dir`.

    Of intervals, baselines and the verdict, those count that were made of just these seeds as they
    stand. `report` is the page that was drawn of them. BadEvidence or BadInput where a record is
    damaged. An undefined figure is left out, and the tag `undefined` names it.
    """
    folder = _read(Path(run_dir), seeds)
    figures, undefined = _defined(_figures(folder), {})
    parent = Entry(
        name=_name(folder),
        params=_cut(dict(_params(folder))),
        metrics=figures,
        tags=_cut({**_tags(folder), **undefined}),
        files=tuple(_files(folder, report)),
        started_ms=_milliseconds(folder.call.started_at_utc),
    )
    return parent, tuple(_describe_seed(folder, record) for record in folder.seed_files)


def metric_names(sources: Iterable[str]) -> dict[str, str]:
    """Return what each source is called in the name of a metric; no two share one.

    A name that MLflow takes stays as it is. In any other each strange character becomes `_`, and
    the start of the sha256 of the real name is put behind it; so too where two sources differ in
    case alone, which some databases do not see. Thus a source has the same name in every run.

    >>> metric_names(["Tennis_24fps", "a/b"])
    {'Tennis_24fps': 'Tennis_24fps', 'a/b': 'a_b-c14cddc033f6'}
    """
    sources = tuple(sources)
    alike = Counter(source.casefold() for source in sources)
    return {
        source: source if _is_plain(source) and alike[source.casefold()] == 1 else _marked(source)
        for source in sources
    }


def _is_plain(source: str) -> bool:
    fits = len(source) <= _LONGEST_NAME and _PLAIN.fullmatch(source)
    return bool(fits) and not _MARKED.fullmatch(source)


def _marked(source: str) -> str:
    digest = hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', source)[:_LONGEST_NAME]}-{digest}"


# -- Reading --------------------------------------------------------------------------------------


def _read(run_dir: Path, seeds: Sequence[int]) -> _Folder:
    records = tuple(read_seed_file(run_dir / seed_file_name(seed)) for seed in seeds)
    hashes = {seed: sha256_of(run_dir / seed_file_name(seed)) for seed in seeds}
    verdict = read_verdict(run_dir)
    judged = None if verdict is None else verdict.evidence
    return _Folder(
        path=run_dir,
        seed_files=records,
        call=read_calls(run_dir)[-1],
        losses=read_losses(run_dir / LOSSES_FILE),
        intervals=read_beside(run_dir / INTERVALS_FILE, parse_intervals, records),
        baselines=read_beside(run_dir / BASELINES_FILE, parse_baselines, records),
        verdict=verdict if judged is not None and judged.seeds == hashes else None,
        hashes=hashes,
    )


# -- The run --------------------------------------------------------------------------------------


def _name(folder: _Folder) -> str:
    return folder.path.resolve().name


def _params(folder: _Folder) -> Iterator[tuple[str, str]]:
    first = folder.seed_files[0]
    yield from _flat(recipe_of(first))
    yield "seeds", ",".join(str(record.seed) for record in folder.seed_files)
    yield "engine", f"{first.engine}"
    yield "corpus", f"{first.corpus}"
    yield "corpus_sha256", f"{first.corpus_sha256}"
    yield "corpus_rows", f"{first.corpus_rows}"
    yield "n_sources", f"{len(first.folds)}"
    yield "excluded_sources", json.dumps(first.excluded_sources)
    yield "encoder_vocab_version", f"{first.encoder_vocab_version}"
    for program, version in sorted((first.versions or {}).items()):
        yield f"versions.{program}", version


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each field of a settings object as text, and those of settings in it after a dot."""
    for field in fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if is_dataclass(value):
            yield from _flat(value, f"{name}.")
        else:
            yield name, json.dumps(value) if isinstance(value, tuple) else f"{value}"


def _figures(folder: _Folder) -> dict[str, float | None]:
    """Return what the seeds come to together, then what the verdict and its grounds measured."""
    plccs = [record.mean_plcc for record in folder.seed_files]
    known = [plcc for plcc in plccs if plcc is not None]
    whole = len(known) == len(plccs)
    figures = {
        "mean_plcc": fmean(known) if whole else None,
        "plcc_spread": max(known) - min(known) if whole else None,
        "lowest_seed_plcc": min(known) if whole else None,
        "mean_rmse": _mean(record.mean_rmse for record in folder.seed_files),
        "wall_time_s": sum(record.wall_time_s or 0.0 for record in folder.seed_files),
    }
    if folder.verdict is not None:
        figures |= {advice.check: advice.value for advice in folder.verdict.gate.advisory}
    return figures | dict(_coverage(folder.intervals)) | dict(_gains(folder.baselines))


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return fmean(known) if len(known) == len(found) else None


def _coverage(intervals: IntervalsFile | None) -> Iterator[tuple[str, float | None]]:
    """Yield coverage and width of rows at the default level, or the highest that was judged."""
    if intervals is None:
        return
    measured = intervals.coverage.by_pool[intervals.unit].hierarchical
    key = level_key(intervals.default_level)
    key = key if key in measured else max(measured, key=float)
    yield "interval_level", float(key)
    yield "interval_width", measured[key].mean_width
    yield "coverage_mean", measured[key].mean
    yield "coverage_worst", measured[key].worst


def _gains(baselines: BaselinesFile | None) -> Iterator[tuple[str, float | None]]:
    if baselines is None:
        return
    for name, gain in baselines.gains[baselines.unit].items():
        yield f"gain_over_{name}", gain.rmse_gain
        yield f"gain_over_{name}_low", gain.bootstrap.low
        yield f"gain_over_{name}_high", gain.bootstrap.high


def _tags(folder: _Folder) -> dict[str, str]:
    first, call = folder.seed_files[0], folder.call
    digest = hashlib.sha256("\n".join(folder.hashes.values()).encode()).hexdigest()
    tags = {
        "sources": json.dumps([fold.held_out for fold in first.folds], ensure_ascii=False),
        "trained_seeds": ",".join(map(str, call.trained_seeds)) or "none",
        "kept_seeds": ",".join(map(str, call.kept_seeds)) or "none",
        "seed_files_sha256": digest,
        "command": shlex.join(call.command) or "none",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "loso",
    }
    if first.note:
        tags["note"] = first.note
    judged = folder.verdict
    if judged is not None:
        tags |= {"verdict": judged.verdict, "recommendation": judged.recommendation}
        tags["mlflow.note.content"] = f"{judged.verdict}: {judged.recommendation}"  # shown on top
    return tags


def _files(folder: _Folder, report: Path | None) -> Iterator[Path]:
    for record in folder.seed_files:
        yield folder.path / seed_file_name(record.seed)
        yield folder.path / predictions_file_name(record.seed)
    names = [LOSSES_FILE, RUN_FILE]
    names += [INTERVALS_FILE] if folder.intervals is not None else []
    names += [BASELINES_FILE] if folder.baselines is not None else []
    names += [f"{folder.verdict.verdict}.json"] if folder.verdict is not None else []
    yield from (folder.path / name for name in names if (folder.path / name).is_file())
    if report is not None:
        yield report


# -- Its seeds ------------------------------------------------------------------------------------


def _describe_seed(folder: _Folder, record: SeedFile) -> Entry:
    called = metric_names(fold.held_out for fold in record.folds)
    figures = {name: getattr(record, name) for name in Summary.__annotations__}
    figures["wall_time_s"] = record.wall_time_s
    reasons = {}
    for fold in record.folds:
        for score in _SCORES:
            name = f"{score}/{called[fold.held_out]}"
            figures[name] = getattr(fold, score)
            reasons[name] = fold.reason
    metrics, tags = _defined(figures, reasons)
    renamed = {name: source for source, name in called.items() if name != source}
    if renamed:
        tags["renamed_sources"] = json.dumps(renamed, ensure_ascii=False)
    curve = folder.losses.filter(pl.col("seed") == record.seed).group_by("epoch")
    losses = curve.agg(pl.col("loss").mean()).sort("epoch")["loss"]
    started = _milliseconds(folder.call.started_at_utc)
    lasted = round(1000 * (record.wall_time_s or 0.0))
    return Entry(
        name=f"{_name(folder)} seed {record.seed}",
        params={"seed": f"{record.seed}"},
        metrics=metrics,
        tags=_cut(tags),
        losses=tuple(losses),
        started_ms=started,
        ended_ms=None if started is None else started + lasted,
    )


def _defined(
    figures: Mapping[str, float | None], reasons: Mapping[str, str | None]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the figures that are numbers, and a tag that names the others and why, if known.

    The records that they come from hold finite numbers or null.
    """
    defined = {k: float(v) for k, v in figures.items() if v is not None}
    others = [f"{k}: {reasons[k]}" if reasons.get(k) else k for k in figures if k not in defined]
    return defined, {"undefined": "; ".join(others)} if others else {}


def _cut(texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts short enough for MLflow; the files hold them whole."""
    return {
        name: text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."
        for name, text in texts.items()
    }


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else round(1000 * time.timestamp())
