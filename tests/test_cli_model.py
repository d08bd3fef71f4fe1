import json

import pytest

from loso.cli import main
from loso.verdict import validate_run


@pytest.fixture
def loso(monkeypatch, capsys):
    """Run a command line as a shell would: (exit code, stdout, stderr)."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["loso", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def export(loso, make_run, tmp_path):
    """Export a promoted run of one epoch, as options ask."""
    run = make_run(seeds=(0, 1), edit=lambda _, content: content.update(epochs=1, hidden=3))
    validate_run(run, (0, 1), corpus=tmp_path / "corpus.jsonl")
    words = ["export", run, "--corpus", tmp_path / "corpus.jsonl", "--out-dir", tmp_path / "model"]
    return lambda *more: loso(*words, "--threads", 1, *more)


def test_an_export_prints_what_it_made_and_what_comes_next(export, tmp_path):
    code, printed, told = export()
    assert code == 0, told
    lines = printed.splitlines()
    sums = (tmp_path / "model/SHA256SUMS").read_text().splitlines()
    assert lines[-1] == "fr_regressor_v2_ensemble_v1: 2 members and their ensemble"
    assert len(lines) == 4
    assert set(lines[:-1]) <= set(sums)
    assert "members are marked smoke: true" in told
    verdict = tmp_path / "run/PROMOTE.json"
    assert f"next: loso registry flip {tmp_path}/model --verdict {verdict}" in told


def test_an_export_prints_one_json_object(export, tmp_path):
    code, printed, _ = export("--json", "--name", "mine")
    record = json.loads(printed)
    assert code == 0
    assert set(record["members"]) == {"mine_seed0", "mine_seed1"}
    assert record["id"] == "mine"
    assert record["signed"] is False
    assert {"mine.onnx", "registry.json", "MODEL_CARD.md"} <= set(record["files"])
    manifest = json.loads((tmp_path / "model/mine.json").read_text())
    assert record["ensemble_sha256"] == manifest["sha256"]


def test_an_export_without_its_grounds_exits_1(export, tmp_path):
    (tmp_path / "run/PROMOTE.json").unlink()
    code, printed, told = export()
    assert (code, printed) == (1, "")
    assert "no verdict to promote" in told
    code, printed, _ = export("--json")
    assert (code, json.loads(printed)["error"]) == (1, "Refused")


def test_a_key_that_is_none_exits_2_before_anything_is_made(export, tmp_path):
    code, _, told = export("--sign", tmp_path / "none.pem")
    assert code == 2
    assert "not a key that can be used" in told
    assert not (tmp_path / "model").exists()


def test_a_flip_and_its_reverse(export, loso, tmp_path):
    export()
    model, verdict = tmp_path / "model", tmp_path / "run/PROMOTE.json"
    code, printed, told = loso("registry", "list", model)
    assert (code, told) == (0, "")
    assert printed.splitlines()[1].split() == [
        "fr_regressor_v2_ensemble_v1_seed0",
        "trial",
        "whole",
        "fr_regressor_v2_ensemble_v1_seed0.onnx",
    ]
    code, printed, told = loso("registry", "flip", model, "--verdict", verdict)
    assert code == 0
    assert "2 members are for production (smoke: false)" in printed
    assert f"wrote {model}/fr_regressor_v2_ensemble_v1.promotion.json" in told
    listed = json.loads(loso("registry", "list", model, "--json")[1])["models"]
    assert [(entry["smoke"], entry["state"]) for entry in listed] == [(False, "whole")] * 2
    flipped = json.loads(loso("registry", "flip", model, "--verdict", verdict, "--json")[1])
    assert flipped["state"] == "promoted"
    code, printed, _ = loso("registry", "unflip", model, "--reason", "a test", "--json")
    assert (code, json.loads(printed)["reason"]) == (0, "a test")
    code, printed, _ = loso("registry", "unflip", model, "--reason", "a test")
    assert "2 members are on trial (smoke: true)" in printed


def test_refused_flips_exit_1_and_bad_folders_2(export, loso, tmp_path):
    export()
    model, verdict = tmp_path / "model", tmp_path / "run/PROMOTE.json"
    (model / "fr_regressor_v2_ensemble_v1.onnx").write_bytes(b"")
    code, printed, told = loso("registry", "flip", model, "--verdict", verdict)
    assert (code, printed) == (1, "")
    assert "not the graph in the manifest" in told
    code, _, told = loso("registry", "flip", model, "--verdict", verdict, "--name", "other")
    assert code == 2
    assert "other.json" in told
    code, _, told = loso("registry", "list", tmp_path)
    assert code == 2
    assert "file not found" in told
    assert loso("registry", "unflip", model, "--reason", "")[0] == 2
