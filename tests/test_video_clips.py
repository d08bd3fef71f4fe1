import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest

from loso.errors import BadClip, BadSettings, CannotRun
from loso.video.allowed import guard
from loso.video.clips import _RAW_STREAMS, ClipSettings, _sha256, open_clip
from loso.video.ffmpeg import FfmpegSession, find_ffmpeg

SIZE, FRAMES = "64x48", 6


@pytest.fixture(scope="module")
def session():
    with FfmpegSession(find_ffmpeg()) as session:
        yield session


@pytest.fixture
def make(tmp_path, session):
    """Write a generated clip: `chain` filters it, `options` code it."""

    def make(name, chain="null", *options, frames=FRAMES, rate=25, before=()):
        path = tmp_path / name
        source = f"testsrc2=size={SIZE}:rate={rate}"
        command = [session.ffmpeg.path, "-loglevel", "error", "-y", *before]
        coding = ["-frames:v", f"{frames}", "-vf", chain, *(options or ("-c:v", "ffv1"))]
        file = f"file:{path}"
        subprocess.run([*command, "-f", "lavfi", "-i", source, *coding, file], check=True)
        return path

    return make


@pytest.fixture
def look(session):
    def look(path, **settings):
        return open_clip(path, ClipSettings(**settings), session, timeout_s=60)

    return look


@pytest.mark.parametrize(
    ("decoded", "reference"),
    [
        *((name, name) for name in ("yuv420p", "yuv444p", "yuv422p10le")),
        ("gray", "yuv420p"),
        ("gbrp10le", "yuv444p10le"),
        ("bgr0", "yuv444p"),
    ],
)
def test_the_reference_keeps_depth_and_sampling(make, look, decoded, reference):
    clip = look(make("clip.mkv", f"format={decoded}"))
    assert clip.pixel_format == reference
    assert clip.decoded == f"64x48 {decoded}"
    assert (clip.src, clip.frames, clip.fps) == ("clip", FRAMES, 25)
    assert (clip.width, clip.height) == (64, 48)
    remark = f"{decoded} converted to {reference}"
    assert (remark in clip.remarks) == (decoded != reference)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p10le"])
def test_an_odd_size_loses_its_last_column_and_row(make, look, pixel_format):
    clip = look(make("odd.mkv", f"scale=33:31,format={pixel_format}"))
    assert (clip.width, clip.height) == (32, 30)
    assert clip.filters[1] == "crop=32:30:0:0"
    assert clip.remarks == ("odd size 33x31 cropped to 32x30",)
    scaled = look(clip.path, scale=(20, 10))
    assert (scaled.width, scaled.height) == (20, 10)
    assert scaled.remarks == ()


@pytest.mark.parametrize(
    "options",
    [
        ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
        ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-color_range", "pc"),
    ],
)
def test_full_range_becomes_limited(make, look, options):
    clip = look(make("full.mkv", "scale=out_range=pc", *options))
    assert clip.pixel_format == "yuv420p"
    assert clip.filters[1].endswith("out_range=tv")
    assert clip.remarks == ("full range converted to limited range",)


def test_a_rotated_clip_is_turned_upright(make, look, tmp_path, session):
    lying = make("lying.mp4", "format=yuv420p", "-c:v", "libx264")
    path = tmp_path / "turned.mp4"
    turn = ["-display_rotation", "90", "-i", f"{lying}", "-c", "copy", f"{path}"]
    subprocess.run([session.ffmpeg.path, "-loglevel", "error", *turn], check=True)
    assert look(lying).remarks == ()
    clip = look(path)
    assert (clip.width, clip.height) == (48, 64)
    assert clip.remarks == ("turned upright as its display matrix says",)


def test_a_variable_rate_is_re_timed_at_its_average(make, look):
    # Frames 3 and 8 of 30 a second are missing: eight frames span nine thirtieths of a second.
    path = make("vfr.mkv", "select='not(eq(mod(n,5),3))',format=yuv420p", frames=8, rate=30)
    clip = look(path)
    assert clip.frames == 8
    assert clip.fps == Fraction(7, 1) / Fraction("0.3")
    assert clip.remarks == ("variable frame rate re-timed at its average, 23.3333 a second",)


@pytest.mark.parametrize(
    ("container", "rate"), [("mp4", "24000/1001"), ("mkv", "30000/1001"), ("mkv", "12")]
)
def test_a_constant_rate_is_exact_however_coarse_the_timestamps(make, look, container, rate):
    clip = look(make(f"c.{container}", "format=yuv420p", "-c:v", "libx264", rate=rate))
    assert clip.fps == Fraction(rate)
    assert clip.remarks == ()


