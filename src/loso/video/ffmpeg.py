"""ffmpeg itself: which one, what it can do, and running it so that no child is left behind."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from loso.errors import CannotRun, MissingTool
from loso.video.said import Said, painted, reason_of

__all__ = ["Ffmpeg", "FfmpegSession", "ask", "demuxers_of", "find_ffmpeg"]

_OLDEST_LIBAVCODEC: Final = 59
"""Of ffmpeg 5: the first whose libvmaf carries its models (of 5.1: that knows -fps_mode)."""
_LOOPBACK_LIBAVCODEC: Final = 61
"""Of ffmpeg 7.0, the first that decodes its own output in one process (-dec)."""


@dataclass(frozen=True)
class Ffmpeg:
    """One ffmpeg program."""

    path: str
    origin: str
    """Where it was found: --ffmpeg, LOSO_FFMPEG, imageio-ffmpeg or PATH."""
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
                return _inspect(path, origin)
            except MissingTool as unfit:
                raise MissingTool(
                    f"this ffmpeg {unfit}", where=f"{origin} {path}", fix="give one with libvmaf"
                ) from None
    reasons = []
    for path, origin in ((_bundled(), "imageio-ffmpeg"), (shutil.which("ffmpeg"), "PATH")):
        try:
            if path:
                return _inspect(path, origin)
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


def _inspect(path: str, origin: str) -> Ffmpeg:
    """Return what `path` is; MissingTool says what is wrong with it, as the end of a sentence."""
    program = shutil.which(path)
    if program is None:
        raise MissingTool("is not an executable file")
    about, filters, encoders = (
        ask(program, "-hide_banner", f"-{of}") for of in ("version", "filters", "encoders")
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
        origin=origin,
        version=version[1],
        configuration=configuration[1] if configuration else "",
        has_loopback=int(codec[1]) >= _LOOPBACK_LIBAVCODEC,
        encoders=frozenset(re.findall(r"^ V\S{5} (\w\S*)", encoders, re.MULTILINE)),
    )


def ask(program: str, *arguments: str, timeout_s: float = 60) -> str:
    """Return what a program that ends by itself prints; MissingTool says how it does not run.

    The sentence lacks its subject: the caller knows what the program is there for. Where a signal
    killed it, as systems short of memory send one, it is asked once more.
    """
    try:
        code, told, said = _answer([program, *arguments], timeout_s)
        if code < 0:
            code, told, said = _answer([program, *arguments], timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingTool(f"does not run ({error})") from None
    if code:
        first = f"{said}\n{told}".strip().partition("\n")[0]
        reason = f"exit code {code}" + (f": {first}" if first else "")
        raise MissingTool(f"does not run ({reason})")
    return told


def _answer(command: Sequence[str], timeout_s: float) -> tuple[int, str, str]:
    """Return the code that a program ends with, and what it wrote to stdout and to stderr."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        process_group=0,
    ) as child:
        try:
            told, said = child.communicate(timeout=timeout_s)
        except BaseException:
            # The whole group: what a script has started holds the pipes, too.
            os.killpg(child.pid, signal.SIGKILL)
            raise
        return child.returncode, told, said


@lru_cache
def demuxers_of(ffmpeg: Ffmpeg) -> tuple[str, ...]:
    """Return the names of all that `ffmpeg` can read, those of one reader apart from each other."""
    listed = ask(ffmpeg.path, "-hide_banner", "-demuxers")
    names = re.findall(r"^ D[ E.][ d.]? *(\S+)", listed.partition("--\n")[2], re.MULTILINE)
    if not names:
        raise MissingTool("does not list its demuxers as ffmpeg does", where=ffmpeg.path)
    return tuple(name for several in names for name in several.split(","))


_GUARD: Final = "import os, signal, sys; sys.stdin.read(); os.killpg(0, signal.SIGKILL)"


class FfmpegSession:
    """Runs ffmpeg in a process group that ends when the session ends, however it ends.

    When the session is left, the group is killed. A guard process leads it and waits on a pipe:
    where this process dies (kill -9 included), the pipe closes and the guard kills the group.
    Unlike a parent-death signal, this is safe with threads and not tied to Linux. All calls share
    the group: one that takes too long is killed by itself, and what a script has started ends with
    the session alone.
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
            if self._guard.returncode is not None:
                return
            # The guard may be dead. Until it is waited for, no other group can have its number.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._guard.pid, signal.SIGKILL)
            if self._guard.stdin is not None:
                self._guard.stdin.close()
            self._guard.wait()

    def run(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        timeout_s: float,
        verbose: bool = False,
        listen: Callable[[str], bool] = lambda _: False,
        again: Callable[[], object] | None = None,
    ) -> str:
        """Return what ffmpeg wrote to stderr; CannotRun with its own reason if it failed.

        `listen` hears each line as it comes, and those it returns true for are not kept. Of others
        beyond a megabyte or two, the start and the end are. With `again`, ffmpeg is started once
        more where a signal killed it, as systems short of memory send one: it is called before.
        """
        end = time.monotonic() + timeout_s
        code, stderr = self._run(arguments, folder, timeout_s, verbose=verbose, listen=listen)
        if code < 0 and again is not None and not self._stopped:
            again()
            left = max(end - time.monotonic(), 0.0)
            code, stderr = self._run(arguments, folder, left, verbose=verbose, listen=listen)
        if code < 0:
            raise CannotRun(f"ffmpeg was killed by signal {-code}")
        if code:
            raise CannotRun(reason_of(stderr) or f"ffmpeg ended with code {code}")
        return stderr

    def _run(
        self,
        arguments: Sequence[str],
        folder: Path,
        timeout_s: float,
        *,
        verbose: bool,
        listen: Callable[[str], bool],
    ) -> tuple[int, str]:
        """Return the code that ffmpeg ended with, and what it wrote to stderr."""
        level = "level+info" if verbose else "level+error"
        options = ["-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", level]
        child = self._start([self.ffmpeg.path, *options, *arguments], folder)
        said = Said(listen)
        with child:
            try:
                _hear(child, said, timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                raise CannotRun(f"ffmpeg was stopped after {timeout_s:g} s") from None
            except BaseException:
                child.kill()
                raise
        return child.returncode, said.text()

    def _start(self, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
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
                    bufsize=0,
                    process_group=self._guard.pid,
                    env=painted(os.environ) | {"SVT_LOG": "1"},
                )
            except OSError as error:
                raise CannotRun(f"ffmpeg did not start ({error.strerror})") from None


def _hear(child: subprocess.Popen[bytes], said: Said, timeout_s: float) -> None:
    """Hear a child out until it ends; TimeoutExpired where that takes longer."""
    end = time.monotonic() + timeout_s
    pipe = child.stderr.fileno() if child.stderr else -1
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0:
            if selector.select(min(left, _GLANCE_S)):
                chunk = os.read(pipe, 2**16)
                if not chunk:
                    break
                said.hear(chunk)
            elif child.poll() is not None:
                break  # another process holds the pipe, such as one that a script left behind
    child.wait(max(left, 0.0))


_GLANCE_S: Final = 0.5
"""How often to look whether a child that says nothing is still there."""
