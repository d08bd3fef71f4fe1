"""The old entry points keep what their callers rely on."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

FORK = Path(__file__).parents[1] / "integrations" / "vmaf_fork"
SEEDS = [0, 1, 2, 3, 4]


def load(monkeypatch, path):
    """Return a script as a module, as callers that import it get it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location(f"fork_{Path(path).stem}", FORK / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def trainer(monkeypatch):
    return load(monkeypatch, "ai/scripts/train_fr_regressor_v2_ensemble_loso.py")


@pytest.fixture
def gate(monkeypatch):
    return load(monkeypatch, "scripts/ci/ensemble_prod_gate.py")


@pytest.fixture
def validator(monkeypatch):
    return load(monkeypatch, "ai/scripts/validate_ensemble_seeds.py")


@pytest.fixture
def measurer(monkeypatch):
    return load(monkeypatch, "scripts/dev/hw_encoder_corpus.py")


@pytest.fixture
def make_thin(tmp_path):
    """Write seed files that hold a seed and a mean, and what else is given."""

    def make(*means, **more):
        for seed, mean in enumerate(means):
            content = {"seed": seed, "mean_plcc": mean, **more}
            (tmp_path / f"loso_seed{seed}.json").write_text(json.dumps(content))
        return tmp_path

    return make


# -- The trainer ----------------------------------------------------------------------------------


def test_the_trainer_offers_the_old_names_and_defaults(trainer):
    assert trainer.CANONICAL_6[0] == "adm2"
    assert trainer.CODEC_BLOCK_DIM == 14
    assert trainer.N_ENCODERS == len(trainer.ENCODER_VOCAB) == 12
    assert trainer.ENCODER_VOCAB[trainer.UNKNOWN_ENCODER_INDEX] == "unknown"
    assert trainer.ENCODER_VOCAB_VERSION == 2
    assert len(trainer.NETFLIX_SOURCES) == 9
    assert list(trainer.NETFLIX_SOURCES) == sorted(trainer.NETFLIX_SOURCES)
    assert vars(trainer.build_argparser().parse_args([])) == {
        "seeds": SEEDS,
        "corpus": Path("runs/phase_a/full_grid/per_frame_canonical6.jsonl"),
        "out_dir": Path("runs/ensemble_loso"),
        "epochs": 200,
        "batch_size": 32,
        "lr": 5e-4,
        "weight_decay": 1e-5,
        "num_codecs": 14,
        "dry_run": False,
    }


def test_bad_seeds_are_a_usage_error(trainer, capsys):
    with pytest.raises(SystemExit) as end:
        trainer.build_argparser().parse_args(["--seeds", "1,x"])
    assert end.value.code == 2
    assert "--seeds takes whole numbers" in capsys.readouterr().err


def test_a_loaded_corpus_is_the_old_dict(trainer, make_corpus):
    corpus = trainer._load_corpus(make_corpus())
    frame = corpus["df"]
    assert corpus["n_rows"] == len(frame) == 72
    assert (corpus["target_col"], corpus["source_col"]) == ("vmaf", "src")
    assert corpus["feature_cols"] == list(trainer.CANONICAL_6)
    assert len(corpus["codec_block_cols"]) == 14
    assert (corpus["cq_min"], corpus["cq_max"]) == (20.0, 40.0)
    features = frame[corpus["feature_cols"]].to_numpy()
    assert corpus["feature_mean"] == pytest.approx(features.mean(axis=0))
    assert corpus["feature_std"] == pytest.approx(features.std(axis=0))
    assert corpus["scaler_params"] == {
        "feature_mean": corpus["feature_mean"].tolist(),
        "feature_std": corpus["feature_std"].tolist(),
    }
    block = corpus["codec_block"]
    assert block.shape == (72, 14)
    assert block.dtype == "float32"
    assert [trainer.ENCODER_VOCAB[i] for i in block[:, :12].argmax(axis=1)] == list(frame.encoder)
    assert block[:, 12] == pytest.approx(0.5)
    assert block[:, 13] == pytest.approx((frame.cq - 20) / 20)


def test_optional_columns_keep_what_they_hold(trainer, make_corpus):
    def edit(_, row):
        row["preset"] = "8" if row["encoder"] == "libsvtav1" else None

    frame = trainer._load_corpus(make_corpus(edit=edit))["df"]
    assert set(frame.preset) == {"8", None}
    assert frame.frame_index.dtype == int


def test_one_row_of_an_unknown_encoder_loads(trainer, make_corpus, capsys):
    path = make_corpus(sources=["ant"], encoders=["theora"], qualities=[20], frames=1)
    corpus = trainer._load_corpus(path)
    assert corpus["codec_block"][0, trainer.UNKNOWN_ENCODER_INDEX] == 1
    assert corpus["codec_block"][0, 13] == 0.5
    assert "theora" in capsys.readouterr().err


def test_a_corpus_that_cannot_be_used_raises_what_it_used_to(trainer, make_corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match="not found"):
        trainer._load_corpus(tmp_path / "no.jsonl")
    with pytest.raises(ValueError, match="missing required columns: vmaf"):
        trainer._load_corpus(make_corpus(edit=lambda _, row: row.pop("vmaf")))


def arguments(path, **changes):
    usual = {"epochs": 2, "batch_size": 8, "lr": 5e-4, "weight_decay": 1e-5, "num_codecs": 14}
    return Namespace(corpus=path, dry_run=False, **usual | changes)


def test_one_seed_gives_the_old_summary(trainer, make_corpus):
    path = make_corpus(encoders=["h264_nvenc"], qualities=[19, 25, 31, 37], frames=2)
    corpus = trainer._load_corpus(path)
    assert corpus["n_rows"] == 24
    summary = trainer._train_one_seed(1, corpus, arguments(path))
    assert summary.keys() == {
        *("seed", "corpus", "n_folds", "folds", "mean_plcc", "std_plcc", "min_plcc", "max_plcc"),
        *("mean_srocc", "mean_rmse", "epochs", "batch_size", "lr", "weight_decay", "num_codecs"),
        *("encoder_vocab_version", "wall_time_s"),
    }
    assert [fold["held_out"] for fold in summary["folds"]] == ["ant", "bee", "cat"]
    assert {(fold["n_train"], fold["n_val"]) for fold in summary["folds"]} == {(16, 8)}
    plccs = [fold["plcc"] for fold in summary["folds"]]
    assert summary["mean_plcc"] == pytest.approx(sum(plccs) / 3)
    assert (summary["min_plcc"], summary["max_plcc"]) == (min(plccs), max(plccs))
    assert summary["epochs"] == 2


def test_rows_that_a_caller_dropped_are_not_trained_on(trainer, make_corpus):
    path = make_corpus()
    corpus = trainer._load_corpus(path)
    corpus["df"] = corpus["df"][corpus["df"].src != "cat"]
    summary = trainer._train_one_seed(0, corpus, arguments(path))
    assert [fold["held_out"] for fold in summary["folds"]] == ["ant", "bee"]


def test_a_dry_run_is_one_epoch_and_an_undefined_fold_is_nan(trainer, make_corpus):
    def edit(_, row):
        if row["src"] == "bee":
            row["vmaf"] = 90.0

    path = make_corpus(edit=edit)
    args = arguments(path)
    args.dry_run = True
    summary = trainer._train_one_seed(0, trainer._load_corpus(path), args)
    assert summary["note"] == "dry-run"
    assert summary["epochs"] == 1
    assert math.isnan(summary["folds"][1]["plcc"])
    assert math.isnan(summary["mean_plcc"])
    assert summary["mean_rmse"] > 0


def test_the_trainer_writes_files_that_its_gate_reads(trainer, gate, make_corpus, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--corpus", make_corpus(), "--out-dir", out, "--seeds", "0,3", "--epochs", 2]
    assert trainer.main([str(option) for option in options]) == 0
    assert f"wrote {out}/loso_seed3.json mean_plcc=" in capsys.readouterr().out
    payloads = gate.load_seed_jsons(out, [0, 3])
    assert payloads[3]["epochs"] == 2
    assert payloads[3]["predictions"]["file"] == "oof_seed3.parquet"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "no.jsonl"], "no.jsonl: file not found"),
        (["--num-codecs", "12"], "--num-codecs is the width of the codec block"),
        (["--epochs", "0"], "epochs is out of range"),
    ],
)
def test_what_the_trainer_cannot_use_exits_with_2_and_writes_nothing(
    trainer, make_corpus, tmp_path, capsys, options, message
):
    out = tmp_path / "run"
    assert trainer.main(["--corpus", str(make_corpus()), "--out-dir", str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_every_generator_is_seeded(trainer):
    import random

    import numpy as np
    import torch

    def draw():
        trainer._set_seed_all(7)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draw() == draw()


# -- The wrapper ----------------------------------------------------------------------------------


@pytest.fixture
def wrapper(tmp_path):
    """Run the shell wrapper with a stand-in for loso that prints its arguments."""
    loso = tmp_path / "bin" / "loso"
    loso.parent.mkdir()
    loso.write_text('#!/bin/sh\necho "loso $*"\nexit "${LOSO_EXIT:-0}"\n')
    loso.chmod(0o755)

    def run(**environment):
        return subprocess.run(
            ["bash", str(FORK / "ai/scripts/run_ensemble_v2_real_corpus_loso.sh")],
            env={"PATH": f"{loso.parent}:{os.environ['PATH']}", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_wrapper_trains_and_names_the_next_command(wrapper, make_corpus, tmp_path):
    corpus, out = make_corpus(), tmp_path / "a run"
    done = wrapper(CORPUS_JSONL=str(corpus), CORPUS_ROOT="/clips", OUT_DIR=str(out))
    trained = f"loso train --corpus {corpus} --out-dir {out} --seeds 0,1,2,3,4\n"
    assert done.returncode == 0
    assert done.stdout.startswith(trained)
    assert "next: python ai/scripts/validate_ensemble_seeds.py" in done.stdout
    assert "--corpus-root /clips" in done.stdout
    (log,) = (out / "logs").iterdir()
    assert log.read_text() == trained
    assert list(out.iterdir()) == [out / "logs"]


def test_the_wrapper_stops_where_there_is_no_corpus_or_training_fails(
    wrapper, make_corpus, tmp_path
):
    out = tmp_path / "run"
    done = wrapper(CORPUS_JSONL="/no.jsonl", OUT_DIR=str(out))
    assert done.returncode == 2
    assert "corpus not found: /no.jsonl" in done.stderr
    assert not out.exists()
    done = wrapper(CORPUS_JSONL=str(make_corpus()), OUT_DIR=str(out), LOSO_EXIT="2")
    assert done.returncode == 2
    assert "next:" not in done.stdout


# -- The gate -------------------------------------------------------------------------------------


def test_the_gate_keeps_its_constants_and_report(gate):
    assert gate.SHIP_GATE_MEAN_PLCC == 0.95
    assert gate.SHIP_GATE_PLCC_SPREAD_MAX == 0.005
    assert gate.DEFAULT_ENSEMBLE_SIZE == 5
    report = gate.evaluate_gate(
        {0: {"mean_plcc": 0.955}, 1: {"mean_plcc": 0.95}}, 0.95, 0.005, 0.95
    )
    assert report == {
        "passed": True,
        "mean_plcc": pytest.approx(0.9525),
        "mean_plcc_threshold": 0.95,
        "mean_plcc_pass": True,
        "plcc_spread": 0.955 - 0.95,
        "plcc_spread_max": 0.005,
        "plcc_spread_pass": True,
        "per_seed_plccs": {0: 0.955, 1: 0.95},
        "per_seed_min": 0.95,
        "per_seed_pass": True,
        "failing_seeds": [],
    }


def test_the_gate_takes_thin_evidence_with_a_warning(gate, make_thin, capsys):
    folder = make_thin(*[0.96] * 5)
    assert gate.main([str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("[ensemble-gate] PASS\n")
    assert "thin evidence" in err
    assert gate.main([str(folder), "--per-seed-min", "0.97", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failing_seeds"] == SEEDS


def test_the_gate_refuses_what_it_cannot_judge(gate, make_thin, capsys):
    folder = make_thin(0.96, 0.96, 0.96, math.nan)
    with pytest.raises(FileNotFoundError, match="loso_seed4"):
        gate.load_seed_jsons(folder, SEEDS)
    with pytest.raises(ValueError, match="mean_plcc is undefined"):
        gate.load_seed_jsons(folder, SEEDS[:4])
    with pytest.raises(ValueError, match="mean_plcc of seed 0 is undefined"):
        gate.evaluate_gate({0: {"mean_plcc": math.nan}, 1: {"mean_plcc": 0.96}})
    with pytest.raises(ValueError, match="an ensemble needs at least two seeds"):
        gate.evaluate_gate({0: {"mean_plcc": 0.96}})
    assert gate.main([str(folder)]) == 2
    assert gate.main([str(folder), "--seeds", "x"]) == 2
    assert gate.main([str(folder / "no")]) == 2
    assert gate.main([str(folder), "--seeds", "0", "--plcc-spread-max", "-1"]) == 2
    assert capsys.readouterr().err.count("[ensemble-gate] error: ") == 4


# -- The validator --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "verdict", "failed"),
    [
        ([0.96] * 5, "PROMOTE", []),
        ([0.95, 0.96, 0.97, 0.96, 0.95], "HOLD", ["plcc_spread_pass"]),
        ([0.93] * 5, "HOLD", ["mean_plcc_pass", "per_seed_pass"]),
    ],
)
def test_the_validator_writes_the_verdict(validator, make_thin, means, verdict, failed):
    folder = make_thin(*means)
    content, path = validator.run_validation(loso_dir=folder, seeds=SEEDS, corpus_root=folder)
    assert path == folder / f"{verdict}.json"
    assert json.loads(path.read_text()) == content
    assert content["verdict"] == verdict
    assert [
        k for k, v in sorted(content["gate"].items()) if k.endswith("_pass") and not v
    ] == failed
    assert content["corpus"]["sha256"]
    assert "thin" in content["evidence"]["taken_on_trust"][0]


def test_the_validator_holds_every_seed_to_its_mean_threshold(validator, make_thin):
    folder = make_thin(*[0.9] * 5)
    content, _ = validator.run_validation(folder, SEEDS, folder, mean_threshold=0.89)
    assert content["verdict"] == "PROMOTE"
    assert content["gate"]["per_seed_min"] == 0.89


def test_both_say_which_seeds_were_not_judged(gate, validator, make_thin, capsys):
    folder = str(make_thin(*[0.96] * 5))
    for script in (gate, validator):
        assert script.main([folder, "--seeds", "0,2,4"]) == 0
        assert "not judged: loso_seed1.json, loso_seed3.json" in capsys.readouterr().err
        assert script.main([folder, "--seeds", "0"]) == 2
        assert "at least two seeds" in capsys.readouterr().err


def test_the_validators_exit_codes(validator, make_thin, tmp_path, capsys):
    assert validator.main([str(make_thin(*[0.96] * 5))]) == 0
    assert "verdict=PROMOTE mean_plcc=0.9600 spread=0.0000" in capsys.readouterr().out
    assert validator.main([str(make_thin(*[0.93] * 5))]) == 1
    assert validator.main([str(tmp_path / "no")]) == 2
    assert validator.main([str(tmp_path), "--seeds", ""]) == 2
    make_thin(*[0.96] * 5, note="dry-run")
    assert validator.main([str(tmp_path)]) == 2
    assert "dry run" in capsys.readouterr().err


def test_the_validator_still_snapshots_clips(validator, tmp_path):
    snapshot = validator.snapshot_corpus(tmp_path / "no")
    assert snapshot["present"] is False
    assert snapshot["sha256"] is None


# -- Rows of one clip -----------------------------------------------------------------------------


def options(source, out, *more, encoder="libx264"):
    size = ["--width", "192", "--height", "144", "--framerate", "25"]
    return ["--source", str(source), *size, "--encoder", encoder, "--out", str(out), *more]


@pytest.fixture
def clip(tmp_path):
    """Four frames of noise, 192x144."""
    path = tmp_path / "noise_25fps.yuv"
    path.write_bytes(bytes(i * 2654435761 >> 16 & 255 for i in range(192 * 144 * 3 // 2 * 4)))
    return path


def test_rows_of_a_clip_are_measured_once(measurer, clip, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    more = ["--vmaf-bin", "/no/vmaf", "--cq", "20", "--cq", "40"]
    assert measurer.main(options(clip, out, *more)) == 0
    stdout, stderr = capsys.readouterr()
    assert f"[done] 8 rows -> {out}" in stdout
    assert "--vmaf-bin is not used" in stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["src"], r["encoder"], r["cq"]) for r in rows[::4]] == [
        ("noise_25fps", "libx264", 20),
        ("noise_25fps", "libx264", 40),
    ]
    before = out.read_bytes()
    assert measurer.main(options(clip, out, *more)) == 0
    assert out.read_bytes() == before
    assert "2 of 2 cells are there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ['{"src": "noise_25fps", "encoder": "libx265"}', "[]", "{}", "not JSON"]
)
def test_other_rows_are_not_overwritten(measurer, clip, tmp_path, capsys, line):
    out = tmp_path / "rows.jsonl"
    out.write_text(line + "\n")
    assert measurer.main(options(clip, out, "--cq", "20")) == 2
    assert "--out holds something else" in capsys.readouterr().err
    assert out.read_text() == line + "\n"


def test_bad_input_exits_with_2(measurer, clip, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert measurer.main(options(tmp_path / "no.yuv", out, "--cq", "20")) == 2
    assert measurer.main(options(clip, out, "--cq", "99")) == 2
    assert "no.yuv: no such file" in capsys.readouterr().err
    assert not out.exists()


def test_failed_cells_are_listed_and_exit_with_1(measurer, clip, tmp_path, monkeypatch, capsys):
    out = tmp_path / "rows.jsonl"
    report = Namespace(rows=4, corpus=out, missing={"noise_q40": "driver hung"})
    monkeypatch.setattr(measurer, "find_ffmpeg", lambda: None)
    monkeypatch.setattr(measurer, "build_corpus", lambda *_, **__: report)
    assert measurer.main(options(clip, out, "--cq", "40")) == 1
    assert "[failed] noise_q40: driver hung" in capsys.readouterr().err


def test_device_paths_and_pixel_format_reach_the_build(measurer, clip, tmp_path, monkeypatch):
    seen = {}

    def build(clips, settings, _, **more):
        seen.update(clips=clips, settings=settings, **more)
        return Namespace(rows=0, corpus=more["out"], missing={})

    monkeypatch.setattr(measurer, "find_ffmpeg", lambda: None)
    monkeypatch.setattr(measurer, "build_corpus", build)
    more = ["--cq", "20", "--pix-fmt", "yuv422p10le", "--qsv-device", "/q", "--vaapi-device", "/v"]
    assert measurer.main(options(clip, tmp_path / "r.jsonl", *more, encoder="h264_qsv")) == 0
    settings = seen["settings"]
    assert seen["clips"] == [clip]
    assert (settings.qsv_device, settings.vaapi_device) == ("/q", "/v")
    assert settings.clips.raw_pixel_format == "yuv422p10le"
    assert settings.clips.raw_size == (192, 144)
    assert settings.clips.fps == 25
    assert [(c.encoder.name, c.rate.value) for c in settings.choices] == [("h264_qsv", 20)]


# -- The exporter ---------------------------------------------------------------------------------


@pytest.fixture
def exporter(monkeypatch):
    return load(monkeypatch, "ai/scripts/export_ensemble_v2_seeds.py")


@pytest.fixture
def judged(make_run, tmp_path):
    """Words for the exporter: a promoted run of one epoch, its corpus and a folder."""
    from loso.verdict import validate_run

    run = make_run(seeds=(0, 1), edit=lambda _, content: content.update(epochs=1, hidden=3))
    corpus = tmp_path / "corpus.jsonl"
    _, verdict = validate_run(run, (0, 1), corpus=corpus)
    words = ["--corpus", corpus, "--promote-json", verdict, "--out-dir", tmp_path / "tiny"]
    return [*map(str, words), "--seeds", "0,1", "--epochs", "1"]


def test_the_exporter_keeps_its_defaults(exporter):
    assert vars(exporter.build_argparser().parse_args([])) == {
        "corpus": Path("runs/phase_a/full_grid/per_frame_canonical6.jsonl"),
        "promote_json": Path("runs/ensemble_v2_real/PROMOTE.json"),
        "seeds": "0,1,2,3,4",
        "epochs": 200,
        "batch_size": 32,
        "lr": 5e-4,
        "weight_decay": 1e-5,
        "out_dir": Path("model/tiny"),
        "update_registry": False,
    }


def test_the_exporter_writes_members_on_trial_or_flips_them(exporter, judged, tmp_path, capsys):
    stem, registry = "fr_regressor_v2_ensemble_v1", tmp_path / "tiny" / "registry.json"
    assert exporter.main(judged) == 0
    printed = capsys.readouterr().out
    for seed, entry in enumerate(json.loads(registry.read_text())["models"]):
        assert entry["id"] == f"{stem}_seed{seed}"
        assert entry["smoke"] is True
        assert f"[export-ens] seed{seed}: {entry['sha256']}\n" in printed
        sidecar = json.loads((tmp_path / f"tiny/{stem}_seed{seed}.json").read_text())
        assert sidecar["sha256"] == entry["sha256"]
        assert sidecar["gate"]["verdict"] == "PROMOTE"
    assert exporter.main([*judged, "--update-registry"]) == 0
    assert not any(entry["smoke"] for entry in json.loads(registry.read_text())["models"])


def test_the_exporters_exit_codes(exporter, judged, tmp_path, capsys):
    def told(*more):
        return exporter.main([*judged, *more]), capsys.readouterr().err

    assert told("--corpus", str(tmp_path / "none")) == (
        2,
        f"error: {tmp_path}/none: file not found\n",
    )
    assert told("--promote-json", str(tmp_path / "none"))[0] == 2
    for option, value in (
        ("epochs", "2"),
        ("batch-size", "16"),
        ("lr", "1"),
        ("weight-decay", "0"),
    ):
        code, text = told(f"--{option}", value)
        assert code == 2
        assert f"--{option} is not what the run was trained and judged with" in text
    assert "--seeds are not those of the verdict" in told("--seeds", "0,1,2")[1]
    run = tmp_path / "run"
    (run / "other.json").write_text('{"verdict": "PROMOTE"}')
    assert "not a run's verdict" in told("--promote-json", str(run / "other.json"))[1]
    (run / "other.json").write_text('{"verdict": "HOLD"}')
    code, text = told("--promote-json", str(run / "other.json"))
    assert (code, "the verdict is not PROMOTE" in text) == (3, True)
    (run / "oof_seed1.parquet").write_bytes(b"")
    code, text = told()
    assert (code, "not the predictions that the verdict judged" in text) == (1, True)
    assert not (tmp_path / "tiny").exists()
