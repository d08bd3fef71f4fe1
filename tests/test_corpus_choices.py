import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.corpus.choices import read_choices
from loso.errors import BadSettings


def said(encoders, **options):
    return [
        f"{c.encoder.name} {c.preset} {c.rate.label} {' '.join(c.extra)}".rstrip()
        for c in read_choices(encoders, **options)
    ]


def test_what_is_said_for_one_encoder_counts_there_instead_of_what_is_said_for_all():
    assert said(
        ["libsvtav1", "libx264"],
        quality=["libsvtav1=35,25", "31,19"],
        preset=["libsvtav1=8"],
        encoder_args=["libx264=-tune grain"],
    ) == [
        "libx264 medium q19 -tune grain",
        "libx264 medium q31 -tune grain",
        "libsvtav1 8 q25",
        "libsvtav1 8 q35",
    ]


def test_presets_go_from_fast_to_slow_and_bitrates_follow_qualities():
    assert said(
        ["libx264"], quality=["23.5"], bitrate=["2M,800k,500000"], preset=["slow,fast"]
    ) == [
        f"libx264 {preset} {rate}"
        for preset in ("fast", "slow")
        for rate in ("q23.5", "b500k", "b800k", "b2000k")
    ]


def test_lists_for_the_same_encoders_are_joined():
    assert said(
        ["libx264", "libx265"],
        quality=["20", "libx265=25", "40", "libx265=35"],
        bitrate=["1M", "2M"],
        preset=["fast", "libx264=slow", "libx264=medium"],
    ) == [
        *(
            f"libx264 {p} {r}"
            for p in ("medium", "slow")
            for r in ("q20", "q40", "b1000k", "b2000k")
        ),
        *(f"libx265 fast {rate}" for rate in ("q25", "q35", "b1000k", "b2000k")),
    ]


def test_bare_arguments_with_an_equals_sign_are_for_all():
    words = "-x264-params aq-mode=2:me=hex"
    assert said(["libx264"], quality=["20"], encoder_args=[words]) == [
        f"libx264 medium q20 {words}"
    ]


def test_the_name_of_the_only_stream_is_left_out():
    assert said(
        ["libx265"], quality=["20"], encoder_args=["-tune:v grain -x265-params:v:0 aq-mode=2"]
    ) == ["libx265 medium q20 -tune grain -x265-params aq-mode=2"]


@pytest.mark.parametrize(
    ("encoder", "words", "taken"),
    [
        ("libx264", "-crf:v 45", "-crf"),
        ("libx264", "-preset:v:0 placebo", "-preset"),
        ("libx264", "-s:v 64x64", "-s"),
        ("libx264", "-pix_fmt:v yuv444p", "-pix_fmt"),
        ("libx264", "-threads:v 4", "-threads"),
        ("libx264", "-x264-params aq-mode=2:crf=45", "-x264-params crf"),
        ("libx264", "-x264opts qp_constant=45", "-x264opts qp_constant"),
        ("libx265", "-x265-params crf=45", "-x265-params crf"),
        (
            "libx265",
            "-x265-params:v pools=4:frame-threads=3",
            "-x265-params pools, -x265-params frame-threads",
        ),
        ("libx265", r"-x265-params 'cr\f=45'", "-x265-params crf"),
        (
            "libsvtav1",
            "-svtav1-params crf=60:preset=8",
            "-svtav1-params crf, -svtav1-params preset",
        ),
        ("libsvtav1", "-svtav1-params q=60:lp=4", "-svtav1-params q, -svtav1-params lp"),
        ("libvvenc", "-vvenc-params QP=50", "-vvenc-params QP"),
        ("libvpx-vp9", "-speed 1", "-speed"),
        ("libvpx-vp9", "-quality realtime", "-quality"),
        ("hevc_qsv", "-qsv_params TargetUsage=7", "-qsv_params"),
    ],
)
def test_no_way_round_what_a_row_records(encoder, words, taken):
    with pytest.raises(BadSettings) as refusal:
        read_choices([encoder], quality=["30"], encoder_args=[words])
    assert str(refusal.value) == (
        f"--encoder-args {encoder}: {taken} cannot be set here; "
        "use the options of loso for what a row records"
    )


@given(st.permutations([19, 25, 31, 37]), st.permutations(["libx264", "libx265", "libvvenc"]))
def test_the_order_of_arguments_does_not_matter(qualities, encoders):
    text = ",".join(map(str, qualities))
    assert read_choices(encoders, quality=[text]) == read_choices(
        ["libx264", "libvvenc", "libx265"], quality=["19,25,31,37,19"]
    )


@pytest.mark.parametrize(
    ("encoders", "options", "text"),
    [
        ([], {}, "no encoder; give --encoder libx264"),
        (
            ["libx264"],
            {"quality": ["libx246=20"]},
            (
                "--quality: not among the encoders that were given, expected libx264, "
                "found 'libx246'; did you mean libx264?"
            ),
        ),
        (
            ["libx264"],
            {"preset": ["libvvenc=fast"], "quality": ["20"]},
            (
                "--preset: not among the encoders that were given, expected libx264, "
                "found 'libvvenc'; add --encoder libvvenc"
            ),
        ),
        (
            ["libx264", "libx265"],
            {"quality": ["libx264=20"]},
            (
                "libx265: no quality and no bitrate; "
                "give --quality libx265=... or --bitrate libx265=..."
            ),
        ),
        (
            ["libx264"],
            {"quality": ["20,best"]},
            "--quality: not a number, expected such as 19,25,31, found best",
        ),
        (["libx264"], {"bitrate": ["0k"]}, "--bitrate: must be above 0, found 0k"),
        (
            ["libx264"],
            {"bitrate": ["fast"]},
            "--bitrate: not a number, expected such as 800k,2M, found fast",
        ),
        (
            ["libx264"],
            {"quality": ["20"], "encoder_args": ["-tune grain", "-bf 2"]},
            (
                "--encoder-args libx264: given twice, found '-tune grain' and '-bf 2'; "
                "put all arguments into one text"
            ),
        ),
        (
            ["libx264"],
            {"quality": ["20"], "encoder_args": ["tune grain"]},
            (
                "--encoder-args libx264: must be pairs of an option and its value, "
                "expected such as '-tune grain', found 'tune grain'"
            ),
        ),
        (
            ["libx264"],
            {"quality": ["20"], "encoder_args": ["-tune"]},
            (
                "--encoder-args libx264: must be pairs of an option and its value, "
                "expected such as '-tune grain', found '-tune'"
            ),
        ),
        (
            ["libx264"],
            {"quality": ["20"], "encoder_args": ["-tune 'grain"]},
            '--encoder-args libx264: unreadable (No closing quotation), found "-tune \'grain"',
        ),
        (
            ["libx264"],
            {"quality": ["20"], "encoder_args": ["-crf 3 -threads 9"]},
            (
                "--encoder-args libx264: -crf, -threads cannot be set here; "
                "use the options of loso for what a row records"
            ),
        ),
        (
            ["libsvtav1"],
            {"quality": ["25"], "preset": ["medium"]},
            (
                "libsvtav1: no such preset, expected one of 13 12 11 10 9 8 7 6 5 4 3 2 1 0, "
                "found 'medium'; give --preset libsvtav1=PRESET"
            ),
        ),
    ],
)
def test_refusals(encoders, options, text):
    with pytest.raises(BadSettings) as refusal:
        read_choices(encoders, **options)
    assert str(refusal.value) == text
