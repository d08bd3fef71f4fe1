from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from loso.corpus.choices import read_choices
from loso.corpus.plan import BuildSettings, fingerprint, plan_cells, portable, rows_of
from loso.errors import BadClip, BadSettings
from loso.schema import CANONICAL_6, REQUIRED_NUMBERS, REQUIRED_TEXTS
from loso.video.clips import Clip, ClipSettings
from loso.video.measure import Measurement, VmafModel, commands

TOOLS = {"ffmpeg": "9.0", "libvmaf": "3.0"}


def clip_of(src="ant", **changes):
    path = Path(f"/films/{src}.mkv")
    clip = Clip(
        src=src,
        path=path,
        sha256="00",
        frames=2,
        fps=Fraction(30000, 1001),
        width=1920,
        height=1080,
        pixel_format="yuv420p",
        decoded="1920x1080 yuv420p",
        input=("-i", f"file:{path}"),
        filters=("trim=end_frame=2",),
        remarks=(),
    )
    return replace(clip, **changes)


def settings_of(encoders=("libx264",), heights=(), clips=None, **options):
    choices = read_choices(list(encoders), **({"quality": ["30"]} | options))
    return BuildSettings(choices=choices, heights=heights, clips=clips or ClipSettings())


def names(clips, settings):
    return [cell.name for cell in plan_cells(clips, settings)]


def test_cells_come_by_source_encoder_preset_height_rate():
    settings = settings_of(
        ["libx265", "libx264"],
        heights=(720, 540),
        quality=["31,19"],
        bitrate=["libx264=2M"],
        preset=["libx265=slow,fast"],
    )
    found = names([clip_of("bee"), clip_of("ant")], settings)
    assert found == [
        f"{src}_{way}_{rate}_{height}p"
        for src in ("ant", "bee")
        for way, rates in (
            ("libx264_medium", ("q19", "q31", "b2000k")),
            ("libx265_fast", ("q19", "q31")),
            ("libx265_slow", ("q19", "q31")),
        )
        for height in (540, 720)
        for rate in rates
    ]
    assert len(set(found)) == len(found)


def test_a_name_tells_start_and_extra_arguments():
    plain = names([clip_of()], settings_of())
    assert plain == ["ant_libx264_medium_q30_1080p"]
    late = settings_of(clips=ClipSettings(start_s=1.5))
    assert names([clip_of()], late) == ["ant_libx264_medium_q30_1080p_from1.5s"]
    grain, film = (
        names([clip_of()], settings_of(encoder_args=[f"-tune {tune}"]))[0]
        for tune in ("grain", "film")
    )
    assert grain.startswith(f"{plain[0]}_")
    assert len(grain) == len(plain[0]) + 1 + 8
    assert grain != film


def test_rates_that_differ_have_names_and_commands_that_differ():
    settings = settings_of(quality=["20,20.0000001"], bitrate=["800k,800000001"])
    cells = plan_cells([clip_of()], settings)
    rates = ("q20", "q20.0000001", "b800k", "b800000.001k")
    assert [cell.name for cell in cells] == [f"ant_libx264_medium_{rate}_1080p" for rate in rates]
    lines = [" ".join(commands(c.clip, c.encode, VmafModel(), two_step=False)[0]) for c in cells]
    told = ("-crf 20 ", "-crf 20.0000001 ", "-b:v 800k ", "-b:v 800000.001k ")
    assert all(option in line for option, line in zip(told, lines, strict=True))


def test_two_cells_of_one_name_are_refused():
    with pytest.raises(BadSettings) as refusal:
        plan_cells([clip_of()], settings_of(quality=["20,20.0000000000001"]))
    assert str(refusal.value) == (
        "two cells are named ant_libx264_medium_q20_1080p; give rates that differ in twelve digits"
    )


def test_a_rung_keeps_the_shape_and_an_even_width():
    for height, width in ((1080, 1920), (540, 960), (538, 956), (90, 160)):
        (cell,) = plan_cells([clip_of()], settings_of(heights=(height,)))
        assert (cell.encode.width, cell.encode.height) == (width, height)
    with pytest.raises(BadClip) as refusal:
        plan_cells([clip_of(height=480)], settings_of(heights=(360, 720)))
    assert str(refusal.value) == (
        "/films/ant.mkv: --height is above the reference's, expected at most 480, found 720"
    )