def test_frames_are_counted_from_the_start_that_is_asked_for(make, look):
    path = make("long.mkv", "format=yuv420p", frames=25)
    assert look(path).frames == 25
    assert look(path, start_s=0.6).frames == 10
    assert look(path, start_s=0.6, frames=4).frames == 4
    assert "-ss" not in look(path).input
    with pytest.raises(BadClip) as refusal:
        look(path, start_s=0.6, frames=11)
    assert str(refusal.value) == (
        f"{path}: too few frames, expected 11 from 0.6 s on, found 10; "
        "ask for fewer with --frames, or start earlier with --start"
    )
    with pytest.raises(BadClip, match="expected 1 from 5 s on, found 0"):
        look(path, start_s=5.0)


@pytest.mark.parametrize("container", ["ts", "mkv", "mp4", "avi"])
@pytest.mark.parametrize(("start_s", "first"), [(0.2, 5), (0.52, 13), (0.8, 20)])
def test_the_first_frame_is_the_one_at_the_start(make, look, session, container, start_s, first):
    options = ("-c:v", "libx264", "-g", "15", "-x264-params", "open-gop=0")
    path = make(f"c.{container}", "format=yuv420p", *options, frames=30)

    def hashes(opening, chain):
        arguments = [*opening, "-vf", chain, "-fps_mode", "passthrough", "-f", "framemd5", "-"]
        command = [session.ffmpeg.path, "-loglevel", "error", *arguments]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [line.split()[-1] for line in text.splitlines() if not line.startswith("#")]

    clip = look(path, start_s=start_s, frames=8)
    assert clip.frames == 8
    every = hashes(("-i", path), "null")
    assert hashes(clip.input, ",".join(clip.filters)) == every[first : first + 8]


@pytest.mark.parametrize("name", ["c.264", "c.yuv"])
@pytest.mark.parametrize(
    ("start_s", "fps", "first"), [(0.28, 25, 7), (0.56, 25, 14), (0.29, 25, 8), (0.1, 30, 3)]
)
def test_the_start_is_exact_where_frames_are_counted(make, look, name, start_s, fps, first):
    options = ("-f", "rawvideo") if name == "c.yuv" else ("-c:v", "libx264")
    path = make(name, "format=yuv420p", *options, frames=20)
    clip = look(path, start_s=start_s, fps=Fraction(fps), raw_size=(64, 48))
    assert clip.frames == 20 - first
    assert clip.filters[:2] == (f"trim=start_frame={first}", f"trim=end_frame={20 - first}")


def test_a_stream_without_a_rate_takes_the_one_given(make, look):
    path = make("bare.264", "format=yuv420p", "-c:v", "libx264", frames=12)
    with pytest.raises(BadClip) as refusal:
        look(path)
    assert str(refusal.value) == (
        f"{path}: carries no frame rate; give --fps 25, or --fps bare=25 for this clip alone"
    )
    clip = look(path, fps=Fraction(30), start_s=0.1)
    assert (clip.fps, clip.frames) == (30, 9)
    assert clip.filters[:2] == ("trim=start_frame=3", "trim=end_frame=9")
    assert look(path, fps=Fraction(30), fps_of={"bare": Fraction(24)}).fps == 24


@pytest.mark.parametrize(
    ("name", "muxer"),
    [
        ("a.mjpeg", "mjpeg"),
        ("a.h261", "h261"),
        ("a.m2v", "mpeg2video"),
        ("a.mpj", "mpjpeg"),
        ("a.png", "image2pipe"),
    ],
)
def test_no_rate_is_invented(make, look, name, muxer):
    path = make(name, "scale=352:288,format=yuv420p", "-f", muxer, rate=30)
    with pytest.raises(BadClip, match=f"{name}: carries no frame rate; give --fps 25"):
        look(path)
    assert look(path, fps=Fraction(30)).fps == 30


def test_every_demuxer_that_lets_the_rate_be_given_is_known(session):
    def about(*question):
        command = [session.ffmpeg.path, "-hide_banner", *question]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def takes_a_rate(demuxer):
        return re.search(r" -frame_?rate ", about("-h", f"demuxer={demuxer}")) is not None

    listed = re.findall(r"^ D[ E]  (\S+)", about("-demuxers"), re.MULTILINE)
    names = [name.split(",")[0] for name in listed]
    with ThreadPoolExecutor(2) as pool:
        found = {n for n, takes in zip(names, pool.map(takes_a_rate, names), strict=True) if takes}
    assert "mjpeg" in found
    assert {name for name in found if not _RAW_STREAMS.fullmatch(name)} == {"image2"}


