import errno
import gzip
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import pytest

from clips import write_picture
from loso import load_corpus
from loso.corpus.build import build_corpus
from loso.corpus.choices import read_choices
from loso.corpus.manifest import manifest_path
from loso.corpus.parts import Parts
from loso.corpus.plan import BuildSettings
from loso.errors import BadClip, BadSettings, Busy, CannotRun, MissingTool
from loso.files import read_json, sha256_of, write_atomic
from loso.locks import folder_lock
from loso.video.clips import ClipSettings
from loso.video.ffmpeg import find_ffmpeg
from loso.video.measure import VmafModel, probe_libvmaf
from loso.video.trial import try_encoder

FRAMES = 5


@pytest.fixture(scope="module")
def ffmpeg():
    return find_ffmpeg()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two small clips that differ."""
    folder = tmp_path_factory.mktemp("clips")
    paths = {}
    for name, source in {"bee": "testsrc2", "ant": "mandelbrot"}.items():
        paths[name] = folder / f"{name}.mkv"
        write_picture(paths[name], f"{source}=size=96x64:rate=25", 6)
    return list(paths.values())


def settings_of(encoders=("libx264",), quality="20,40", *, frames=FRAMES, **options):
    return BuildSettings(
        choices=read_choices(list(encoders), quality=[quality], preset=["ultrafast"]),
        clips=ClipSettings(frames=frames),
        **options,
    )


@pytest.fixture
def build(ffmpeg, clips, tmp_path):
    def build(name="corpus.jsonl", paths=None, settings=None, **options):
        options.setdefault("ffmpeg", ffmpeg)
        return build_corpus(
            clips if paths is None else paths,
            settings or settings_of(),
            out=tmp_path / name,
            **options,
        )

    return build


def rows_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_corpus_is_written_that_the_loader_takes(build):
    said, steps = [], []
    report = build(
        say=said.append, progress=lambda *step: steps.append(step), command=["loso", "x"]
    )
    assert (report.rows, report.cells, report.reused, report.missing) == (20, 4, 0, {})
    corpus = load_corpus(report.corpus)
    assert corpus.rows.height == 20
    assert corpus.rows["src"].unique().sort().to_list() == ["ant", "bee"]
    assert said == ["warning: VMAF v0.6.1 assumes 1920x1080 on a screen; scored here: 96x64"]
    assert [(done, total) for done, total, _ in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert steps[-1][2].startswith("4 of 4 cells, 0 failed, ")


def test_the_manifest_tells_how_it_was_made(build, clips, ffmpeg):
    report = build(command=["loso", "corpus", "build", "a b.mkv"])
    manifest = read_json(report.manifest)
    assert sorted(manifest) == [
        "cells",
        "clips",
        "command",
        "corpus",
        "created_utc",
        "loso_version",
        "machine",
        "missing",
        "run",
        "schema_version",
        "settings",
        "tools",
        "warnings",
    ]
    assert manifest["corpus"] == {
        "file": "corpus.jsonl",
        "rows": 20,
        "sha256": sha256_of(report.corpus),
    }
    assert manifest["command"] == "loso corpus build 'a b.mkv'"
    assert manifest["tools"]["ffmpeg"] == ffmpeg.version
    assert manifest["tools"]["vmaf_model"] == "vmaf_v0.6.1"
    settings = manifest["settings"]
    assert set(settings) - {"two_step"} == {field.name for field in fields(BuildSettings)}
    assert set(settings["clips"]) == {field.name for field in fields(ClipSettings)}
    assert settings["clips"]["frames"] == FRAMES
    assert settings["choices"] == [
        {
            "encoder": "libx264",
            "extra": [],
            "preset": "ultrafast",
            "rate": rate,
            "rate_control": "quality",
        }
        for rate in (20.0, 40.0)
    ]
    assert manifest["clips"]["bee"] == {
        "decoded": "96x64 yuv420p",
        "file": "bee.mkv",
        "file_bytes": clips[0].stat().st_size,
        "fps": "25",
        "frames": FRAMES,
        "height": 64,
        "pixel_format": "yuv420p",
        "remarks": [],
        "sha256": sha256_of(clips[0]),
        "width": 96,
    }
    assert [cell["clip"] for cell in manifest["cells"]] == [
        f"{src}_libx264_ultrafast_q{q}_64p" for src in ("ant", "bee") for q in (20, 40)
    ]
    for cell in manifest["cells"]:
        (command,) = cell["commands"]
        assert command.startswith("ffmpeg -filter_complex_threads 1 -threads 1 -prot")
        assert cell["seconds"] > 0
    assert str(clips[0].parent) not in report.manifest.read_text()


def test_neither_jobs_nor_the_order_of_arguments_change_a_byte(build, clips):
    encoders = ("libx265", "libx264")
    one = build("one.jsonl", settings=settings_of(encoders), jobs=1)
    two = build(
        "two.jsonl", clips[::-1], settings_of(encoders[::-1], "40,20"), jobs=2, two_step=False
    )
    assert one.corpus.read_bytes() == two.corpus.read_bytes()
    assert [(row["src"], row["encoder"], row["cq"]) for row in rows_in(one.corpus)[::FRAMES]] == [
        (src, encoder, cq)
        for src in ("ant", "bee")
        for encoder in ("libx264", "libx265")
        for cq in (20, 40)
    ]


def test_an_older_ffmpeg_takes_two_steps_to_the_same_corpus(build, ffmpeg):
    one = build("one.jsonl")
    two = build("two.jsonl", ffmpeg=replace(ffmpeg, has_loopback=False))
    assert one.corpus.read_bytes() == two.corpus.read_bytes()
    assert len(read_json(two.manifest)["cells"][0]["commands"]) == 2


def test_gzip_holds_the_same_rows_in_the_same_bytes(build):
    plain, packed = build("a.jsonl"), build("b.jsonl.gz")
    assert gzip.decompress(packed.corpus.read_bytes()) == plain.corpus.read_bytes()
    first = packed.corpus.read_bytes()
    assert build("b.jsonl.gz").corpus.read_bytes() == first
    assert manifest_path(packed.corpus).name == "b.manifest.json"


def test_a_second_call_measures_only_what_is_missing(build):
    report = build()
    content = report.corpus.read_bytes()
    parts = report.corpus.with_name("corpus.jsonl.parts")
    first, second, *_ = sorted(parts.glob("*.part"))
    first.write_bytes(first.read_bytes()[:-2])
    second.unlink()
    report.corpus.unlink()
    said = []
    again = build(say=said.append)
    assert again.reused == 2
    assert said[-1] == "2 of 4 cells are there already"
    assert again.corpus.read_bytes() == content
    wider = build(settings=settings_of(quality="20,30,40"))
    assert (wider.cells, wider.reused) == (6, 4)
    assert len(rows_in(wider.corpus)) == 30


def test_parts_note_what_their_encoder_made_of_the_trial(build):
    report = build()
    noted = Parts(report.corpus.with_name("corpus.jsonl.parts")).trials()
    assert list(noted.values()) == [4]
    assert re.fullmatch(r"0,v,SHA256=[0-9a-f]{64}", *noted)


def test_an_encoder_that_codes_otherwise_is_measured_anew(build, ffmpeg, tmp_path):
    assert build(ffmpeg=ffmpeg).cells == 4
    # As with a shared library of another version: the same program, the same words.
    other = replace(
        wrapper(
            tmp_path / "other",
            ffmpeg,
            "*testsrc2*libx264*",
            f'first=$(echo "$*" | sed "s/ -c:v .*//"); exec "{ffmpeg.path}" $first -c:v libx264 '
            "-crf 3 -f streamhash trial.txt",
        ),
        version=ffmpeg.version,
    )
    assert build(ffmpeg=other).reused == 0
    assert build(ffmpeg=ffmpeg, settings=settings_of(quality="20,30,40,45")).reused == 4


def test_parts_can_lie_elsewhere_and_serve_two_corpora(build, tmp_path):
    parts = tmp_path / "shared parts"
    build("one.jsonl", parts=parts)
    assert build("two.jsonl", parts=parts).reused == 4
    assert not (tmp_path / "one.jsonl.parts").exists()


def test_one_content_under_two_names_is_measured_once_and_warned_about(build, clips, tmp_path):
    twin = tmp_path / "twin.mkv"
    twin.write_bytes(clips[0].read_bytes())
    said, steps = [], []
    report = build(
        paths=[clips[0], twin], say=said.append, progress=lambda *step: steps.append(step), jobs=2
    )
    assert len(steps) == 2
    assert report.rows == 20
    assert said[0] == (
        "warning: bee and twin are the same file: as two sources they leak into each other"
    )


def test_quality_and_bitrate_together_are_warned_about(build, clips):
    choices = read_choices(["libx264"], quality=["30"], bitrate=["50k"])
    said = []
    settings = BuildSettings(choices=choices, clips=ClipSettings(frames=3))
    report = build(paths=clips[:1], settings=settings, say=said.append)
    assert said[-1] == (
        "warning: quality and bitrate cells in one corpus: cq, and crf_norm with it, "
        "spans two scales"
    )
    assert [row["cq"] for row in rows_in(report.corpus)] == [30] * 3 + [-50] * 3


def wrapper(path, ffmpeg, condition, action):
    """Write a program that is ffmpeg, but does `action` where its arguments match `condition`."""
    path.write_text(
        f'#!/bin/sh\ncase "$*" in\n{condition}) {action} ;;\nesac\nexec "{ffmpeg.path}" "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return find_ffmpeg(str(path))


def test_what_fails_twice_is_missing_and_the_rest_is_kept(build, ffmpeg, tmp_path):
    count = tmp_path / "count"
    action = f"echo x >> '{count}'; echo '[error] no more room' >&2; exit 1"
    broken = wrapper(tmp_path / "broken", ffmpeg, "*ant.mkv*-crf\\ 40*", action)
    report = build(ffmpeg=broken, jobs=2)
    name = "ant_libx264_ultrafast_q40_64p"
    assert report.missing == {name: "no more room"}
    assert count.read_text().count("x") == 2
    assert report.rows == len(rows_in(report.corpus)) == 15
    manifest = read_json(report.manifest)
    assert manifest["missing"] == {name: "no more room"}
    assert name not in {cell["clip"] for cell in manifest["cells"]}
    (tmp_path / "broken").write_text(f'#!/bin/sh\nexec "{ffmpeg.path}" "$@"\n')
    repaired = build(ffmpeg=broken)
    assert (repaired.reused, repaired.missing, repaired.rows) == (3, {}, 20)


def test_what_fails_once_is_tried_again(build, ffmpeg, tmp_path):
    once = f"test -e '{tmp_path}/tried' || {{ touch '{tmp_path}/tried'; kill -9 $$; }}"
    flaky = wrapper(tmp_path / "flaky", ffmpeg, "*bee.mkv*-crf\\ 20*", once)
    report = build(ffmpeg=flaky)
    assert (tmp_path / "tried").exists()
    assert report.missing == {}


@pytest.mark.parametrize("then", ["", "; exit 1"])
def test_a_clip_that_changes_meanwhile_is_refused_and_not_kept(
    build, ffmpeg, clips, tmp_path, then
):
    clip = tmp_path / "ant.mkv"
    clip.write_bytes(clips[1].read_bytes())
    replacing = f"cp '{clips[0]}' '{clip}'{then}"
    broken = wrapper(tmp_path / "broken", ffmpeg, "*ant.mkv*-crf\\ 40*", replacing)
    with pytest.raises(BadClip) as refusal:
        build(paths=[clip], ffmpeg=broken)
    assert str(refusal.value) == (
        f"{clip}: changed while it was measured; "
        "leave it alone and run this again; what was finished before is kept"
    )
    assert len(list((tmp_path / "corpus.jsonl.parts").glob("*.part"))) == 1
    assert not (tmp_path / "corpus.jsonl").exists()


def test_a_model_file_that_changes_meanwhile_ends_the_build(build, ffmpeg, tmp_path):
    """libvmaf's own model stands in for the file, whose content nobody reads."""
    file, program = tmp_path / "m.json", tmp_path / "replacing"
    file.write_text("one")
    program.write_text(
        f"#!/bin/bash\ncase \"$*\" in *ant.mkv*-crf\\ 20*) echo other > '{file}' ;; esac\n"
        f'exec "{ffmpeg.path}" "${{@//path=model.json/version=vmaf_v0.6.1}}"\n'
    )
    program.chmod(0o755)
    settings = settings_of(model=VmafModel.parse(f"path={file}"))
    with pytest.raises(BadSettings) as refusal:
        build(settings=settings, ffmpeg=find_ffmpeg(str(program)))
    assert str(refusal.value) == (
        f"--vmaf-model: changed while it was used, found path={file}; "
        "leave the file alone and run this again; what was finished before is kept"
    )
    assert len(list((tmp_path / "corpus.jsonl.parts").glob("*.part"))) == 1
    assert not (tmp_path / "corpus.jsonl").exists()
    file.write_text("one")
    program.write_text(program.read_text().replace("echo other", "echo -n one"))
    again = build(settings=settings, ffmpeg=find_ffmpeg(str(program)))
    assert (again.reused, again.cells, again.missing) == (1, 4, {})
    assert read_json(again.manifest)["tools"]["vmaf_model"] == f"m.json sha256:{sha256_of(file)}"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_part_that_cannot_be_saved_is_listed(build, monkeypatch, code):
    def full(path, **_):
        if len(list(path.parent.glob("*.part"))) == 3:
            path = path.parent / "nowhere"
            monkeypatch.setattr(Path, "write_bytes", fail)
        return write_atomic(path)

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("loso.files.write_atomic", full)
    said = []
    report = build(say=said.append)
    (name,) = report.missing
    assert report.missing[name].endswith(f": cannot be written ({os.strerror(code)})")
    assert said[-1] == f"failed: {name}: {report.missing[name]}"
    assert report.rows == 15


