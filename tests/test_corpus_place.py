import errno
import os
import re
import shutil
import time
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from loso.corpus import place, remote, worker
from loso.corpus.parts import Parts
from loso.errors import BadClip, BadSettings, CannotRun, MissingTool
from loso.executors import UnfitWorker
from loso.files import sha256_of, write_hashed
from loso.video.clips import ClipSettings, identity_of
from loso.video.encoders import encoder_named
from loso.video.ffmpeg import find_ffmpeg
from loso.video.measure import Measurement, VmafModel
from loso.video.trial import trial_encode


def test_where_an_encoder_is_refused_no_other_trial_is_left_at_work(monkeypatch):
    """One that was would write into the folder while it is removed: another refusal altogether."""
    at_work = set()

    def try_encoder(encode, *_, folder, **__):
        if encode == "refused":
            while not at_work:
                time.sleep(0.01)
            raise MissingTool("does not work here", where=encode)
        at_work.add(encode)
        for number in range(50):
            (folder / f"{number}").touch()
            time.sleep(0.01)
        at_work.remove(encode)

    monkeypatch.setattr(place, "try_encoder", try_encoder)
    monkeypatch.setattr(place, "probe_libvmaf", lambda *_, **__: ("1.0", ""))
    way = SimpleNamespace(model="", timeout_s=1.0)
    trials = {("a", "", ""): "refused", ("b", "", ""): "slow"}
    with place.here(find_ffmpeg(), way, None, trials=trials, jobs=2) as here:
        with pytest.raises(MissingTool, match="refused: does not work here"):
            here.look([], ClipSettings())
        assert not at_work


# -- A worker that fails, and what it says of itself ----------------------------------------------


@dataclass(frozen=True)
class PlayedClip:
    path: Path
    sha256: str
    identity: tuple[int, ...]


@dataclass(frozen=True)
class PlayedCell:
    clip: PlayedClip


@dataclass
class Sick:
    """A worker whose trials and cells end as the test says."""

    errand: SimpleNamespace
    clip: PlayedClip
    trials: list = field(default_factory=list)
    work: object = None
    """What happens in a cell."""

    def measure(self):
        trial = trial_encode(encoder_named("libx264"), preset="ultrafast")
        worker.measure_for(self.errand, trial, "agreed", "mark", PlayedCell(self.clip))

    def begin(self):
        """Let the build begin now, after all that was done to the clip."""
        later = time.time() + 1
        os.utime(self.errand.parts / self.errand.sign, (later, later))


class PlayedErrand(SimpleNamespace):
    __hash__ = object.__hash__


@pytest.fixture
def sick(monkeypatch, tmp_path):
    path, sign = tmp_path / "clip.mkv", tmp_path / ".sign"
    path.write_bytes(b"content")
    os.utime(path, (1e9, 1e9))
    sign.touch()
    made = Sick(
        PlayedErrand(parts=tmp_path, sign=sign.name, method=None),
        PlayedClip(path, sha256_of(path), identity_of(path)),
        ["agreed"],
    )

    def try_encoder(*_, **__):
        outcome = made.trials.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(worker, "try_encoder", try_encoder)
    monkeypatch.setattr(worker, "measure_cell", lambda *_: made.work())
    monkeypatch.setattr(worker, "_SIGN_DELAY_S", 0.0)
    program = find_ffmpeg()
    monkeypatch.setattr(worker, "_own_ffmpeg", lambda _: program)
    return made


def raising(error):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize("failure", [CannotRun("ffmpeg failed"), OSError(28, "disk is full")])
@pytest.mark.parametrize(
    ("again", "reason"),
    [
        (
            MissingTool("does not work here (no device)", where="libx264"),
            r"can code no libx264 any longer \(libx264: does not work here \(no device\)\)",
        ),
        (OSError(28, "disk is full"), r"can code no libx264 any longer \(.*disk is full\)"),
        ("other", "libx264 codes otherwise here than where it was planned"),
    ],
)
def test_a_worker_whose_trial_fails_after_a_cell_is_unfit(sick, failure, again, reason):
    sick.trials.append(again)
    sick.work = raising(failure)
    with pytest.raises(UnfitWorker, match=reason):
        sick.measure()