def test_a_rate_for_a_clip_that_has_its_own_is_refused(make, look):
    path = make("own.mkv", "format=yuv420p")
    assert look(path, fps=Fraction(99)).fps == 25
    with pytest.raises(BadClip) as refusal:
        look(path, fps_of={"own": Fraction(24)})
    assert str(refusal.value) == (f"{path}: carries its own frame rate; leave out --fps own=...")


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_raw_yuv_takes_what_a_header_would_say(make, look, pixel_format):
    path = make("r.yuv", f"scale=33:31,format={pixel_format}", "-f", "rawvideo", frames=10)
    settings = {"raw_size": (33, 31), "raw_pixel_format": pixel_format, "fps": Fraction(20)}
    clip = look(path, **settings)
    assert (clip.frames, clip.fps, clip.decoded) == (10, 20, f"33x31 {pixel_format}")
    assert look(path, start_s=0.25, **settings).frames == 5


def test_raw_yuv_refusals(make, look):
    path = make("r.yuv", "format=yuv420p", "-f", "rawvideo")
    for settings, text in (
        ({}, "carries no frame rate; give --fps 25, or --fps r=25 for this clip alone"),
        (
            {"fps": Fraction(25)},
            (
                "raw YUV carries no size; "
                "give --width and --height, and --pix-fmt if it is not yuv420p"
            ),
        ),
        (
            {"fps": Fraction(25), "raw_size": (64, 46)},
            (
                "is no whole number of 64x46 yuv420p frames, expected a multiple of 4416 bytes, "
                "found 27648; check --width, --height and --pix-fmt"
            ),
        ),
    ):
        with pytest.raises(BadClip) as refusal:
            look(path, **settings)
        assert str(refusal.value) == f"{path}: {text}"


def test_what_is_no_video_is_refused(make, look, tmp_path, session):
    sound = tmp_path / "sound.wav"
    tone = ["-f", "lavfi", "-i", "sine", "-t", "0.1", f"{sound}"]
    subprocess.run([session.ffmpeg.path, "-loglevel", "error", *tone], check=True)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    deep = make("deep.mkv", "format=yuv420p12le")
    for path, reason in {
        tmp_path / "nothing.mp4": "no such file",
        tmp_path: "not a regular file, found a folder",
        sound: "has no video stream",
        text: "cannot be decoded as video ([in#0] moov atom not found)",
        deep: "comes in a pixel format that is not scored, expected 8 or 10 bit, 4:2:0 to 4:4:4, "
        "found yuv420p12le; convert it first, ffmpeg -i ... -pix_fmt yuv420p10le",
    }.items():
        with pytest.raises(BadClip) as refusal:
            look(path)
        assert str(refusal.value) == f"{path}: {reason}"


@pytest.mark.parametrize(
    ("signal", "kind", "begins"),
    [
        ("KILL", CannotRun, "cannot be looked at here (ffmpeg was killed by signal 9)"),
        ("TERM", CannotRun, "cannot be looked at here (ffmpeg was killed by signal 15)"),
        ("SEGV", BadClip, "cannot be decoded as video (ffmpeg was killed by signal 11)"),
    ],
)
def test_a_clip_is_not_blamed_for_what_the_machine_does(
    make, session, tmp_path, signal, kind, begins
):
    path, program = make("clip.mkv"), tmp_path / "ffmpeg"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *clip.mkv*) kill -{signal} $$ ;; esac\n'
        f'exec "{session.ffmpeg.path}" "$@"\n'
    )
    program.chmod(0o755)
    with FfmpegSession(find_ffmpeg(str(program))) as own, pytest.raises(kind) as refusal:
        open_clip(path, ClipSettings(), own, timeout_s=60)
    assert str(refusal.value) == f"{path}: {begins}"


def test_a_clip_is_not_blamed_for_an_ffmpeg_that_does_not_start(make, session, tmp_path):
    path, program = make("clip.mkv"), tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\nexec "{session.ffmpeg.path}" "$@"\n')
    program.chmod(0o755)
    with FfmpegSession(find_ffmpeg(str(program))) as own:
        guard(own)  # what it reads is asked for once
        program.unlink()
        with pytest.raises(CannotRun, match=r"looked at here \(ffmpeg did not start \(No such"):
            open_clip(path, ClipSettings(), own, timeout_s=60)


