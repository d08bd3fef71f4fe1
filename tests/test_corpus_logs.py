import gzip
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.corpus.build import build_corpus
from loso.corpus.choices import read_choices
from loso.corpus.from_logs import ImportSettings, import_logs
from loso.corpus.load import load_corpus
from loso.corpus.logs import read_log
from loso.corpus.names import NUMBERS, NamePattern, known_encoder, read_names, read_setting
from loso.corpus.plan import BuildSettings
from loso.errors import BadInput, BadSettings
from loso.files import read_json
from loso.schema import CANONICAL_6, ENCODER_VOCAB
from loso.video.ffmpeg import find_ffmpeg
from loso.video.logged import logged_names

SEVEN = ("vmaf", *CANONICAL_6)
FRAMES = 4


# -- Real logs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A corpus that loso built of one cell, and the logs of the same cell in each format."""
    folder = tmp_path_factory.mktemp("real")
    ffmpeg = find_ffmpeg()

    def run(*words):
        subprocess.run([ffmpeg.path, "-v", "error", *map(str, words)], check=True, cwd=folder)

    clip = folder / "bee.mkv"
    source = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25", "-frames:v", FRAMES)
    run(*source, "-vf", "format=yuv420p", "-c:v", "ffv1", clip)
    choices = read_choices(["libx264"], quality=["30"], preset=["ultrafast"])
    built = build_corpus([clip], BuildSettings(choices=choices), ffmpeg, out=folder / "built.jsonl")
    coding = ("-c:v", "libx264", "-crf", 30, "-preset", "ultrafast", "-threads", 1)
    run("-i", clip, *coding, folder / "coded.mkv")
    for kind in ("json", "csv", "xml"):
        logs = folder / kind
        logs.mkdir()
        options = f"log_fmt={kind}:log_path={kind}/bee_h264_ultrafast_crf30.{kind}"
        graph = f"[0:v][1:v]libvmaf=feature=name=adm|name=vif|name=motion:{options}"
        inputs = ("-i", "coded.mkv", "-i", clip)
        run(*inputs, "-filter_complex", graph, "-f", "null", "-")
    return folder, load_corpus(built.corpus), read_json(built.manifest)["tools"]["libvmaf"]


