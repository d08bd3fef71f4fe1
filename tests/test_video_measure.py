import json
import re
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from loso.errors import BadSettings, CannotRun
from loso.schema import CANONICAL_6
from loso.video.clips import Clip, ClipSettings, open_clip
from loso.video.encoders import ENCODERS, Rate
from loso.video.ffmpeg import FfmpegSession, find_ffmpeg
from loso.video.measure import (
    Encode,
    VmafModel,
    commands,
    measure,
    probe_libvmaf,
    read_scores,
)

FRAMES = 8
FASTEST = {"libx264": "medium", "libsvtav1": "11"}
MODEL = VmafModel()


@pytest.fixture(scope="module")
def session():
    with FfmpegSession(find_ffmpeg()) as session:
        yield session


@pytest.fixture(scope="module")
def make(tmp_path_factory, session):
    """Write a generated clip and open it."""

    def make(chain="format=yuv420p", *options, **settings):
        path = tmp_path_factory.mktemp("clip") / "clip.mkv"
        source = ["-f", "lavfi", "-i", "testsrc2=size=96x80:rate=25"]
        coding = ["-frames:v", f"{FRAMES}", "-vf", chain, *(options or ("-c:v", "ffv1"))]
        command = [session.ffmpeg.path, "-loglevel", "error", *source, *coding, f"{path}"]
        subprocess.run(command, check=True)
        return open_clip(path, ClipSettings(**settings), session, timeout_s=60)

    return make


def encode_of(name="libx264", quality=30, size=(96, 80), **options):
    encoder = ENCODERS[name]
    preset = options.pop("preset", FASTEST.get(name, encoder.presets[0]))
    rate = options.pop("rate", Rate("quality", quality))
    width, height = size
    return Encode(encoder=encoder, preset=preset, rate=rate, width=width, height=height, **options)


@pytest.fixture
def score(session, tmp_path):
    def score(clip, encode, *, two_step=False, model=MODEL, folder="work"):
        path = tmp_path / folder
        path.mkdir()
        options = {"folder": path, "timeout_s": 60, "two_step": two_step}
        return measure(clip, encode, model, session, **options)

    return score