def test_a_worker_without_room_for_a_folder_is_unfit(sick, monkeypatch, tmp_path):
    sick.trials.append("agreed")

    def lose_the_disk():
        monkeypatch.setattr(worker, "scratch_here", lambda: tmp_path / "gone")
        raise CannotRun("ffmpeg failed")

    sick.work = lose_the_disk
    with pytest.raises(UnfitWorker, match=r"can code no libx264 any longer .*No such file"):
        sick.measure()


def test_a_cell_that_fails_on_a_worker_in_order_has_failed(sick):
    sick.trials.append("agreed")
    sick.work = raising(CannotRun("ffmpeg failed"))
    with pytest.raises(CannotRun, match="ffmpeg failed"):
        sick.measure()
    assert sick.trials == []


def test_a_worker_that_can_no_longer_try_an_encoder_fails_no_cell(sick):
    sick.trials = [MissingTool("does not work here", where="libx264")]
    with pytest.raises(UnfitWorker, match="can code no libx264 any longer"):
        sick.measure()


def lost_parts(sick):
    return re.escape(
        f"does not see the folder of finished cells, found {sick.errand.parts}; all machines must "
        "see one folder under one path: give --parts on a shared disk"
    )


@pytest.mark.parametrize("fails", [True, False])
def test_a_worker_whose_share_of_parts_goes_in_mid_cell_is_unfit(sick, fails):
    """What it has kept then lies on a disk of its own."""

    def unmount():
        (sick.errand.parts / sick.errand.sign).unlink()
        if fails:
            raise CannotRun("cannot be written (Stale file handle)")

    sick.work = unmount
    with pytest.raises(UnfitWorker, match=lost_parts(sick)):
        sick.measure()


def test_a_worker_whose_share_of_parts_is_gone_begins_no_cell(sick):
    (sick.errand.parts / sick.errand.sign).unlink()
    sick.work = lambda: pytest.fail("it codes what it cannot keep")
    with pytest.raises(UnfitWorker, match=lost_parts(sick)):
        sick.measure()


def test_a_worker_whose_share_of_parts_is_stale_is_unfit(sick):
    sick.errand.parts /= "x" * 300  # as a stale handle, this is no mere "not there"
    with pytest.raises(UnfitWorker, match=lost_parts(sick)):
        worker.survey(sick.errand, [], {})


def test_a_worker_that_may_not_write_to_the_parts_any_longer_is_unfit(sick, monkeypatch):
    def remount():
        read_only = OSError(errno.EROFS, "Read-only file system")
        monkeypatch.setattr(worker, "NamedTemporaryFile", lambda **_: raising(read_only)())
        raise CannotRun("cannot be written (Read-only file system)")

    sick.trials.append("agreed")
    sick.work = remount
    reason = r"cannot write to the folder of finished cells \(Read-only file system\), found "
    with pytest.raises(UnfitWorker, match=reason):
        sick.measure()


def changed(*_):
    raise BadClip("changed while it was measured", where="clip.mkv")


def test_a_worker_that_loses_sight_of_a_clip_in_mid_cell_is_unfit(sick):
    def drop():
        sick.clip.path.unlink()
        changed()

    sick.work = drop
    with pytest.raises(UnfitWorker, match=r"does not see a clip, found nothing at .*clip\.mkv"):
        sick.measure()


def test_a_worker_that_sees_another_file_in_mid_cell_is_unfit(sick):
    def swap():
        sick.clip.path.write_bytes(b"another one")
        os.utime(sick.clip.path, (1e9 + 1, 1e9 + 1))
        sick.begin()
        changed()

    sick.work = swap
    with pytest.raises(UnfitWorker, match=r"sees another file than the clip, found .*clip\.mkv"):
        sick.measure()