def test_reasons_are_said_even_where_the_corpus_cannot_be_written(
    build, ffmpeg, tmp_path, monkeypatch
):
    def full(path, **_):
        raise CannotRun("cannot be written (No space left on device)", where=str(path))

    monkeypatch.setattr("loso.corpus.build.write_atomic", full)
    action = "echo '[error] no more room' >&2; exit 1"
    broken = wrapper(tmp_path / "broken", ffmpeg, "*ant.mkv*-crf\\ 40*", action)
    said = []
    with pytest.raises(CannotRun, match="No space left"):
        build(ffmpeg=broken, say=said.append)
    assert said[-1] == "failed: ant_libx264_ultrafast_q40_64p: no more room"


def test_an_encoder_that_hangs_is_stopped_and_listed(build, ffmpeg, tmp_path):
    action = f"echo x >> '{tmp_path}/count'; exec sleep 60"
    hanging = wrapper(tmp_path / "hanging", ffmpeg, "*bee.mkv*-crf\\ 20*", action)
    report = build(ffmpeg=hanging, settings=settings_of(timeout_s=3.0), jobs=2)
    assert (tmp_path / "count").read_text().count("x") == 1
    assert set(report.missing) == {"bee_libx264_ultrafast_q20_64p"}
    assert next(iter(report.missing.values())).startswith("ffmpeg was stopped after ")


