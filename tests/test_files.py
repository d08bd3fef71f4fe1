import errno
import os
import subprocess
import sys
import time

import pytest

from loso.errors import BadInput, Busy, CannotRun
from loso.files import (
    folder_lock,
    make_folder,
    read_json,
    read_regular,
    sha256_of,
    to_json,
    write_atomic,
    write_json,
)


def test_json_is_sorted_whole_and_never_nan(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": [None, 0.1]})
    assert path.read_text() == '{\n  "a": [\n    null,\n    0.1\n  ],\n  "b": 1\n}\n'
    assert read_json(path) == {"a": [None, 0.1], "b": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(float("nan"))


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


def test_a_lock_dies_with_its_owner(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from loso.files import folder_lock\n"
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
