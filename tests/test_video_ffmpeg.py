import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from loso.errors import CannotRun, MissingTool
from loso.video.ffmpeg import FfmpegSession, find_ffmpeg
from loso.video.said import reason_of

VERSION = (
    "ffmpeg version {version} Copyright\nconfiguration: --enable-libvmaf\nlibavcodec {codec}. 3.100"
)
ENCODERS = (
    " V..... = Video\n ------\n V....D libx264   H.264\n V..... libvvenc  VVC\n A..... aac  AAC"
)
LIBVMAF = " .. libvmaf           VV->V      Calculate the VMAF"


@pytest.fixture
def fake(tmp_path):
    """Write a program that answers like ffmpeg."""

    def make(name="ffmpeg", version="7.1", codec=61, filters=LIBVMAF, otherwise="exit 1"):
        path = tmp_path / name
        path.write_text(
            "#!/bin/sh\n"
            'case "$2" in\n'
            f"-version) cat <<'E'\n{VERSION.format(version=version, codec=codec)}\nE\n;;\n"
            f"-filters) cat <<'E'\nFilters:\n{filters}\nE\n;;\n"
            f"-encoders) cat <<'E'\nEncoders:\n{ENCODERS}\nE\n;;\n"
            f"*) {otherwise} ;;\n"
            "esac\n"
        )
        path.chmod(0o755)
        return str(path)

    return make


def test_the_order_is_option_then_variable_then_the_bundled_one(fake, monkeypatch):
    monkeypatch.setenv("LOSO_FFMPEG", fake("of_variable", version="6.1", codec=60))
    option = find_ffmpeg(fake("of_option"))
    variable = find_ffmpeg()
    monkeypatch.delenv("LOSO_FFMPEG")
    bundled = find_ffmpeg()
    assert (option.version, option.has_loopback) == ("7.1", True)
    assert (variable.version, variable.has_loopback) == ("6.1", False)
    assert "imageio_ffmpeg" in bundled.path
    origins = [found.origin for found in (option, variable, bundled)]
    assert origins == ["--ffmpeg", "LOSO_FFMPEG", "imageio-ffmpeg"]
    assert option.encoders == {"libx264", "libvvenc"}
    assert {"libx264", "libx265", "libsvtav1", "libvvenc", "libvpx-vp9"} <= bundled.encoders


