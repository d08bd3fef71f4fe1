import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.errors import BadEvidence
from loso.recipe import InputSpec
from loso.seedfile import (
    FoldScore,
    predictions_file_name,
    read_seed_file,
    recipe_of,
    seed_file_name,
    summarise,
    training_command,
    write_seed_file,
)

FLOAT64 = 1e-12
"""Error of a mean over a few numbers in -1..1, whatever the order of summation."""

scores = st.floats(-1, 1)


@given(st.lists(scores, min_size=2, max_size=20))
def test_summary_equals_numpy(plccs):
    folds = [FoldScore(held_out=str(i), plcc=p, rmse=abs(p)) for i, p in enumerate(plccs)]
    summary = summarise(folds)
    assert summary["mean_plcc"] == pytest.approx(np.mean(plccs), abs=FLOAT64)
    assert summary["std_plcc"] == pytest.approx(np.std(plccs, ddof=1), abs=1e-9)
    assert summary["mean_rmse"] == pytest.approx(np.mean(np.abs(plccs)), abs=FLOAT64)
    assert (summary["min_plcc"], summary["max_plcc"]) == (min(plccs), max(plccs))


@given(st.lists(scores | st.none(), max_size=6))
def test_an_undefined_fold_is_never_left_out_of_a_summary(plccs):
    summary = summarise([FoldScore(held_out=str(i), plcc=p) for i, p in enumerate(plccs)])
    whole = bool(plccs) and None not in plccs
    for key in ("mean_plcc", "min_plcc", "max_plcc"):
        assert (summary[key] is not None) == whole
    assert (summary["std_plcc"] is not None) == (whole and len(plccs) > 1)
    assert summary["mean_srocc"] is None


def test_a_seed_file_reads_back_as_it_was_written_and_is_always_json(make_run, tmp_path):
    path = make_run(seeds=[3]) / "loso_seed3.json"
    before = read_seed_file(path)
    copy = tmp_path / "copy.json"
    write_seed_file(copy, before)
    assert json.loads(copy.read_text()) == json.loads(path.read_text())
    assert read_seed_file(copy) == before

    undefined = FoldScore(
        held_out="dog", n_train=1, n_val=1, plcc=None, srocc=None, rmse=1.0, reason="1 value"
    )
    folds = (*before.folds, undefined)
    write_seed_file(copy, before.model_copy(update={"folds": folds, **summarise(folds)}))
    content = json.loads(copy.read_text(), parse_constant=pytest.fail)
    assert content["mean_plcc"] is None
    assert content["folds"][-1]["plcc"] is None
    assert content["folds"][-1]["reason"] == "1 value"
    assert "reason" not in content["folds"][0]
    assert not {"note", "excluded_sources"} & content.keys()


def test_files_of_the_replaced_trainer_are_read_with_what_they_have(tmp_path):
    path = tmp_path / "loso_seed0.json"
    path.write_text('{"seed": 0, "mean_plcc": NaN, "per_fold": [{"source": "a", "plcc": NaN}]}')
    seed_file = read_seed_file(path)
    assert seed_file.mean_plcc is None
    assert seed_file.folds == (FoldScore(held_out="a", plcc=None),)
    assert seed_file.schema_version is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"seed": 0,', "not valid JSON: EOF while parsing"),
        ("", "not valid JSON"),
        ("[" * 10_000, "not valid JSON"),
        ("[1]", "the record cannot be used, expected an object, found [1]"),
        ('{"seed": 0}', "keys are missing: mean_plcc"),
        ('{"seed": "0", "mean_plcc": 1}', "seed cannot be used, expected a valid integer"),
        ('{"seed": true, "mean_plcc": 1}', "seed cannot be used, expected a valid integer"),
        ('{"seed": 0, "mean_plcc": Infinity}', "mean_plcc cannot be used, expected a finite"),
        ('{"seed": 0, "mean_plcc": 1.01}', "expected less than or equal to 1, found 1.01"),
        ('{"seed": 0, "mean_plcc": 1, "lr": NaN}', "lr cannot be used, expected a finite number"),
        (
            '{"seed": 0, "mean_plcc": 1, "folds": [{"held_out": "a", "plcc": 1, "rmse": -1}]}',
            "folds.0.rmse cannot be used, expected greater than or equal to 0, found -1",
        ),
        (
            '{"seed": 0, "mean_plcc": 1, "predictions": {"file": "../a", "sha256": ""}}',
            "predictions.file cannot be used",
        ),
        ('{"seed": 0, "mean_plcc": 1, "schema_version": 2}', "expected 1, found 2"),
        ('{"seed": 0, "mean_plcc": 1, "schema_version": 1}', "keys are missing: batch_size, corp"),
    ],
)
def test_a_seed_file_that_is_not_one_is_refused(tmp_path, content, message):
    path = tmp_path / "loso_seed0.json"
    path.write_text(content)
    with pytest.raises(BadEvidence, match=re.escape(message)) as refusal:
        read_seed_file(path)
    assert refusal.value.where == str(path)
    assert f"loso train --out-dir {tmp_path} --seeds 0 --force" in refusal.value.fix