def test_where_all_fails_nothing_is_written(build, ffmpeg, tmp_path):
    broken = wrapper(tmp_path / "broken", ffmpeg, "*.mkv*-crf*", "exit 1")
    report = build(ffmpeg=broken)
    assert set(report.missing.values()) == {"ffmpeg ended with code 1"}
    assert report.rows == 0
    assert not report.corpus.exists()
    assert not report.manifest.exists()


CHILD = """
import sys
from pathlib import Path
from loso.corpus.build import build_corpus
from loso.corpus.choices import read_choices
from loso.corpus.parts import Parts
from loso.corpus.plan import BuildSettings
from loso.video.clips import ClipSettings
from loso.video.ffmpeg import find_ffmpeg
program, out, *clips = sys.argv[1:]
choices = read_choices(["libx264"], quality=["20,40"], preset=["ultrafast"])
settings = BuildSettings(choices=choices, clips=ClipSettings(frames=5))
build_corpus([Path(c) for c in clips], settings, find_ffmpeg(program), out=Path(out), jobs=2)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_resumes_to_the_same_bytes(build, ffmpeg, clips, tmp_path, number):
    whole = build("whole.jsonl").corpus.read_bytes()
    # The last cells wait: at the kill, some are done and two are in flight.
    action = f"test -e '{tmp_path}/go' || exec sleep 60"
    slow = wrapper(tmp_path / "slow", ffmpeg, "*bee.mkv*-crf*", action)
    out = tmp_path / "killed.jsonl"
    arguments = [slow.path, str(out), *map(str, clips)]
    parts = tmp_path / "killed.jsonl.parts"
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(parts.glob("*.part"))) == 2 and sleepers(tmp_path) == 2)
        assert list((parts / "work").iterdir())
        child.send_signal(number)
        child.wait(20)
        wait_for(lambda: sleepers(tmp_path) == 0)
    finally:
        child.kill()
        child.wait()
    assert not out.exists()
    (tmp_path / "go").touch()
    report = build("killed.jsonl", ffmpeg=slow)
    assert report.reused == 2
    assert report.corpus.read_bytes() == whole
    assert not (parts / "work").exists()
    assert list(tmp_path.rglob(".*.tmp")) == []


def sleepers(folder):
    """Count processes that work in a cell's folder below `folder`."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            count += str(folder) in str((process / "cwd").readlink())
        except OSError:
            continue
    return count


