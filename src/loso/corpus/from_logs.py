"""Logs in, a corpus out: measurements that exist already become rows, joined with scores."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import polars as pl

from loso.corpus.load import load_corpus
from loso.corpus.logs import Log, read_log
from loso.corpus.manifest import manifest_path
from loso.corpus.names import NamePattern, Value, by_clip, listed, read_names
from loso.corpus.rows import valid_rows
from loso.corpus.scores import Joined, join_scores, read_scores
from loso.corpus.store import write_corpus
from loso.errors import BadInput, BadSettings
from loso.files import sha256_of, write_json
from loso.progress import Progress, silent
from loso.schema import CANONICAL_6

__all__ = ["ImportReport", "ImportSettings", "import_logs"]

SCHEMA_VERSION: Final = 1
_UNKNOWN: Final = "unknown"
"""libvmaf's version in a log that does not say."""


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """How logs are named, and the scores that they are joined with."""

    pattern: NamePattern
    given: Mapping[str, Value] = field(default_factory=dict)
    """Columns that are the same for every log."""
    scores: Path | None = None
    join: tuple[str, ...] = ("clip",)
    scale: tuple[float, float] | None = None
    allow_unjoined: bool = False


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import left behind."""

    corpus: Path
    manifest: Path
    logs: int
    """Logs whose frames stand in the corpus."""
    rows: int
    sources: tuple[str, ...]
    encoders: tuple[str, ...]
    libvmaf: Mapping[str, int]
    """Logs of each version."""
    aliases: Mapping[str, int]
    """Logs of each encoder that was renamed, such as `h264 -> libx264`."""
    scored: int | None
    """Logs that were joined with a score; None where no scores were given."""
    logs_without_score: tuple[str, ...]
    scores_without_log: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {**asdict(self), "corpus": str(self.corpus), "manifest": str(self.manifest)}


def import_logs(
    paths: Sequence[Path],
    settings: ImportSettings,
    *,
    out: Path,
    command: Sequence[str] = (),
    progress: Progress = silent,
) -> ImportReport:
    """Write the frames of the logs as corpus `out` with its manifest, and report.

    Rows stand in the order of clip and frame, whatever the order of `paths`. Whatever is refused
    is refused before anything is written. BadInput names the log.
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise BadSettings(
            "a corpus is written as JSONL",
            where="--out",
            expected="a name that ends in .jsonl or .jsonl.gz",
            found=out.name,
        )
    path_of = by_clip(paths)
    named, aliases = read_names(path_of, settings.pattern, settings.given)
    joined = Joined(named, (), ())
    if settings.scores:
        scores = read_scores(settings.scores, settings.join, settings.scale)
        joined = join_scores(named, scores, allow_unjoined=settings.allow_unjoined)
    logs: dict[str, Log] = {}
    for at, row in enumerate(joined.rows, start=1):
        clip = str(row["clip"])
        logs[clip] = read_log(path_of[clip])
        progress(at, len(joined.rows), clip)
    _refuse_mixed(list(logs.values()))
    rows = _rows(joined.rows, logs)
    write_corpus(rows, out)
    corpus = load_corpus(out)
    libvmaf = Counter(log.libvmaf or _UNKNOWN for log in logs.values())
    report = ImportReport(
        corpus=out,
        manifest=manifest_path(out),
        logs=len(logs),
        rows=rows.height,
        sources=corpus.sources,
        encoders=corpus.encoders,
        libvmaf=dict(sorted(libvmaf.items())),
        aliases=dict(sorted(Counter(aliases[clip] for clip in logs if clip in aliases).items())),
        scored=len(logs) if settings.scores else None,
        logs_without_score=joined.logs,
        scores_without_log=joined.scores,
        warnings=(*_warnings(joined.rows, logs, libvmaf), *corpus.warnings),
    )
    write_json(
        report.manifest,
        {
            **_manifest(report, settings, logs),
            "command": shlex.join(command),
            "corpus": {"file": out.name, "rows": rows.height, "sha256": corpus.sha256},
        },
    )
    return report


def _refuse_mixed(logs: Sequence[Log]) -> None:
    """Refuse logs of the float features beside logs of the integer ones: the numbers differ."""
    first = logs[0]
    for log in logs:
        for name in CANONICAL_6:
            here, there = log.names[name], first.names[name]
            if ("integer_" in here) != ("integer_" in there):
                raise BadInput(
                    f"{name} is {here} here and {there} in {first.path}: "
                    "integer and float features differ",
                    where=str(log.path),
                    fix="measure these again, or import them into a corpus of their own",
                )