@pytest.mark.parametrize("kind", ["json", "csv", "xml"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_a_log_of_ffmpeg_gives_the_rows_that_loso_builds(real, tmp_path, kind, packed):
    folder, built, libvmaf = real
    (path,) = (folder / kind).iterdir()
    # The format is told by content: the ending says nothing.
    copy = tmp_path / f"{path.stem}.log{'.gz' if packed else ''}"
    copy.write_bytes(gzip.compress(path.read_bytes()) if packed else path.read_bytes())
    settings = ImportSettings(pattern=NamePattern.parse("{src}_{encoder}_{preset}_crf{cq}"))
    report = import_logs([copy], settings, out=tmp_path / "out.jsonl")
    assert (report.rows, report.logs, report.sources) == (FRAMES, 1, ("bee",))
    assert report.aliases == {"h264 -> libx264": 1}
    assert report.libvmaf == {"unknown" if kind == "csv" else libvmaf: 1}
    same = ["src", "encoder", "preset", "cq", "frame_index", "rate_control", *SEVEN]
    assert load_corpus(report.corpus).rows.select(same).equals(built.rows.select(same))
    assert read_log(copy).kind == kind


def test_every_format_holds_the_same_features(real):
    folder, _, _ = real
    one, two, three = (
        read_log(next((folder / kind).iterdir())).columns for kind in ("json", "csv", "xml")
    )
    assert one == two == three
    assert {"adm3", "adm_scale0", "motion3"} <= set(one)


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [("json", "not a whole JSON file"), ("csv", "cut off"), ("xml", "not a whole XML file")],
)
def test_a_log_cut_anywhere_is_refused(real, tmp_path, kind, refusal):
    folder, _, _ = real
    content = next((folder / kind).iterdir()).read_bytes()
    cut = tmp_path / "cut.log"
    for share in (0.25, 0.5, 0.75, 1):
        at = int(share * len(content)) - 3
        if kind == "csv" and content[at - 1 : at] == b"\n":
            at -= 1
        cut.write_bytes(content[:at])
        with pytest.raises(BadInput, match=refusal):
            read_log(cut)
    cut.write_bytes(gzip.compress(content)[:-20])
    with pytest.raises(BadInput, match="not a whole gzip file"):
        read_log(cut)


# -- Made-up logs ---------------------------------------------------------------------------------


def metrics(frame, **changes):
    return {**{name: round(0.9 - frame / 100, 4) for name in SEVEN}, "vmaf": 90.0 - frame} | changes


def as_json(frames, **others):
    listing = [{"frameNum": at, "metrics": values} for at, values in enumerate(frames)]
    return json.dumps({"version": "3.0.0", "frames": listing, **others})


def as_csv(frames):
    lines = [",".join(["Frame", *frames[0], ""])]
    lines += [",".join([str(at), *map(str, v.values()), ""]) for at, v in enumerate(frames)]
    return "\n".join(lines) + "\n"


def as_xml(frames, version=' version="3.0.0"'):
    attributes = (" ".join(f'{name}="{value}"' for name, value in v.items()) for v in frames)
    lines = "".join(f'<frame frameNum="{at}" {text} />\n' for at, text in enumerate(attributes))
    return f"<VMAF{version}>\n<frames>\n{lines}</frames>\n</VMAF>\n"


@pytest.fixture
def log(tmp_path):
    """Write a log with one frame for each of `frames`, or `content`; return its path."""

    def log(content=None, name="ant_libx264_crf20.log", **changes):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if content is None:
            content = as_json([metrics(frame, **changes) for frame in range(3)])
        path.write_text(content, encoding="utf-8")
        return path

    return log


@pytest.mark.parametrize("form", [as_json, as_csv, as_xml])
@pytest.mark.parametrize(
    "called",
    [
        "{}",
        "integer_{}",
        "VMAF_feature_{}_score",
        "VMAF_integer_feature_{}_score",
        "'VMAF_feature_{}_score'",
    ],
)
def test_features_go_by_their_bare_names(log, form, called):
    if form is as_xml and "'" in called:
        pytest.skip("no name in XML")
    frames = [
        {
            called.format(name) if name != "vmaf" else "VMAF_score": value
            for name, value in m.items()
        }
        for m in map(metrics, range(3))
    ]
    columns = read_log(log(form(frames))).columns
    assert columns == {name: [metrics(frame)[name] for frame in range(3)] for name in SEVEN}


def test_the_integer_feature_wins_whatever_the_order_and_other_scores_keep_their_names():
    assert logged_names(["adm2", "integer_adm2"]) == {"adm2": "integer_adm2"}
    assert logged_names(["integer_adm2", "adm2"]) == {"adm2": "integer_adm2"}
    assert logged_names(["vmaf_4k", "vmaf_adm2"]) == {"vmaf_4k": "vmaf_4k", "adm2": "vmaf_adm2"}


def test_both_kinds_of_one_feature_are_told(log):
    path = log(integer_adm2=0.5)
    assert read_log(path).columns["adm2"] == [0.5] * 3
    assert read_log(path).left_out == ("adm2",)


def test_the_python_tools_write_metrics_beside_the_number(log):
    frames = [{"frameNum": at, "VMAF_score": 90.0, **metrics(at)} for at in range(2)]
    for frame in frames:
        del frame["vmaf"]
    found = read_log(log(json.dumps({"frames": frames, "aggregate": {"method": "mean"}})))
    assert (found.columns["vmaf"], found.libvmaf) == ([90.0, 90.0], None)


def test_a_further_feature_without_a_number_is_null(log):
    frames = [metrics(0, psnr_y=None), metrics(1), metrics(2, psnr_y=40.0)]
    assert read_log(log(as_json(frames))).columns["psnr_y"] == [None, None, 40.0]
    frames = [metrics(0, psnr_y="inf"), metrics(1, psnr_y="nan")]
    assert read_log(log(as_csv(frames))).columns["psnr_y"] == [None, None]


def without(frames, name):
    return [{key: value for key, value in frame.items() if key != name} for frame in frames]


THREE = [metrics(frame) for frame in range(3)]


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("", "the file is empty, expected JSON"),
        ("hello", r"not a log of libvmaf, expected JSON .*, found 'hello'"),
        ('{"version": 1}', r"its frames cannot be read, expected \{\"frames\""),
        ('{"frames": [{"frameNum": 0, "metrics": {"vmaf": "90"}}]}', "its frames cannot be read"),
        ('{"frames": [{"frameNum": true, "metrics": {}}]}', "its frames cannot be read"),
        ('{"frames": [{"frameNum": 0, "metrics": {"\\ud800": 1}}]}', "its frames cannot be read"),
        ('{"frames": []}', "the log holds no frames"),
        ("<VMAF><frames/></VMAF>", "the log holds no frames"),
        ("Frame,vmaf,\n", "the log holds no frames"),
        (as_json(without(THREE, "motion2")), "the log was made without motion2, found vmaf, adm2"),
        (as_csv(without(THREE, "vmaf")), "the log was made without vmaf, found adm2"),
        (
            as_json([*THREE[:2], *without(THREE[2:], "adm2")]),
            "frame 2 has no adm2, .*found nothing",
        ),
        (as_json([metrics(0, vmaf=None)]), "frame 0 has no vmaf, expected a finite number"),
        (as_xml([metrics(0), metrics(1, motion2="inf")]), "frame 1 has no motion2, .* found inf"),
        (
            as_json(THREE).replace('"frameNum": 2', '"frameNum": 5'),
            "do not count up from 0, expected frame 2, found frame 5; .* without n_subsample",
        ),
        (as_csv(THREE).replace("\n2,", "\n1,"), "frame 1 is there twice, expected frame 2"),
        (as_xml(THREE).replace('"0" ', '"1" '), "do not count up from 0, expected frame 0"),
        (as_csv(THREE).replace(",0.88", ""), "line 4: a line that does not fill .* 9 cells"),
        (as_csv(THREE).replace("0.88", "x", 1), "line 4: not a number"),
        (as_csv(THREE).replace("adm2", "vmaf"), "cannot read its header"),
        (as_csv(THREE)[:-1], "cut off: the last line has no end"),
        (as_xml(THREE).replace('frameNum="1"', ""), "line 4: a frame that cannot be read"),
        (as_xml(THREE).replace('"90.0"', '"x"'), "line 3: a frame that cannot be read"),
        (
            '<!DOCTYPE VMAF [<!ENTITY a "b">]>' + as_xml(THREE),
            "an XML log that declares a document type",
        ),
    ],
)
def test_what_is_not_a_whole_log_is_refused(log, content, refusal):
    path = log(content)
    with pytest.raises(BadInput, match=refusal) as refused:
        read_log(path)
    assert str(path) in refused.value.where


