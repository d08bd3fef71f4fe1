import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from loso import doctor
from loso.doctor import Checkup, FfmpegTrial, Gpus, examine
from loso.engine.trial import EngineTrial
from loso.extras import Extra, find_extras
from loso.machine import Cores, Memory
from loso.schema import ENCODER_VOCAB
from loso.video.encoders import ENCODERS
from loso.video.gpus import NvidiaGpu, RenderNode
from loso.video.trial import EncoderTrial

SOFTWARE = ("libx264", "libx265", "libsvtav1", "libvvenc", "libvpx-vp9")
HARDWARE = tuple(name for name in ENCODERS if name not in SOFTWARE)
SCORES = json.dumps(
    {
        "version": "3.0.0",
        "frames": [
            {
                "metrics": {
                    "vmaf": 97.4,
                    "integer_adm2": 1.0,
                    "integer_motion2": 0.0,
                    **{f"integer_vif_scale{i}": 1.0 for i in range(4)},
                }
            }
        ],
    }
)

# Recorded on a machine without these devices.
NVENC = """\
[info] Stream mapping:
[info]   Stream #0:0 -> #0:0 (wrapped_avframe (native) -> h264 (h264_nvenc))
[h264_nvenc @ 0x55a60b740700] [error] Cannot load libcuda.so.1
[vost#0:0/h264_nvenc @ 0x55a60b73fb80] [enc:h264_nvenc @ 0x55a60b7405c0] [error] Error while \
opening encoder - maybe incorrect parameters such as bit_rate, rate, width or height.
[vf#0:0 @ 0x55a60b75c340] [error] Error sending frames to consumers: Operation not permitted
[vost#0:0/h264_nvenc @ 0x55a60b73fb80] [error] Terminating thread with return code -22 (Invalid \
argument)
[out#0/null @ 0x55a60b73efc0] [error] Nothing was written into output file, because at least one \
of its streams received no packets.
[info] Conversion failed!
"""
QSV = """\
[VAAPI @ 0x561478798380] [error] No VA display found for device /dev/dri/renderD128.
[error] Device creation failed: -22.
[error] Failed to set value 'qsv=hw,child_device=/dev/dri/renderD128' for option 'init_hw_device': \
Invalid argument
[fatal] Error parsing global options: Invalid argument
"""


@pytest.fixture
def fake(tmp_path):
    """Write a program that answers as ffmpeg does; encoders in `fails` fail with their text."""

    def make(name="ffmpeg", *, encoders=SOFTWARE, libvmaf=True, scores=SCORES, fails=None):
        listed = "".join(f" V..... {encoder} Name\n" for encoder in encoders)
        cases = "".join(
            f"*{encoder}*) cat >&2 <<'E'\n{text}E\nexit 171 ;;\n"
            for encoder, text in (fails or {}).items()
        )
        path = tmp_path / name
        path.write_text(
            '#!/bin/sh\ncase "$*" in\n'
            "*-version) cat <<'E'\nffmpeg version 7.1 Copyright\nlibavcodec 61. 3.100\nE\n;;\n"
            f"*-filters) echo ' .. {'libvmaf' if libvmaf else 'scale'} VV->V Calculate' ;;\n"
            f"*-encoders) cat <<'E'\n{listed}E\n;;\n{cases}"
            f"*libvmaf=*) cat > scores.json <<'E'\n{scores}\nE\n;;\n"
            "esac\n"
        )
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def alone(monkeypatch):
    """Take away every ffmpeg that this machine may have."""
    monkeypatch.delenv("LOSO_FFMPEG", raising=False)
    monkeypatch.setattr("loso.video.ffmpeg._bundled", lambda: None)
    which = shutil.which
    monkeypatch.setattr("shutil.which", lambda name: None if name == "ffmpeg" else which(name))


def cells(out, first):
    """The cells of the row that begins with `first`."""
    rows = [re.split(r" {2,}", line) for line in out.splitlines()]
    (found,) = (row for row in rows if row[0] == first)
    return found[1:]


WELL = Checkup(
    loso="0.1.0",
    python="3.12.1",
    platform="Linux-6.8-x86_64",
    cores=Cores(usable=8, present=8, limit=None),
    memory=Memory(total_bytes=64_000_000_000, available_bytes=50_000_000_000, limit_bytes=None),
    engine=EngineTrial(
        engine="native",
        device="cpu",
        reason="no NVIDIA driver; the compiled kernel is there",
        instruction_set="avx2",
        instruction_sets=("avx2", "portable"),
    ),
    ffmpeg=FfmpegTrial(
        path="/usr/bin/ffmpeg", origin="PATH", version="7.1", has_loopback=True, libvmaf="3.0.0"
    ),
    encoders=tuple(EncoderTrial(name, "works") for name in ENCODERS),
    gpus=Gpus(nvidia_problem="nvidia-smi is not there"),
    graphs_problem="",
    extras=find_extras(),
)


