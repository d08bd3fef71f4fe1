"""Builds and trainings on a real scheduler with real workers, some of which come to harm."""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from clips import write_picture
from loso.corpus.build import build_corpus
from loso.corpus.cells import Method
from loso.corpus.choices import read_choices
from loso.corpus.load import load_corpus
from loso.corpus.plan import BuildSettings
from loso.corpus.worker import Errand, survey
from loso.engine import Member, TrainingPlan, train_members
from loso.engine.shards import on_cluster
from loso.errors import BadClip, BadSettings, CannotRun, LostCluster, MissingTool
from loso.executors import UnfitWorker, connect
from loso.files import read_json
from loso.recipe import ClusterLimits, Compute, Recipe
from loso.run_folder import train_into
from loso.video.clips import ClipSettings
from loso.video.ffmpeg import find_ffmpeg
from loso.video.measure import VmafModel

pytest.importorskip("distributed", reason="the extra dask is not installed")

DASK = [str(Path(sys.executable).with_name("dask"))]
PATIENT = ClusterLimits(connect_s=30.0, worker_s=90.0)
"""Limits here are for what never comes: a machine that is busy takes many times as long."""


def wait_for(question, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not question():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Machines:
    """A scheduler, and workers that tests start and kill; all are ended by their ids."""

    def __init__(self, folder, host="127.0.0.1"):
        self.folder, self.host, self.started = folder, host, []
        file = folder / "scheduler.json"
        options = ["--no-dashboard", "--dashboard-address", ":0", "--host", host, "--port", "0"]
        self.scheduler = self.run(
            "scheduler", [*DASK, "scheduler", *options, "--scheduler-file", file]
        )
        wait_for(lambda: file.exists() and file.read_text().strip().endswith("}"))
        self.address = read_json(file)["address"]

    def run(self, name, command, **env):
        log = (self.folder / f"{name}.log").open("w")
        with log:
            process = subprocess.Popen(
                [*map(str, command)], stdout=log, stderr=log, env=os.environ | env
            )
        self.started.append(process)
        return process

    def worker(self, name, *options, before=(), host=None, **env):
        scratch = self.folder / f"{name}.scratch"
        where = ["--host", host or self.host, "--local-directory", scratch, "--name", name]
        plain = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        return self.run(
            name, [*before, *DASK, "worker", self.address, *plain, *where, *options], **env
        )

    def wait_for_workers(self, count):
        log = self.folder / "scheduler.log"
        wait_for(lambda: log.read_text().count("Register worker") >= count)

    def end(self):
        for process in self.started:
            process.kill()
        for process in self.started:
            process.wait()


@contextmanager
def machines(folder, **options):
    made = Machines(folder, **options)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    """A scheduler with two workers to which nothing happens."""
    with machines(tmp_path_factory.mktemp("peace")) as made:
        for name in ("one", "two"):
            made.worker(name)
        made.wait_for_workers(2)
        yield made


@pytest.fixture
def harm(tmp_path):
    """A scheduler of the test's own, without workers."""
    (tmp_path / "machines").mkdir()
    with machines(tmp_path / "machines") as made:
        yield made


# -- Corpora --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ffmpeg():
    return find_ffmpeg()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / "ant.mkv", folder / "bee.mkv"]
    for path, source in zip(paths, ("mandelbrot", "testsrc2"), strict=True):
        write_picture(path, f"{source}=size=96x64:rate=25", 4)
    return paths


def settings_of(*encoders, quality="20,30,40", **options):
    names = encoders or ("libx264",)
    choices = read_choices(names, quality=[quality], preset=["libx264=ultrafast"])
    return BuildSettings(choices=choices, clips=ClipSettings(frames=3), **options)


@pytest.fixture(scope="module")
def local(tmp_path_factory, ffmpeg, clips):
    """The bytes of the corpus that this machine makes alone."""
    out = tmp_path_factory.mktemp("local") / "corpus.jsonl"
    return build_corpus(clips, settings_of(), ffmpeg, out=out, jobs=2).corpus.read_bytes()