def by_hand(ffmpeg, clip, coding, *, reference_format, coded_as, size, folder):
    """Encode to a file, decode to raw, score raw against raw: what anybody would do."""

    def run(*arguments):
        command = [ffmpeg, "-nostdin", "-loglevel", "error", *map(str, arguments)]
        subprocess.run(command, check=True, cwd=folder)

    def raw(pixel_format, width, height):
        size = f"{width}x{height}"
        return ("-f", "rawvideo", "-pix_fmt", pixel_format, "-video_size", size, "-framerate", 25)

    def write(opened, name, pixel_format, width, height, *, deep):
        """Write a raw file; 8 bits are the 10 bits that ffmpeg gives, rounded."""
        rounded = deep and not pixel_format.endswith("10le")
        written = f"{pixel_format}10le" if rounded else pixel_format
        resized = ("-vf", f"scale={width}:{height}:flags=bicubic,format={written}")
        run(*opened, *resized, "-fps_mode", "passthrough", "-f", "rawvideo", name)
        if rounded:
            wide = np.fromfile(folder / name, "<u2")
            np.minimum((wide + 2) // 4, 255).astype("u1").tofile(folder / name)

    deep_reference, deep_coded = reference_format.endswith("10le"), coded_as.endswith("10le")
    reference = (*raw(reference_format, 96, 80), "-i", "reference.yuv")
    write(("-i", clip), "reference.yuv", reference_format, 96, 80, deep=deep_reference)
    write(reference, "small.yuv", coded_as, *size, deep=deep_reference)
    run(*raw(coded_as, *size), "-i", "small.yuv", *coding, "-threads", 1, "coded.mkv")
    write(("-i", "coded.mkv"), "distorted.yuv", reference_format, 96, 80, deep=deep_coded)
    distorted = (*raw(reference_format, 96, 80), "-i", "distorted.yuv")
    vmaf = "libvmaf=log_fmt=json:log_path=hand.json"
    run(*distorted, *reference, "-lavfi", vmaf, "-f", "null", "-")
    frames = json.loads((folder / "hand.json").read_text())["frames"]
    return [frame["metrics"] for frame in frames]


X264 = "-c:v libx264 -crf 30 -preset medium"
VVENC = "-c:v libvvenc -qp 30 -preset faster"
LIKE_HARDWARE = replace(ENCODERS["libx264"], pixel_formats=("nv12",))


@pytest.mark.parametrize(
    ("reference_format", "encoder", "coding", "coded_as", "size"),
    [
        ("yuv420p", ENCODERS["libx264"], X264, "yuv420p", (96, 80)),
        ("yuv444p10le", ENCODERS["libx264"], X264, "yuv444p10le", (96, 80)),
        ("yuv420p", ENCODERS["libvvenc"], VVENC, "yuv420p10le", (96, 80)),
        ("yuv444p", ENCODERS["libvvenc"], VVENC, "yuv420p10le", (64, 64)),
        ("yuv422p10le", LIKE_HARDWARE, X264, "yuv420p", (96, 80)),
        ("yuv420p10le", LIKE_HARDWARE, X264, "yuv420p", (64, 64)),
    ],
)
def test_scores_are_those_of_ffmpeg_by_hand(
    make, score, session, tmp_path, reference_format, encoder, coding, coded_as, size
):
    clip = make(f"noise=alls=9:allf=t,format={reference_format}")
    measured = score(clip, replace(encode_of(encoder.name, size=size), encoder=encoder))
    hand = by_hand(
        session.ffmpeg.path,
        clip.path,
        coding.split(),
        reference_format=reference_format,
        coded_as=coded_as,
        size=size,
        folder=tmp_path,
    )
    assert list(measured.vmaf) == [frame["vmaf"] for frame in hand]
    for feature in CANONICAL_6:
        expected = [frame[f"integer_{feature}"] for frame in hand]
        assert list(measured.features[feature]) == expected
    assert len(measured.packet_bytes) == FRAMES
    assert len({*measured.vmaf}) > 1


@pytest.mark.parametrize("name", ["libx264", "libx265", "libsvtav1", "libvvenc", "libvpx-vp9"])
def test_two_steps_give_what_one_process_gives(make, score, name):
    clip = make("format=yuv422p10le")
    encode = encode_of(name, quality=35, size=(64, 64))
    one = score(clip, encode, folder="one")
    two = score(clip, encode, two_step=True, folder="two")
    assert one.vmaf == two.vmaf
    assert one.features == two.features
    assert one.packet_bytes == two.packet_bytes
    assert one.libvmaf == two.libvmaf


def test_no_raw_video_lies_on_the_disk(make, score, tmp_path):
    score(make(), encode_of())
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
        "packets.txt",
        "scores.json",
    ]


def test_a_start_takes_the_very_frames(make, score):
    whole = make("format=yuv420p")
    late = make("format=yuv420p", start_s=0.12, frames=4)
    cut = make("trim=start_frame=3:end_frame=7,setpts=N/25/TB,format=yuv420p")
    assert (late.frames, cut.frames) == (4, 4)
    assert score(late, encode_of(), folder="a").vmaf == score(cut, encode_of(), folder="b").vmaf
    assert (
        score(whole, encode_of(), folder="c").vmaf[:4] != score(cut, encode_of(), folder="d").vmaf
    )


FULL = "scale=out_range=pc,format=yuv420p"
AS_FULL = ("-c:v", "ffv1", "-color_range", "pc")


@pytest.mark.parametrize(
    ("odd", "options", "plain"),
    [
        ("scale=91:71,format=yuv420p", (), "scale=91:71,format=yuv420p,crop=90:70:0:0"),
        ("scale=91:71,format=yuv444p", (), "scale=91:71,format=yuv444p,crop=90:70:0:0"),
        (FULL, AS_FULL, f"{FULL},scale=in_range=pc:out_range=tv:flags=bicubic,format=yuv420p"),
    ],
)
def test_a_treated_clip_scores_as_one_that_was_treated_before(make, score, odd, options, plain):
    treated, before = make(odd, *options), make(plain)
    assert treated.remarks
    assert not before.remarks
    encode = encode_of(size=(before.width, before.height))
    one, other = score(treated, encode, folder="one"), score(before, encode, folder="other")
    assert one.vmaf == other.vmaf
    assert one.packet_bytes == other.packet_bytes