@pytest.fixture
def printed(monkeypatch, loso):
    """Print a made-up checkup as the command does: exit code and text."""

    def call(found):
        monkeypatch.setattr(doctor, "examine", lambda *_, **__: found)
        code, out, _ = loso("doctor")
        return code, out

    return call


# -- This machine ---------------------------------------------------------------------------------


def test_what_comes_with_the_package_works_here():
    found = examine()
    states = {trial.encoder: trial for trial in found.encoders}
    assert list(states) == list(ENCODERS)
    assert {states[name].state for name in SOFTWARE} == {"works"}
    assert all(bool(trial.reason) == (trial.state != "works") for trial in found.encoders)
    assert not any("\n" in trial.reason for trial in found.encoders)
    assert found.ffmpeg.origin == "imageio-ffmpeg"
    assert found.ffmpeg.libvmaf
    assert found.ready
    assert found.answer == (
        "This machine can build a corpus, train, predict from rows and predict from videos."
    )


def test_a_graph_that_does_not_run_is_said(monkeypatch):
    def broken(*_, **__):
        raise OSError("libonnxruntime.so: cannot enable executable stack\nand more")

    monkeypatch.setattr("loso.model.onnx_graph.Session", broken)
    reason = "libonnxruntime.so: cannot enable executable stack"
    assert doctor._try_graph() == f"ONNX graphs do not run ({reason})"


# -- ffmpeg and its encoders ----------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_without_any_ffmpeg_the_rest_still_works(loso):
    code, out, _ = loso("doctor")
    assert code == 3
    reason = "the one of imageio-ffmpeg is not there, the one of PATH is not there"
    assert cells(out, "path") == ["none"]
    assert cells(out, "problem") == [f"no usable ffmpeg, found {reason}"]
    assert out.count("not tried          there is no ffmpeg to try them with") == 2
    assert out.splitlines()[-1] == (
        "This machine can train and predict from rows. It cannot build a corpus or predict from "
        f"videos: no usable ffmpeg, found {reason}; pip install imageio-ffmpeg, or give --ffmpeg "
        "PATH."
    )


def test_an_ffmpeg_without_libvmaf_does_not_serve(loso, fake):
    path = fake(libvmaf=False)
    code, out, _ = loso("doctor", "--ffmpeg", path)
    assert code == 3
    assert out.splitlines()[-1].endswith(
        f"It cannot build a corpus or predict from videos: --ffmpeg {path}: this ffmpeg (version "
        "7.1) lacks the filter libvmaf; give one with libvmaf."
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"fails": {"libvmaf=": "[error] could not load libvmaf model\n"}},
            "libvmaf does not score with this model (could not load libvmaf model)",
        ),
        ({"scores": "{}"}, "libvmaf's log is not whole (KeyError('frames'))"),
    ],
)
def test_a_libvmaf_that_does_not_score_does_not_serve(loso, fake, options, reason):
    code, out, _ = loso("doctor", "--ffmpeg", fake(**options))
    assert code == 3
    assert cells(out, "vmaf_v0.6.1") == [f"fails: {reason}"]
    assert cells(out, "libx264") == ["works"]
    assert out.splitlines()[-1].endswith(
        f"cannot build a corpus or predict from videos: {reason}; give another --ffmpeg, or pip "
        "install imageio-ffmpeg."
    )


def test_an_encoder_that_fails_shows_ffmpegs_own_reason_in_one_line(loso, fake):
    encoders = (*SOFTWARE, "h264_nvenc", "hevc_nvenc", "h264_qsv", "h264_vaapi")
    fails = {"h264_nvenc": NVENC, "h264_qsv": QSV, "h264_vaapi": "", "libsvtav1": "[error] no\n"}
    code, out, _ = loso("doctor", "--ffmpeg", fake(encoders=encoders, fails=fails))
    assert code == 0
    assert cells(out, "h264_nvenc") == ["fails", "Cannot load libcuda.so.1"]
    no_display = "[VAAPI] No VA display found for device /dev/dri/renderD128"
    assert cells(out, "h264_qsv") == ["fails", no_display]
    assert cells(out, "h264_vaapi") == ["fails", "ffmpeg ended with code 171"]
    assert cells(out, "libsvtav1") == ["fails", "no"]
    assert cells(out, "hevc_nvenc") == ["works"]
    assert cells(out, "av1_nvenc") == ["missing", "this ffmpeg was built without it"]
    assert out.index("Encoders of the vocabulary") < out.index("av1_qsv")
    assert out.index("av1_qsv") < out.index("Encoders that share the slot") < out.index("h264_vaap")


