import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from clips import write_picture
from loso.files import read_json
from loso.video.encoders import ENCODERS
from loso.video.ffmpeg import find_ffmpeg


@pytest.fixture
def clip(tmp_path):
    return write_picture(tmp_path / "ant.mkv", "testsrc2=size=96x64:rate=25", 4)


@pytest.fixture
def loso(loso, tmp_path, monkeypatch):
    """Build a corpus in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return partial(loso, "corpus", "build")


FAST = ("--encoder", "libx264", "--preset", "ultrafast")


def test_the_whole_way(loso, clip, tmp_path):
    command = (
        clip,
        *FAST,
        "--quality",
        "20,40",
        "--scale",
        "64x64",
        "--frames",
        "3",
        "--jobs",
        "2",
    )
    code, out, err = loso(*command)
    assert (code, out) == (
        0,
        "corpus.jsonl: 6 rows from 2 of 2 cells, 0 of them measured before\n",
    )
    assert "warning: VMAF v0.6.1 assumes 1920x1080 on a screen; scored here: 64x64\n" in err
    assert re.search(r"corpus: 100% in \d+ s, 2 of 2 cells, 0 failed, ", err)
    code, out, err = loso(*command, "--json")
    assert code == 0
    assert json.loads(out) == {
        "cells": 2,
        "corpus": "corpus.jsonl",
        "manifest": "corpus.manifest.json",
        "missing": {},
        "reused_cells": 2,
        "rows": 6,
    }
    assert "2 of 2 cells are there already\n" in err
    manifest = read_json(tmp_path / "corpus.manifest.json")
    assert manifest["command"].startswith(f"loso corpus build {clip} --encoder libx264")


def test_every_option_arrives(loso, clip, tmp_path):
    code, _, _ = loso(
        *(clip, "--encoder", "libx265", "--encoder", "libsvtav1", "--quality", "30"),
        *("--quality", "libsvtav1=40,50", "--bitrate", "libx265=90k", "--preset", "libsvtav1=11"),
        *("--preset", "libx265=ultrafast", "--encoder-args", "libx265=-tune grain"),
        *(
            "--start",
            "0.04",
            "--height",
            "64",
            "--height",
            "32",
            "--vmaf-model",
            "version=vmaf_v0.6.1neg",
        ),
        *("--threads", "2", "--timeout", "90", "--out", "o/c.jsonl.gz", "--parts", "p"),
        *("--ffmpeg", find_ffmpeg().path),
    )
    assert code == 0
    manifest = read_json(tmp_path / "o" / "c.manifest.json")
    names = [cell["clip"] for cell in manifest["cells"]]
    assert [name.replace("_from0.04s", "") for name in names] == [
        *(
            f"ant_libx265_ultrafast_{rate}_{height}p_5a7b6522"
            for height in (32, 64)
            for rate in ("q30", "b90k")
        ),
        *(f"ant_libsvtav1_11_{rate}_{height}p" for height in (32, 64) for rate in ("q40", "q50")),
    ]
    settings = manifest["settings"]
    assert [way["encoder"] for way in settings.pop("choices")] == ["libx265"] * 2 + [
        "libsvtav1"
    ] * 2
    assert settings == {
        "clips": {
            "fps": None,
            "fps_of": {},
            "frames": None,
            "raw_pixel_format": "yuv420p",
            "raw_size": None,
            "scale": None,
            "start_s": 0.04,
        },
        "heights": [64, 32],
        "model": "vmaf_v0.6.1neg",
        "qsv_device": "/dev/dri/renderD128",
        "threads": 2,
        "timeout_s": 90.0,
        "two_step": False,
        "vaapi_device": "/dev/dri/renderD128",
    }
    assert manifest["tools"]["vmaf_model"] == "vmaf_v0.6.1neg"
    assert "-svtav1-params lp=2" in manifest["cells"][-1]["commands"][0]
    assert len(list((tmp_path / "p").glob("*.part"))) == 8


def test_raw_clips_and_streams_take_what_they_lack(loso, clip, tmp_path):
    for name, options in {
        "raw.yuv": ["-f", "rawvideo"],
        "bare.264": ["-c:v", "libx264"],
        "slow.264": ["-c:v", "libx264", "-crf", "30"],
    }.items():
        subprocess.run(
            [find_ffmpeg().path, "-loglevel", "error", "-i", f"{clip}", *options, tmp_path / name],
            check=True,
        )
    code, out, _ = loso(
        *("raw.yuv", "bare.264", "slow.264", *FAST, "--quality", "30", "--fps", "30000/1001"),
        *("--fps", "slow=12", "--width", "96", "--height", "64,64,32", "--pix-fmt", "yuv420p"),
    )
    assert (code, out) == (
        0,
        "corpus.jsonl: 24 rows from 6 of 6 cells, 0 of them measured before\n",
    )
    clips = read_json(tmp_path / "corpus.manifest.json")["clips"]
    assert {src: clip["fps"] for src, clip in clips.items()} == {
        "raw": "30000/1001",
        "bare": "30000/1001",
        "slow": "12",
    }


def test_missing_cells_end_in_exit_1_and_their_reasons(loso, clip, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text(
        '#!/bin/sh\ncase "$*" in\n*ant.mkv*-crf\\ 40*) echo "[error] no" >&2; exit 1 ;;\nesac\n'
        f'exec "{find_ffmpeg().path}" "$@"\n'
    )
    broken.chmod(0o755)
    code, out, err = loso(clip, *FAST, "--quality", "20,40", "--ffmpeg", broken)
    assert (code, out) == (
        1,
        "corpus.jsonl: 4 rows from 1 of 2 cells, 0 of them measured before\n",
    )
    assert err.splitlines()[-2:] == [
        "failed: ant_libx264_ultrafast_q40_64p: no",
        (
            "loso: corpus.jsonl: 1 of 2 cells are missing; the same command tries them again; "
            "their reasons stand above and in corpus.manifest.json"
        ),
    ]


def test_where_every_cell_fails_it_names_no_file_that_is_not_there(loso, clip, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text(
        '#!/bin/sh\ncase "$*" in\n*ant.mkv*-crf*) echo "[error] no" >&2; exit 1 ;;\nesac\n'
        f'exec "{find_ffmpeg().path}" "$@"\n'
    )
    broken.chmod(0o755)
    words = (clip, *FAST, "--quality", "20", "--ffmpeg", broken)
    reason = "failed: ant_libx264_ultrafast_q20_64p: no"
    refusal = (
        "loso: corpus.jsonl: none of 1 cells could be measured; "
        "their reasons stand above; nothing was written"
    )
    code, out, err = loso(*words)
    assert (code, out) == (1, "")
    assert err.splitlines()[-2:] == [reason, refusal]
    (tmp_path / "corpus.jsonl").write_text("older")
    code, out, err = loso(*words, "--json")
    assert err.splitlines()[-2:] == [reason, f"{refusal} and the older corpus stays"]
    report = json.loads(out.splitlines()[0])
    assert (report["corpus"], report["manifest"], report["rows"]) == (None, None, 0)
    assert (tmp_path / "corpus.jsonl").read_text() == "older"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (
            ("--encoder", "libx265"),
            2,
            (
                "libx265: no quality and no bitrate; "
                "give --quality libx265=... or --bitrate libx265=..."
            ),
        ),
        (
            ("--encoder", "x264", "--quality", "30"),
            2,
            (
                f"no such encoder, expected one of {' '.join(ENCODERS)}, found 'x264'; "
                "did you mean libx264?"
            ),
        ),
        (
            (*FAST, "--quality", "30", "--scale", "640"),
            2,
            "--scale: not a size, expected such as 640x360, found '640'",
        ),
        (
            (*FAST, "--quality", "30", "--height", "720,half"),
            2,
            "--height: not a list of whole numbers, expected such as 720,540, found '720,half'",
        ),
        (
            (*FAST, "--quality", "30", "--width", "96"),
            2,
            "--width needs --height; give both, or neither",
        ),
        *(
            (
                (*FAST, "--quality", "30", *raw),
                2,
                (
                    "--width and --pix-fmt are for raw YUV clips, and none of these is one, "
                    "expected a clip that ends in .yuv; "
                    "leave them out; --height says what to code at"
                ),
            )
            for raw in (("--width", "64", "--height", "48"), ("--pix-fmt", "yuv420p10le"))
        ),
        (
            (*FAST, "--quality", "30", "--fps", "fast"),
            2,
            "--fps: not a frame rate, expected such as 25 or 30000/1001, found fast",
        ),
        (
            (*FAST, "--quality", "30", "--fps", "anr=25"),
            2,
            "--fps: names none of the clips, found 'anr'; did you mean ant?",
        ),
        (
            (*FAST, "--quality", "30", "--fps", "zzzzzz=25"),
            2,
            (
                "--fps: names none of the clips, found 'zzzzzz'; "
                "give the clip's file name without its ending"
            ),
        ),
        (
            (*FAST, "--quality", "30", "--ffmpeg", "/nowhere/ffmpeg"),
            3,
            (
                "--ffmpeg /nowhere/ffmpeg: this ffmpeg is not an executable file; "
                "give one with libvmaf"
            ),
        ),
    ],
)
def test_refusals_write_nothing(loso, clip, tmp_path, words, code, text):
    assert loso(clip, *words) == (code, "", f"loso: {text}\n")
    assert list(tmp_path.iterdir()) == [clip]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_in_exit_130_and_says_what_is_kept(clip, tmp_path, number):
    slow = tmp_path / "slow"
    slow.write_text(
        '#!/bin/sh\ncase "$*" in\n*ant.mkv*-crf\\ 40*) touch "$0.busy"; exec sleep 60 ;;\nesac\n'
        f'exec "{find_ffmpeg().path}" "$@"\n'
    )
    slow.chmod(0o755)
    words = ["corpus", "build", f"{clip}", *FAST, "--quality", "40", "--ffmpeg", f"{slow}"]
    program = [sys.executable, "-c", "from loso.cli import main; main()"]
    child = subprocess.Popen([*program, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    while not (tmp_path / "slow.busy").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    child.send_signal(number)
    _, told = child.communicate(timeout=30)
    assert child.returncode == 130
    assert told.endswith(
        "loso: stopped; finished cells are kept, the same command goes on from them\n"
    )


def test_a_terminated_trial_leaves_no_temporary_folder(clip, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text(
        '#!/bin/sh\ncase "$*" in\n*trial.txt*) touch "$0.busy"; exec sleep 60 ;;\nesac\n'
        f'exec "{find_ffmpeg().path}" "$@"\n'
    )
    slow.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    words = ["corpus", "build", f"{clip}", *FAST, "--quality", "40", "--ffmpeg", f"{slow}"]
    program = [sys.executable, "-c", "from loso.cli import main; main()"]
    child = subprocess.Popen(
        [*program, *words],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": f"{tmp_path}/tmp"},
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 30
    while not (tmp_path / "slow.busy").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert list((tmp_path / "tmp").iterdir())
    child.terminate()
    assert child.wait(timeout=30) == 130
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "ant.mkv",
        "slow",
        "slow.busy",
        "tmp",
    ]
