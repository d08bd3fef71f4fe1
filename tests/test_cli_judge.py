import json
import subprocess
import sys

import pytest
import typer

from loso.cli import judge
from loso.cli.options import parse_seeds
from loso.corpus.load import load_corpus
from loso.errors import BadSettings
from loso.recipe import Recipe
from loso.run_folder import train_into

# -- loso gate ------------------------------------------------------------------------------------

AS_THEY_STAND = (
    "scores are taken from the seed files; loso validate recomputes them from the predictions\n"
)


def test_gate_prints_each_limit_with_its_margin(loso, make_run):
    def edit(seed, content):
        for key in content.keys() - {"seed"}:
            del content[key]
        content |= {"mean_plcc": 0.95 + seed / 1000, "folds": folds(0.95 + seed / 1000)}

    code, out, err = loso("gate", make_run(edit=edit))
    assert code == 0
    assert out.splitlines()[:4] == [
        "PLCC on unseen sources   value     limit   margin",
        "mean over seeds         0.9520   >= 0.95  +0.0020  pass",
        "spread of seeds         0.0040  <= 0.005  +0.0010  pass",
        "lowest, seed 0          0.9500   >= 0.95        0  pass",
    ]
    assert "seed 3  0.9530" in out
    assert out.endswith("gate: pass\n")
    assert err.startswith("warning: seeds 0, 1, 2, 3, 4: no corpus_sha256")
    assert AS_THEY_STAND not in err


@pytest.mark.parametrize("options", [[], ["--json"], ["--per-seed-min", "0.9999"]])
def test_gate_takes_the_scores_as_they_stand_and_says_so(loso, make_run, options):
    """The predictions disprove these scores; to see that takes more than the gate's half second."""

    def edit(_, content):
        for fold in content["folds"]:
            fold["plcc"] = 0.999
        content |= {"mean_plcc": 0.999, "std_plcc": 0.0, "min_plcc": 0.999, "max_plcc": 0.999}

    folder = make_run(edit=edit)
    code, _, err = loso("gate", folder, *options)
    assert code == ("--per-seed-min" in options)
    assert err == AS_THEY_STAND
    assert loso("validate", folder)[0] == 2


def folds(plcc):
    return [{"held_out": source, "plcc": plcc} for source in "ab"]


def test_gate_fails_with_exit_code_1(loso, make_run):
    code, out, _ = loso("gate", make_run(), "--per-seed-min", "0.9999")
    assert code == 1
    assert "FAIL" in out.splitlines()[3]
    assert out.endswith("gate: FAIL\n")


def test_a_margin_too_small_to_see_is_written_out(loso, make_run):
    def edit(_, content):
        for key in content.keys() - {"seed"}:
            del content[key]
        content |= {"mean_plcc": 0.949999, "folds": folds(0.949999)}

    code, out, _ = loso("gate", make_run(edit=edit))
    assert code == 1
    assert out.splitlines()[1] == "mean over seeds         0.9500   >= 0.95   -1e-06  FAIL"


def test_gate_as_json_has_the_documented_keys(loso, make_run):
    code, out, err = loso("gate", make_run(), "--json", "--seeds", "4,1")
    report = json.loads(out)
    assert code == 0
    unseen = "loso_seed0.json, loso_seed2.json, loso_seed3.json"
    assert f"warning: in the folder and not judged: {unseen}\n" in err
    assert out.count("\n") == 1
    assert report["passed"] is True
    assert set(report["per_seed_plccs"]) == {"1", "4"}


def test_each_limit_has_its_option(loso, make_run):
    folder = make_run()
    for option, value, key in (
        ("--mean-plcc-threshold", 0.99999, "mean_plcc_pass"),
        ("--plcc-spread-max", 0, "plcc_spread_pass"),
        ("--per-seed-min", 0.99999, "per_seed_pass"),
    ):
        code, out, _ = loso("gate", folder, option, value, "--json")
        report = json.loads(out)
        assert code == 1
        failed = {k for k in report if k.endswith("_pass") and not report[k]}
        assert failed == {key}


def test_what_cannot_be_judged_exits_with_2_and_one_message(loso, make_run, tmp_path):
    code, out, err = loso("gate", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert err == f"loso: {tmp_path}/nowhere: not a folder; name the folder of a training run\n"

    code, out, err = loso("gate", make_run(seeds=(0, 1)), "--json")
    assert code == 2
    assert json.loads(out)["error"] == "BadEvidence"
    assert "missing loso_seed2.json, loso_seed3.json, loso_seed4.json" in err

    for command in ("gate", "validate"):
        code, _, err = loso(command, tmp_path / "run", "--seeds", "1")
        assert code == 2
        assert "an ensemble needs at least two seeds, the spread of one says nothing" in err

    assert loso("gate", tmp_path, "--mean-plcc-threshold", "1.5")[0] == 2
    assert loso("gate", tmp_path, "--no-such-option")[0] == 2


def test_gate_loads_no_heavy_library(make_run):
    code = (
        "import sys; from loso.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'polars', 'scipy', 'torch', 'rich'} & set(sys.modules)))"
    )
    run = [sys.executable, "-c", code, "gate", str(make_run())]
    lines = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-2:] == ["gate: pass", "[]"]


# -- loso validate --------------------------------------------------------------------------------


def test_validate_writes_a_verdict_and_says_so(loso, make_run, tmp_path):
    folder = make_run()
    corpus = tmp_path / "corpus.jsonl"
    code, out, err = loso("validate", folder, "--corpus-root", tmp_path, "--corpus", corpus)
    assert code == 0
    assert out.splitlines()[-1].startswith("PROMOTE: flip seeds smoke->false")
    assert err == f"wrote {folder}/PROMOTE.json\n"
    assert json.loads((folder / "PROMOTE.json").read_text())["corpus"]["present"] is True