def mark(clip=None, settings=None, model=None, tools=TOOLS, *, two_step=False):
    (cell,) = plan_cells([clip or clip_of()], settings or settings_of())
    return fingerprint(cell, model or VmafModel(), tools, two_step=two_step)


def test_a_fingerprint_names_content_and_settings_not_places():
    moved = clip_of(src="bee", path=Path("/x/bee.mkv"), input=("-i", "file:/x/bee.mkv"))
    assert mark() == mark(moved)
    marks = [
        mark(),
        mark(clip_of(sha256="01")),
        mark(clip_of(frames=3, filters=("trim=end_frame=3",))),
        mark(clip_of(fps=Fraction(25))),
        mark(settings=settings_of(quality=["31"])),
        mark(settings=settings_of(quality=[], bitrate=["30k"])),
        mark(settings=settings_of(preset=["fast"])),
        mark(settings=settings_of(heights=(540,))),
        mark(settings=settings_of(encoder_args=["-tune grain"])),
        mark(settings=replace(settings_of(), threads=2)),
        mark(model=VmafModel("vmaf_v0.6.1neg")),
        mark(tools=TOOLS | {"ffmpeg": "9.1"}),
        mark(tools=TOOLS | {"libvmaf": "3.1"}),
        mark(two_step=True),
    ]
    assert len(set(marks)) == len(marks)


def test_a_command_line_can_be_told_without_its_machine():
    (cell,) = plan_cells([clip_of()], settings_of())
    lines = commands(cell.clip, cell.encode, VmafModel(), two_step=True)
    for line in portable(lines, cell.clip, "ant.mkv"):
        assert "file:ant.mkv" in line
        assert "/films" not in " ".join(line)


MEASURED = Measurement(
    vmaf=(90.5, 80.25),
    features=dict.fromkeys(CANONICAL_6, (0.5, 0.25)),
    packet_bytes=(1000, 24),
    libvmaf="3.0",
    seconds=1.0,
)


def test_rows_hold_the_contract_in_a_fixed_order():
    (cell,) = plan_cells([clip_of()], settings_of(heights=(540,)))
    first, second = rows_of(cell, MEASURED)
    assert first == {
        "src": "ant",
        "encoder": "libx264",
        "preset": "medium",
        "cq": 30,
        "frame_index": 0,
        "vmaf": 90.5,
        **dict.fromkeys(CANONICAL_6, 0.5),
        "clip": "ant_libx264_medium_q30_540p",
        "rate_control": "quality",
        "enc_bytes": 1024,
        "bitrate_kbps": 122.757,
        "width": 960,
        "height": 540,
        "fps": 30000 / 1001,
    }
    assert (second["frame_index"], second["vmaf"], second["adm2"]) == (1, 80.25, 0.25)
    assert list(first) == list(second)
    assert {*REQUIRED_TEXTS, *REQUIRED_NUMBERS} <= set(first)


def test_a_reversed_scale_keeps_the_original_beside_cq():
    settings = settings_of(["h264_videotoolbox"], quality=["65"], bitrate=["800k"])
    quality, bitrate = plan_cells([clip_of()], settings)
    row = rows_of(quality, MEASURED)[0]
    assert (row["cq"], row["quality_setting"], row["preset"]) == (35, 65, "default")
    row = rows_of(bitrate, MEASURED)[0]
    assert (row["cq"], row["rate_control"]) == (-800, "bitrate")
    assert "quality_setting" not in row


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"threads": 0}, "--threads must be at least 1, found 0"),
        ({"timeout_s": 0.0}, "--timeout must be above 0 seconds, found 0"),
        ({"heights": (720, 0)}, "--height must be positive and even, found 0"),
        ({"heights": (721,)}, "--height must be positive and even, found 721"),
    ],
)
def test_settings_are_refused(changes, text):
    with pytest.raises(BadSettings) as refusal:
        replace(settings_of(), **changes)
    assert str(refusal.value) == text