def test_a_log_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="file not found"):
        read_log(tmp_path / "none.json")
    with pytest.raises(BadInput, match="a folder, not a log; name the logs inside it"):
        read_log(tmp_path)


# -- Names ----------------------------------------------------------------------------------------

TEXT = st.text("ab.-4p_", min_size=1, max_size=6)
NUMBER = st.integers(0, 9999) | st.integers(0, 9999).map(lambda n: n / 100)


@given(st.data())
def test_a_name_reads_back_what_was_written_or_is_refused(data):
    columns = ["src", "encoder", "cq", "height", "fps", "content"]
    fields = data.draw(st.lists(st.sampled_from(columns), min_size=1, unique=True))
    ends = st.sampled_from(["", "x", "_p"])
    between = st.lists(st.sampled_from(["_", "p_", "-", "fps"]), min_size=len(fields) - 1)
    literals = [data.draw(ends), *data.draw(between)[: len(fields) - 1], data.draw(ends)]
    values = {
        name: data.draw(
            NUMBER
            if name in NUMBERS
            else st.sampled_from(ENCODER_VOCAB)
            if name == "encoder"
            else TEXT
        )
        for name in fields
    }
    text = "".join(f"{a}{{{b}}}" for a, b in zip(literals, fields, strict=False)) + literals[-1]
    pattern = NamePattern.parse(text)
    stem = text.format(**values)
    try:
        assert pattern.read(stem) == values
    except BadInput as refusal:
        assert "its name can be read as" in refusal.problem  # noqa: PT017
        assert any("_" in v or "-" in v for v in values.values() if type(v) is str)


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=4, max_size=4))
def test_texts_without_the_separator_are_always_read_back(values):
    pattern = NamePattern.parse("{src}_{encoder}_{preset}_{content}_crf{cq}")
    columns = dict(zip(pattern.fields, values, strict=False))
    assert pattern.read("_".join(values) + "_crf22.5") == {**columns, "cq": 22.5}