def test_validate_reads_a_corpus_whose_rows_a_key_tells_apart(loso, make_run, make_corpus):
    def edit(_, row):
        row["rendition"], row["frame_index"] = row["frame_index"], 0

    command = ["validate", make_run(), "--corpus", make_corpus("keyed.jsonl", edit)]
    assert "the row of line 1 again" in loso(*command)[2]
    _, _, err = loso(*command, "--key", "rendition")
    assert "not the corpus that the seeds were trained on" in err


def test_validate_holds_with_exit_code_1_and_what_to_try(loso, make_run):
    folder = make_run(noise=30.0)
    code, out, _ = loso("validate", folder)
    assert code == 1
    assert "HOLD: leave the seeds at smoke: true and investigate diversity" in out
    assert "  try: " in out


def test_validate_as_json_prints_the_file(loso, make_run):
    folder = make_run()
    code, out, err = loso("validate", folder, "--json", "--seeds", "0,1")
    assert code == 0
    assert json.loads(out) == json.loads((folder / "PROMOTE.json").read_text())
    unseen = "loso_seed2.json, loso_seed3.json, loso_seed4.json"
    assert err.splitlines()[:2] == [
        "warning: no corpus file: that the predictions are of its rows is taken on trust",
        f"warning: in the folder and not judged: {unseen}",
    ]


def test_validate_refuses_broken_evidence_with_exit_code_2(loso, make_run):
    folder = make_run(predict=lambda _, table: table.with_columns(y_pred=-table["y_pred"]))
    code, out, err = loso("validate", folder)
    assert (code, out) == (2, "")
    assert "is not borne out" in err
    assert not list(folder.glob("[PH]*.json"))


# -- loso calibrate -------------------------------------------------------------------------------


@pytest.fixture
def trained(make_corpus, tmp_path):
    """A run of five made-up sources, and its corpus."""
    corpus = load_corpus(make_corpus(sources=["ant", "bee", "cat", "dog", "elk"]))
    train_into(tmp_path / "run", corpus, Recipe(epochs=2, hidden=8), [0, 1])
    return tmp_path / "run", corpus.path


@pytest.fixture
def calibrate(capsys):
    """Run the command by itself; return its exit code, stdout and stderr, or raise its refusal."""
    app = typer.Typer()
    app.command()(judge.calibrate)

    def run(*words):
        with pytest.raises(SystemExit) as end:
            app(list(map(str, words)))
        return end.value.code or 0, *capsys.readouterr()

    return run


def test_calibrate_prints_each_pool_with_its_coverage(calibrate, trained):
    folder, corpus = trained
    code, out, err = calibrate(folder, "--corpus", corpus, "--seeds", "0,1")
    record = json.loads((folder / "intervals.json").read_text())
    frame = record["coverage"]["by_pool"]["frame"]["hierarchical"]["0.8"]
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "intervals of level 0.8, supported by 5 sources"
    assert [line.split()[0] for line in lines[3:8]] == ["frame", "mean", "hmean", "p1", "p5"]
    quantile = record["by_pool"]["frame"]["quantiles"]["0.8"]
    assert lines[3].startswith(f"frame  mu +- {quantile:.4g}")
    figures = [f"{frame['mean']:.3f}", f"{frame['worst']:.3f}", f"{frame['mean_width']:.3g}"]
    assert lines[3].split()[-6:-3] == figures
    assert lines[-1] == f"worst source of frames: {frame['worst_source']}"
    assert err.splitlines()[-1] == f"wrote {folder}/intervals.json"
    assert "certified" not in out


def test_calibrate_as_json_prints_the_file(calibrate, trained):
    folder, corpus = trained
    (folder / "PROMOTE.json").write_text("{}")
    words = ["--level", "0.6", "--pairs", "4", "--threads", "1", "--json"]
    code, out, err = calibrate(folder, "--corpus", corpus, "--seeds", "0,1", *words)
    record = json.loads(out)
    assert code == 0
    assert record == json.loads((folder / "intervals.json").read_text())
    assert record["default_level"] == 0.6
    assert record["coverage"]["capped"] is True
    assert err.endswith("the verdict in this folder was given before: validate again\n")


def test_calibrate_says_where_no_coverage_can_be_measured(calibrate, make_corpus, tmp_path):
    corpus = load_corpus(make_corpus(sources=["ant", "bee", "cat", "dog"]))
    train_into(tmp_path / "run", corpus, Recipe(epochs=1, hidden=4), [0, 1])
    _, out, _ = calibrate(tmp_path / "run", "--corpus", corpus.path, "--seeds", "0,1")
    assert out.splitlines()[-1] == (
        "no coverage at level 0.8: 3 sources are left to calibrate a judged one, and do not "
        "support it"
    )


def test_calibrate_refuses_what_the_sources_do_not_support(calibrate, trained):
    folder, corpus = trained
    with pytest.raises(BadSettings, match="calibrate on 19 sources"):
        calibrate(folder, "--corpus", corpus, "--seeds", "0,1", "--level", "0.95")
    assert not (folder / "intervals.json").exists()


# -- Seeds ----------------------------------------------------------------------------------------


def test_seeds_keep_their_order():
    assert parse_seeds("3,0, 4294967295") == (3, 0, 4294967295)


@pytest.mark.parametrize(
    "text", ["", ",", "1,,2", "1,1", "01,1", "-1", "1.0", "a", "4294967296", "9" * 5000, "²"]
)
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(BadSettings, match="whole numbers"):
        parse_seeds(text)