def test_a_smaller_rung_scores_lower_and_is_scored_at_full_size(make, score):
    clip = make()
    full = score(clip, encode_of(quality=10), folder="full")
    small = score(clip, encode_of(quality=10, size=(48, 40)), folder="small")
    assert sum(small.vmaf) < sum(full.vmaf)
    assert len(small.vmaf) == FRAMES


def test_the_true_rate_reaches_the_encoder(make, score):
    clip = make("format=yuv420p")
    # With a fifth of the frames a second, the same bitrate buys more bytes for each of them.
    slow = replace(clip, fps=clip.fps / 5)
    encode = encode_of("libx265", rate=Rate("bitrate", 50))
    at_25 = score(clip, encode, folder="at_25")
    at_5 = score(slow, encode, folder="at_5")
    assert sum(at_5.packet_bytes) > 1.5 * sum(at_25.packet_bytes)


def test_frames_that_do_not_match_are_refused(make, score):
    clip = make()
    short = replace(clip, frames=FRAMES + 1)
    with pytest.raises(CannotRun) as failure:
        score(short, encode_of())
    assert str(failure.value) == "frame counts differ: 9 of the reference, 8 coded, 8 scored"


class FakeSession:
    """Leaves the logs of a recorded run."""

    ffmpeg = find_ffmpeg()

    def __init__(self, packets, scores):
        self.packets, self.scores = packets, scores

    def run(self, *_, folder, **__):
        if self.packets is not None:
            (folder / "packets.txt").write_text(self.packets)
            (folder / "scores.json").write_text(json.dumps(self.scores))
        return ""


def packets_of(frames):
    return "".join(
        f"out= {output} st=  0 frame= {frame:5d} q= 38.0 f_size= {700 + frame:6d} s_size=    0KiB\n"
        for frame in range(frames)
        for output in (0, 1)
    )


def scores_of(frames, version="3.0.0", prefix="integer_"):
    metrics = {f"{prefix}{name}": 0.5 for name in CANONICAL_6} | {"vmaf": 50.0}
    return {"version": version, "frames": [{"metrics": metrics}] * frames}


@pytest.mark.parametrize(
    ("packets", "scored", "text"),
    [
        (8, 7, "frame counts differ: 8 of the reference, 8 coded, 7 scored"),
        (7, 8, "frame counts differ: 8 of the reference, 7 coded, 8 scored"),
        (8, 0, "libvmaf's log is not whole (IndexError('list index out of range'))"),
    ],
)
def test_recorded_logs_that_do_not_match_are_refused(make, tmp_path, packets, scored, text):
    fake = FakeSession(packets_of(packets), scores_of(scored))
    with pytest.raises(CannotRun) as failure:
        measure(make(), encode_of(), MODEL, fake, folder=tmp_path, timeout_s=9, two_step=False)
    assert str(failure.value) == text


def test_a_score_that_is_no_number_is_refused(make, tmp_path):
    scores = scores_of(FRAMES)
    scores["frames"][0]["metrics"]["integer_motion2"] = float("nan")
    fake = FakeSession(packets_of(FRAMES), scores)
    options = {"folder": tmp_path, "timeout_s": 9, "two_step": False}
    with pytest.raises(CannotRun, match=r"^libvmaf gave a motion2 that is no finite number$"):
        measure(make(), encode_of(), MODEL, fake, **options)


def test_logs_of_an_older_ffmpeg_are_read(make, tmp_path):
    line = "frame=     0 q= 38.0 PSNR= 0.00 f_size=   8764 s_size=        0kB type= I\n"
    fake = FakeSession(line * FRAMES, scores_of(FRAMES, "2.3.1", prefix=""))
    options = {"folder": tmp_path, "timeout_s": 9, "two_step": True}
    measured = measure(make(), encode_of(), MODEL, fake, **options)
    assert measured.packet_bytes == (8764,) * FRAMES
    assert measured.libvmaf == "2.3.1"


