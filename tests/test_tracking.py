"""What MLflow is told: read back with its own client, and held against the files of the run."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso import pipeline
from loso.errors import BadEvidence, BadSettings, CannotRun, MissingExtra
from loso.recipe import InputSpec, Recipe, Tracking
from loso.run_folder import VERDICT_FILES
from loso.schema import FeatureSet
from loso.seedfile import SeedFile, recipe_of
from loso.tracking import store as tracking_store
from loso.tracking.content import describe_run, metric_names
from loso.tracking.store import Logged, log_run, open_store
from loso.verdict import validate_run

QUICK = Recipe(epochs=3, hidden=8)
FOUR = ("ant", "bee", "cat", "dog")
ROUNDING = 1e-12  # relative: another order of a float64 sum
SUMMARY = ("mean_plcc", "std_plcc", "min_plcc", "max_plcc", "mean_srocc", "mean_rmse")


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """A database that MLflow has made its tables in, which takes seconds."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    open_store(Tracking(mlflow=f"sqlite:///{path}", mlflow_experiment="another"))
    return path


@pytest.fixture
def database(tables, tmp_path):
    """The URI of an empty store of one's own."""
    return f"sqlite:///{shutil.copy(tables, tmp_path / 'mlflow.db')}"


@pytest.fixture(params=["sqlite", "folder"])
def uri(request, tmp_path, monkeypatch):
    if request.param == "sqlite":
        return request.getfixturevalue("database")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


@pytest.fixture
def client(uri):
    return connect(uri)


@pytest.fixture
def make_finished(make_run):
    """A run's folder as training leaves it, `run.json` and losses with it; no verdict."""

    def make(name="run", *, epochs=3, **options):
        folder = make_run(name, seeds=(0, 1), **options)
        seeds = [0, 1]
        call = {
            "command": ["loso", "train", "--out-dir", "a run"],
            "started_at_utc": "2026-11-22T10:00:00+00:00",
            "trained_seeds": seeds,
            "kept_seeds": [],
        }
        (folder / "run.json").write_text(json.dumps({"calls": [call]}))
        sources = [fold["held_out"] for fold in record_of(folder, 0)["folds"]]
        losses = [
            {"seed": seed, "fold": fold, "held_out": source, "epoch": epoch}
            | {"loss": (seed + 1) * (fold + 1) / (epoch + 1)}
            for seed in seeds
            for fold, source in enumerate(sources)
            for epoch in range(epochs)
        ]
        pl.DataFrame(losses).write_parquet(folder / "losses.parquet")
        return folder

    return make


def connect(uri):
    with tracking_store._settings():
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)


def runs_in(client, experiment="loso"):
    """The runs of an experiment, latest first: those on top, and those below each by its id."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    below = {
        parent.info.run_id: sorted(
            (run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id),
            key=lambda run: int(run.data.params["seed"]),
        )
        for parent in parents
    }
    return parents, below


def record_of(folder, seed):
    return json.loads((folder / f"loso_seed{seed}.json").read_text())


def read(folder, name):
    return json.loads((folder / name).read_text())


# -- What is told ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sqlite", "folder"])
def told(request, whole_run, tables, tmp_path_factory):
    """A whole run, and what a store of either kind holds once it was told of it."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = (folder / "mlruns").as_uri()
        if request.param == "sqlite":
            uri = f"sqlite:///{shutil.copy(tables, folder / 'mlflow.db')}"
        store = open_store(Tracking(mlflow=uri))
    logged = log_run(store, whole_run, [2, 0, 1], report=whole_run / "report.html")
    (parent,), below = runs_in(store.client)
    return SimpleNamespace(
        client=store.client,
        logged=logged,
        parent=parent,
        children=below[parent.info.run_id],
        records=[record_of(whole_run, seed) for seed in (0, 1, 2)],
        verdict=read(whole_run, "HOLD.json"),
    )