@pytest.mark.parametrize(
    ("pattern", "stem", "columns"),
    [
        (
            "{src}_{cq}kbps_{height}p_{fps}fps_{encoder}",
            "Tennis_24fps_8bit_200kbps_360p_59.94fps_h264",
            {
                "src": "Tennis_24fps_8bit",
                "bitrate_kbps": 200,
                "height": 360,
                "fps": 59.94,
                "encoder": "h264",
            },
        ),
        (
            "{src}_{encoder}_{cq}",
            "a_b_av1_nvenc_20",
            {"src": "a_b", "encoder": "av1_nvenc", "cq": 20},
        ),
        ("x{cq}", "x20", {"cq": 20}),
        ("x{cq}", "x20y", None),
        ("x{cq}", "y20", None),
        ("{cq}y", "y", None),
        ("x{cq}", "x-20", None),
        ("x{cq}", "x1e5", None),
        ("{src}.mp4", "a.mp4", {"src": "a"}),
    ],
)
def test_a_name_is_matched_exactly(pattern, stem, columns):
    assert NamePattern.parse(pattern).read(stem) == columns


def test_a_name_of_two_readings_is_refused():
    with pytest.raises(
        BadInput,
        match=r"a_b_c_1: its name can be read as src a, content b_c, .* src a_b, content c",
    ):
        NamePattern.parse("{src}_{content}_{cq}").read("a_b_c_1")


@pytest.mark.parametrize(
    ("pattern", "refusal"),
    [
        ("{src}{cq}", r"where src ends and cq begins, .*put text between them, .*\{src\}_\{cq\}"),
        ("{src}_{src}", "src stands there twice"),
        ("{bitrate_kbps}_{cq}kbps", "bitrate_kbps stands there twice"),
        ("{src_{cq}", "a brace without its partner"),
        ("{src}_{cq}}", "a brace without its partner"),
        ("{}_{cq}", "names no column"),
        ("{my src}_{cq}", "names no column"),
        ("{vmaf}_{cq}", "vmaf comes from the log itself"),
        ("{clip}_{cq}", "clip comes from the log itself"),
    ],
)
def test_a_pattern_that_cannot_be_read_back_is_refused(pattern, refusal):
    with pytest.raises(BadSettings, match=f"--name-pattern: .*{refusal}"):
        NamePattern.parse(pattern)


def test_settings_are_typed_by_their_column():
    assert read_setting("preset=8") == ("preset", "8")
    assert read_setting("height=720") == ("height", 720)
    assert read_setting("fps=29.97") == ("fps", 29.97)
    assert read_setting("note=a=b") == ("note", "a=b")
    for text, refusal in {
        "height=tall": "--set: height is a number, found 'height=tall'",
        "height": "names no column",
        "=3": "names no column",
        "src=": "names no column",
        "adm2=1": "adm2 comes from the log itself",
    }.items():
        with pytest.raises(BadSettings, match=refusal):
            read_setting(text)


def test_every_alias_leads_into_the_vocabulary_and_only_aliases_change():
    for name in ("H264", "x264", "avc", "h265", "x265", "HEVC", "vp9", "libvpx", "av1", "vvc"):
        assert known_encoder(name) in ENCODER_VOCAB
        assert known_encoder(name) != name
    for name in (*ENCODER_VOCAB, "h264_vaapi"):
        assert known_encoder(name) == name
    assert known_encoder("theora") is None


@pytest.mark.parametrize(
    ("pattern", "given", "refusal"),
    [
        ("{src}_{cq}", {}, "nothing says the encoder of a log, .*--set encoder=VALUE"),
        ("{content}", {"encoder": "libx264"}, "nothing says the src, cq of a log"),
        ("{src}_{encoder}_{cq}", {"src": "a"}, "src is in the name and given with --set"),
        (
            "{src}_{encoder}_q{cq}",
            {},
            r"2 of 2 logs are not named by the pattern, .* found a_x264_1, a_h264_1;",
        ),
        ("{src}_{encoder}_{cq}", {}, "a_x264_1 and a_h264_1 say that they are of the same encode"),
    ],
)
def test_names_that_do_not_say_enough_are_refused(pattern, given, refusal):
    with pytest.raises(BadInput, match=refusal):
        read_names(["a_x264_1", "a_h264_1"], NamePattern.parse(pattern), given)


def test_a_bitrate_is_a_quality_turned_round():
    (row,), aliases = read_names(
        ["a_800kbps"], NamePattern.parse("{src}_{cq}kbps"), {"encoder": "vp9"}
    )
    assert (row["cq"], row["bitrate_kbps"], row["rate_control"]) == (-800, 800, "bitrate")
    assert aliases == {"a_800kbps": "vp9 -> libvpx-vp9"}
    (row,), _ = read_names(
        ["a_800_20"], NamePattern.parse("{src}_{bitrate_kbps}_{cq}"), {"encoder": "libx264"}
    )
    assert (row["cq"], row["rate_control"]) == (20, "quality")