def test_a_missing_log_is_refused(make, tmp_path):
    options = {"folder": tmp_path, "timeout_s": 9, "two_step": False}
    with pytest.raises(CannotRun, match="libvmaf's log is not whole"):
        measure(make(), encode_of(), MODEL, FakeSession(None, None), **options)


CLIP = Clip(
    src="c",
    path=Path("/c.mkv"),
    sha256="0",
    frames=30,
    fps=Fraction(30000, 1001),
    width=640,
    height=360,
    pixel_format="yuv420p",
    decoded="640x360 yuv420p",
    input=("-i", "file:/c.mkv"),
    filters=("trim=start_frame=0:end_frame=30", "format=yuv420p"),
    remarks=(),
)
TIMING = "settb=1001/30000,setpts=N"
REFERENCE = f"[0:V:0]trim=start_frame=0:end_frame=30,format=yuv420p,{TIMING}"
BACK = f"scale=640:360:flags=bicubic,format=yuv420p,{TIMING}[distorted]"
VMAF = (
    "[distorted][reference]libvmaf=model=version=vmaf_v0.6.1:feature=name=adm|name=vif|name=motion"
    ":log_fmt=json:log_path=scores.json:n_threads=1:shortest=1:repeatlast=0[scored]"
    " -map [scored] -f null -"
)
LOOPBACK = (
    "-f null - -map [reference] -c:v wrapped_avframe -fps_mode passthrough -f null - "
    "-threads 1 -dec 0:0 -threads 1 -dec 1:0 "
    f"-filter_complex [dec:0]{BACK};[dec:1]{TIMING}[reference];{VMAF}"
)
OPENED = "-filter_complex_threads 1 -threads 1 -i file:/c.mkv"
TO_CODER = "fps=30000/1001,scale=320:180:flags=bicubic"
STATS = "-fps_mode passthrough -vstats_file packets.txt"
LISTED = "-fps_mode passthrough -stats_enc_post packets.txt -stats_enc_post_fmt f_size={size}"
"""Where two encoders are at work, of which one is to list its packets."""
NODE = "/dev/dri/renderD129"


@pytest.mark.parametrize(
    ("name", "device", "to_coder", "coding"),
    [
        ("libx264", "", "format=yuv420p", "-c:v libx264 -crf 30 -preset medium -threads 1"),
        (
            "hevc_nvenc",
            "",
            "format=yuv420p",
            "-c:v hevc_nvenc -rc vbr -b:v 0 -cq 30 -preset p4",
        ),
        (
            "av1_qsv",
            f"-init_hw_device qsv=hw,child_device={NODE} -filter_hw_device hw ",
            "format=nv12,hwupload=extra_hw_frames=64",
            "-c:v av1_qsv -global_quality 30 -preset medium",
        ),
        (
            "h264_vaapi",
            f"-init_hw_device vaapi=hw:{NODE} -filter_hw_device hw ",
            "format=nv12,hwupload",
            "-c:v h264_vaapi -rc_mode CQP -qp 30 -compression_level 4",
        ),
        ("h264_videotoolbox", "", "format=nv12", "-c:v h264_videotoolbox -q:v 30"),
    ],
)
def test_the_one_process_as_built(name, device, to_coder, coding):
    preset = ENCODERS[name].default_preset
    encode = encode_of(name, size=(320, 180), preset=preset, device=NODE)
    (line,) = commands(CLIP, encode, MODEL, two_step=False)
    assert " ".join(line) == (
        f"{device}{OPENED} -filter_complex {REFERENCE},split[reference][same];"
        f"[same]{TO_CODER},{to_coder}[coder] -map [coder] {coding} {LISTED} {LOOPBACK}"
    )


def test_the_two_steps_as_built():
    encode = encode_of("libsvtav1", size=(320, 180), preset="8")
    first, second = commands(CLIP, encode, MODEL, two_step=True)
    coding = "-c:v libsvtav1 -crf 30 -preset 8 -svtav1-params lp=1"
    assert " ".join(first) == (
        f"{OPENED} -filter_complex {REFERENCE},{TO_CODER},format=yuv420p[coder] "
        f"-map [coder] {coding} {STATS} -f obu coded.bin"
    )
    assert " ".join(second) == (
        f"{OPENED} -threads 1 -f obu -i coded.bin "
        f"-filter_complex {REFERENCE}[reference];[1:V:0]{BACK};{VMAF}"
    )