def test_a_run_is_one_finished_run_with_one_below_it_for_each_seed(told):
    assert told.logged == Logged(told.parent.info.run_id)
    runs = (told.parent, *told.children)
    assert [run.info.run_name for run in runs] == ["run", *(f"run seed {n}" for n in range(3))]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_parameters_are_every_field_of_the_recipe_and_what_was_trained_on(told):
    given, record = told.parent.data.params, told.records[0]
    recipe = recipe_of(SeedFile(**record))
    for field in fields(Recipe):
        if field.name != "inputs":
            assert given[field.name] == f"{getattr(recipe, field.name)}"
    inputs = {name.removeprefix("inputs.") for name in given if name.startswith("inputs.")}
    assert inputs == {
        *({field.name for field in fields(InputSpec)} - {"features"}),
        *(f"features.{field.name}" for field in fields(FeatureSet)),
    }
    assert given["inputs.features.name"] == "canonical6"
    assert json.loads(given["inputs.features.columns"]) == list(recipe.inputs.features.columns)
    assert given["seeds"] == "2,0,1"
    for key in ("corpus", "corpus_sha256", "corpus_rows", "engine", "encoder_vocab_version"):
        assert given[key] == f"{record[key]}"
    versions = {f"versions.{program}": text for program, text in record["versions"].items()}
    assert versions.items() <= given.items()


def test_tags_are_the_verdict_and_what_was_done(told):
    tags, verdict = told.parent.data.tags, told.verdict
    assert json.loads(tags["sources"]) == [fold["held_out"] for fold in told.records[0]["folds"]]
    assert tags["verdict"] == verdict["verdict"] == "HOLD"
    assert tags["recommendation"] == verdict["recommendation"]
    assert tags["mlflow.note.content"] == f"HOLD: {verdict['recommendation']}"
    assert (tags["trained_seeds"], tags["kept_seeds"]) == ("0,1,2", "none")
    assert not {"undefined", "note", "logged_before"} & set(tags)


def test_metrics_are_those_of_the_verdict_and_its_grounds(told, whole_run):
    figures, gate = told.parent.data.metrics, told.verdict["gate"]
    assert figures["mean_plcc"] == gate["mean_plcc"]
    assert figures["plcc_spread"] == gate["plcc_spread"]
    assert figures["lowest_seed_plcc"] == min(gate["per_seed_plccs"].values())
    assert "coverage_mean" in {advice["check"] for advice in gate["advisory"]}
    for advice in gate["advisory"]:
        assert figures[advice["check"]] == advice["value"]
    assert figures["wall_time_s"] == sum(record["wall_time_s"] for record in told.records)
    intervals = read(whole_run, "intervals.json")
    measured = intervals["coverage"]["by_pool"]["frame"]["hierarchical"]
    level = measured[f"{figures['interval_level']:g}"]
    assert figures["coverage_worst"] == level["worst"]
    assert figures["interval_width"] == level["mean_width"]
    gains = read(whole_run, "baselines.json")["gains"]["frame"]
    assert {"ridge", "without_codec_block"} <= set(gains)
    for name, gain in gains.items():
        assert figures[f"gain_over_{name}"] == gain["rmse_gain"]
        assert figures[f"gain_over_{name}_low"] == gain["bootstrap"]["low"]
        assert figures[f"gain_over_{name}_high"] == gain["bootstrap"]["high"]


def test_metrics_of_a_seed_are_those_of_its_file(told):
    for child, record in zip(told.children, told.records, strict=True):
        figures = dict(child.data.metrics)
        del figures["loss"]
        called = metric_names(fold["held_out"] for fold in record["folds"])
        for fold in record["folds"]:
            for score in ("plcc", "srocc", "rmse"):
                assert figures.pop(f"{score}/{called[fold['held_out']]}") == fold[score]
        assert figures == {name: record[name] for name in (*SUMMARY, "wall_time_s")}
        assert child.data.params == {"seed": f"{record['seed']}"}


def test_the_curve_of_a_seed_is_its_loss_over_the_folds(told, whole_run):
    losses = pl.read_parquet(whole_run / "losses.parquet")
    for seed, child in enumerate(told.children):
        curve = told.client.get_metric_history(child.info.run_id, "loss")
        assert [metric.step for metric in curve] == list(range(12))
        for metric in curve:
            of_epoch = losses.filter((pl.col("seed") == seed) & (pl.col("epoch") == metric.step))
            assert metric.value == pytest.approx(sum(of_epoch["loss"]) / 6, rel=ROUNDING)