def test_without_a_software_encoder_of_the_vocabulary_no_corpus_is_built(loso, fake):
    path = fake(encoders=("libx264", "h264_nvenc", "h264_vaapi"), fails={"libx264": "[error] no\n"})
    code, out, _ = loso("doctor", "--ffmpeg", path)
    assert code == 3
    assert out.splitlines()[-1] == (
        "This machine can train, predict from rows and predict from videos. It cannot build a "
        "corpus: no software encoder of the vocabulary works, only h264_nvenc h264_vaapi; give "
        "another --ffmpeg, or pip install imageio-ffmpeg."
    )


def test_the_render_nodes_that_are_named_are_opened(fake, tmp_path):
    seen = tmp_path / "seen"
    encoders = ("libx264", "h264_qsv", "h264_vaapi")
    path = Path(fake(encoders=encoders))
    path.write_text(path.read_text().replace("#!/bin/sh\n", f'#!/bin/sh\necho "$*" >> {seen}\n'))
    examine(str(path), qsv_device="/dev/dri/one", vaapi_device="/dev/dri/two")
    text = seen.read_text()
    assert re.search(r"-init_hw_device qsv=hw,child_device=/dev/dri/one .*-c:v h264_qsv ", text)
    assert re.search(r"-init_hw_device vaapi=hw:/dev/dri/two .*-c:v h264_vaapi ", text)


# -- Training and the machine ---------------------------------------------------------------------


def test_where_no_engine_trains_it_says_what_to_install(printed):
    engine = EngineTrial(problem="the batched engine needs torch", fix="pip install 'loso[torch]'")
    code, out = printed(replace(WELL, engine=engine))
    assert code == 3
    assert cells(out, "engine") == ["none"]
    assert cells(out, "compiled kernel") == ["none"]
    assert cells(out, "training") == ["fails: the batched engine needs torch"]
    assert out.splitlines()[-1] == (
        "This machine can build a corpus, predict from rows and predict from videos. It cannot "
        "train: the batched engine needs torch; pip install 'loso[torch]'."
    )


def test_where_another_engine_trains_its_options_are_named(printed):
    engine = replace(
        WELL.engine,
        engine="batched",
        device="cuda",
        reason="torch sees a CUDA device",
        cuda_device="NVIDIA H100 80GB HBM3",
        problem="CUDA error: out of memory",
        instead="--engine native --device cpu",
    )
    code, out = printed(replace(WELL, engine=engine))
    assert code == 0
    assert cells(out, "engine") == ["batched on cuda: torch sees a CUDA device"]
    assert cells(out, "CUDA device") == ["NVIDIA H100 80GB HBM3"]
    assert cells(out, "training") == ["fails: CUDA error: out of memory"]
    note = "note: train with --engine native --device cpu: CUDA error: out of memory"
    assert out.splitlines()[-2] == note


def test_graphs_that_do_not_run_stop_every_prediction(printed):
    code, out = printed(replace(WELL, graphs_problem="ONNX graphs do not run (no)"))
    assert code == 3
    assert out.splitlines()[-1] == (
        "This machine can build a corpus and train. It cannot predict from rows or predict from "
        "videos: ONNX graphs do not run (no); pip install --force-reinstall onnx onnxruntime."
    )


def test_two_troubles_are_two_sentences(printed):
    ffmpeg = FfmpegTrial(problem="no usable ffmpeg", fix="pip install imageio-ffmpeg")
    engine = EngineTrial(problem="the kernel is damaged")
    found = replace(
        WELL, ffmpeg=ffmpeg, encoders=(), engine=engine, graphs_problem="ONNX graphs do not run"
    )
    code, out = printed(found)
    assert code == 3
    assert out.splitlines()[-1] == (
        "This machine cannot build a corpus or predict from videos: no usable ffmpeg; pip install "
        "imageio-ffmpeg. It cannot train: the kernel is damaged. It cannot predict from rows: ONNX "
        "graphs do not run; pip install --force-reinstall onnx onnxruntime."
    )