# -- Logs together --------------------------------------------------------------------------------

BY_QUALITY = ImportSettings(pattern=NamePattern.parse("{src}_{encoder}_crf{cq}"))


@pytest.fixture
def importing(tmp_path):
    def importing(*paths, settings=BY_QUALITY, out="out.jsonl"):
        return import_logs(paths, settings, out=tmp_path / out)

    return importing


def test_rows_do_not_depend_on_the_order_of_logs(importing, log, tmp_path):
    logs = [log(name="bee_libx264_crf20.a"), log(name="ant_libx265_crf22.5.b")]
    one = importing(*logs, out="one.jsonl.gz")
    two = importing(*logs[::-1], out="two.jsonl.gz")
    content = (tmp_path / "one.jsonl.gz").read_bytes()
    assert content == (tmp_path / "two.jsonl.gz").read_bytes()
    assert content[4:8] == bytes(4)  # no time in gzip's header
    assert one.rows == two.rows == 6
    assert load_corpus(one.corpus).rows["src"].to_list() == ["ant"] * 3 + ["bee"] * 3
    assert load_corpus(one.corpus).rows["cq"].unique().sort().to_list() == [20, 22.5]


def test_what_deserves_a_second_look_is_said(importing, log):
    report = importing(
        log(name="ant_libx264_crf20.json", integer_adm2=0.5, psnr_y=40.0),
        log(as_csv([metrics(0, integer_adm2=0.5)]), name="ant_libx264_crf30.csv"),
        log(
            as_xml([metrics(0, integer_adm2=0.5)], ' version="2.3.1"'), name="bee_theora_crf30.xml"
        ),
    )
    assert report.libvmaf == {"2.3.1": 1, "3.0.0": 1, "unknown": 1}
    assert report.warnings == (
        "logs that do not say which libvmaf made them (CSV never does): 1",
        "several versions of libvmaf, whose features may differ; logs: 2.3.1 1, 3.0.0 1",
        "the integer features are taken of logs that hold float ones of the same name too; logs: 3",
        "features that only some logs hold: psnr_y",
        "ant: logs of 1 and 3 frames: one may be cut short, or compare other frames",
        "encoders outside the vocabulary share its slot unknown; rows of each: theora 1",
    )
    assert load_corpus(report.corpus).rows["psnr_y"].null_count() == 2


def test_the_manifest_names_every_log_and_version(importing, log):
    report = importing(
        log(name="ant_x264_crf20.json"), log(as_csv(THREE), name="ant_avc_crf30.csv")
    )
    manifest = read_json(report.manifest)
    assert manifest["tools"] == {"libvmaf": "3.0.0, unknown"}
    assert [(item["clip"], item["libvmaf"]) for item in manifest["logs"]] == [
        ("ant_avc_crf30", None),
        ("ant_x264_crf20", "3.0.0"),
    ]
    assert manifest["encoder_aliases"] == {"avc -> libx264": 1, "x264 -> libx264": 1}
    assert manifest["corpus"]["sha256"] == load_corpus(report.corpus).sha256


def test_logs_that_do_not_go_together_are_refused_and_nothing_is_written(importing, log, tmp_path):
    ant, bee = log(), log(name="bee_libx264_crf20.log", integer_adm2=0.5)
    refusals = {
        (ant, bee): "adm2 is integer_adm2 here and adm2 in .*ant.* measure these again",
        (ant, log(name="more/ant_libx264_crf20.xml")): "two logs are named ant_libx264_crf20",
        (ant, log(name="bee.log")): "1 of 2 logs are not named by the pattern, .* found bee;",
        (log(name="ant_libx264_crf1.log", vmaf=101.0),): (
            "log ant_libx264_crf1 frame 0: vmaf must lie in 0..100, found 101"
        ),
        (log(name="ant_libx264_crf2.log", rate_control=1.0),): (
            "the log has a feature rate_control, which is also another column"
        ),
        (log(name="ant_libx264_crf4.log", frame_index=1.0),): "has a feature frame_index",
        (log("{", name="ant_libx264_crf3.log"),): "not a whole JSON file",
    }
    for paths, refusal in refusals.items():
        with pytest.raises(BadInput, match=refusal):
            importing(*paths)
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(BadSettings, match=r"--out: a corpus is written as JSONL, .*found out.csv"):
        importing(ant, out="out.csv")