def test_a_source_that_mlflow_cannot_name_is_renamed_and_said_so(told, hostile_name):
    (name,) = metric_names([hostile_name]).values()
    for child in told.children:
        assert json.loads(child.data.tags["renamed_sources"]) == {name: hostile_name}


def test_the_files_of_the_run_lie_in_it_byte_for_byte(told, whole_run, tmp_path):
    listed = {file.path for file in told.client.list_artifacts(told.parent.info.run_id)}
    assert listed == {path.name for path in whole_run.iterdir()} - {"logs", ".lock"}
    for name in listed:
        copy = told.client.download_artifacts(told.parent.info.run_id, name, str(tmp_path))
        assert Path(copy).read_bytes() == (whole_run / name).read_bytes()


def test_a_run_is_told_once_it_is_judged_and_drawn(make_corpus, database, tmp_path):
    corpus, out = make_corpus(sources=FOUR, frames=8), tmp_path / "a run"
    words = ["loso", "run", "--out-dir", "a run"]
    where = Tracking(mlflow=database, mlflow_experiment="night")
    outcome = pipeline.run(corpus, out, QUICK, [0, 1], tracking=where, command=words)
    (parent,), _ = runs_in(connect(database), "night")
    assert outcome.mlflow_run == parent.info.run_id
    assert parent.info.run_name == "a run"
    assert parent.data.tags["command"] == "loso run --out-dir 'a run'"
    listed = {file.path for file in connect(database).list_artifacts(parent.info.run_id)}
    assert {"report.html", "HOLD.json", "intervals.json"} <= listed


def test_what_is_told_is_documented(make_corpus, tmp_path):
    corpus = make_corpus(sources=["a/b", *FOUR[1:]], frames=8)
    outcome = pipeline.run(corpus, tmp_path / "first", QUICK, [0, 1])
    parent, (child, _) = describe_run(tmp_path / "first", [0, 1], report=outcome.report)
    found = {"loss", "undefined", "note", "logged_before", "mlflow.parentRunId"}
    for entry in (parent, child):
        found |= {*entry.params, *entry.metrics, *entry.tags}
    plain = {re.sub(r"^gain_over_[a-z]+", "gain_over_NAME", name) for name in found}
    plain = {re.sub(r"^(plcc|srocc|rmse)/.*", r"\1/SRC", name) for name in plain}
    plain = {re.sub(r"^versions\..*", "versions.PROGRAM", name) for name in plain}
    plain -= {name for name in plain if name.startswith("mlflow.source.")}
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = text.split("\n## What MLflow is told\n")[1].split("\n## ")[0]
    assert plain == set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def test_a_run_that_was_logged_is_logged_again_and_says_so(database, make_finished):
    folder, store = make_finished(), open_store(Tracking(mlflow=database))
    first, again = (log_run(store, folder, [0, 1]) for _ in range(2))
    assert first.run_id != again.run_id
    tags = connect(database).get_run(again.run_id).data.tags
    assert tags["logged_before"] == first.run_id
    other = log_run(store, make_finished("other", noise=0.5), [0, 1])
    assert "logged_before" not in connect(database).get_run(other.run_id).data.tags


def test_times_are_those_of_the_records(database, make_finished):
    log_run(open_store(Tracking(mlflow=database)), make_finished(), [0, 1])
    (parent,), below = runs_in(connect(database))
    started = 1000 * datetime.fromisoformat("2026-11-22T10:00:00+00:00").timestamp()
    assert parent.info.start_time == started
    for child in below[parent.info.run_id]:
        assert (child.info.start_time, child.info.end_time) == (started, started + 1500)


def test_an_undefined_figure_is_left_out_and_named(database, make_finished):
    def spoil(seed, content):
        if seed:
            return
        content.update(dict.fromkeys(("mean_plcc", "std_plcc", "min_plcc", "max_plcc")))
        content["folds"][1] |= {"plcc": None, "reason": "y_pred is constant"}

    log_run(open_store(Tracking(mlflow=database)), make_finished(edit=spoil), [0, 1])
    (parent,), below = runs_in(connect(database))
    assert parent.data.tags["undefined"] == "mean_plcc; plcc_spread; lowest_seed_plcc"
    assert parent.data.metrics.keys() == {"mean_rmse", "wall_time_s"}
    spoilt, whole = below[parent.info.run_id]
    named = "mean_plcc; std_plcc; min_plcc; max_plcc; plcc/bee: y_pred is constant"
    assert spoilt.data.tags["undefined"] == named
    assert whole.data.metrics.keys() - spoilt.data.metrics.keys() == {
        *("mean_plcc", "std_plcc", "min_plcc", "max_plcc", "plcc/bee")
    }
    assert "undefined" not in whole.data.tags