def _rows(named: Sequence[Mapping[str, Value | None]], logs: Mapping[str, Log]) -> pl.DataFrame:
    """Return the rows of the corpus, valid, in the order of clip and frame."""
    constant = pl.DataFrame(named, infer_schema_length=None)
    taken = {*constant.columns, "frame_index"}
    for log in logs.values():
        twice = [name for name in log.columns if name in taken]
        if twice:
            raise BadInput(
                f"the log has a feature {twice[0]}, which is also another column of the corpus",
                where=str(log.path),
                fix="rename one of them",
            )
    measured = pl.concat(
        [
            pl.DataFrame(log.columns, schema=dict.fromkeys(log.columns, pl.Float64())).select(
                pl.lit(clip).alias("clip"), pl.int_range(pl.len()).alias("frame_index"), pl.all()
            )
            for clip, log in logs.items()
        ],
        how="diagonal",
    )
    rows = measured.join(constant, on="clip", how="left", maintain_order="left")
    preset = ("preset",) if "preset" in rows.columns else ()
    first = ("src", "encoder", *preset, "cq", "frame_index", "vmaf", *CANONICAL_6, "clip")
    rest = [name for name in (*constant.columns, *measured.columns) if name not in first]
    rows = rows.select(*first, *dict.fromkeys(rest))
    valid_rows(
        rows,
        key=(),
        where="log",
        place=lambda row: f"{rows['clip'][row]} frame {rows['frame_index'][row]}",
    )
    return rows


def _warnings(
    named: Sequence[Mapping[str, Value | None]], logs: Mapping[str, Log], libvmaf: Counter[str]
) -> list[str]:
    """Return what a user should know before trusting the numbers."""
    warnings = []
    if silent_logs := libvmaf[_UNKNOWN]:
        warnings.append(
            f"logs that do not say which libvmaf made them (CSV never does): {silent_logs}"
        )
    versions = {name: n for name, n in sorted(libvmaf.items()) if name != _UNKNOWN}
    if len(versions) > 1:
        counts = ", ".join(f"{name} {n}" for name, n in versions.items())
        warnings.append(f"several versions of libvmaf, whose features may differ; logs: {counts}")
    left_out = sum(bool(log.left_out) for log in logs.values())
    if left_out:
        warnings.append(
            "the integer features are taken of logs that hold float ones of the same name too; "
            f"logs: {left_out}"
        )
    partly = Counter(name for log in logs.values() for name in log.columns)
    some = [name for name, n in partly.items() if n < len(logs)]
    if some:
        warnings.append(f"features that only some logs hold: {listed(some)}")
    counts_of: dict[tuple[Value | None, Value | None], set[int]] = {}
    for row in named:
        count = logs[str(row["clip"])].frames
        counts_of.setdefault((row["src"], row.get("fps")), set()).add(count)
    for (src, _), frames in counts_of.items():
        if len(frames) > 1:
            warnings.append(
                f"{src}: logs of {' and '.join(map(str, sorted(frames)))} frames: one may be cut "
                "short, or compare other frames"
            )
    return warnings


def _manifest(
    report: ImportReport, settings: ImportSettings, logs: Mapping[str, Log]
) -> dict[str, Any]:
    """Return the part of the manifest that follows from the logs and the scores."""
    scores = settings.scores
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "encoder_aliases": report.aliases,
        "logs": [
            {
                "clip": clip,
                "file": log.path.name,
                "format": log.kind,
                "frames": log.frames,
                "libvmaf": log.libvmaf,
                "sha256": sha256_of(log.path),
            }
            for clip, log in logs.items()
        ],
        "loso_version": version("loso"),
        "schema_version": SCHEMA_VERSION,
        "scores": scores
        and {
            "file": scores.name,
            "join": list(settings.join),
            "logs_without_score": list(report.logs_without_score),
            "scale": settings.scale,
            "scores_without_log": list(report.scores_without_log),
            "sha256": sha256_of(scores),
        },
        "settings": {"name_pattern": settings.pattern.text, "set": dict(settings.given)},
        "tools": {"libvmaf": ", ".join(report.libvmaf)},
        "warnings": list(report.warnings),
    }
