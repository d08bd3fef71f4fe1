"""The door to MLflow: a store that is opened before training, and told of the run afterwards.

Only MLflow's client is used; it sets no global state, and its telemetry is off.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from loso.errors import BadSettings, CannotRun, LosoError, MissingExtra
from loso.recipe import Tracking
from loso.tracking.content import Entry, describe_run

__all__ = ["Logged", "Store", "log_run", "open_store"]

_ALWAYS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results
}
_UNLESS_SET: Final = {
    # MLflow's own seven retries take minutes to say that no server is there.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_FOLDERS_ALLOWED: Final = "MLFLOW_ALLOW_FILE_STORE"

_MOST_METRICS: Final = 1000
_MOST_TEXTS: Final = 100
"""MLflow's limits on one batch."""

_SECRET: Final = re.compile(
    r"[?&;=\s][^?&;=]*(passw|pwd|passphrase|token|secret|credential|(api|access|private)[_-]?key"
    r"|signature)[^?&;=]*=",
    re.IGNORECASE,
)
"""The name of a value in a URI that is one; a file that holds one, such as `passfile`, is not."""

_LONGEST_REASON: Final = 200

_USUAL: Final = "sqlite:///FILE or http://HOST:PORT"


@dataclass(frozen=True)
class Store:
    """A tracking store that answered, and the experiment in it that runs go to."""

    uri: str
    experiment: str
    experiment_id: str
    client: Any


@dataclass(frozen=True)
class Logged:
    """The MLflow run that tells of a run, None where there is none; `warnings` says what failed."""

    run_id: str | None = None
    warnings: tuple[str, ...] = ()


def open_store(tracking: Tracking | None) -> Store | None:
    """Return the store that `tracking` names, its experiment made if need be; None for none.

    BadSettings for a URI that nothing can be logged to, MissingExtra without MLflow's client,
    CannotRun where the store does not answer.
    """
    if tracking is None or tracking.mlflow is None:
        return None
    uri, name = tracking.mlflow, tracking.mlflow_experiment
    scheme = _check_uri(uri)
    with _settings():
        # A URI is spelt by people, and each kind of store fails with classes of its own.
        try:
            from mlflow import MlflowClient
            from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

            client = MlflowClient(tracking_uri=uri)
            experiment_id = _experiment_id(client, name, _artifact_location(scheme, uri))
        except LosoError:
            raise
        except UnsupportedModelRegistryStoreURIException:
            raise BadSettings(
                "MLflow knows no such kind of store", where=_where(uri), expected=_USUAL
            ) from None
        except ImportError as error:
            raise CannotRun(
                f"this kind of tracking store needs a package that is not there ({error})",
                where=_where(uri),
                fix="install it, or name a store such as sqlite:///mlflow.db",
            ) from None
        except Exception as error:  # noqa: BLE001 (see above)
            raise CannotRun(
                f"the MLflow tracking store cannot be opened ({_reason(error)})",
                where=_where(uri),
                fix="start it, correct the URI, or leave --mlflow out",
            ) from None
    return Store(uri, name, experiment_id, client)


def log_run(
    store: Store | None, run_dir: Path, seeds: Sequence[int], *, report: Path | None = None
) -> Logged:
    """Return what became of telling `store`, if there is one, of the run in `run_dir`.

    One MLflow run for the whole, and one below it for each seed. A run that was logged before is
    logged again, and the tag `logged_before` names the last time. No failure is raised: it is a
    warning, and what was begun in the store is marked as failed.
    """
    if store is None:
        return Logged()
    run_id = None
    try:
        with _settings():
            parent, children = describe_run(run_dir, seeds, report=report)
            with _logging(store, parent, _logged_before(store, parent)) as run_id:
                for child in children:
                    with _logging(store, child, {"mlflow.parentRunId": run_id}):
                        pass
                for path in parent.files:
                    store.client.log_artifact(run_id, str(path))
    except Exception as error:  # noqa: BLE001 (the run is whole, whatever a store may raise)
        begun = f", run {run_id} there is not whole" if run_id else ""
        again = "the same command keeps trained seeds and logs again"
        warning = f"not logged to MLflow at {store.uri} ({_reason(error)}){begun}; {again}"
        return Logged(warnings=(warning,))
    return Logged(run_id)


# -- Opening --------------------------------------------------------------------------------------