def test_what_speaks_of_other_seeds_is_not_told(make_corpus, tmp_path):
    folder = tmp_path / "run"
    outcome = pipeline.run(make_corpus(sources=FOUR, frames=8), folder, QUICK, [0, 1])
    one, _ = describe_run(folder, [0])
    assert "verdict" not in one.tags
    assert not {"interval_width", "gain_over_ridge", "worst_fold_plcc"} & set(one.metrics)
    assert not {"intervals.json", "baselines.json", *VERDICT_FILES, "report.html"} & {
        path.name for path in one.files
    }
    both, _ = describe_run(folder, [0, 1], report=outcome.report)
    assert outcome.report in both.files
    record = record_of(folder, 1) | {"wall_time_s": 7.0}
    (folder / "loso_seed1.json").write_text(json.dumps(record))
    changed, _ = describe_run(folder, [0, 1])
    assert "verdict" not in changed.tags


def test_a_long_training_is_told_whole(database, make_finished):
    folder, store = make_finished(epochs=2500), open_store(Tracking(mlflow=database))
    client, log, sizes = connect(database), store.client.log_batch, []

    def spy(run_id, *, metrics=(), params=()):
        sizes.append((len(metrics), len(params)))
        log(run_id, metrics=metrics, params=params)

    store.client.log_batch = spy
    log_run(store, folder, [0, 1])
    assert len(sizes) == 2 + 2 * (1 + 3)
    assert all(metrics <= 1000 and params <= 100 for metrics, params in sizes)  # what servers take
    (parent,), below = runs_in(client)
    for seed, child in enumerate(below[parent.info.run_id]):
        values = [metric.value for metric in client.get_metric_history(child.info.run_id, "loss")]
        expected = [(seed + 1) * 2 / (epoch + 1) for epoch in range(2500)]
        assert values == pytest.approx(expected, rel=ROUNDING)


def test_a_long_list_of_sources_is_cut(make_finished):
    def rename(_, content):
        for fold in content["folds"]:
            fold["held_out"] = fold["held_out"] * 3000

    (parent, _) = describe_run(make_finished(edit=rename), [0, 1])
    assert len(parent.tags["sources"]) == 5000
    assert parent.tags["sources"].endswith("...")


# -- Names of metrics -----------------------------------------------------------------------------


def test_strange_sources_are_told_apart(uri, client, make_finished):
    names = iter(["a/b", "a:b", ".."] * 2)

    def rename(_, content):
        for fold in content["folds"]:
            fold["held_out"] = next(names)

    folder = make_finished(edit=rename)
    logged = log_run(open_store(Tracking(mlflow=uri)), folder, [0, 1])
    assert logged.warnings == ()
    (parent,), below = runs_in(client)
    for seed, child in enumerate(below[parent.info.run_id]):
        renamed = json.loads(child.data.tags["renamed_sources"])
        assert sorted(renamed.values()) == ["..", "a/b", "a:b"]
        for fold in record_of(folder, seed)["folds"]:
            (name,) = (name for name, source in renamed.items() if source == fold["held_out"])
            assert child.data.metrics[f"plcc/{name}"] == fold["plcc"]


@given(st.lists(st.text(st.characters() | st.sampled_from("aB/.- _"), min_size=1), unique=True))
def test_names_of_metrics_are_legal_and_never_shared(sources):
    with tracking_store._settings():
        from mlflow.utils.validation import _validate_length_limit, _validate_metric_name

    called = metric_names(sources)
    assert list(called) == sources
    assert len({name.casefold() for name in called.values()}) == len(sources)
    assert metric_names(reversed(sources)) == called
    for name in called.values():
        _validate_metric_name(f"srocc/{name}")
        _validate_length_limit("Metric name", 250, f"srocc/{name}")


