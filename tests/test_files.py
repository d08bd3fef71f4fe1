import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from loso.errors import BadInput, Busy, CannotRun
from loso.files import (
    make_folder,
    read_file,
    read_hashed,
    read_json,
    read_regular,
    sha256_of,
    to_json,
    write_atomic,
    write_hashed,
    write_json,
)
from loso.locks import folder_lock


def test_json_is_sorted_whole_and_never_nan(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": [None, 0.1]})
    assert path.read_text() == '{\n  "a": [\n    null,\n    0.1\n  ],\n  "b": 1\n}\n'
    assert read_json(path) == {"a": [None, 0.1], "b": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(float("nan"))


HASHED = hashlib.sha256(b'{"a": 1}\n').hexdigest().encode() + b'\n{"a": 1}\n'


def test_a_hashed_line_is_its_hash_and_itself(tmp_path):
    path = tmp_path / "a"
    assert read_hashed(path) is None
    write_hashed(path, '{"a": 1}')
    assert path.read_bytes() == HASHED
    assert read_hashed(path) == {"a": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        HASHED[:-1],
        HASHED[:70],
        HASHED + b"\n",
        HASHED.upper(),
        HASHED[65:],
        b"\xff\xfe",
    ],
)
def test_a_hashed_line_that_is_not_whole_is_not_there(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert read_hashed(tmp_path / "a") is None


@pytest.mark.parametrize("line", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_a_whole_line_that_is_not_json_is_not_there(tmp_path, line):
    digest = hashlib.sha256(line).hexdigest().encode()
    (tmp_path / "a").write_bytes(digest + b"\n" + line)
    assert read_hashed(tmp_path / "a") is None


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"n\xff")
    message = re.escape(f"{str(folder)!r}: its name is not UTF-8, and records name their files;")
    for work in (make_folder, lambda path: write_json(path / "a.json", 1)):
        with pytest.raises(BadInput, match=message):
            work(folder)
    with pytest.raises(BadInput, match=message), folder_lock(folder, "training"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("inf"))

    def fail():
        with write_atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    path = tmp_path / ("é" * 127 + "x")
    write_json(path, 1)
    assert read_json(path) == 1


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no.json: file not found"):
        read_json(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(BadInput, match=r"bad.json: not valid JSON \(Expecting property name"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match=r"deep.json: not valid JSON"):
        read_json(tmp_path / "deep.json")
    with pytest.raises(BadInput, match=r": cannot be read \(Is a directory\)"):
        sha256_of(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match=r": cannot be written \(Is a directory\)"):
        write_json(tmp_path / "folder", 1)
    with pytest.raises(
        BadInput, match=r"bad.json/x: cannot be used as a folder \(Not a directory\)"
    ):
        make_folder(tmp_path / "bad.json" / "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.json", "deep.json", "folder"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_not_json(tmp_path, number):
    (tmp_path / "a.json").write_text(f'{{"a": {number}}}')
    with pytest.raises(BadInput, match=f"not valid JSON \\({number} is no number in JSON"):
        read_json(tmp_path / "a.json")


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(BadInput, match="expected a regular file of at most 4 bytes, no link"):
        read_regular(path, 4)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(BadInput, match="regular file of at most 5 bytes"):
            read_regular(tmp_path / name, 5)
    with pytest.raises(BadInput, match="file not found"):
        read_regular(tmp_path / "none", 5)


def test_a_record_is_read_through_links_and_never_from_a_pipe(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("a", "link"):
        assert read_file(tmp_path / name, 5) == b"12345"
    for name, problem in {
        "a": "5 bytes, 4 are read",
        "pipe": "neither a file nor a folder",
        "zero": "neither a file nor a folder",
        ".": "Is a directory",
    }.items():
        with pytest.raises(OSError, match=problem) as failure:
            read_file(tmp_path / name, 4)
        assert failure.value.filename == str(tmp_path / name)
        if name != "a":
            with pytest.raises(BadInput, match=rf"cannot be read \({problem}\)"):
                sha256_of(tmp_path / name)
    with pytest.raises(BadInput, match=r"pipe: cannot be read \(neither a file nor a folder\)"):
        read_json(tmp_path / "pipe")


def test_a_file_that_grows_is_not_read(monkeypatch, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    fstat = os.fstat

    def smaller(number):
        found = fstat(number)
        return os.stat_result([*found[:6], found.st_size - 1, *found[7:10]])

    monkeypatch.setattr("os.fstat", smaller)
    with pytest.raises(OSError, match="it grows while it is read"):
        read_file(path)


def test_a_lock_is_not_taken_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(BadInput, match="a link, not a lock"), folder_lock(tmp_path, "training"):
        pass
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("code", ["EDQUOT", "EIO", "ENOSPC", "EROFS"])
def test_a_disk_that_is_full_or_broken_is_no_bad_input(tmp_path, code):
    number = getattr(errno, code)
    with pytest.raises(CannotRun) as failure, write_atomic(tmp_path / "a.json"):
        raise OSError(number, os.strerror(number))
    assert str(failure.value) == f"{tmp_path}/a.json: cannot be written ({os.strerror(number)})"
    assert failure.value.exit_code == 3


@pytest.mark.parametrize(("number", "kind"), [(28, CannotRun), (27, CannotRun), (13, BadInput)])
@pytest.mark.parametrize("error", [OSError, ValueError])
def test_what_the_system_said_is_found_in_the_errors_of_others(tmp_path, number, kind, error):
    """polars reports a full disk as a ComputeError, or as an OSError without a number."""
    said = f"underlying IO error: something (os error {number})"
    with pytest.raises(kind) as failure, write_atomic(tmp_path / "a.parquet"):
        raise error(said)
    path = tmp_path / "a.parquet"
    assert str(failure.value) == f"{path}: cannot be written ({os.strerror(number)})"


def test_an_error_that_is_not_the_systems_passes(tmp_path):
    with pytest.raises(ValueError, match="mine"), write_atomic(tmp_path / "a"):
        raise ValueError("mine")
    unnumbered = r"a: cannot be written \(no number\)"
    with pytest.raises(BadInput, match=unnumbered), write_atomic(tmp_path / "a"):
        raise OSError("no number")
    with pytest.raises(CannotRun, match=r"^mine"), write_atomic(tmp_path / "a"):
        raise CannotRun("mine (os error 13)")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_removed_while_a_file_is_written_is_said(tmp_path):
    folder = tmp_path / "run"

    def write():
        with write_atomic(folder / "a") as temporary:
            temporary.write_text("whole")
            shutil.rmtree(folder)

    with pytest.raises(CannotRun, match=r"run/a: its folder was removed meanwhile"):
        write()
    assert not folder.exists()


def test_temporary_files_of_the_dead_are_removed(tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from loso.files import write_atomic\n"
        f"with write_atomic(Path({str(tmp_path)!r}) / 'a') as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    digest, place, pid, thread = left.name[1:].removesuffix(".tmp").split(".")

    def temporary(**other):
        parts = {"digest": digest, "place": place, "pid": pid, "thread": thread, **other}
        path = tmp_path / f".{'.'.join(parts.values())}.tmp"
        path.write_text("")
        return path

    alive = temporary(pid=f"{os.getpid()}")
    elsewhere = temporary(place="0" * 16)
    forgotten = temporary(place="1" * 16)
    os.utime(forgotten, (0, 0))
    others = [tmp_path / ".mine.tmp", tmp_path / f"x{left.name}"]
    for path in others:
        path.write_text("")
        os.utime(path, (0, 0))
    write_json(tmp_path / "b", 1)
    assert set(tmp_path.iterdir()) == {alive, elsewhere, *others, tmp_path / "b"}


def test_a_part_costs_the_same_however_many_there_are(tmp_path, monkeypatch):
    looked_at = []
    scandir = os.scandir
    monkeypatch.setattr("os.scandir", lambda folder: looked_at.append(folder) or scandir(folder))
    with write_atomic(tmp_path / "a", sweep=False) as temporary:
        temporary.write_text("whole")
    assert looked_at == []
    assert (tmp_path / "a").read_text() == "whole"
    write_json(tmp_path / "b", 1)
    assert looked_at == [tmp_path]


def test_a_folder_that_cannot_be_swept_can_be_written_to(tmp_path, monkeypatch):
    def fail(_):
        raise PermissionError(13, "no")

    monkeypatch.setattr("os.scandir", fail)
    write_json(tmp_path / "b", 1)
    assert read_json(tmp_path / "b") == 1


@pytest.mark.parametrize("made_again", [False, True])
def test_a_locked_folder_that_is_removed_is_said(tmp_path, made_again):
    folder = tmp_path / "run"

    def work(*, fail):
        with folder_lock(folder, "training"):
            shutil.rmtree(folder)
            if made_again:
                write_json(folder / "a.json", 1)
            if fail:
                raise OSError("mine")

    message = "run: the folder was removed or replaced while it was used for training; run the"
    with pytest.raises(CannotRun, match=message):
        work(fail=False)
    with pytest.raises(OSError, match="mine"):
        work(fail=True)


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise NotImplementedError("no flock here")

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    message = r"cannot be locked \(no flock here\)"
    with pytest.raises(CannotRun, match=message), folder_lock(tmp_path, "training"):
        pass


def test_a_lock_dies_with_its_owner(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from loso.locks import folder_lock\n"
        f"with folder_lock(Path({str(tmp_path)!r}), 'a test'):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        message = "another process is using this folder for training; wait for it to end"
        with pytest.raises(Busy, match=message), folder_lock(tmp_path, "training"):
            pass
        owner.kill()
    time.sleep(0.1)
    with folder_lock(tmp_path, "training"):
        pass


def test_an_error_in_the_block_is_not_the_locks(tmp_path):
    with pytest.raises(OSError, match="mine"), folder_lock(tmp_path, "training"):
        raise OSError("mine")
    with folder_lock(tmp_path, "training"):
        pass
