import re
from dataclasses import replace

import pytest

from loso.errors import BadSettings, MissingTool
from loso.video.encoders import ENCODERS, Rate
from loso.video.ffmpeg import FfmpegSession, find_ffmpeg
from loso.video.trial import trial_encode, try_encoder, try_every_encoder


@pytest.fixture(scope="module")
def session():
    with FfmpegSession(find_ffmpeg()) as session:
        yield session


def encode_of(name, **options):
    encoder = ENCODERS[name]
    return trial_encode(encoder, preset=encoder.default_preset, **options)


def test_the_frames_tried_are_the_same_whatever_the_rate_of_the_cells(session, tmp_path):
    options = {"folder": tmp_path, "timeout_s": 60}
    quality, bitrate = encode_of("libx264"), encode_of("libx264", control="bitrate")
    assert (quality.rate.label, bitrate.rate.label) == ("q25", "b500k")
    first = try_encoder(quality, session, **options)
    assert first == try_encoder(encode_of("libx264"), session, **options)
    assert first != try_encoder(bitrate, session, **options)


@pytest.mark.parametrize("name", ["libx264", "libx265", "libsvtav1", "libvvenc", "libvpx-vp9"])
def test_software_encoders_work_at_both_ends_of_their_scales(session, tmp_path, name):
    encoder = ENCODERS[name]
    low, high = encoder.quality_range
    ends = ((encoder.presets[0], low), (encoder.presets[0], high), (encoder.default_preset, high))
    for preset, quality in ends:
        rate = Rate("quality", quality)
        encode = replace(encode_of(name), preset=preset, rate=rate, width=64, height=64)
        try_encoder(encode, session, folder=tmp_path, timeout_s=60)


def test_an_encoder_that_does_not_work_is_said_with_the_reason(session, tmp_path):
    encode = encode_of("h264_vaapi", device="/dev/dri/nothing")
    with pytest.raises(MissingTool) as refusal:
        try_encoder(encode, session, folder=tmp_path, timeout_s=60)
    text = str(refusal.value)
    assert re.fullmatch(r"h264_vaapi: does not work here \(.+\); leave this encoder out", text)
    assert refusal.value.exit_code == 3


def test_an_encoder_that_was_left_out_is_said(session, tmp_path):
    with pytest.raises(MissingTool) as refusal:
        try_encoder(encode_of("h264_videotoolbox"), session, folder=tmp_path, timeout_s=60)
    assert str(refusal.value) == (
        f"h264_videotoolbox: this ffmpeg (version {session.ffmpeg.version}) was built without it; "
        "leave this encoder out, or give another --ffmpeg"
    )


@pytest.mark.parametrize(
    ("name", "extra", "reason"),
    [
        ("libx264", "-nonsense 3", r"Unrecognized option 'nonsense'"),
        ("libx264", "-x265-params a=1", r"Codec AVOption x265-params \(.*\) has not been used"),
        ("libx265", "-x265-params nonsense=4", r"Unknown option: nonsense\."),
        ("libsvtav1", "-svtav1-params nonsense=4", r"Error parsing option nonsense: 4\."),
    ],
)
def test_arguments_that_are_not_taken_are_refused(session, tmp_path, name, extra, reason):
    encode = encode_of(name, extra=tuple(extra.split()))
    with pytest.raises(BadSettings) as refusal:
        try_encoder(encode, session, folder=tmp_path, timeout_s=60)
    pattern = rf"--encoder-args: {name} does not take these arguments \({reason}\), found {extra}"
    assert re.fullmatch(pattern, str(refusal.value))


@pytest.fixture
def stand_in(session, tmp_path):
    """Write a program that is ffmpeg, but acts where its arguments match; open a session of it."""

    def make(condition, action):
        path = tmp_path / "stand_in"
        program = session.ffmpeg.path
        path.write_text(
            f'#!/bin/sh\ncase "$*" in\n*-encoders|*-filters|*-version) exec "{program}" "$@" ;;\n'
            f"{condition}) {action} ;;\nesac\n"
        )
        path.chmod(0o755)
        return FfmpegSession(find_ffmpeg(str(path)))

    return make


def test_encoders_of_one_piece_of_hardware_are_tried_one_after_the_other(stand_in, tmp_path):
    busy = tmp_path / "busy"
    action = f"mkdir {busy} || exit 9; sleep 0.1; rmdir {busy}"
    with stand_in("*_nvenc*", action) as one:
        found = try_every_encoder(one, devices={}, folder=tmp_path)
    assert [trial.encoder for trial in found] == list(ENCODERS)
    states = {trial.encoder: trial.state for trial in found}
    assert {states[f"{codec}_nvenc"] for codec in ("h264", "hevc", "av1")} == {"works"}
    assert states["h264_videotoolbox"] == "missing"


def test_an_encoder_that_hangs_is_stopped_and_the_others_are_tried(stand_in, tmp_path):
    seen = []
    with stand_in("*libvvenc*", "exec sleep 60") as one:
        found = try_every_encoder(
            one,
            devices={},
            folder=tmp_path,
            timeout_s=2.0,
            progress=lambda done, total, _: seen.append((done, total)),
        )
    trials = {trial.encoder: trial for trial in found}
    assert trials["libvvenc"].reason == "ffmpeg was stopped after 2 s"
    assert trials["libx264"].state == "works"
    assert seen[-1] == (len(ENCODERS), len(ENCODERS))