def slow(folder, ffmpeg, condition):
    """An ffmpeg that waits in cells of that condition until the file `go` is there."""
    path = folder / "ffmpeg"
    wait = f"while ! test -e {shlex.quote(str(folder))}/go; do sleep 0.05; done"
    path.write_text(
        f'#!/bin/sh\ncase "$*" in {condition}) echo $PPID $$ >> {shlex.quote(str(folder))}/began\n'
        f'{wait} ;; esac\nexec {shlex.quote(ffmpeg.path)} "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return find_ffmpeg(str(path))


def noted(folder):
    """Of each cell that began to wait, the process that started it, and its own."""
    with suppress(FileNotFoundError):
        lines = (folder / "began").read_text().splitlines()
        return [tuple(map(int, line.split())) for line in lines]
    return []


def began(folder):
    """The ids of the processes whose cells wait, one for each cell that began."""
    return [starter for starter, _ in noted(folder)]


def waiting(folder):
    """How many of them still wait: what goes on is another program under the same id."""
    name = f"{folder}/ffmpeg".encode()
    count = 0
    for _, own in noted(folder):
        with suppress(OSError):
            _, *words = Path(f"/proc/{own}/cmdline").read_bytes().split(b"\0")
            count += words[:1] == [name]  # the shell that runs it: others only name it
    return count


class Build(threading.Thread):
    """A build on a cluster, which goes on while the test does harm."""

    def __init__(self, address, clips, ffmpeg, out, settings=None, limits=PATIENT):
        super().__init__(daemon=True)
        self.said, self.notes, self.error, self.report = [], [], None, None
        self.work = (address, clips, ffmpeg, out, settings or settings_of(), limits)
        self.start()

    def run(self):
        address, clips, ffmpeg, out, settings, limits = self.work
        try:
            with connect(address, limits) as cluster:
                self.report = build_corpus(
                    clips,
                    settings,
                    ffmpeg,
                    out=out,
                    cluster=cluster,
                    say=self.said.append,
                    progress=lambda *step: self.notes.append(step[-1]),
                )
        except Exception as error:  # noqa: BLE001
            self.error = error

    def result(self, limit_s=150.0):
        self.join(limit_s)
        assert not self.is_alive()
        if self.error:
            raise self.error
        return self.report


def parts_of(out):
    return sorted(out.with_name(f"{out.name}.parts").glob("*.part"))


def test_a_cluster_gives_the_corpus_of_one_machine(peace, clips, ffmpeg, local, tmp_path):
    out = tmp_path / "corpus.jsonl"
    build = Build(peace.address, clips, ffmpeg, out)
    report = build.result()
    assert out.read_bytes() == local
    assert (report.cells, report.missing, report.reused) == (6, {}, 0)
    run = read_json(report.manifest)["run"]
    assert (run["workers"], run["jobs"]) == (2, 2)
    assert re.search(r"6 of 6 cells, 0 failed, [\d.]+ a second, 2 workers", build.notes[-1])
    again = build_corpus(clips, settings_of(), ffmpeg, out=out)
    assert again.reused == 6
    assert out.read_bytes() == local
    assert [path.name for path in (tmp_path / "corpus.jsonl.parts").glob(".*")] == [".lock"]


def test_a_worker_killed_in_mid_cell_is_made_up_for(harm, clips, ffmpeg, local, tmp_path):
    two = {name: harm.worker(name) for name in ("one", "two")}
    out = tmp_path / "corpus.jsonl"
    build = Build(harm.address, clips, slow(tmp_path, ffmpeg, "*ant.mkv*-crf*"), out)
    wait_for(lambda: len(set(began(tmp_path))) == 2)
    two["one"].kill()
    wait_for(lambda: waiting(tmp_path) == 1)  # its ffmpeg went with it
    (tmp_path / "go").touch()
    assert build.result().missing == {}
    assert out.read_bytes() == local


def test_a_late_worker_is_waited_for_and_takes_part(harm, clips, ffmpeg, local, tmp_path):
    out = tmp_path / "corpus.jsonl"
    build = Build(harm.address, clips, ffmpeg, out)
    wait_for(lambda: build.notes and build.notes[-1].startswith("no worker is there: waiting"))
    assert build.said == ["warning: no worker is there: waiting for one, 90 s at most"]
    assert parts_of(out) == []
    harm.worker("late")
    assert build.result().missing == {}
    assert out.read_bytes() == local


def test_a_worker_that_joins_in_mid_build_takes_cells_too(harm, clips, ffmpeg, local, tmp_path):
    harm.worker("one")
    out = tmp_path / "corpus.jsonl"
    build = Build(harm.address, clips, slow(tmp_path, ffmpeg, "*ant.mkv*-crf*"), out)
    wait_for(lambda: waiting(tmp_path) == 1)
    harm.worker("late")
    wait_for(lambda: waiting(tmp_path) == 2)
    assert len(set(began(tmp_path))) == 2
    (tmp_path / "go").touch()
    report = build.result()
    assert report.missing == {}
    assert read_json(report.manifest)["run"]["workers"] == 2
    assert out.read_bytes() == local


def test_where_the_scheduler_is_lost_what_is_finished_is_kept(harm, clips, ffmpeg, local, tmp_path):
    harm.worker("one")
    out = tmp_path / "corpus.jsonl"
    program = slow(tmp_path, ffmpeg, "*bee.mkv*-crf*")
    build = Build(harm.address, clips, program, out)
    wait_for(lambda: len(parts_of(out)) == 3 and waiting(tmp_path) == 1)
    harm.scheduler.kill()
    with pytest.raises(LostCluster) as refusal:
        build.result()
    assert str(refusal.value) == (
        f"{harm.address}: the scheduler was lost, found 3 of 6 cells finished and kept; "
        "start it and its workers again, then give the same command"
    )
    assert not out.exists()
    wait_for(lambda: waiting(tmp_path) == 0)  # the worker ends what nobody waits for
    (tmp_path / "go").touch()
    (tmp_path / "again").mkdir()
    with machines(tmp_path / "again") as again:
        again.worker("one")
        report = Build(again.address, clips, program, out).result()
    assert (report.reused, report.missing) == (3, {})
    assert out.read_bytes() == local


def test_a_scheduler_that_is_stopped_is_lost_too(harm, clips, ffmpeg, tmp_path):
    harm.worker("one")
    out = tmp_path / "corpus.jsonl"
    program = slow(tmp_path, ffmpeg, "*bee.mkv*-crf*")
    limits = ClusterLimits(connect_s=6.0, worker_s=90.0)
    build = Build(harm.address, clips, program, out, limits=limits)
    wait_for(lambda: len(parts_of(out)) == 3 and waiting(tmp_path) == 1)
    harm.scheduler.send_signal(signal.SIGSTOP)
    with pytest.raises(LostCluster, match="the scheduler was lost, found 3 of 6 cells"):
        build.result(limit_s=60)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_client_that_ends_ends_the_cells_on_the_workers(
    peace, clips, ffmpeg, local, tmp_path, sent, code
):
    out = tmp_path / "corpus.jsonl"
    program = slow(tmp_path, ffmpeg, "*bee.mkv*-crf*")
    words = ["corpus", "build", *clips, "--encoder", "libx264", "--preset", "ultrafast"]
    words += ["--quality", "20,30,40", "--frames", "3", "--out", out, "--ffmpeg", program.path]
    command = [Path(sys.executable).with_name("loso"), *words, "--scheduler", peace.address]
    pipe = subprocess.PIPE
    with subprocess.Popen([*map(str, command)], stdout=pipe, stderr=pipe, text=True) as child:
        try:
            wait_for(lambda: len(parts_of(out)) == 3 and waiting(tmp_path) == 2)
            child.send_signal(sent)
            _, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == code
    assert "distributed" not in err
    assert "Traceback" not in err
    wait_for(lambda: waiting(tmp_path) == 0)
    assert not out.exists()
    (tmp_path / "go").touch()
    report = Build(peace.address, clips, program, out).result()
    assert report.reused == 3
    assert out.read_bytes() == local


def test_a_cell_that_kills_its_workers_fails_and_the_rest_is_kept(harm, clips, ffmpeg, tmp_path):
    program = slow(tmp_path, ffmpeg, "*nothing*")
    deadly = 'case "$*" in *bee.mkv*-crf\\ 40*) kill -9 $PPID; exit 1 ;; esac\n'
    text = Path(program.path).read_text()
    Path(program.path).write_text(text.replace("#!/bin/sh\n", f"#!/bin/sh\n{deadly}"))
    for number in range(3):
        harm.worker(f"{number}")
    out = tmp_path / "corpus.jsonl"
    build = Build(harm.address, clips, program, out, limits=ClusterLimits(deaths=2, worker_s=90))
    report = build.result()
    ((name, reason),) = report.missing.items()
    assert name == "bee_libx264_ultrafast_q40_64p"
    assert reason.startswith("2 workers died while they had it, the last was tcp://")
    assert report.rows == 15


def pretended(program, folder):
    """An ffmpeg of a machine with the hardware that its environment says is there.

    x264 stands in for it. A file for each encoder tells which processes had cells of it.
    """
    # Options of devices go, the upload of frames too, and the encoder's own become x264's.
    fakes = "".join(
        f'*{encoder}*) case " $HARDWARE " in *" {hardware} "*) ;; '
        f"*) echo '[error] no {hardware}' >&2; exit 1 ;; esac\n"
        f"echo $PPID >> {shlex.quote(f'{folder}/{encoder}')}\n"
        'set -- $(echo "$*" | sed -E "s/-(init|filter)_hw_device [^ ]+//g; s/,hwupload[^ ,;[]*//; '
        f"s/-c:v {encoder}.* (-fps_mode [a-z]+ -stats_enc_post|-f streamhash)/-c:v libx264 \\\\1/"
        '") ;;\n'
        for encoder, hardware in (("h264_nvenc", "nvenc"), ("h264_qsv", "qsv"))
    )
    text = Path(program.path).read_text()
    begin = f'#!/bin/sh\ncase "$*" in {fakes}esac\n'
    Path(program.path).write_text(text.replace("#!/bin/sh\n", begin))


def test_hardware_cells_go_to_workers_that_offer_it_and_can(harm, clips, ffmpeg, tmp_path):
    program = slow(tmp_path, ffmpeg, "*nothing*")
    pretended(program, tmp_path)
    harm.worker("plain", HARDWARE="nvenc qsv")
    harm.worker("broken", "--resources", "nvenc=1 qsv=1")
    nvenc = harm.worker("nvenc", "--resources", "nvenc=1", HARDWARE="nvenc")
    qsv = harm.worker("qsv", "--resources", "qsv=2", HARDWARE="qsv")
    out = tmp_path / "corpus.jsonl"
    harm.wait_for_workers(4)
    settings = settings_of("libx264", "h264_nvenc", "h264_qsv", quality="20,30")
    build = Build(harm.address, clips, program, out, settings)
    report = build.result()
    assert report.missing == {}
    assert report.cells == 12
    for encoder, worker in (("h264_nvenc", nvenc), ("h264_qsv", qsv)):
        ran = (tmp_path / encoder).read_text().split()
        assert set(ran) == {f"{worker.pid}"}
        assert len(ran) > 4  # the trial and the cells
    assert [line for line in build.said if "nvenc" in line or "qsv" in line] == [
        f"warning: {count} of 4 workers get no h264_{name} cells: {reason}"
        for name in ("nvenc", "qsv")
        for count, reason in (
            (1, f"does not work here (no {name})"),
            (2, f"the worker does not offer {name}: start it with --resources {name}=1"),
        )
    ]


NO_NVENC = "the worker does not offer nvenc: start it with --resources nvenc=1"


def test_a_worker_for_an_encoder_that_the_first_lack_is_waited_for(harm, clips, ffmpeg, tmp_path):
    program = slow(tmp_path, ffmpeg, "*nothing*")
    pretended(program, tmp_path)
    harm.worker("plain")
    harm.wait_for_workers(1)
    settings = settings_of("libx264", "h264_nvenc", quality="20")
    build = Build(harm.address, clips, program, tmp_path / "corpus.jsonl", settings)
    waits = "no worker for h264_nvenc is there"
    wait_for(lambda: build.notes and build.notes[-1].startswith(f"{waits}: waiting "))
    assert build.said == [f"warning: {waits} ({NO_NVENC}): waiting for one, 90 s at most"]
    nvenc = harm.worker("nvenc", "--resources", "nvenc=1", HARDWARE="nvenc")
    report = build.result()
    assert (report.cells, report.missing) == (4, {})
    assert set((tmp_path / "h264_nvenc").read_text().split()) == {f"{nvenc.pid}"}
    assert f"warning: 1 of 2 workers get no h264_nvenc cells: {NO_NVENC}" in build.said


def test_an_encoder_that_no_worker_can_use_is_refused_in_the_end(harm, clips, ffmpeg, tmp_path):
    program = slow(tmp_path, ffmpeg, "*nothing*")
    pretended(program, tmp_path)
    harm.worker("plain")
    harm.worker("broken", "--resources", "nvenc=1")
    harm.wait_for_workers(2)
    settings = settings_of("libx264", "h264_nvenc", quality="20")
    limits = ClusterLimits(connect_s=30.0, worker_s=1.0)
    build = Build(harm.address, clips, program, tmp_path / "corpus.jsonl", settings, limits)
    with pytest.raises(MissingTool) as refusal:
        build.result()
    beginning, _, rest = str(refusal.value).partition(", found ")
    reasons, _, fix = rest.rpartition("; ")
    assert beginning == "h264_nvenc: no worker can encode this"
    assert set(reasons.split("; ")) == {NO_NVENC, "does not work here (no nvenc)"}
    assert fix == "leave this encoder out, or start a worker that can"
    assert not list(tmp_path.glob("corpus*"))


@pytest.mark.parametrize(
    ("encoder", "extra", "kind", "text"),
    [
        ("libx264", ["libx264=-tune fish"], BadSettings, "libx264 does not take these arguments"),
        ("libx265", [], MissingTool, r"no worker can encode this, found .* built without it; "),
    ],
)
def test_what_no_other_worker_could_mend_is_refused_at_once(
    peace, clips, ffmpeg, tmp_path, encoder, extra, kind, text
):
    program = tmp_path / "ffmpeg"
    real = shlex.quote(ffmpeg.path)
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *-encoders) {real} "$@" | grep -v libx265; exit ;; esac\n'
        f'exec {real} "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    choices = read_choices([encoder], quality=["20"], encoder_args=extra)
    settings = BuildSettings(choices=choices, clips=ClipSettings(frames=3))
    limits = ClusterLimits(connect_s=30.0, worker_s=1000.0)
    out = tmp_path / "corpus.jsonl"
    with pytest.raises(kind, match=text):
        Build(peace.address, clips, find_ffmpeg(str(program)), out, settings, limits).result()