def test_the_path_comes_last(fake, monkeypatch, tmp_path):
    monkeypatch.delenv("LOSO_FFMPEG", raising=False)
    monkeypatch.setattr("loso.video.ffmpeg._bundled", lambda: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = fake(version="8.0")
    assert (find_ffmpeg().path, find_ffmpeg().origin) == (program, "PATH")
    monkeypatch.setattr("loso.video.ffmpeg._bundled", lambda: fake("bundled", filters=""))
    assert find_ffmpeg().path == program


def test_what_is_asked_for_by_name_must_serve(fake, tmp_path):
    cases = {
        fake("old", version="4.4.2", codec=58): "(version 4.4.2) is older than 5.1",
        fake("bare", filters=" .. scale V->V Scale"): "(version 7.1) lacks the filter libvmaf",
        str(tmp_path / "nothing"): "is not an executable file",
    }
    for path, reason in cases.items():
        with pytest.raises(MissingTool) as refusal:
            find_ffmpeg(path)
        assert str(refusal.value) == (
            f"--ffmpeg {path}: this ffmpeg {reason}; give one with libvmaf"
        )
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho hello\n")
    other.chmod(0o755)
    with pytest.raises(MissingTool, match="does not answer -version as ffmpeg does"):
        find_ffmpeg(str(other))
    other.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(MissingTool, match=r"does not run \(exit code 3\)"):
        find_ffmpeg(str(other))
    other.write_text("#!/bin/sh\necho 'libx264.so.164: not found' >&2\necho more >&2\nexit 127\n")
    with pytest.raises(MissingTool, match=r"\(exit code 127: libx264.so.164: not found\)"):
        find_ffmpeg(str(other))


def test_nothing_usable_says_why_for_each(fake, monkeypatch):
    monkeypatch.delenv("LOSO_FFMPEG", raising=False)
    monkeypatch.setattr("loso.video.ffmpeg._bundled", lambda: fake("bundled", filters=""))
    monkeypatch.setattr("shutil.which", lambda name: None if name == "ffmpeg" else name)
    with pytest.raises(MissingTool) as refusal:
        find_ffmpeg()
    assert str(refusal.value) == (
        "no usable ffmpeg, found the one of imageio-ffmpeg (version 7.1) lacks the filter libvmaf, "
        "the one of PATH is not there; pip install imageio-ffmpeg, or give --ffmpeg PATH"
    )
    assert refusal.value.exit_code == 3


# Recorded where nothing is said; the others are put together from the sources of ffmpeg.
NVENC = """\
[h264_nvenc @ 0x5608e6235500] [error] {reason}
[vost#0:0/h264_nvenc @ 0x5608e6234980] [enc:h264_nvenc @ 0x5608e62353c0] [error] Error while \
opening encoder - maybe incorrect parameters such as bit_rate, rate, width or height.
[vf#0:0 @ 0x5608e6250b80] [error] Error sending frames to consumers: Operation not permitted
[vf#0:0 @ 0x5608e6250b80] [error] Task finished with error code: -1 (Operation not permitted)
[vost#0:0/h264_nvenc @ 0x5608e6234980] [enc:h264_nvenc @ 0x5608e62353c0] [error] Could not open \
encoder before EOF
[vost#0:0/h264_nvenc @ 0x5608e6234980] [error] Terminating thread with return code -22
[out#0/null @ 0x5608e6233dc0] [error] Nothing was written into output file, because at least one \
of its streams received no packets.
"""
QSV = """\
[VAAPI @ 0x555c39eda380] [error] No VA display found for device /dev/dri/renderD128.
[error] Device creation failed: -22.
[error] Failed to set value 'qsv=hw,child_device=/dev/dri/renderD128' for option 'init_hw_device': \
Invalid argument
[fatal] Error parsing global options: Invalid argument
"""
QSV_SESSION = """\
[AVHWDeviceContext @ 0x55d0] [error] Error creating a MFX session: -9.
[error] Device creation failed: -1313558101.
[fatal] Error parsing global options: Unknown error occurred
"""
VAAPI_PROFILE = """\
[hevc_vaapi @ 0x55d0] [error] No usable encoding profile found.
[vost#0:0/hevc_vaapi @ 0x55d1] [error] Error while opening encoder - maybe incorrect parameters
Conversion failed!
"""
VIDEOTOOLBOX_ABSENT = """\
[vost#0:0 @ 0x55f05b10f980] [fatal] Unknown encoder 'h264_videotoolbox'
[vost#0:0 @ 0x55f05b10f980] [fatal] Error selecting an encoder
[error] Error opening output file -.
[fatal] Error opening output files: Encoder not found
"""
VIDEOTOOLBOX_BUSY = """\
[h264_videotoolbox @ 0x7f8] [error] Error: cannot create compression session: -12908
[h264_videotoolbox @ 0x7f8] [error] Try -allow_sw 1. The hardware encoder may be busy.
[vost#0:0/h264_videotoolbox @ 0x7f9] [error] Error while opening encoder - maybe incorrect
"""
X265 = """\
[libx265 @ 0x55c7874ec680] [warning] Unknown option: nonsense.
x265 [error]: Aq-Mode is out of range
[libx265 @ 0x55c7874ec680] [error] Cannot open libx265 encoder.
"""
NOT_VIDEO = """\
[in#0 @ 0x5597fbfb9e40] [error] Error opening input: Invalid data found when processing input
[error] Error opening input file file:x.txt.
[fatal] Error opening input files: Invalid data found when processing input
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (NVENC.format(reason="Cannot load libcuda.so.1"), "[h264_nvenc] Cannot load libcuda.so.1"),
        (
            NVENC.format(reason="OpenEncodeSessionEx failed: unsupported device (2): (no details)"),
            "[h264_nvenc] OpenEncodeSessionEx failed: unsupported device (2): (no details)",
        ),
        (NVENC.format(reason="No capable devices found"), "[h264_nvenc] No capable devices found"),
        (QSV, "[VAAPI] No VA display found for device /dev/dri/renderD128"),
        (QSV_SESSION, "[AVHWDeviceContext] Error creating a MFX session: -9"),
        (VAAPI_PROFILE, "[hevc_vaapi] No usable encoding profile found"),
        (VIDEOTOOLBOX_ABSENT, "[vost#0:0] Unknown encoder 'h264_videotoolbox'"),
        (
            VIDEOTOOLBOX_BUSY,
            "[h264_videotoolbox] Try -allow_sw 1. The hardware encoder may be busy",
        ),
        (X265, "x265 [error]: Aq-Mode is out of range"),
        (NOT_VIDEO, "[in#0] Error opening input: Invalid data found when processing input"),
        ("[info] Input #0\n[h264 @ 0x5] [warning] so so\nSvt[info]: SVT\n", ""),
    ],
)
def test_the_reason_is_the_cause_not_what_followed(log, reason):
    assert reason_of(log) == reason


@pytest.fixture
def session_of(fake):
    def make(otherwise):
        return FfmpegSession(find_ffmpeg(fake(otherwise=otherwise)))

    return make


def test_a_run_ends_in_its_log_or_in_a_reason(session_of, tmp_path):
    with session_of("echo fine >&2") as session:
        assert session.run(["x"], folder=tmp_path, timeout_s=20) == "fine\n"
    for otherwise, reason in {
        "echo '[error] no way' >&2; exit 4": "no way",
        "exit 4": "ffmpeg ended with code 4",
        "kill -11 $$": "ffmpeg was killed by signal 11",
    }.items():
        with session_of(otherwise) as session, pytest.raises(CannotRun) as failure:
            session.run(["x"], folder=tmp_path, timeout_s=20)
        assert str(failure.value) == reason


def test_a_program_that_hangs_is_stopped(session_of, tmp_path):
    with session_of("exec sleep 60") as session, pytest.raises(CannotRun) as failure:
        session.run(["x"], folder=tmp_path, timeout_s=0.2)
    assert str(failure.value) == "ffmpeg was stopped after 0.2 s"


def test_what_a_script_leaves_behind_ends_with_the_session(session_of, tmp_path):
    with session_of("sleep 60 & echo $! > pid; wait") as session:
        with pytest.raises(CannotRun):
            session.run(["x"], folder=tmp_path, timeout_s=0.5)
        pid = int((tmp_path / "pid").read_text())
        assert _runs(pid)
    _wait_for(lambda: None if _runs(pid) else True)


def test_a_program_that_vanished_is_said(session_of, tmp_path):
    with session_of("exit 0") as session:
        Path(session.ffmpeg.path).unlink()
        with pytest.raises(CannotRun, match=r"did not start \(No such file or directory\)"):
            session.run(["x"], folder=tmp_path, timeout_s=20)


def test_an_error_in_the_pool_ends_what_its_threads_wait_for(session_of, tmp_path):
    waits = []

    def interrupted():
        with session_of("exec sleep 60") as session, session.pool(2) as pool:
            options = {"folder": tmp_path, "timeout_s": 60}
            waits.extend(pool.submit(session.run, ["x"], **options) for _ in range(6))
            time.sleep(0.2)
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - started < 20
    assert all(wait.cancelled() or wait.exception() for wait in waits)


def test_nothing_starts_once_the_work_is_stopped(session_of, tmp_path):
    # It would join a process group that nobody kills again.
    with session_of("exit 0") as session:
        session.stop()
        with pytest.raises(CannotRun) as failure:
            session.run(["x"], folder=tmp_path, timeout_s=20)
    assert str(failure.value) == "ffmpeg was not started: the work was stopped"


def test_a_session_whose_guard_was_killed_still_ends_its_children(session_of, tmp_path):
    ended = []

    def work(session):
        with pytest.raises(CannotRun) as failure:
            session.run(["x"], folder=tmp_path, timeout_s=60)
        ended.append(str(failure.value))

    with session_of("echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 60") as session:
        session._guard.kill()
        _wait_for(lambda: not _runs(session._guard.pid))
        thread = threading.Thread(target=work, args=[session])
        thread.start()
        pid = int(_wait_for((tmp_path / "pid").read_text))
        assert _runs(pid)
        session.stop()
        thread.join(20)
        assert not thread.is_alive()
    assert ended == ["ffmpeg was killed by signal 9"]
    assert not _runs(pid)


def test_a_session_that_is_stopped_twice_kills_once(session_of, monkeypatch):
    """After the first time its number may be that of another group."""
    killed = []
    killpg = os.killpg

    def kill(group, number):
        killed.append((group, number))
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", kill)
    with session_of("exit 0") as session:
        assert session._guard.pid == os.getpgid(session._guard.pid) != os.getpgid(0)
        session.stop()
    assert killed == [(session._guard.pid, signal.SIGKILL)]


CHILD = """
import sys
from pathlib import Path
from loso.video.ffmpeg import FfmpegSession, find_ffmpeg
with FfmpegSession(find_ffmpeg(sys.argv[1])) as session:
    session.run(["x"], folder=Path(sys.argv[2]), timeout_s=60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_a_process_that_is_killed(fake, tmp_path, number):
    program = fake(otherwise="echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 60")
    parent = subprocess.Popen([sys.executable, "-c", CHILD, program, str(tmp_path)])
    try:
        pid = int(_wait_for((tmp_path / "pid").read_text))
        parent.send_signal(number)
        assert parent.wait(20) == -number
        _wait_for(lambda: None if _runs(pid) else True)
    finally:
        parent.kill()
        parent.wait()


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def _wait_for(question, limit_s=20.0):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            answer = question()
        except OSError:
            answer = None
        if answer:
            return answer
        time.sleep(0.02)
    pytest.fail("waited in vain")
