import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.errors import BadSettings
from loso.schema import ENCODER_VOCAB
from loso.video.encoders import ENCODERS, Rate, encoder_named, preset_rank

X265_PINS = "-x265-params log-level=error:pools=1:frame-threads=1"
DEVICE = "/dev/dri/renderD128"


def line(name, rate, preset=None, threads=1, extra=()):
    encoder = ENCODERS[name]
    preset = preset or encoder.default_preset
    return " ".join(encoder.arguments(preset=preset, rate=rate, threads=threads, extra=extra))


def test_the_vocabulary_comes_first_and_in_its_own_order():
    known = [name for name in ENCODER_VOCAB if name != "unknown"]
    assert list(ENCODERS)[: len(known)] == known


# The whole text: a change here changes every fingerprint, and what every corpus claims.
@pytest.mark.parametrize(
    ("name", "quality", "bitrate"),
    [
        (
            "libx264",
            "-c:v libx264 -crf 30 -preset medium -threads 1",
            "-c:v libx264 -b:v 800k -preset medium -threads 1",
        ),
        (
            "libx265",
            f"-c:v libx265 -crf 30 -preset medium -threads 1 {X265_PINS}",
            f"-c:v libx265 -b:v 800k -preset medium -threads 1 {X265_PINS}",
        ),
        (
            "libsvtav1",
            "-c:v libsvtav1 -crf 30 -preset 8 -svtav1-params lp=1",
            "-c:v libsvtav1 -b:v 800k -preset 8 -svtav1-params lp=1",
        ),
        (
            "libvvenc",
            "-c:v libvvenc -qp 30 -preset medium -threads 1",
            "-c:v libvvenc -b:v 800k -preset medium -threads 1",
        ),
        (
            "libvpx-vp9",
            "-c:v libvpx-vp9 -b:v 0 -crf 30 -cpu-used 1 -deadline good -row-mt 0 -threads 1",
            "-c:v libvpx-vp9 -b:v 800k -cpu-used 1 -deadline good -row-mt 0 -threads 1",
        ),
        *(
            (
                f"{codec}_nvenc",
                f"-c:v {codec}_nvenc -rc vbr -b:v 0 -cq 30 -preset p4",
                f"-c:v {codec}_nvenc -rc vbr -b:v 800k -preset p4",
            )
            for codec in ("h264", "hevc", "av1")
        ),
        *(
            (
                f"{codec}_qsv",
                f"-c:v {codec}_qsv -global_quality 30 -preset medium",
                f"-c:v {codec}_qsv -b:v 800k -preset medium",
            )
            for codec in ("h264", "hevc", "av1")
        ),
        *(
            (
                f"{codec}_vaapi",
                f"-c:v {codec}_vaapi -rc_mode CQP -qp 30 -compression_level 4",
                f"-c:v {codec}_vaapi -rc_mode VBR -b:v 800k -compression_level 4",
            )
            for codec in ("h264", "hevc")
        ),
        *(
            (
                f"{codec}_videotoolbox",
                f"-c:v {codec}_videotoolbox -q:v 30",
                f"-c:v {codec}_videotoolbox -b:v 800k",
            )
            for codec in ("h264", "hevc")
        ),
    ],
)
def test_command_lines(name, quality, bitrate):
    assert line(name, Rate("quality", 30)) == quality
    assert line(name, Rate("bitrate", 800)) == bitrate


def test_every_adapter_is_pinned_above():
    (mark,) = test_command_lines.pytestmark
    assert sorted(case[0] for case in mark.args[1]) == sorted(ENCODERS)


@pytest.mark.parametrize(
    ("name", "opened", "upload"),
    [
        ("libx264", "", ""),
        ("h264_nvenc", "", ""),
        ("h264_videotoolbox", "", ""),
        (
            "hevc_qsv",
            f"-init_hw_device qsv=hw,child_device={DEVICE} -filter_hw_device hw",
            "hwupload=extra_hw_frames=64",
        ),
        ("hevc_vaapi", f"-init_hw_device vaapi=hw:{DEVICE} -filter_hw_device hw", "hwupload"),
    ],
)
def test_devices(name, opened, upload):
    assert " ".join(ENCODERS[name].device_arguments(DEVICE)) == opened
    assert ENCODERS[name].upload == upload


def test_what_the_user_adds_does_not_unpin_the_threads():
    extra = ("-tune", "grain", "-x265-params", "aq-mode=2:pools=9")
    assert line("libx265", Rate("quality", 30), threads=3, extra=extra) == (
        "-c:v libx265 -crf 30 -preset medium -threads 3"
        " -x265-params aq-mode=2:pools=9:log-level=error:pools=3:frame-threads=1 -tune grain"
    )
    assert line("libx264", Rate("quality", 23.5), extra=("-tune", "film")).endswith(
        "-crf 23.5 -preset medium -threads 1 -tune film"
    )