def wait_for(question, limit_s=30.0):
    end = time.monotonic() + limit_s
    while not question():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_one_build_at_a_time_in_one_folder(build, tmp_path):
    with folder_lock(tmp_path / "corpus.jsonl.parts", "a build"), pytest.raises(Busy):
        build()


def test_one_build_at_a_time_of_one_corpus(build, tmp_path, monkeypatch):
    def busy(step):
        def other(*_, **__):
            with pytest.raises(Busy) as refusal:
                build(parts=tmp_path / "other")
            refused.append((step, str(refusal.value)))

        return other

    refused = []
    monkeypatch.setattr("loso.corpus.build.write_json", busy("manifest"))
    build(parts=tmp_path / "one", say=busy("prepared"))
    text = (
        f"{tmp_path}/corpus.jsonl.parts: another process is using this folder for a build; "
        "wait for it to end, or choose another folder"
    )
    assert refused == [("prepared", text), ("manifest", text)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "one"]


def test_folders_made_for_a_build_that_is_refused_go_again(build, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadClip):
        build("a/b/c.jsonl", settings=settings_of(frames=7), parts=tmp_path / "mine" / "x" / "y")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_part_that_vanishes_while_writing_is_said(build, tmp_path, monkeypatch):
    build()
    parts = tmp_path / "corpus.jsonl.parts"
    monkeypatch.setattr("loso.corpus.build._waiting", lambda *_: {})
    for part in parts.glob("*.part"):
        part.unlink()
    with pytest.raises(CannotRun) as failure:
        build("corpus.jsonl")
    assert str(failure.value) == (
        f"{parts}: a finished cell vanished, found ant_libx264_ultrafast_q20_64p"
    )


