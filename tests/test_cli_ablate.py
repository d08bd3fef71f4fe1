import json
import re

import pytest

OF_MOS = ["--recipe", "clip-mos", "--epochs", "3", "--hidden", "4", "--min-rows", "1"]


@pytest.fixture
def trained(loso, make_corpus, tmp_path):
    """The folder and the corpus of a short run of scores that two panels gave."""

    def edit(i, row):
        row["mos"] = 1 + row["vmaf"] / 25 + 0.1 * (i % 2)
        row |= {"frame_index": i // 2, "test": i % 2, "bitrate_kbps": 5000.0 / row["cq"]}

    corpus = make_corpus(sources=["ant", "bee", "cat", "dog"], frames=8, edit=edit)
    few = ["--seeds", "0,1", "--key", "test", "--condition", "bitrate_kbps"]
    words = ["train", "--corpus", corpus, "--out-dir", tmp_path / "run", *OF_MOS, *few]
    assert loso(*words)[0] == 0
    return tmp_path / "run", corpus


def test_ablate_prints_who_does_how_well(loso, trained):
    folder, corpus = trained
    words = ["ablate", folder, "--corpus", corpus, "--seeds", "0,1", "--key", "test"]
    code, out, err = loso(*words)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "mos of clips, 4 sources, mapped without the held-out source"
    assert lines[2].split() == ["PLCC", "RMSE", "gain", "bootstrap", "jackknife-t", "beats"]
    names = [line[:20].strip() for line in lines[3:8]]
    assert sorted(names) == ["model", "ridge", "vmaf", "without codec block", "without conditions"]
    ends = r"[+-]\d\.\d{4}\.\.[+-]\d\.\d{4} +"
    row = rf"vmaf +\d\.\d{{4}} +\S+ +[+-]\d\.\d{{4}}  {ends}{ends}(yes|no)"
    assert any(re.match(row, line) for line in lines)
    assert "no rmse star: the corpus has none of mos_ci" in out
    assert "panels 0 and 1 on 24 clips: PLCC 0.9" in lines[-1]
    assert f"wrote {folder / 'baselines.json'}\n" in err

    code, out, _ = loso(*words, "--json")
    assert code == 0
    assert json.loads(out) == json.loads((folder / "baselines.json").read_text())
    errors = {name: own["rmse"] for name, own in json.loads(out)["figures"]["clip"].items()}
    assert names == [name.replace("_", " ") for name in sorted(errors, key=errors.get)]


def test_ablate_says_that_an_older_verdict_knows_nothing_of_it(loso, trained):
    folder, corpus = trained
    few = ["--corpus", corpus, "--seeds", "0,1", "--key", "test"]
    assert loso("validate", folder, *few)[0] in {0, 1}
    _, _, err = loso("ablate", folder, *few)
    assert err.endswith("the verdict in this folder was given before: validate again\n")


def test_what_cannot_be_judged_exits_with_2(loso, make_corpus, tmp_path):
    code, out, err = loso("ablate", tmp_path / "no", "--corpus", make_corpus(), "--json")
    assert code == 2
    assert json.loads(out)["error"] == "BadEvidence"
    assert "not a folder" in err


# -- The gate of another target -------------------------------------------------------------------


def test_gate_says_that_the_baseline_is_not_judged(loso, make_run):
    folder = make_run(score=lambda row: 1 + row["vmaf"] / 25)
    code, out, err = loso("gate", folder, "--per-seed-min", 0, "--mean-plcc-threshold", 0, "--json")
    assert "gain_over_vmaf" not in json.loads(out)
    assert code == 1  # such noise spreads the seeds
    assert err.endswith(
        "whether the model of mos beats its VMAF baseline was not judged: that takes "
        "loso validate --corpus\n"
    )
    assert "baseline" not in loso("gate", make_run("of-vmaf"))[2]


@pytest.mark.parametrize("verb", ["gate", "validate"])
def test_limits_come_from_a_file_and_options_win(loso, make_run, tmp_path, verb):
    folder, file = make_run(), tmp_path / "gate.toml"
    file.write_text("per_seed_min = 0.99999\nplcc_spread_max = 0.25\n")
    words = [verb, folder, "--gate", file, "--json"]
    code, out, _ = loso(*words)
    report = json.loads(out)
    report = report.get("gate", report)
    assert code == 1
    assert (report["per_seed_min"], report["plcc_spread_max"]) == (0.99999, 0.25)
    assert report["mean_plcc_threshold"] == 0.95
    assert report["per_seed_pass"] is False
    code, out, _ = loso(*words, "--per-seed-min", "0.9")
    report = json.loads(out)
    report = report.get("gate", report)
    assert code == 0
    assert (report["per_seed_min"], report["plcc_spread_max"]) == (0.9, 0.25)
    file.write_text("per_seed_mean = 0.9\n")
    code, _, err = loso(*words)
    assert code == 2
    assert "no such limit: per_seed_mean" in err
    assert "did you mean per_seed_min?" in err


def test_run_takes_limits_from_a_file_and_judges_the_baseline(loso, make_corpus, tmp_path):
    def edit(_, row):
        row["mos"] = 1 + row["vmaf"] / 25

    corpus = make_corpus(sources=["ant", "bee", "cat", "dog"], frames=8, edit=edit)
    file, out_dir = tmp_path / "gate.toml", tmp_path / "run"
    file.write_text("mean_plcc_threshold=-1\nper_seed_min=-1\nplcc_spread_max=2\n")
    words = ["run", "--corpus", corpus, "--out-dir", out_dir, *OF_MOS, "--seeds", "0,1"]
    code, out, err = loso(*words, "--gate", file)
    assert code == 1, err  # VMAF is the very score: three epochs do not beat it
    assert re.search(r"gain over VMAF +-\S+ +lower end -\S+ > 0  FAIL", out)
    assert "does not beat that of the VMAF column" in out
    record = json.loads((out_dir / "baselines.json").read_text())
    assert "without_codec_block" in record["figures"]["clip"]
    verdict = json.loads((out_dir / "HOLD.json").read_text())
    assert verdict["gate"]["gain_over_vmaf"] == record["gains"]["clip"]["vmaf"]
    (log,) = (out_dir / "logs").iterdir()
    assert "baselines computed: RMSE gain of the model {" in log.read_text()
    first = (out_dir / "baselines.json").stat().st_mtime_ns
    loso(*words, "--gate", file)
    assert (out_dir / "baselines.json").stat().st_mtime_ns == first