def test_a_clip_that_was_written_to_in_mid_cell_ends_the_build(sick):
    def write():
        sick.clip.path.write_bytes(b"written to")
        os.utime(sick.clip.path, (time.time() + 1, time.time() + 1))
        changed()

    sick.work = write
    with pytest.raises(BadClip, match="is not the file that was looked at before"):
        sick.measure()


def test_a_clip_that_was_touched_in_mid_cell_ends_the_build(sick):
    def touch():
        sick.clip.path.touch()
        changed()

    sick.work = touch
    with pytest.raises(BadClip, match="changed while it was measured"):
        sick.measure()


def test_a_worker_whose_file_is_another_than_the_clip_is_unfit(sick):
    sick.clip.path.write_bytes(b"another one")
    os.utime(sick.clip.path, (1e9, 1e9))
    sick.begin()
    with pytest.raises(UnfitWorker, match="sees another file than the clip"):
        sick.measure()


@pytest.mark.parametrize("how", ["moved", "copied", "linked"])
def test_a_clip_that_an_older_file_replaced_ends_the_build(sick, tmp_path, how):
    old = tmp_path / "old.mkv"
    old.write_bytes(b"an older one")
    os.utime(old, (1e9 - 1, 1e9 - 1))
    time.sleep(0.05)  # a clock of the file system's own, which goes by ticks
    (sick.errand.parts / sick.errand.sign).touch()
    time.sleep(0.05)
    if how == "moved":
        old.replace(sick.clip.path)
    elif how == "copied":
        shutil.copy2(old, sick.clip.path)
    else:
        sick.clip.path.unlink()
        sick.clip.path.symlink_to(old)
    with pytest.raises(BadClip, match=r"clip\.mkv: is not the file that was looked at before"):
        sick.measure()


@pytest.mark.parametrize("gone", [True, False])
def test_a_model_that_changes_in_mid_cell_ends_the_build_unless_it_is_gone_here_alone(
    sick, tmp_path, gone
):
    file = tmp_path / "m.json"
    file.write_text("{}")
    model = VmafModel.parse(f"path={file}")
    sick.errand.method = SimpleNamespace(model=model)
    sick.trials.append("agreed")

    def change():
        if gone:
            file.unlink()
        else:
            file.write_text("[]")
        model.install(tmp_path)

    sick.work = change
    kind, text = (
        (UnfitWorker, r"does not see the VMAF model file, found nothing at .*m\.json")
        if gone
        else (BadSettings, "--vmaf-model: changed while it was used")
    )
    with pytest.raises(kind, match=text):
        sick.measure()


@pytest.mark.parametrize("gone", [True, False])
def test_a_worker_that_loses_sight_of_a_clip_while_it_looks_at_it_is_unfit(sick, monkeypatch, gone):
    def open_clip(path, *_, **__):
        if gone:
            path.unlink()
        raise BadClip("cannot be read (Stale file handle)", where=str(path))

    monkeypatch.setattr(worker, "open_clip", open_clip)
    sick.errand.method = SimpleNamespace(timeout_s=1.0)
    kind, text = (UnfitWorker, "does not see a clip") if gone else (BadClip, "Stale file handle")
    with pytest.raises(kind, match=text):
        worker.look_at_clip(sick.errand, sick.clip.path, ClipSettings())


def test_a_worker_that_lets_no_ffmpeg_look_at_a_clip_is_unfit(sick, monkeypatch):
    """Another one may: the clip is not to blame."""

    def open_clip(path, *_, **__):
        raise CannotRun("cannot be looked at here (ffmpeg was killed)", where=path.name)

    monkeypatch.setattr(worker, "open_clip", open_clip)
    sick.errand.method = SimpleNamespace(timeout_s=1.0)
    reason = r"clip\.mkv: cannot be looked at here \(ffmpeg was killed\)"
    with pytest.raises(UnfitWorker, match=reason):
        worker.look_at_clip(sick.errand, sick.clip.path, ClipSettings())


