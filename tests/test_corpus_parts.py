import json
import os
from pathlib import Path

import pytest

from loso.corpus.parts import Parts, folder_for
from loso.errors import BadSettings, Busy, CannotRun
from loso.schema import CANONICAL_6
from loso.video.measure import Measurement

MARK = "ab" * 32
MEASURED = Measurement(
    vmaf=(99.5, 0.1),
    features=dict.fromkeys(CANONICAL_6, (0.25, 1.5)),
    packet_bytes=(700, 8),
    libvmaf="3.0.0",
    seconds=0.25,
)


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path / "corpus.jsonl.parts")


def test_no_folder_is_looked_through_for_a_part(parts, monkeypatch):
    """Else 100,000 parts would take the square of that."""

    def looked(folder):
        raise AssertionError(folder)

    monkeypatch.setattr("loso.files.sweep_folder", looked)
    parts.save(MARK, MEASURED)
    assert parts.load(MARK) == MEASURED


def test_what_is_saved_is_loaded(parts):
    assert parts.load(MARK) is None
    parts.save(MARK, MEASURED)
    assert parts.load(MARK) == MEASURED
    assert [path.name for path in parts.folder.iterdir()] == [f"{MARK}.part"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"99.5", b"99.9"),
        lambda content: content + b"\n",
        lambda _: b"",
        lambda _: b"\xff\xfe",
    ],
)
def test_a_damaged_part_is_not_there(parts, damage):
    parts.save(MARK, MEASURED)
    path = parts.folder / f"{MARK}.part"
    path.write_bytes(damage(path.read_bytes()))
    assert parts.load(MARK) is None


def test_a_part_under_another_name_is_not_there(parts):
    parts.save(MARK, MEASURED)
    other = "cd" * 32
    (parts.folder / f"{MARK}.part").rename(parts.folder / f"{other}.part")
    assert parts.load(other) is None


def test_a_part_is_a_hash_and_one_json_object(parts):
    parts.save(MARK, MEASURED)
    digest, text = (parts.folder / f"{MARK}.part").read_text().splitlines()
    assert len(digest) == 64
    assert json.loads(text)["fingerprint"] == MARK


def test_a_store_is_held_by_one_and_swept_of_what_a_killed_one_left(parts):
    parts.save(MARK, MEASURED)
    (parts.folder / ".0123456789abcdef.77.tmp").write_text("half a part")
    (parts.folder / "work" / "tmpx").mkdir(parents=True)
    (parts.folder / "work" / "tmpx" / "coded.bin").write_text("half a film")
    with parts.hold():
        assert sorted(path.name for path in parts.folder.iterdir()) == [".lock", f"{MARK}.part"]
        with pytest.raises(Busy) as refusal, Parts(parts.folder).hold():
            pass
        assert str(refusal.value) == (
            f"{parts.folder}: another process is using this folder for a build; "
            "wait for it to end, or choose another folder"
        )
    assert parts.load(MARK) == MEASURED


def test_a_cell_works_in_a_folder_of_its_own(parts):
    with parts.hold():
        with parts.work_folder() as one, parts.work_folder() as other:
            assert one != other
            (one / "packets.txt").write_text("x")
        assert not Path(one).exists()
    assert not (parts.folder / "work").exists()


@pytest.mark.parametrize(("number", "kind"), [(28, CannotRun), (13, BadSettings)])
def test_a_folder_that_takes_no_file_is_refused_by_who_is_to_blame(
    tmp_path, monkeypatch, number, kind
):
    def fail(**_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("loso.corpus.parts.TemporaryFile", fail)
    message = f"the corpus cannot be kept here \\({os.strerror(number)}\\)"
    with pytest.raises(kind, match=message), folder_for("the corpus", tmp_path):
        pass