def test_a_file_that_no_seed_names_cannot_be_made_again(tmp_path):
    path = tmp_path / "loso_seed0 (copy).json"
    path.write_text("")
    with pytest.raises(BadEvidence) as refusal:
        read_seed_file(path)
    assert refusal.value.fix == "restore the file, or train this seed again"


def test_a_folder_is_no_seed_file(tmp_path):
    with pytest.raises(BadEvidence, match=r"cannot be read \(Is a directory\)"):
        read_seed_file(tmp_path)


def test_the_files_of_a_seed_and_the_command_that_makes_them():
    assert seed_file_name(3) == "loso_seed3.json"
    assert predictions_file_name(3) == "oof_seed3.parquet"
    assert training_command(Path("a b"), [3, 0]) == (
        "loso train --out-dir 'a b' --seeds 0,3 --corpus CORPUS"
    )


@pytest.mark.parametrize(
    "key",
    [
        *("corpus_sha256", "corpus_rows", "hidden", "depth", "dropout", "target", "unit"),
        *("excluded_sources", "engine", "versions", "predictions"),
    ],
)
def test_a_file_with_a_key_of_ours_is_no_file_of_the_replaced_trainer(make_run, key):
    path = make_run(seeds=[0]) / "loso_seed0.json"
    whole = json.loads(path.read_text()) | {"excluded_sources": []}
    path.write_text(json.dumps({"seed": 0, "mean_plcc": 0.9, key: whole[key]}))
    with pytest.raises(BadEvidence, match=f"schema_version is missing beside {key}"):
        read_seed_file(path)


def test_a_file_with_a_schema_version_holds_every_key(make_run):
    path = make_run(seeds=[0]) / "loso_seed0.json"
    whole = json.loads(path.read_text())
    for key in whole.keys() - {"schema_version", "seed", "mean_plcc"}:
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        with pytest.raises(BadEvidence, match=f"keys are missing: {key}"):
            read_seed_file(path)
    path.write_text(json.dumps(whole | {"lr": None}))
    with pytest.raises(BadEvidence, match="keys are missing: lr"):
        read_seed_file(path)
    del whole["folds"][1]["n_val"]
    path.write_text(json.dumps(whole))
    with pytest.raises(BadEvidence, match=r"keys are missing: folds\.1\.n_val"):
        read_seed_file(path)


def test_what_goes_in_is_read_back_as_it_was_written(make_run):
    spec = InputSpec(conditions=("log2:height",), statistics=("mean", "p5"), group_by="content")
    path = make_run() / "loso_seed0.json"
    usual = read_seed_file(path)
    assert "inputs" not in json.loads(path.read_text())
    record = usual.model_copy(update={"inputs": spec, "standardise_target": True, "unit": "clip"})
    write_seed_file(path, record)
    assert read_seed_file(path) == record
    assert recipe_of(read_seed_file(path)).inputs == spec
    write_seed_file(path, usual)
    assert not {"inputs", "standardise_target"} & json.loads(path.read_text()).keys()