@pytest.mark.parametrize(("size", "fits"), [(7, True), (None, True), (8, False)])
def test_a_worker_that_sees_a_clip_of_another_size_than_the_client_is_unfit(
    sick, monkeypatch, size, fits
):
    """What it says of its own would be held against all others."""
    monkeypatch.setattr(worker, "open_clip", lambda *_, **__: "the clip")
    sick.errand.method = SimpleNamespace(timeout_s=1.0)
    sick.begin()
    if fits:
        found = worker.look_at_clip(sick.errand, sick.clip.path, ClipSettings(), size)
        assert found == "the clip"
        return
    with pytest.raises(UnfitWorker, match=r"sees another file than the clip, found .*clip\.mkv"):
        worker.look_at_clip(sick.errand, sick.clip.path, ClipSettings(), size)
    sick.clip.path.write_bytes(b"longer by now")
    os.utime(sick.errand.parts / sick.errand.sign, (1e9, 1e9))
    with pytest.raises(BadClip, match="is not the file that was looked at before"):
        worker.look_at_clip(sick.errand, sick.clip.path, ClipSettings(), size)


def test_a_worker_that_looks_at_a_clip_is_told_its_size(tmp_path):
    asked = []

    def submit(*call):
        asked.append(call)
        done = Future()
        done.set_result("a clip")
        return done

    mustered = Future()
    mustered.set_result({})
    crew = SimpleNamespace(
        muster=lambda: mustered, admit=lambda _: None, news=list, remark="", submit=submit
    )
    seen, unseen = tmp_path / "seen.mkv", tmp_path / "unseen.mkv"
    seen.write_bytes(b"content")
    errand = SimpleNamespace(libvmaf="1")
    far = remote._OnCluster(crew, errand, {}, lambda *_: None, print)
    far.look([seen, unseen], ClipSettings())
    assert [(call[0], call[2], call[4]) for call in asked] == [
        (worker.look_at_clip, seen, 7),
        (worker.look_at_clip, unseen, None),
    ]


@pytest.mark.parametrize("gone", [True, False])
def test_a_worker_that_loses_sight_of_a_clip_while_it_scans_it_is_unfit(sick, monkeypatch, gone):
    def scan_clip(clip, *_, **__):
        if gone:
            clip.path.unlink()
        raise CannotRun("ffmpeg failed")

    monkeypatch.setattr(worker, "scan_clip", scan_clip)
    sick.errand.method = SimpleNamespace(timeout_s=1.0)
    kind, text = (UnfitWorker, "does not see a clip") if gone else (CannotRun, "ffmpeg failed")
    with pytest.raises(kind, match=text):
        worker.scan_for(sick.errand, sick.clip)


@pytest.mark.parametrize(
    ("offered", "offers"), [({}, 0), ({"nvenc": 0}, 0), ({"nvenc": 0.5}, 0), ({"nvenc": 1}, 1)]
)
def test_a_worker_with_less_than_one_of_a_resource_does_not_offer_it(
    sick, monkeypatch, offered, offers
):
    """Its skill would let cells wait for it, and none would ever fit."""
    monkeypatch.setattr(worker, "resources_here", lambda: offered)
    trial = trial_encode(encoder_named("h264_nvenc"), preset="p4")
    seen = worker.survey(sick.errand, [sick.clip.path], {"h264_nvenc": trial})
    assert len(seen.hashes) == offers
    assert [str(refusal) for refusal in seen.refusals.values()] == [
        "h264_nvenc: the worker does not offer nvenc: start it with --resources nvenc=1"
    ] * (1 - offers)