@pytest.mark.parametrize(
    ("name", "demuxer"),
    [("c.txt", "concat"), ("c.m3u8", "hls"), ("c.mpd", "dash"), ("c%d.png", "image2")],
)
def test_what_names_other_files_is_refused(make, look, tmp_path, name, demuxer):
    path = tmp_path / name
    if demuxer == "concat":
        make("part.mkv", "format=yuv420p")
        path.write_text("ffconcat version 1.0\nfile part.mkv\n")
    elif demuxer == "image2":
        make(name, "null", "-c:v", "png")
        path.write_bytes((tmp_path / "c1.png").read_bytes())
    else:
        make(name, "format=yuv420p", "-c:v", "libx264", "-f", demuxer)
    with pytest.raises(BadClip) as refusal:
        look(path, fps=Fraction(25))
    assert str(refusal.value) == (
        f"{path}: is read as {demuxer}, which can name other files; join them into one first"
    )


def test_a_clip_that_changes_its_size_is_refused(make, look, tmp_path):
    parts = [
        make(f"{size}.264", f"scale={size}:{size},format=yuv420p", "-c:v", "libx264")
        for size in (64, 80)
    ]
    path = tmp_path / "both.264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(BadClip) as refusal:
        look(path, fps=Fraction(25))
    assert str(refusal.value) == (
        f"{path}: changes its size or format, found 64x64 yuv420p, 80x80 yuv420p; cut it up"
    )


@pytest.mark.parametrize("frames", [None, 9])
def test_a_clip_that_changes_its_colour_tags_is_refused(make, look, tmp_path, frames):
    parts = [
        make(f"{tag}.264", f"format=yuv420p,setparams=colorspace={tag}", "-c:v", "libx264")
        for tag in ("bt709", "smpte170m")
    ]
    path = tmp_path / "both.264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(BadClip) as refusal:
        look(path, fps=Fraction(25), frames=frames)
    assert str(refusal.value) == (f"{path}: changes its colour tags or its rotation; cut it up")
    assert look(path, fps=Fraction(25), frames=FRAMES - 1).frames == FRAMES - 1


def test_damage_is_remarked(make, look):
    path = make("d.264", "format=yuv420p", "-c:v", "libx264", "-crf", "5", frames=8)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 300, 7):
        content[place] ^= 0x55
    path.write_bytes(content)
    (remark,) = look(path, fps=Fraction(25)).remarks
    assert re.match("while decoding ffmpeg said: [^[]", remark)
    # Threads complain in any order.
    assert {look(path, fps=Fraction(25)).remarks for _ in range(5)} == {(remark,)}


def test_what_became_a_device_meanwhile_is_not_hashed(tmp_path):
    endless = tmp_path / "endless.mkv"
    endless.symlink_to("/dev/zero")
    with pytest.raises(BadClip) as refusal:
        _sha256(endless, 0.5)
    assert str(refusal.value) == f"{endless}: cannot be read (neither a file nor a folder)"


def test_a_clip_that_was_replaced_is_told_from_the_one_that_was_read(make, look):
    clip = look(make("c.mkv", "format=yuv420p"))
    assert clip.unchanged()
    make("c.mkv", "hflip,format=yuv420p")
    assert not clip.unchanged()
    clip.path.unlink()
    assert not clip.unchanged()


def test_a_clip_that_changes_while_it_is_read_is_refused(make, session, monkeypatch):
    path = make("c.mkv", "format=yuv420p")
    run = session.run

    def run_then_touch(*arguments, **options):
        log = run(*arguments, **options)
        os.utime(path, ns=(0, 0))
        return log

    monkeypatch.setattr(session, "run", run_then_touch)
    with pytest.raises(BadClip) as refusal:
        open_clip(path, ClipSettings(), session, timeout_s=60)
    assert str(refusal.value) == f"{path}: changed while it was read; run this again"


@pytest.mark.parametrize("name", ["-dash 'quote\".mkv", "concat:a|b.mkv", "%d:[x],;\\ä日本.mkv"])
def test_names_are_only_names(make, look, name):
    clip = look(make(name, "format=yuv420p"))
    assert clip.frames == FRAMES
    assert f"{clip.src}.mkv" == name


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"start_s": -1.0}, "--start must not be negative, found -1"),
        ({"start_s": float("nan")}, "--start must not be negative, found nan"),
        ({"frames": 0}, "--frames must be at least 1, found 0"),
        (
            {"scale": (639, 360)},
            "--scale must be positive and even both ways: 4:2:0 halves it, found 639x360",
        ),
        ({"raw_size": (0, 4)}, "--width and --height must be positive, found 0x4"),
        (
            {"raw_pixel_format": "yuvj420p"},
            (
                "--pix-fmt: raw YUV of this pixel format is not read, expected one of yuv420p "
                "yuv420p10le yuv422p yuv422p10le yuv444p yuv444p10le, found 'yuvj420p'"
            ),
        ),
    ],
)
def test_settings_are_refused_before_any_clip_is_opened(settings, text):
    with pytest.raises(BadSettings) as refusal:
        ClipSettings(**settings)
    assert str(refusal.value) == text