def test_limits_of_a_container_are_said(printed):
    found = replace(
        WELL,
        cores=Cores(usable=2, present=64, limit=1.5),
        memory=Memory(256_000_000_000, 3_000_000_000, 4_000_000_000),
    )
    code, out = printed(found)
    assert code == 0
    assert cells(out, "cores") == ["2 of 64, the control group allows 1.5"]
    limit = "256.0 GB, 3.0 GB available, the control group allows 4.0 GB"
    assert cells(out, "memory") == [limit]
    assert "note:" not in out  # what loso starts keeps to them
    unknown = replace(WELL, memory=Memory(None, None, None))
    assert cells(printed(unknown)[1], "memory") == ["unknown"]


def test_gpus_are_listed_or_said_to_be_none(printed):
    _, out = printed(WELL)
    assert cells(out, "NVIDIA") == ["none: nvidia-smi is not there"]
    assert cells(out, "render node") == ["none in /dev/dri: no Quick Sync, no VA-API"]
    gpus = Gpus(
        nvidia=(NvidiaGpu("NVIDIA H100 80GB HBM3", 81559, "580.159.04"),),
        render_nodes=(RenderNode("/dev/dri/renderD128", "i915", may_open=False),),
    )
    _, out = printed(replace(WELL, gpus=gpus))
    assert cells(out, "NVIDIA") == ["NVIDIA H100 80GB HBM3, 81559 MiB, driver 580.159.04"]
    shut = "/dev/dri/renderD128, driver i915, which this user may not open"
    assert cells(out, "render node") == [shut]
    gpus = Gpus(
        nvidia=(NvidiaGpu("NVIDIA GB10", None, "580.95.05"),),
        render_nodes=(RenderNode("/dev/dri/renderD129", "", may_open=True),),
    )
    _, out = printed(replace(WELL, gpus=gpus))
    assert cells(out, "NVIDIA") == ["NVIDIA GB10, shared memory, driver 580.95.05"]
    assert cells(out, "render node") == ["/dev/dri/renderD129, driver unknown"]


def test_an_older_ffmpeg_takes_two_steps_and_says_so(printed):
    _, out = printed(WELL)
    assert cells(out, "loopback decoder") == ["yes, a cell is one process"]
    _, out = printed(replace(WELL, ffmpeg=replace(WELL.ffmpeg, has_loopback=False)))
    assert cells(out, "loopback decoder") == ["no, a cell takes two steps"]


# -- Optional packages, and JSON ------------------------------------------------------------------


def test_a_package_that_is_missing_names_its_command(printed):
    extras = (
        Extra("torch", None, "training", "pip install 'loso[torch]'"),
        Extra("pandas", "2.2.3", "scripts", "pip install 'loso[pandas]'"),
    )
    _, out = printed(replace(WELL, extras=extras))
    assert out.count("\ntorch ") == 2
    assert cells(out.partition("Optional packages")[2], "torch") == [
        "pip install 'loso[torch]'",
        "training",
    ]
    assert cells(out, "pandas") == ["2.2.3", "scripts"]


def test_every_extra_stands_there_by_a_package_that_it_brings():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {re.search(r"loso\[(\w+)\]", extra.install)[1]: extra for extra in find_extras()}
    assert set(named) == set(extras) - {"test"}
    for name, extra in named.items():
        assert any(re.match(rf"{extra.package}\b", text) for text in extras[name]), extra
    assert named["dask"].purpose == "work on a Dask cluster"  # training too, not only a build


def test_json_holds_the_same(monkeypatch, loso):
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: WELL)
    code, out, _ = loso("doctor", "--json")
    assert code == 0
    found = json.loads(out)
    assert found == json.loads(json.dumps(WELL.to_dict()))
    assert found["ready"] is True
    assert [job["job"] for job in found["jobs"]] == [
        *("build a corpus", "train", "predict from rows", "predict from videos")
    ]
    inside = [trial["encoder"] for trial in found["encoders"] if trial["in_vocabulary"]]
    assert inside == [name for name in ENCODER_VOCAB if name != "unknown"]


def test_json_of_a_machine_that_cannot_is_whole_too(monkeypatch, loso):
    ill = replace(WELL, ffmpeg=FfmpegTrial(problem="no", fix="do"), encoders=())
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: ill)
    code, out, _ = loso("doctor", "--json")
    (line,) = out.splitlines()
    found = json.loads(line)
    assert (code, found["ready"], found["ffmpeg"]["path"]) == (3, False, None)
    able = {job["job"]: job["can"] for job in found["jobs"]}
    assert able == {
        "build a corpus": False,
        "train": True,
        "predict from rows": True,
        "predict from videos": False,
    }
