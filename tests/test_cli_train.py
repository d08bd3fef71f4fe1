import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loso.cli import app
from loso.recipe import Compute, GateThresholds, Recipe, TrainingNeeds

SHORT = ["--epochs", "120", "--lr", "0.005", "--hidden", "16", "--seeds", "0,1"]


@pytest.fixture
def big(make_corpus):
    return make_corpus(sources=["ant", "bee", "cat", "dog"], frames=8)


def test_run_promotes_what_it_learnt(loso, big, tmp_path):
    out = tmp_path / "run"
    limits = ["--mean-plcc-threshold", "0.9", "--per-seed-min", "0.9", "--plcc-spread-max", "0.05"]
    code, printed, told = loso("run", "--corpus", big, "--out-dir", out, *SHORT, *limits)
    assert code == 0, told
    assert re.search(r"^ant +0\.9\d{3} +0\.9\d{3}", printed, re.MULTILINE)
    assert "192 rows, 4 sources, 2 encoders" in printed
    assert "PROMOTE" in printed
    assert (out / "PROMOTE.json").is_file()
    (log,) = (out / "logs").iterdir()
    text = log.read_text()
    assert "verdict PROMOTE" in text
    assert f"corpus {big} sha256" in text


def test_run_holds_and_exits_1(loso, big, tmp_path):
    code, printed, _ = loso(
        "run", "--corpus", big, "--out-dir", tmp_path, *SHORT, "--per-seed-min", "1"
    )
    assert code == 1
    assert "HOLD" in printed
    assert "try:" in printed


def test_run_prints_one_json_object(loso, big, tmp_path):
    _, printed, _ = loso("run", "--corpus", big, "--out-dir", tmp_path, *SHORT, "--json")
    verdict = json.loads(printed)
    assert verdict["verdict"] in {"PROMOTE", "HOLD"}
    assert set(verdict["gate"]["per_seed_plccs"]) == {"0", "1"}


def test_train_then_validate(loso, big, tmp_path):
    code, printed, told = loso("train", "--corpus", big, "--out-dir", tmp_path, *SHORT)
    assert code == 0
    assert "trained 2, kept 0 of the seeds" in printed
    assert f"next: loso validate {tmp_path} --corpus {big} --seeds 0,1" in told
    code, printed, _ = loso("train", "--corpus", big, "--out-dir", tmp_path, *SHORT, "--json")
    assert json.loads(printed)["kept_seeds"] == [0, 1]
    code, _, _ = loso(
        "validate", tmp_path, "--corpus", big, "--seeds", "0,1", "--per-seed-min", "1"
    )
    assert code == 1


def test_a_dry_run_cannot_be_judged(loso, big, tmp_path):
    _, _, told = loso("train", "--corpus", big, "--out-dir", tmp_path, *SHORT, "--dry-run")
    assert "next:" not in told
    code, _, told = loso("gate", tmp_path, "--seeds", "0,1")
    assert code == 2
    assert "dry run" in told


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_missing_corpus_names_the_step_that_makes_it(loso, command, tmp_path):
    code, _, told = loso(command, "--corpus", tmp_path / "no.jsonl", "--out-dir", tmp_path / "out")
    assert code == 2
    assert "no.jsonl: file not found; build a corpus: loso corpus build --help" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_short_corpus_is_refused_until_min_rows_allows_it(loso, command, make_corpus, tmp_path):
    corpus = make_corpus()  # 72 rows
    words = [command, "--corpus", corpus, "--out-dir", tmp_path / "out", "--seeds", "0,1"]
    code, _, told = loso(*words)
    assert code == 2
    assert "100" in told
    assert "72" in told
    assert "loso corpus build --help" in told
    assert not (tmp_path / "out").exists()
    code, _, _ = loso(*words, "--min-rows", "72", "--epochs", "1")
    assert code == (0 if command == "train" else 1)


def test_settings_out_of_range_are_refused_before_anything_is_written(loso, big, tmp_path):
    out = tmp_path / "out"
    code, printed, told = loso(
        "run", "--corpus", big, "--out-dir", out, "--dropout", "0.95", "--json"
    )
    assert code == 2
    assert "dropout is out of range, expected a number in 0..0.9, found 0.95" in told
    assert json.loads(printed)["found"] == "0.95"
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threads", "0"], "threads is out of range"),
        (["--engine", "jax"], "no such engine"),
        (["--exclude-source", "owl"], "cannot exclude owl: no such source"),
    ],
)
def test_bad_options_exit_2(loso, big, tmp_path, words, message):
    code, _, told = loso("train", "--corpus", big, "--out-dir", tmp_path / "out", *words)
    assert code == 2
    assert message in told


def test_interrupt_exits_130(loso, big, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("loso.pipeline.train_into", interrupted)
    code, _, _ = loso("run", "--corpus", big, "--out-dir", tmp_path)
    assert code == 130


@pytest.mark.parametrize("settings", [Recipe, TrainingNeeds, GateThresholds, Compute])
def test_every_settings_field_with_a_help_text_is_an_option(settings):
    printed = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "300"}).stdout
    for field in fields(settings):
        if "help" in field.metadata:
            assert f"--{field.name.replace('_', '-')} " in printed
            assert field.metadata["help"] in printed


def test_rows_that_only_a_key_tells_apart(loso, make_corpus, tmp_path):
    twice = make_corpus(frames=8, edit=lambda i, row: row.update(frame_index=i // 2, test=i % 2))
    words = ["train", "--corpus", twice, "--out-dir", tmp_path / "out", *SHORT, "--dry-run"]
    assert loso(*words, "--key", "test")[0] == 0
    code, _, told = loso(*words, "--key", "tset")
    assert code == 2
    assert "did you mean test?" in told


def test_the_demo_goes_through(loso, tmp_path, monkeypatch):
    monkeypatch.setattr("loso.pipeline.DEFAULT_SEEDS", (0, 1))
    monkeypatch.setattr("loso.run_folder.Recipe", lambda: Recipe(epochs=2))
    code, printed, told = loso("demo", "--out-dir", tmp_path, "--json")
    assert code == 1
    assert json.loads(printed)["verdict"] == "HOLD"
    assert "ten short clips" in told


def test_ctrl_c_ends_a_training_with_130(big, tmp_path):
    script = Path(sys.executable).with_name("loso")
    words = [script, "train", "--corpus", big, "--out-dir", tmp_path / "out", "--epochs", "100000"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "out" / ".lock").exists():
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert not list((tmp_path / "out").glob("*.json"))