@pytest.mark.parametrize("source", ["Tennis_24fps", "big buck-bunny v1.0", "x" * 100, "_"])
def test_a_name_that_mlflow_takes_stays(source):
    assert metric_names([source]) == {source: source}


def test_a_name_cannot_pass_for_another():
    (shown,) = metric_names(["a/b"]).values()
    both = metric_names(["a/b", shown, "Ant", "ant"])
    assert both["a/b"] == shown
    assert len({name.casefold() for name in both.values()}) == 4


# -- Refused before training ----------------------------------------------------------------------


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("command", ["train", "run"])
def test_a_store_that_does_not_answer_is_refused_before_training(
    loso, command, make_corpus, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    corpus, out = make_corpus(sources=FOUR, frames=8), tmp_path / "out"
    address = f"http://127.0.0.1:{closed_port()}"
    words = ["--corpus", corpus, "--out-dir", out, "--mlflow", address, "--json"]
    code, printed, told = loso(command, *words)
    assert code == 3
    assert f"--mlflow {address}: the MLflow tracking store cannot be opened (" in told
    assert "; start it, correct the URI, or leave --mlflow out" in told
    assert json.loads(printed)["error"] == "CannotRun"
    assert not out.exists()


@pytest.mark.parametrize(
    ("uri", "kind", "message"),
    [
        ("runs/mlflow.db", BadSettings, "MLflow maintains folders no longer, and refuses to log"),
        ("file:mlruns", BadSettings, "give --mlflow sqlite:///mlflow.db, or set MLFLOW_ALLOW_FILE"),
        ("https://me:secret@host", BadSettings, "--mlflow: the URI holds a password, which the"),
        ("sqlite://", BadSettings, "a database in memory keeps nothing"),
        ("sqlite:///:memory:", BadSettings, "a database in memory keeps nothing"),
        ("http://[::1", BadSettings, "not a URI"),
        ("ftp://host/store", BadSettings, "MLflow knows no such kind of store, expected sqlite"),
        ("postgresql://127.0.0.1:9/none", CannotRun, "needs a package that is not there"),
        ("sqlite:///{text}", CannotRun, "cannot be opened (.*file is not a database"),
        ("sqlite:////proc/none/mlflow.db", CannotRun, "cannot be opened"),
    ],
)
def test_what_nothing_can_be_logged_to_is_refused(uri, kind, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    text = tmp_path / "text.db"
    text.write_text("no database, though it is long enough to be taken for one" * 20)
    with pytest.raises(kind, match=message.replace("(.", r"\(.")) as refusal:
        open_store(Tracking(mlflow=uri.format(text=text)))
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:hush@host",
        "http://:hush@host:5000",
        "postgresql://h/db?user=u&password=hush",
        "mysql://h/db?password=hush",
        "mysql+pymysql://h/db?ssl=1;Passwd=hush",
        "postgresql://h/db?sslpassword=hush",
        "http://h:5000/?token=hush",
        "http://h:5000/?access_token=hush#x",
        "http://h:5000/#api-key=hush",
        "http://h:5000/?client_secret=hush",
        "http://h:5000/?pass%77ord=hush",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BUID%3Du%3BPWD%3Dhush",
        "mysql://u:hu/hush@h/db",  # the rest of a password that was not escaped
        "mysql://u:hu#hush@h/db",
        "u:hush@h/db",
        "mysql:/u:hush@h/db",
    ],
)
def test_a_password_is_refused_wherever_it_stands_and_never_told(uri, loso, make_corpus, tmp_path):
    corpus = make_corpus(sources=FOUR, frames=8)
    words = ["train", "--out-dir", tmp_path / "run", "--corpus", corpus, "--json"]
    with pytest.raises(BadSettings) as refusal:
        open_store(Tracking(mlflow=uri))
    assert str(refusal.value) == (
        "--mlflow: the URI holds a password, which the records of the run would keep; leave it "
        "out: MLflow reads MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and "
        "MLFLOW_TRACKING_TOKEN, a database's driver its own file of passwords"
    )
    code, out, err = loso(*words, "--mlflow", uri)
    assert code == 2
    assert "the URI holds a password" in err
    assert "hush" not in out + err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("uri", ["http://[u:hush@h", "http://u:hush\u2100@h", "http://[::1"])