@given(st.sampled_from(sorted(ENCODERS)), st.integers(0, 100), st.integers(0, 100))
def test_a_larger_cq_is_cheaper_on_every_scale(name, a, b):
    encoder = ENCODERS[name]
    low, high = encoder.quality_range
    worse, better = sorted((low + a % (high - low + 1), low + b % (high - low + 1)), reverse=True)
    if encoder.reversed_quality:
        worse, better = better, worse
    assert encoder.cq(Rate("quality", worse)) >= encoder.cq(Rate("quality", better))
    assert encoder.cq(Rate("bitrate", 100)) > encoder.cq(Rate("bitrate", 200))


def test_a_whole_cq_is_a_whole_number():
    assert repr(ENCODERS["libx264"].cq(Rate("quality", 23.0))) == "23"
    assert repr(ENCODERS["libx264"].cq(Rate("quality", 23.5))) == "23.5"
    assert repr(ENCODERS["hevc_videotoolbox"].cq(Rate("quality", 65.0))) == "35"


@pytest.mark.parametrize(
    ("name", "reference", "coded"),
    [
        ("libx264", "yuv444p10le", "yuv444p10le"),
        ("libvvenc", "yuv444p", "yuv420p10le"),
        ("libsvtav1", "yuv422p", "yuv420p"),
        ("libsvtav1", "yuv422p10le", "yuv420p10le"),
        ("h264_nvenc", "yuv444p", "yuv444p"),
        ("h264_nvenc", "yuv420p10le", "yuv420p"),
        ("hevc_nvenc", "yuv422p10le", "p010le"),
        ("h264_qsv", "yuv444p10le", "nv12"),
        ("hevc_vaapi", "yuv420p10le", "p010le"),
    ],
)
def test_the_nearest_format_is_coded(name, reference, coded):
    assert ENCODERS[name].coding_format(reference) == coded


def test_ranks_run_from_the_fastest_preset_to_the_slowest():
    assert preset_rank("libx264", "ultrafast") == 0
    assert preset_rank("libx264", "placebo") == 1
    assert preset_rank("libsvtav1", "13") == 0
    assert preset_rank("libsvtav1", "0") == 1
    assert preset_rank("libvpx-vp9", "5") == 0
    assert preset_rank("h264_nvenc", "p4") == 0.5
    for encoder in ENCODERS.values():
        ranks = [preset_rank(encoder.name, preset) for preset in encoder.presets]
        assert ranks == [None] or ranks == sorted(set(ranks))
        assert encoder.default_preset in encoder.presets


@pytest.mark.parametrize(
    "pair", [("libx264", "warp"), ("theora", "medium"), ("hevc_videotoolbox", "default")]
)
def test_no_rank_where_there_is_no_order(pair):
    assert preset_rank(*pair) is None


def test_refusals():
    with pytest.raises(BadSettings) as refusal:
        encoder_named("libsvt-av1")
    assert str(refusal.value) == (
        f"no such encoder, expected one of {' '.join(ENCODERS)}, found 'libsvt-av1'; "
        "did you mean libsvtav1?"
    )
    vvenc, x264 = ENCODERS["libvvenc"], ENCODERS["libx264"]
    with pytest.raises(BadSettings) as refusal:
        vvenc.check(preset="fastest", rate=Rate("quality", 30))
    assert str(refusal.value) == (
        "libvvenc: no such preset, expected one of faster fast medium slow slower, "
        "found 'fastest'; did you mean faster?"
    )
    with pytest.raises(BadSettings, match="found '7'; give --preset libvvenc=PRESET"):
        vvenc.check(preset="7", rate=Rate("quality", 30))
    with pytest.raises(BadSettings) as refusal:
        x264.check(preset="medium", rate=Rate("quality", 52))
    assert str(refusal.value) == (
        "libx264: quality is out of this encoder's range, expected a number in 0..51, found 52; "
        "give --quality libx264=..."
    )
    with pytest.raises(BadSettings, match=r"a whole number in 0\.\.63, found 30.5"):
        vvenc.check(preset="medium", rate=Rate("quality", 30.5))


def test_zero_is_refused_where_it_means_not_given():
    for name in ("libsvtav1", "h264_nvenc", "h264_vaapi"):
        encoder = ENCODERS[name]
        with pytest.raises(BadSettings, match="out of this encoder's range"):
            encoder.check(preset=encoder.default_preset, rate=Rate("quality", 0))


def test_the_module_loads_nothing_heavy():
    code = (
        "import sys, loso.video.encoders;"
        "print(*{'numpy', 'polars', 'subprocess', 'imageio_ffmpeg'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