def test_a_model_is_a_version_or_a_file(tmp_path):
    file = tmp_path / "my model.json"
    file.write_text("{}")
    assert VmafModel.parse("version=vmaf_v0.6.1neg").option == "version=vmaf_v0.6.1neg"
    model = VmafModel.parse(f"path={file}")
    assert model.option == "path=model.json"
    assert model.identity().startswith("my model.json sha256:44136fa3")
    for text in ("vmaf_v0.6.1", "version=", "version=a:b", "path="):
        with pytest.raises(BadSettings) as refusal:
            VmafModel.parse(text)
        assert str(refusal.value) == (
            f"--vmaf-model: unreadable VMAF model, expected version=vmaf_v0.6.1 or path=FILE, "
            f"found {text!r}"
        )
    with pytest.raises(BadSettings, match=r"^--vmaf-model: no such VMAF model file, found /no$"):
        VmafModel.parse("path=/no")


def test_a_model_file_that_changes_is_refused_from_then_on(tmp_path):
    file, folder = tmp_path / "m.json", tmp_path / "cell"
    file.write_text("{}")
    folder.mkdir()
    model = VmafModel.parse(f"path={file}")
    model.install(folder)
    assert (folder / "model.json").read_text() == "{}"
    (folder / "model.json").unlink()
    for harm in (lambda: file.write_text("[]"), file.unlink):
        harm()
        with pytest.raises(BadSettings) as refusal:
            model.install(folder)
        assert str(refusal.value) == (
            f"--vmaf-model: changed while it was used, found path={file}; leave the file alone and "
            "run this again; what was finished before is kept"
        )
    assert list(folder.iterdir()) == []
    assert model.identity().startswith("m.json sha256:44136fa3")  # of what was measured with


def test_another_model_still_logs_the_canonical_six(make, score):
    clip = make()
    usual = score(clip, encode_of(), folder="usual")
    neg = score(clip, encode_of(), model=VmafModel("vmaf_v0.6.1neg"), folder="neg")
    assert neg.features == usual.features
    assert neg.vmaf != usual.vmaf


@pytest.mark.parametrize("other", ["bilinear", "bicubic+accurate_rnd"])
def test_machines_that_scale_otherwise_are_told_apart(session, tmp_path, monkeypatch, other):
    options = {"folder": tmp_path, "timeout_s": 60}
    _, usual = probe_libvmaf(MODEL, session, **options)
    run = session.run

    def elsewhere(arguments, **given):
        changed = [word.replace("flags=bicubic", f"flags={other}", 1) for word in arguments]
        return run(changed, **given)

    monkeypatch.setattr(session, "run", elsewhere)
    assert probe_libvmaf(MODEL, session, **options)[1] != usual


def test_libvmaf_is_tried_with_its_model(session, tmp_path):
    options = {"folder": tmp_path, "timeout_s": 60}
    version, scores = probe_libvmaf(MODEL, session, **options)
    assert re.fullmatch(r"\S+", version)
    assert len(read_scores(tmp_path / "scores.json")[1]["vmaf"]) == 3
    assert {probe_libvmaf(MODEL, session, **options) for _ in range(5)} == {(version, scores)}
    assert probe_libvmaf(VmafModel("vmaf_v0.6.1neg"), session, **options)[1] != scores
    with pytest.raises(BadSettings) as refusal:
        probe_libvmaf(VmafModel("vmaf_v9"), session, **options)
    assert str(refusal.value) == (
        "--vmaf-model: libvmaf does not score with this model ([Parsed_libvmaf_6] could not load "
        "libvmaf model with version: vmaf_v9), found version=vmaf_v9"
    )
    file = tmp_path / "m.json"
    file.write_text("{}")
    with pytest.raises(BadSettings, match=f"found path={file}$"):
        probe_libvmaf(VmafModel.parse(f"path={file}"), session, **options)