def test_what_is_no_uri_is_refused_and_not_told(uri):
    with pytest.raises(BadSettings) as refusal:
        open_store(Tracking(mlflow=uri))
    assert str(refusal.value) == (
        "--mlflow: not a URI, expected sqlite:///FILE or http://HOST:PORT"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "https://me@host:5000/mlflow",
        "postgresql://me@host/db?passfile=/home/me/.pgpass&sslmode=require&target_session_attrs=any",
        "sqlite:////tmp/a:b@c.db",
        "databricks://scope:prefix",
    ],
)
def test_what_holds_no_password_is_not_taken_for_one(uri):
    assert uri.startswith(tracking_store._check_uri(uri))


def test_a_deleted_experiment_is_refused(database):
    store = open_store(Tracking(mlflow=database, mlflow_experiment="old"))
    connect(database).delete_experiment(store.experiment_id)
    with pytest.raises(BadSettings, match="--mlflow-experiment old: this MLflow experiment is"):
        open_store(Tracking(mlflow=database, mlflow_experiment="old"))


def test_an_experiment_that_is_there_is_used(database):
    first, again = (open_store(Tracking(mlflow=database)) for _ in range(2))
    assert first.experiment_id == again.experiment_id


def test_an_experiment_that_another_process_has_just_made_is_used(database):
    made = open_store(Tracking(mlflow=database))
    client, answers = connect(database), iter([None])
    ask = client.get_experiment_by_name
    client.get_experiment_by_name = lambda name: next(answers, ask(name))
    assert tracking_store._experiment_id(client, "loso", None) == made.experiment_id


@pytest.mark.parametrize("gone", ["mlflow", "sqlalchemy"])
def test_without_the_packages_their_extra_is_named(gone, monkeypatch, database):
    find = tracking_store.find_spec
    monkeypatch.setattr(
        tracking_store, "find_spec", lambda name: None if name == gone else find(name)
    )
    with pytest.raises(MissingExtra, match=rf"needs the package {gone}; pip install 'loso\[mlflow"):
        open_store(Tracking(mlflow=database))
    assert open_store(Tracking()) is open_store(None) is None
    assert log_run(None, Path("none"), [0]) == Logged()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mlflow", " "], "--mlflow is empty"),
        (["--mlflow", "sqlite:///x.db", "--mlflow-experiment", ""], "--mlflow-experiment is empty"),
        (["--mlflow-experiment", "x"], "--mlflow-experiment says nothing alone; give --mlflow URI"),
    ],
)
def test_options_that_say_nothing_are_refused(loso, words, message):
    code, _, told = loso("train", *words)
    assert code == 2
    assert message in told


# -- Failure while logging ------------------------------------------------------------------------


def test_a_failure_while_logging_is_a_warning(loso, database, make_corpus, tmp_path):
    corpus = make_corpus(sources=FOUR, frames=8)
    (tmp_path / "mlartifacts").write_text("a file where MLflow wants a folder")
    words = ["run", "--corpus", corpus, "--epochs", 2, "--seeds", "0,1", "--json"]
    code, printed, told = loso(*words, "--out-dir", tmp_path / "run", "--mlflow", database)
    assert code == 1  # HOLD, as without MLflow
    verdict = json.loads(printed)
    assert verdict["gate"] == read(tmp_path / "run", "HOLD.json")["gate"]
    warning = re.search(
        r"warning: not logged to MLflow at (\S+) \((.+)\), run (\w+) there is not whole; "
        r"the same command keeps trained seeds and logs again\n",
        told,
    )
    assert warning[1] == database
    assert "logged to MLflow: run" not in told
    (parent,), below = runs_in(connect(database))
    assert (parent.info.run_id, parent.info.status) == (warning[3], "FAILED")
    assert {run.info.status for run in below[parent.info.run_id]} == {"FINISHED"}
    (log,) = (tmp_path / "run" / "logs").iterdir()
    assert "WARNING not logged to MLflow" in log.read_text()
    (tmp_path / "mlartifacts").unlink()
    code, _, told = loso(*words, "--out-dir", tmp_path / "run", "--mlflow", database)
    assert code == 1
    (logged,) = re.findall(r"logged to MLflow: run (\w+)", told)
    parents, _ = runs_in(connect(database))
    # Both may have begun in one second, which is all that their order is known by.
    status = {run.info.run_id: run.info.status for run in parents}
    assert status == {warning[3]: "FAILED", logged: "FINISHED"}