def test_where_the_folder_of_parts_goes_in_mid_build_the_refusal_that_follows_stays(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(remote, "_probe", lambda *_: ("1", ""))
    cluster = SimpleNamespace(crew=lambda *_, **__: nullcontext())
    method = SimpleNamespace(model=VmafModel())
    store = Parts(tmp_path / "parts")

    def build(harm):
        store.folder.mkdir()
        with remote._on_cluster(
            *(cluster, find_ffmpeg(), method, store), clips=(), trials={}, progress=None, say=None
        ) as far:
            assert (store.folder / far._errand.sign).exists()
            harm()

    def vanish():
        shutil.rmtree(store.folder)
        raise CannotRun("a finished cell vanished")

    with pytest.raises(CannotRun, match="a finished cell vanished"):
        build(vanish)
    build(lambda: None)
    assert list(store.folder.iterdir()) == []


MEASURED = Measurement(vmaf=(90.0,), features={}, packet_bytes=(5,), libvmaf="3", seconds=1.0)


@pytest.mark.parametrize(
    ("finished", "makes", "agreed"),
    [
        ((), "aab", "a"),
        (("b",), "aab", "b"),
        (("b", "a", "a"), "aab", "a"),
        (("b", "b", "a"), "aab", "b"),
        (("c", "", ""), "aab", "a"),
        (("b",), "aa", "a"),
    ],
)
def test_a_build_that_goes_on_codes_as_its_finished_cells_were(tmp_path, finished, makes, agreed):
    for number, trial in enumerate(finished):
        Parts(tmp_path, trial=trial).save(f"{number}", MEASURED)
    (tmp_path / "damaged.part").write_bytes(b"no part")
    write_hashed(tmp_path / "other.part", "[1]")
    kind = ("libx264", "", "")
    reports = {f"{n}": worker.Survey({" ".join(kind): made}, {}) for n, made in enumerate(makes)}
    mustered, said = Future(), []
    mustered.set_result(reports)
    crew = SimpleNamespace(muster=lambda: mustered, admit=lambda _: None, news=list, remark="")
    errand = SimpleNamespace(libvmaf="1", parts=tmp_path)
    far = remote._OnCluster(crew, errand, {kind: None}, lambda *_: None, said.append)
    assert far.look([], ClipSettings()).hashes == {kind: agreed}
    others = sum(made != agreed for made in makes)
    text = f"{others} of 3 workers get no libx264 cells: it codes otherwise there than for this"
    assert said == ([f"warning: {text} corpus"] if others else [])


def test_a_worker_notes_in_a_part_what_its_encoder_makes_of_the_trial(sick, monkeypatch):
    monkeypatch.setattr(worker, "measure_cell", lambda *words: words[-1].save(words[0], MEASURED))
    sick.measure()
    store = Parts(sick.errand.parts)
    assert store.trials() == {"agreed": 1}
    assert store.load("mark") == MEASURED


def test_of_late_workers_it_is_said_once_which_encoders_they_lack():
    kinds = {(name, "", ""): None for name in ("libx264", "libx265")}
    skills = [" ".join(kind) for kind in kinds]
    able = worker.Survey(dict.fromkeys(skills, "agreed"), {})
    lacks = {skills[1]: MissingTool("was built without it", where="libx265")}
    told, judges = [], []
    mustered = Future()
    mustered.set_result({"a": able})
    crew = SimpleNamespace(
        muster=lambda: mustered, admit=judges.append, news=list, remark="", tell=told.append
    )
    errand = SimpleNamespace(libvmaf="1")
    far = remote._OnCluster(crew, errand, kinds, lambda *_: None, told.append)
    far.look([], ClipSettings())
    (judge,) = judges
    assert judge(able) == {"", *skills}
    assert told == []
    for _ in range(2):
        late = worker.Survey({skills[0]: "other"}, lacks)
        assert judge(late) == {""}
    assert told == [
        "a late worker gets no libx264 cells: it codes otherwise there than for this corpus",
        "a late worker gets no libx265 cells: was built without it",
    ]
