"""The whole chain behind a model, checked again: corpus, folds, verdict, weights, registry.

Every finding is reported, not the first alone: who audits wants to know all that is wrong, and one
broken file must not hide another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loso.errors import BadInput, BadSettings
from loso.progress import Progress, silent
from loso.verify.chain import check_corpus, check_records, check_run, open_corpus
from loso.verify.folder import Finding, Findings, Folder, check_files, check_signed
from loso.verify.grounds import check_grounds, check_registry
from loso.verify.model import check_model, find_stems

__all__ = ["Finding", "Verification", "verify_model"]


@dataclass(frozen=True)
class Verification:
    """All that is wrong with the models of a folder, and notes on what was not checked."""

    model_dir: Path
    models: tuple[str, ...]
    n_files: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return the verification as a JSON object."""
        return {
            "model_dir": str(self.model_dir),
            "models": list(self.models),
            "n_files": self.n_files,
            "clean": self.clean,
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
        }


def verify_model(
    model_dir: Path,
    *,
    stem: str | None = None,
    run_dir: Path | None = None,
    corpus: Path | None = None,
    key: Sequence[str] = (),
    refit: bool = False,
    public_key: Path | None = None,
    progress: Progress = silent,
) -> Verification:
    """Return every finding on the models of a folder, on all of them unless `stem` names one.

    With `run_dir` and `corpus` every record is held against what export would write, and with
    `refit` the members' weights against those that training gives; `key` adds columns to the
    identity of the corpus's rows. BadSettings for `refit` without both, BadInput where `model_dir`
    holds no model at all, or where a run, a corpus or a key that was given is not there;
    MissingExtra where signatures cannot be checked. Nothing is written, and of `model_dir` nothing
    but its regular files is read.
    """
    if refit and (run_dir is None or corpus is None):
        raise BadSettings("a refit needs the run and the corpus", fix="give --run and --corpus")
    findings, folder = Findings(), Folder(model_dir)
    stems = find_stems(folder)
    chosen = stems if stem is None else tuple(name for name in stems if name == stem)
    if not chosen:
        raise BadInput(
            "not a model folder",
            where=str(model_dir),
            expected=f"a manifest {stem or 'STEM'}.json of kind fr_ensemble, or its members",
            found=", ".join(stems) or "none",
            fix="name one of them with --name" if stems else "name the folder of an export",
        )
    check_files(folder, findings)
    check_signed(folder, public_key, findings)
    models = [check_model(folder, name, findings) for name in chosen]
    production = check_registry(folder, models, findings)
    opened = None if corpus is None else open_corpus(corpus, key, findings)
    for model in models:
        check_grounds(folder, model, findings, production=production[model.stem])
        run = None if run_dir is None else check_run(run_dir, model, findings)
        if opened is not None:
            check_corpus(opened, model, run, findings)
        if run_dir is not None and opened is not None:
            check_records(folder, model, run_dir, opened, findings, refit=refit, progress=progress)
    return Verification(
        model_dir, chosen, len(folder.files), tuple(findings.all), tuple(findings.notes)
    )
