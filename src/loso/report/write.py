"""The sections in their order, written as one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loso.corpus.load import Corpus
from loso.files import refuse_place_of, write_atomic
from loso.report import (
    bounds,
    compare,
    content,
    judged,
    provenance,
    residuals,
    training,
    worth,
)
from loso.report.page import render
from loso.report.reading import RunRecords, read_run
from loso.run_folder import REPORT_FILE

__all__ = ["write_comparison", "write_report"]


def write_report(
    run_dir: Path,
    out: Path | None = None,
    *,
    corpus: Path | Corpus | None = None,
    key: tuple[str, ...] = (),
) -> Path:
    """Return where the report of a run stands: `out`, by default `report.html` in its folder.

    Only records are drawn, as `read_run` reads them and refuses them; the same records give the
    same bytes. The file needs no other and asks nobody for anything.
    """
    records = read_run(run_dir, corpus, key=key)
    sections = (
        judged.verdict_section(records),
        judged.sources_section(records),
        bounds.section(records),
        residuals.section(records),
        content.section(records),
        training.section(records),
        worth.section(records),
        provenance.section(records),
    )
    title = f"{_name(records)}: {records.recipe.target} on unseen sources"
    text = render(title, _subtitle(records), sections)
    return _write(out or Path(run_dir) / REPORT_FILE, text, [records])


def write_comparison(
    one_dir: Path,
    other_dir: Path,
    out: Path | None = None,
    *,
    key: tuple[str, ...] = (),
) -> Path:
    """Return where the comparison of two runs stands: `out`, or a file in the first folder."""
    one, other = (read_run(run_dir, key=key) for run_dir in (one_dir, other_dir))
    title = f"{_name(one)} against {_name(other)}"
    text = render(title, "What changed, source by source.", compare.sections(one, other))
    return _write(out or Path(one_dir) / f"against_{_name(other)}.html", text, [one, other])


def _name(records: RunRecords) -> str:
    return records.run_dir.resolve().name


def _subtitle(records: RunRecords) -> str:
    first = records.first
    trained = f"loso {(first.versions or {}).get('loso', 'of no recorded version')}"
    return (
        f"{len(records.seed_files)} seeds x {len(records.sources)} held-out sources, "
        f"{records.rows.height:,} rows, corpus {(first.corpus_sha256 or 'not recorded')[:12]}, "
        f"trained by {trained}, engine {first.engine}"
    )


def _write(path: Path, text: str, drawn: Sequence[RunRecords]) -> Path:
    for records in drawn:
        read = {records.run_dir / name: "a record that is drawn" for name in records.hashes}
        if records.corpus is not None:
            read[records.corpus.path] = "the corpus that is drawn"
        refuse_place_of(read, path, fix="give the report another name")
    with write_atomic(path) as temporary:
        # A folder's name need not be text.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path