def test_a_damaged_record_is_a_warning_too(database, make_finished):
    folder, store = make_finished(), open_store(Tracking(mlflow=database))
    (folder / "loso_seed1.json").write_text("{")
    (warning,) = log_run(store, folder, [0, 1]).warnings
    assert "loso_seed1.json" in warning
    assert runs_in(connect(database)) == ([], {})


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"calls": []}', '{"calls": [{"started_at_utc": "soon"}]}']
)
def test_a_damaged_record_of_calls_is_refused_by_its_name(make_finished, text):
    folder = make_finished()
    (folder / "run.json").write_text(text)
    with pytest.raises(BadEvidence, match=r"run\.json: .+ cannot be used: "):
        describe_run(folder, [0, 1])


def test_two_verdicts_are_refused(make_finished):
    folder = make_finished()
    _, path = validate_run(folder, [0, 1])
    assert describe_run(folder, [0, 1])[0].tags["verdict"] == path.stem
    (other,) = {*VERDICT_FILES} - {path.name}
    (folder / other).write_bytes(path.read_bytes())
    with pytest.raises(BadEvidence, match=r"both PROMOTE\.json and HOLD\.json stand there"):
        describe_run(folder, [0, 1])


def test_a_store_that_is_gone_cannot_be_told_and_raises_nothing(database, make_finished):
    folder, store = make_finished(), open_store(Tracking(mlflow=database))

    def fail(*_, **__):
        raise ConnectionError("gone")

    store.client.log_batch = store.client.set_terminated = fail
    (warning,) = log_run(store, folder, [0, 1]).warnings
    assert warning.startswith(f"not logged to MLflow at {database} (gone); ")


def test_an_interrupt_while_logging_ends_the_run_as_killed(database, make_finished):
    folder, store = make_finished(), open_store(Tracking(mlflow=database))

    def interrupt(*_):
        raise KeyboardInterrupt

    store.client.log_artifact = interrupt
    with pytest.raises(KeyboardInterrupt):
        log_run(store, folder, [0, 1])
    (parent,), _ = runs_in(connect(database))
    assert parent.info.status == "KILLED"


# -- The commands ---------------------------------------------------------------------------------


def test_training_alone_is_logged_too(loso, database, make_corpus, tmp_path):
    corpus = make_corpus(sources=FOUR, frames=8)
    words = ["--corpus", corpus, "--out-dir", tmp_path / "run", "--seeds", "3", "--dry-run"]
    where = ["--mlflow", database, "--mlflow-experiment", "trials"]
    code, printed, told = loso("train", *words, *where, "--json")
    assert code == 0
    assert json.loads(printed)["trained_seeds"] == [3]
    (parent,), below = runs_in(connect(database), "trials")
    assert f"logged to MLflow: run {parent.info.run_id}" in told
    assert parent.data.tags["note"] == "dry-run"
    assert "verdict" not in parent.data.tags
    assert parent.data.metrics["plcc_spread"] == 0
    (child,) = below[parent.info.run_id]
    assert child.data.params == {"seed": "3"}


def test_mlflow_asks_nobody_and_leaves_the_environment_alone(tmp_path, tables):
    shutil.copy(tables, tmp_path / "mlflow.db")
    code = (
        "import os, socket, threading\n"
        "from loso.recipe import Tracking\n"
        "from loso.tracking.store import open_store\n"
        "socket.socket.connect = socket.getaddrinfo = lambda *_: print('asked somebody')\n"
        "before = dict(os.environ)\n"
        "open_store(Tracking(mlflow='sqlite:///mlflow.db'))\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "print(get_telemetry_client(), dict(os.environ) == before, threading.active_count())"
    )
    kept = ("PATH", "VIRTUAL_ENV")  # no CI, no pytest: MLflow is silent under them by itself
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "None True 1\n"
    assert said.stderr == ""
    assert not list(tmp_path.rglob("telemetry.json"))