def test_progress_may_come_while_threads_work(build):
    threads = set()
    build(jobs=2, progress=lambda *_: threads.add(threading.current_thread()))
    assert threads == {threading.main_thread()}


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (
            {"name": "corpus.csv"},
            BadSettings,
            (
                "--out: a corpus is written as JSONL, expected a name that ends in .jsonl or "
                ".jsonl.gz, found corpus.csv"
            ),
        ),
        ({"jobs": 0}, BadSettings, "--jobs must be at least 1, found 0"),
        (
            {"settings": settings_of(frames=7)},
            BadClip,
            (
                "{ant}: too few frames, expected 7 from 0 s on, found 6; "
                "ask for fewer with --frames, or start earlier with --start"
            ),
        ),
        (
            {"settings": settings_of(heights=(66,))},
            BadClip,
            "{ant}: --height is above the reference's, expected at most 64, found 66",
        ),
        (
            {"settings": settings_of(model=VmafModel("vmaf_v9"))},
            BadSettings,
            (
                "--vmaf-model: libvmaf does not score with this model ([Parsed_libvmaf_6] could "
                "not load libvmaf model with version: vmaf_v9), found version=vmaf_v9"
            ),
        ),
    ],
)
def test_refusals_write_nothing(build, clips, tmp_path, options, kind, text):
    bee, ant = clips
    with pytest.raises(kind) as refusal:
        build(paths=[ant], **options)
    assert str(refusal.value) == text.format(ant=ant, bee=bee)
    assert list(tmp_path.iterdir()) == []