def _check_uri(uri: str) -> str:
    """Return a URI's scheme; BadSettings and MissingExtra as `open_store` raises them."""
    try:
        parts = urlsplit(uri)
        has_password = _has_password(parts)
    except ValueError:  # which would say the URI, and a password in it
        raise BadSettings("not a URI", where="--mlflow", expected=_USUAL) from None
    scheme = parts.scheme.partition("+")[0]
    if has_password:
        raise BadSettings(
            "the URI holds a password, which the records of the run would keep",
            where="--mlflow",
            fix="leave it out: MLflow reads MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and "
            "MLFLOW_TRACKING_TOKEN, a database's driver its own file of passwords",
        )
    if scheme in {"", "file"} and os.environ.get(_FOLDERS_ALLOWED, "").lower() not in {"true", "1"}:
        raise BadSettings(
            "MLflow maintains folders no longer, and refuses to log to them",
            where=_where(uri),
            expected=_USUAL,
            fix=f"give --mlflow sqlite:///mlflow.db, or set {_FOLDERS_ALLOWED}=true",
        )
    if scheme == "sqlite" and parts.path.strip("/") in {"", ":memory:"}:
        raise BadSettings(
            "a database in memory keeps nothing",
            where=_where(uri),
            fix="give --mlflow sqlite:///mlflow.db",
        )
    needed = ["mlflow", *(["sqlalchemy", "alembic"] if scheme == "sqlite" else [])]
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise MissingExtra(
            f"logging to MLflow needs the package {missing[0]}", fix="pip install 'loso[mlflow]'"
        )
    return scheme


def _has_password(parts: SplitResult) -> bool:
    """Tell whether a URI holds what should stay secret; ValueError where it is none.

    A password that was not escaped ends the host's part early: what is left of it stands before
    an @ further on.
    """
    if parts.password is not None or _SECRET.search(unquote(f"?{parts.query}&{parts.fragment}")):
        return True
    is_file = parts.scheme.partition("+")[0] in {"", "file", "sqlite"}
    return not is_file and "@" in f"{parts.path}{parts.query}{parts.fragment}"


def _experiment_id(client: Any, name: str, artifact_location: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location))
        except Exception:
            found = client.get_experiment_by_name(name)  # another process was quicker
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise BadSettings(
            "this MLflow experiment is deleted",
            where=f"--mlflow-experiment {name}",
            fix="restore it in MLflow, or name another",
        )
    return str(found.experiment_id)


def _artifact_location(scheme: str, uri: str) -> str | None:
    """Return where files go: beside an SQLite database; None where the store knows it itself."""
    if scheme != "sqlite":
        return None
    from sqlalchemy.engine import make_url

    database = Path(make_url(uri).database or "").resolve()
    return (database.parent / "mlartifacts").as_uri()


# -- Telling --------------------------------------------------------------------------------------


def _logged_before(store: Store, entry: Entry) -> dict[str, str]:
    """Return a tag that names the latest run that was told of the same seed files, if any."""
    key = "seed_files_sha256"
    found = store.client.search_runs(
        [store.experiment_id],
        f"tags.{key} = '{entry.tags[key]}' and attributes.status = 'FINISHED'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return {"logged_before": found[0].info.run_id} if found else {}


@contextmanager
def _logging(store: Store, entry: Entry, tags: dict[str, str]) -> Iterator[str]:
    """Yield the id of a new MLflow run that was told all but the files, and end it.

    It ends as finished, as failed on an error in the block, as killed on an interrupt.
    """
    client = store.client
    run = client.create_run(
        store.experiment_id,
        start_time=entry.started_ms,
        tags={**entry.tags, **tags},
        run_name=entry.name,
    )
    run_id = run.info.run_id
    try:
        _log_numbers(client, run_id, entry)
        yield run_id
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with suppress(Exception):  # a store that is gone cannot be told that either
            client.set_terminated(run_id, status)
        raise
    client.set_terminated(run_id, "FINISHED", entry.ended_ms)


def _log_numbers(client: Any, run_id: str, entry: Entry) -> None:
    from mlflow.entities import Metric, Param

    now_ms = time.time_ns() // 1_000_000
    params = [Param(name, text) for name, text in entry.params.items()]
    metrics = [Metric(name, value, now_ms, 0) for name, value in entry.metrics.items()]
    metrics += [Metric("loss", loss, now_ms, epoch) for epoch, loss in enumerate(entry.losses)]
    for start in range(0, len(params), _MOST_TEXTS):
        client.log_batch(run_id, params=params[start : start + _MOST_TEXTS])
    for start in range(0, len(metrics), _MOST_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _MOST_METRICS])


# -- Around every call ----------------------------------------------------------------------------


@contextmanager
def _settings() -> Iterator[None]:
    """Hold MLflow, which reads its settings from the environment, to ours within the block."""
    before = {name: os.environ.get(name) for name in (*_ALWAYS, *_UNLESS_SET)}
    os.environ.update(_ALWAYS)
    for name, value in _UNLESS_SET.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            # MLflow's tables ask SQLAlchemy for a way of loading that it is about to drop.
            warnings.filterwarnings(
                "ignore", message="The ``noload`` loader strategy", category=DeprecationWarning
            )
            yield
    finally:
        for name, given in before.items():
            if given is None:
                del os.environ[name]
            else:
                os.environ[name] = given


def _where(uri: str) -> str:
    return f"--mlflow {uri}"


def _reason(error: Exception) -> str:
    """Return the first line of what an error says, not too much of it."""
    lines = f"{error}".strip().splitlines()
    said = lines[0] if lines else type(error).__name__
    return said if len(said) <= _LONGEST_REASON else f"{said[: _LONGEST_REASON - 3]}..."
