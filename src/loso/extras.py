"""Optional packages: which are here, what each is for, and how to get it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["Extra", "find_extras"]

_KNOWN: Final = (
    ("torch", "torch", "training on an NVIDIA GPU, or without the compiled kernel"),
    ("distributed", "dask", "work on a Dask cluster"),
    ("mlflow-skinny", "mlflow", "runs logged to MLflow"),
    ("pandas", "pandas", "the entry points of the replaced scripts"),
    ("scikit-learn", "sklearn", "LosoRegressor"),
    ("model-signing", "sign", "signed model folders"),
)
"""Of each package its name, the extra of loso that brings it, and its purpose."""


@dataclass(frozen=True)
class Extra:
    """An optional package; its version is None where it is not installed."""

    package: str
    version: str | None
    purpose: str
    install: str


def find_extras() -> tuple[Extra, ...]:
    """Return every optional package, as it is installed here; nothing is imported."""
    return tuple(
        Extra(package, _version(package), purpose, f"pip install 'loso[{extra}]'")
        for package, extra, purpose in _KNOWN
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