def test_two_clips_of_one_name_are_refused(build, clips, tmp_path):
    twin = tmp_path / "bee.mp4"
    with pytest.raises(BadClip) as refusal:
        build(paths=[*clips, twin])
    assert str(refusal.value) == (
        f"{clips[0]} and {twin}: two clips are named bee, and the name is the source; "
        "name each once, or rename one"
    )


def test_a_name_that_is_no_text_is_refused(build):
    path = Path(os.fsdecode(b"caf\xe9.mkv"))
    with pytest.raises(BadClip) as refusal:
        build(paths=[path])
    assert str(refusal.value) == (
        "'caf\\udce9.mkv': its name is not UTF-8, and the name is the source; rename it"
    )


def test_an_encoder_that_does_not_work_here_is_refused(build, ffmpeg, tmp_path):
    broken = wrapper(
        tmp_path / "broken",
        ffmpeg,
        "*av1_nvenc*",
        "echo '[av1_nvenc @ 0x55] [error] Cannot load libcuda.so.1' >&2; exit 255",
    )
    choices = read_choices(["libx264", "av1_nvenc"], quality=["30"])
    with pytest.raises(MissingTool) as refusal:
        build("x.jsonl", settings=BuildSettings(choices=choices), ffmpeg=broken)
    assert str(refusal.value) == (
        "av1_nvenc: does not work here ([av1_nvenc] Cannot load libcuda.so.1); "
        "leave this encoder out"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_the_time_for_a_cell_does_not_shorten_what_is_tried_before(build, monkeypatch):
    limits = []

    def watched(original):
        def call(*words, timeout_s, **options):
            limits.append(timeout_s)
            return original(*words, timeout_s=timeout_s, **options)

        return call

    for name, original in (("try_encoder", try_encoder), ("probe_libvmaf", probe_libvmaf)):
        monkeypatch.setattr(f"loso.corpus.place.{name}", watched(original))
    build(settings=settings_of(timeout_s=30.0))
    assert limits == [60.0, 60.0]


def test_a_place_that_cannot_be_written_is_refused(build, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSettings) as refusal:
        build("file/corpus.jsonl")
    assert str(refusal.value) == (
        f"{tmp_path}/file: the corpus cannot be kept here "
        "(File exists); choose another --out or --parts"
    )
    with pytest.raises(BadSettings) as refusal:
        build("file/sub/corpus.jsonl", parts=tmp_path / "parts")
    assert str(refusal.value) == (
        f"{tmp_path}/file/sub: the corpus cannot be kept here "
        "(Not a directory); choose another --out or --parts"
    )
    with pytest.raises(BadSettings) as refusal:
        build(parts=tmp_path / "file" / "parts")
    assert str(refusal.value) == (
        f"{tmp_path}/file/parts: finished cells cannot be kept here "
        "(Not a directory); choose another --out or --parts"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(BadSettings, match="is a folder, expected a file"):
        build("folder.jsonl")


def test_raw_yuv_and_a_ladder(build, clips, ffmpeg, tmp_path):
    raw = tmp_path / "raw.yuv"
    source = ["-i", f"{clips[0]}", "-f", "rawvideo", f"{raw}"]
    subprocess.run([ffmpeg.path, "-loglevel", "error", *source], check=True)
    settings = BuildSettings(
        choices=read_choices(["libx264"], quality=["30"]),
        clips=ClipSettings(raw_size=(96, 64), fps=Fraction(25)),
        heights=(64, 32),
    )
    report = build(paths=[raw], settings=settings)
    sizes = [(row["width"], row["height"]) for row in rows_in(report.corpus)]
    assert sizes == [(48, 32)] * 6 + [(96, 64)] * 6
    packed = build(
        "packed.jsonl",
        paths=clips[:1],
        settings=BuildSettings(choices=settings.choices, heights=(64, 32)),
    )
    features = [[row["vmaf"] for row in rows_in(r.corpus)] for r in (report, packed)]
    assert features[0] == features[1]