def without_its_own_view(name, folder):
    """Words before a command that give it mounts of its own, without what is in `folder`."""
    inside = f'mount -t tmpfs none {shlex.quote(str(folder))} && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", inside, name]
    tried = subprocess.run([*before, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("this machine lets nobody mount: unshare --mount failed")
    return before


def test_a_worker_that_does_not_see_the_parts_is_told_once(harm, clips, ffmpeg, local, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    harm.worker("blind", before=without_its_own_view("blind", shared))
    out = shared / "corpus.jsonl"
    with pytest.raises(CannotRun) as refusal:
        Build(harm.address, clips, ffmpeg, out).result()
    told = (
        f"does not see the folder of finished cells, found {out}.parts; "
        "all machines must see one folder under one path: give --parts on a shared disk"
    )
    beginning, _, rest = str(refusal.value).partition(", found ")
    assert beginning == f"{harm.address}: no worker can be used"
    assert re.fullmatch(rf"tcp://[\d.:]+: {re.escape(told)}", rest)
    assert list(shared.iterdir()) == []
    harm.worker("seeing")
    harm.wait_for_workers(2)
    build = Build(harm.address, clips, ffmpeg, out)
    assert build.result().missing == {}
    assert out.read_bytes() == local
    assert [line for line in build.said if "left out: tcp" in line] == [
        f"warning: left out: {rest}"
    ]


def test_a_worker_that_loses_sight_of_the_clips_while_it_looks_at_them_is_left_out(
    harm, clips, ffmpeg, local, tmp_path
):
    mine = tmp_path / "clips"
    mine.mkdir()
    copies = [Path(shutil.copy2(path, mine)) for path in clips]
    program = tmp_path / "ffmpeg"
    drop = f"mount -t tmpfs none {shlex.quote(str(mine))}"
    program.write_text(
        f'#!/bin/sh\ncase "$DROPS $*" in yes*showinfo*) {drop}; touch {tmp_path}/dropped ;; esac\n'
        f'exec {shlex.quote(ffmpeg.path)} "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    harm.worker("dropping", before=without_its_own_view("dropping", elsewhere), DROPS="yes")
    harm.wait_for_workers(1)
    out = tmp_path / "corpus.jsonl"
    build = Build(harm.address, copies, find_ffmpeg(str(program)), out)
    wait_for((tmp_path / "dropped").exists)
    harm.worker("seeing")
    assert build.result().missing == {}
    assert out.read_bytes() == local
    (line,) = (line for line in build.said if "left out: tcp" in line)
    assert re.search(r": does not see a clip, found nothing at .*/clips/\w+\.mkv$", line)


def test_a_clip_that_an_older_file_replaces_in_mid_build_ends_it(harm, clips, ffmpeg, tmp_path):
    mine = tmp_path / "clips"
    mine.mkdir()
    copies = [Path(shutil.copy2(path, mine)) for path in clips]
    harm.worker("one")
    program = slow(tmp_path, ffmpeg, "*ant.mkv*-crf*")
    build = Build(harm.address, copies, program, tmp_path / "corpus.jsonl")
    wait_for(lambda: waiting(tmp_path) == 1)
    other = shutil.copy2(clips[0], tmp_path / "other.mkv")
    os.utime(other, (1e9, 1e9))
    Path(other).replace(copies[1])
    (tmp_path / "go").touch()
    with pytest.raises(BadClip, match=r"bee\.mkv: is not the file that was looked at before"):
        build.result()


def test_a_model_file_that_changes_in_mid_build_ends_it(harm, clips, ffmpeg, tmp_path):
    """libvmaf's own model stands in for the file, whose content nobody reads."""
    file, program = tmp_path / "m.json", tmp_path / "ffmpeg"
    file.write_text("one")
    change = f'case "$*" in *-crf\\ 20*) echo other > {shlex.quote(str(file))} ;; esac'
    program.write_text(
        f"#!/bin/bash\n{change}\n"
        f'exec {shlex.quote(ffmpeg.path)} "${{@//path=model.json/version=vmaf_v0.6.1}}"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    harm.worker("one")
    out = tmp_path / "corpus.jsonl"
    settings = settings_of(model=VmafModel.parse(f"path={file}"))
    with pytest.raises(BadSettings) as refusal:
        Build(harm.address, clips, find_ffmpeg(str(program)), out, settings).result()
    assert str(refusal.value) == (
        f"--vmaf-model: changed while it was used, found path={file}; leave the file alone and run "
        "this again; what was finished before is kept"
    )
    assert not out.exists()


@pytest.mark.parametrize("gone", [True, False])
def test_a_worker_that_has_not_the_clients_model_file_is_unfit(ffmpeg, tmp_path, gone):
    file = tmp_path / "m.json"
    file.write_text("one")
    errand = Errand(
        parts=tmp_path,
        sign="",
        ffmpeg=ffmpeg.path,
        version=ffmpeg.version,
        configuration=ffmpeg.configuration,
        libvmaf="",
        scores="",
        method=Method(model=VmafModel.parse(f"path={file}"), timeout_s=60, two_step=False),
    )
    if gone:
        file.unlink()
    else:
        file.write_text("other")
    said = f"does not see the VMAF model file, found nothing at {file}"
    with pytest.raises(UnfitWorker) as refusal:
        survey(errand, [], {})
    assert str(refusal.value) == (said if gone else f"the VMAF model file is another, found {file}")


def test_a_worker_with_another_ffmpeg_measures_nothing(peace, clips, ffmpeg, tmp_path):
    from dataclasses import replace

    out = tmp_path / "corpus.jsonl"
    with pytest.raises(CannotRun) as refusal:
        Build(peace.address, clips, replace(ffmpeg, version="9.9"), out).result()
    assert str(refusal.value).endswith(
        f": another ffmpeg: one corpus is measured by one, expected 9.9, found {ffmpeg.version}"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_scores_otherwise_measures_nothing(harm, clips, ffmpeg, tmp_path):
    program = tmp_path / "ffmpeg"
    program.write_text(
        '#!/bin/bash\n[ "$SCALING" ] && set -- "${@//flags=bicubic/flags=$SCALING}"\n'
        f'exec {shlex.quote(ffmpeg.path)} "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    harm.worker("other", SCALING="bicubic+accurate_rnd")
    harm.worker("same")
    harm.wait_for_workers(2)
    build = Build(harm.address, clips, find_ffmpeg(str(program)), tmp_path / "corpus.jsonl")
    assert read_json(build.result().manifest)["run"]["workers"] == 1
    (line,) = (line for line in build.said if "left out: tcp" in line)
    assert re.fullmatch(
        r"warning: left out: tcp://[\d.:]+: scores otherwise than the client: its processor or a "
        "library differs",
        line,
    )


# -- Training -------------------------------------------------------------------------------------


def plan_of(seeds=3, folds=3, epochs=6):
    random = np.random.default_rng(1)
    inputs = random.normal(size=(120, 5)).astype(np.float32)
    target = inputs @ np.arange(5, dtype=np.float32)
    rows = np.arange(120, dtype=np.int32)
    members = tuple(
        Member(seed, fold, f"fold {fold}", rows[rows % folds != fold], np.zeros(5), np.ones(5))
        for seed in range(seeds)
        for fold in range(folds)
    )
    return TrainingPlan(inputs, target, members, Recipe(epochs=epochs, hidden=24))


def same(one, other):
    assert one.losses.tobytes() == other.losses.tobytes()
    for ours, theirs in zip(one.networks, other.networks, strict=True):
        pairs = zip((*ours.weights, *ours.biases), (*theirs.weights, *theirs.biases), strict=True)
        assert all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.parametrize("threads", [None, 2])
def test_members_trained_on_a_cluster_are_those_of_one_machine(peace, threads):
    plan, notes = plan_of(), []
    with connect(peace.address, PATIENT) as cluster:
        trained = train_members(
            plan, cluster=cluster, threads=threads, progress=lambda *step: notes.append(step)
        )
    same(trained, train_members(plan, engine="native"))
    done, total, remark = notes[-1]
    assert (done, remark) == (total, "2 workers")


def test_a_run_trained_on_a_cluster_has_the_bytes_of_one_machine(peace, make_corpus, tmp_path):
    corpus, recipe = load_corpus(make_corpus()), Recipe(epochs=4, hidden=16)
    with connect(peace.address, PATIENT) as cluster:
        compute = on_cluster(Compute(), cluster)
        train_into(tmp_path / "far", corpus, recipe, (0, 1), compute=compute)
    train_into(tmp_path / "near", corpus, recipe, (0, 1), compute=Compute(engine="native"))
    for name in ("oof_seed0.parquet", "oof_seed1.parquet", "losses.parquet"):
        assert (tmp_path / "far" / name).read_bytes() == (tmp_path / "near" / name).read_bytes()
    far, near = (read_json(tmp_path / run / "loso_seed0.json") for run in ("far", "near"))
    assert far | {"wall_time_s": 0} == near | {"wall_time_s": 0}


@pytest.mark.parametrize(
    ("verb", "own", "files"),
    [
        ("train", (), ("oof_seed0.parquet", "oof_seed1.parquet", "losses.parquet")),
        ("sweep", ("--vary", "lr=0.001,0.01", "--pairs", 3), ("fits/*.kept", "sweep.json")),
    ],
)
def test_commands_leave_the_same_bytes_with_a_scheduler(
    peace, loso, make_corpus, tmp_path, verb, own, files
):
    words = [verb, "--corpus", make_corpus(), "--seeds", "0,1", "--epochs", 3, "--hidden", 8, *own]
    words += ["--min-rows", 1]
    for name, where in (("near", ("--engine", "native")), ("far", ("--scheduler", peace.address))):
        code, _, err = loso(*words, "--out-dir", tmp_path / name, *where)
        assert (code, "warning" in err) == (0, False), err
        assert ("2 workers" in err) == (name == "far")
        goes_on = f" --scheduler {peace.address}" in err
        assert goes_on == (verb == "sweep" and name == "far")  # in the command that comes next
    for pattern in files:
        near = sorted((tmp_path / "near").glob(pattern))
        assert near
        for path in near:
            far = tmp_path / "far" / path.relative_to(tmp_path / "near")
            assert far.read_bytes() == path.read_bytes()


def test_an_engine_that_no_cluster_has_is_refused(peace, loso, make_corpus, tmp_path):
    words = ["train", "--corpus", make_corpus(), "--out-dir", tmp_path / "out", "--min-rows", 1]
    code, _, err = loso(*words, "--scheduler", peace.address, "--engine", "batched")
    assert code == 2
    assert "a cluster trains with the native engine, found --engine batched" in err
    assert not (tmp_path / "out").exists()


def test_a_worker_killed_while_it_trains_is_made_up_for(harm):
    doomed = harm.worker("doomed")
    harm.worker("other")
    harm.wait_for_workers(2)
    plan = plan_of(seeds=4, epochs=1500)

    def kill(steps, *_):
        if steps and doomed.poll() is None:
            doomed.kill()

    with connect(harm.address, PATIENT) as cluster:
        trained = train_members(plan, cluster=cluster, progress=kill)
    assert doomed.poll() is not None
    same(trained, train_members(plan, engine="native"))


def test_a_worker_of_another_instruction_set_does_not_train(harm):
    from loso.engine.native import instruction_set, instruction_sets

    ours, last = instruction_set(), instruction_sets()[-1]
    if ours == last:
        pytest.skip("this machine runs one instruction set alone")
    harm.worker("old", LOSO_ISA=last)
    with connect(harm.address, PATIENT) as cluster, pytest.raises(CannotRun) as refusal:
        train_members(plan_of(), cluster=cluster)
    assert str(refusal.value) == (
        f"no worker trains to the bytes of this machine, expected {ours}, found {last}; "
        "set LOSO_ISA here and for the workers to what all run, with one build of loso"
    )


# -- A network that is cut ------------------------------------------------------------------------


@contextmanager
def island():
    """A network namespace for one host, its end of the cable, and the address of this side."""
    name, cable = f"loso{os.getpid()}", f"lo{os.getpid() % 10**8}"
    net = f"10.{os.getpid() % 199 + 50}.77"
    steps = [
        f"ip netns add {name}",
        f"ip link add {cable}a type veth peer name {cable}b netns {name}",
        f"ip addr add {net}.1/24 dev {cable}a",
        f"ip link set {cable}a up",
        f"ip -n {name} addr add {net}.2/24 dev {cable}b",
        f"ip -n {name} link set {cable}b up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for step in steps:
            try:
                subprocess.run(step.split(), check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"this machine gives no network namespaces: {step} ({error})")
        yield name, f"{cable}a", f"{net}.1", f"{net}.2"
    finally:
        with suppress(OSError):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            subprocess.run(["ip", "link", "del", f"{cable}a"], check=False, capture_output=True)


def test_a_host_that_is_cut_off_is_made_up_for(clips, ffmpeg, local, tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "5s")
    (tmp_path / "machines").mkdir()
    with (
        island() as (name, cable, here, there),
        machines(tmp_path / "machines", host=here) as made,
    ):
        made.worker("near")
        made.worker("far", before=["ip", "netns", "exec", name], host=there)
        made.wait_for_workers(2)
        out = tmp_path / "corpus.jsonl"
        build = Build(made.address, clips, slow(tmp_path, ffmpeg, "*ant.mkv*-crf*"), out)
        wait_for(lambda: len(set(began(tmp_path))) == 2)
        subprocess.run(["ip", "link", "set", cable, "down"], check=True)
        wait_for(lambda: build.notes[-1].endswith(" 1 worker"))
        subprocess.run(["ip", "link", "set", cable, "up"], check=True)
        wait_for(lambda: waiting(tmp_path) == 1)  # the far one hears that nobody waits for it
        (tmp_path / "go").touch()
        assert build.result().missing == {}
        assert out.read_bytes() == local


# -- Recommendations ------------------------------------------------------------------------------


def test_a_question_to_a_cluster_has_the_answers_of_one_machine(peace, loso, tmp_path):
    paths = []
    for name, picture in (("ant", "mandelbrot"), ("bee", "testsrc2")):
        paths.append(tmp_path / f"{name}.mkv")
        write_picture(paths[-1], f"{picture}=size=64x48:rate=25", 40)
    words = ["recommend", *paths, "--encoder", "libx264", "--preset", "ultrafast", "--step", 3]
    words += ["--target", 70, "--segments", 2, "--segment-seconds", 0.4, "--json"]
    answers = []
    for name, where in (("near", ()), ("far", ("--scheduler", peace.address))):
        code, out, err = loso(*words, *where, "--parts", tmp_path / name)
        assert code == 0, err
        assert ("2 workers" in err) == (name == "far")
        records = [json.loads(line) for line in out.splitlines()]
        answers.append([coding["answers"] for record in records for coding in record["codings"]])
    assert answers[0] == answers[1]
    near, far = (sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("near", "far"))
    assert [name for name in near if name != ".lock"] == [name for name in far if name != ".lock"]
    assert {Path(name).suffix for name in near} >= {".part", ".scan"}
