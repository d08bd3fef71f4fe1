"""Runs loso in forks of one warm process, each with a fault of its own.

A request is a line of JSON on stdin, its answer a line on stdout. Faults strike where a file is
about to be written or has just been, by its name: `write_atomic` is wrapped before any module of
loso takes it, and what it wraps is the real one. The faults are real too: a full file system, a
folder that may not be written to, SIGKILL.
"""

import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from loso import files

REAL = files.write_atomic
HANGS_AFTER_S = 100
ENOUGH = 2**26

asked: dict = {}
wrote: list[tuple[str, str]] = []
warm: set[str] = set()


def write_atomic(path, **options):
    frame = sys._getframe(1)
    while frame.f_code in {files.write_json.__code__, files.write_hashed.__code__}:
        frame = frame.f_back
    module = frame.f_globals["__name__"].removeprefix("loso.")
    wrote.append((path.name, f"{module}.{frame.f_code.co_qualname}"))
    return _written(path, options)


@contextmanager
def _written(path, options):
    first = sum(name == path.name for name, _ in wrote) == 1
    hit = first and fnmatch(path.name, asked["target"])
    if hit and asked["when"] == "before":
        FAULTS[asked["fault"]](path)
    with REAL(path, **options) as temporary:
        yield temporary
        if hit and asked["when"] == "written":
            FAULTS[asked["fault"]](path)


def fill(_):
    """Leave no byte on the file system that holds the filler."""
    with Path(asked["filler"]).open("wb", buffering=0) as filler:
        for size in (2**16, 2**12, 1):
            with suppress(OSError):
                while filler.tell() < ENOUGH:
                    filler.write(b"\0" * size)


def limit(_):
    """Let no file grow at all, as a quota does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def deny(path):
    """Take away the right to make files in the folder of `path`, from root too."""
    path.parent.chmod(0o555)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()  # no capability is left
    if ctypes.CDLL(None).capset(header, nothing):
        raise SystemExit("capset")


def kill(_):
    os.kill(os.getpid(), signal.SIGKILL)


def stop(_):
    os.kill(os.getpid(), signal.SIGSTOP)


def remove(path):
    shutil.rmtree(path.parent)


FAULTS = {"full": fill, "limit": limit, "deny": deny, "kill": kill, "stop": stop, "remove": remove}


def child(request, result):
    asked.update(request)
    signal.alarm(HANGS_AFTER_S)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", line_buffering=True) for _ in range(2))
    sys.stdout, sys.stderr = out, err
    sys.argv = ["loso", *request["words"]]
    os.chdir(request["folder"])
    from loso.cli import main

    if request["when"] == "start":
        FAULTS[request["fault"]](Path(request["target"]))
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (what Python would print at the end)
        traceback.print_exc()
        code = 70
    if request["fault"] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    texts = {
        name: stream.buffer.getvalue().decode()
        for name, stream in (("out", out), ("err", err))
        if stream.flush() is None
    }
    loaded = [name for name in sys.modules if name not in warm]
    answer = {"code": code, "wrote": wrote, "loaded": loaded, **texts}
    result.write(json.dumps(answer).encode())
    result.flush()


def wait(pid, result):
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return {"stopped": pid}
    result.seek(0)
    written = result.read()
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    if not written:
        return {"code": code, "wrote": [], "out": "", "err": ""}
    answer = json.loads(written)
    load(answer.pop("loaded"))
    return answer


def load(names):
    """Import what a fork had to import, so that the next one has it already."""
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)
        warm.add(name)


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def serve():
    waiting = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "signal" in request:
            pid = request["pid"]
            os.kill(pid, request["signal"])
            answer = wait(pid, waiting.pop(pid))
        else:
            result = tempfile.TemporaryFile()  # noqa: SIM115 (the fork and its parent share it)
            pid = os.fork()
            if not pid:
                code = 70
                try:
                    child(request, result)
                    code = 0
                finally:
                    os._exit(code)
            answer = wait(pid, result)
            if "stopped" in answer:
                waiting[pid] = result
        say(answer)


if __name__ == "__main__":
    files.write_atomic = write_atomic
    import loso

    # torch and its like have no part in what is tried here, and take seconds.
    slow = ("batched", "counter_torch", "reference", "sklearn")
    modules = (module.name for module in pkgutil.walk_packages(loso.__path__, "loso."))
    load(name for name in modules if not name.endswith(slow))
    gc.freeze()  # what is shared with forks stays shared
    say({})
    serve()
