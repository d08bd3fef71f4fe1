"""ffmpeg itself: which one, what it can do, and running it so that no child is left behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from loso.errors import CannotRun, MissingTool

__all__ = ["Ffmpeg", "FfmpegSession", "find_ffmpeg", "reason_of"]

_OLDEST_LIBAVCODEC: Final = 59
"""Of ffmpeg 5: the first whose libvmaf carries its models (of 5.1: that knows -fps_mode)."""
_LOOPBACK_LIBAVCODEC: Final = 61
"""Of ffmpeg 7.0, the first that decodes its own output in one process (-dec)."""


@dataclass(frozen=True)
class Ffmpeg:
    """One ffmpeg program."""

    path: str
    version: str
    configuration: str
    has_loopback: bool
    encoders: frozenset[str]
    """Names of what it was built with; whether one works here is another matter."""


def find_ffmpeg(explicit: str = "") -> Ffmpeg:
    """Return the ffmpeg to use: `explicit`, LOSO_FFMPEG, imageio-ffmpeg's, then the PATH's.

    One that is asked for by name must serve; of the other two the first with libvmaf does.
    MissingTool says why each one that was looked at does not.
    """
    for path, origin in ((explicit, "--ffmpeg"), (os.environ.get("LOSO_FFMPEG"), "LOSO_FFMPEG")):
        if path:
            try:
                return _inspect(path)
            except MissingTool as unfit:
                raise MissingTool(
                    f"this ffmpeg {unfit}", where=f"{origin} {path}", fix="give one with libvmaf"
                ) from None
    reasons = []
    for path, origin in ((_bundled(), "imageio-ffmpeg"), (shutil.which("ffmpeg"), "PATH")):
        try:
            if path:
                return _inspect(path)
            reasons.append(f"the one of {origin} is not there")
        except MissingTool as unfit:
            reasons.append(f"the one of {origin} {unfit}")
    raise MissingTool(
        "no usable ffmpeg",
        found=", ".join(reasons),
        fix="pip install imageio-ffmpeg, or give --ffmpeg PATH",
    )


def _bundled() -> str | None:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def _inspect(path: str) -> Ffmpeg:
    """Return what `path` is; MissingTool says what is wrong with it, as the end of a sentence."""
    program = shutil.which(path)
    if program is None:
        raise MissingTool("is not an executable file")
    about, filters, encoders = (
        _ask(program, f"-{of}") for of in ("version", "filters", "encoders")
    )
    version = re.search(r"^ffmpeg version (\S+)", about, re.MULTILINE)
    codec = re.search(r"^libavcodec\s+(\d+)", about, re.MULTILINE)
    if version is None or codec is None:
        raise MissingTool("does not answer -version as ffmpeg does")
    if int(codec[1]) < _OLDEST_LIBAVCODEC:
        raise MissingTool(f"(version {version[1]}) is older than 5.1")
    if not re.search(r"^\s*\S+\s+libvmaf\s", filters, re.MULTILINE):
        raise MissingTool(f"(version {version[1]}) lacks the filter libvmaf")
    configuration = re.search(r"^configuration: (.*)", about, re.MULTILINE)
    return Ffmpeg(
        path=str(Path(program).absolute()),
        version=version[1],
        configuration=configuration[1] if configuration else "",
        has_loopback=int(codec[1]) >= _LOOPBACK_LIBAVCODEC,
        encoders=frozenset(re.findall(r"^ V\S{5} (\w\S*)", encoders, re.MULTILINE)),
    )


def _ask(program: str, question: str) -> str:
    try:
        return subprocess.run(
            [program, "-hide_banner", question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=60,
        ).stdout
    except subprocess.CalledProcessError as error:
        raise MissingTool(f"does not run (exit code {error.returncode})") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingTool(f"does not run ({error})") from None


_GUARD: Final = "import os, signal, sys; sys.stdin.read(); os.killpg(0, signal.SIGKILL)"


class FfmpegSession:
    """Runs ffmpeg in a process group that ends when the session ends, however it ends.

    A guard process leads the group and waits on a pipe. When the session is left, or this process
    dies (kill -9 included), the pipe closes and the guard kills the group. Unlike a parent-death
    signal, this is safe with threads and not tied to Linux.
    """

    def __init__(self, ffmpeg: Ffmpeg) -> None:
        self.ffmpeg = ffmpeg
        self._starting = threading.Lock()
        self._stopped = False

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @contextmanager
    def pool(self, jobs: int) -> Iterator[ThreadPoolExecutor]:
        """Yield threads to run in; an error or Ctrl-C in the block ends what they wait for."""
        pool = ThreadPoolExecutor(jobs)
        try:
            yield pool
        except BaseException:
            self.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """Kill every child that is left; `run` in other threads then ends with an error."""
        with self._starting:
            self._stopped = True
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()

    def run(
        self, arguments: Sequence[str], *, folder: Path, timeout_s: float, verbose: bool = False
    ) -> str:
        """Return what ffmpeg wrote to stderr; CannotRun with its own reason if it failed."""
        level = "level+info" if verbose else "level+error"
        options = ["-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", level]
        child = self._start([self.ffmpeg.path, *options, *arguments], folder)
        with child:
            try:
                _, stderr = child.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                raise CannotRun(f"ffmpeg was stopped after {timeout_s:g} s") from None
        if child.returncode < 0:
            raise CannotRun(f"ffmpeg was killed by signal {-child.returncode}")
        if child.returncode:
            raise CannotRun(reason_of(stderr) or f"ffmpeg ended with code {child.returncode}")
        return stderr

    def _start(self, command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
        # Under a lock: a child that joined the group after it was killed would be left behind.
        with self._starting:
            if self._stopped:
                raise CannotRun("ffmpeg was not started: the work was stopped")
            try:
                return subprocess.Popen(
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    errors="replace",
                    process_group=self._guard.pid,
                    env=os.environ | {"SVT_LOG": "1", "AV_LOG_FORCE_NOCOLOR": "1"},
                )
            except OSError as error:
                raise CannotRun(f"ffmpeg did not start ({error.strerror})") from None


_CONSEQUENCES: Final = re.compile(
    r"Error (applying|initializing|opening|parsing|processing|reinitializing|selecting|sending"
    r"|setting|splitting|while)\b|Error : |Conversion failed|Task finished with|Last message"
    r"|Terminating thread|Nothing was written|Could not open encoder|Cannot open lib"
    r"|Device (creation|setup) failed|Failed to set value"
)
"""How lines begin in which ffmpeg tells what followed from an error."""
_LEVEL: Final = re.compile(r"\[(panic|fatal|error|warning|info)\] ")
_ADDRESS: Final = re.compile(r" @ 0x[0-9a-f]+\]")


def reason_of(stderr: str) -> str:
    r"""Return ffmpeg's own reason for a failure: its last complaint that is not a consequence.

    Where there are only consequences, the first. Libraries that write past ffmpeg's log count if
    they say "error"; an empty text means that nobody complained.

    >>> reason_of("[h264_nvenc @ 0x5] [error] Cannot load libcuda.so.1\n[error] Conversion failed!")
    '[h264_nvenc] Cannot load libcuda.so.1'
    """
    causes: list[str] = []
    consequences: list[str] = []
    for line in stderr.splitlines():
        level = _LEVEL.search(line)
        if level[1] in {"warning", "info"} if level else "error" not in line.lower():
            continue
        text = _ADDRESS.sub("]", _LEVEL.sub("", line)).strip()
        said = re.sub(r"^(\[[^\]]*\] )+", "", text)
        (consequences if _CONSEQUENCES.match(said) else causes).append(text)
    said_last = causes[-1:] or consequences[:1] or [""]
    return said_last[0].rstrip(".")
