"""Input that means harm, or is merely broken: it works, or ends in one message, and never hangs."""

import gzip
import json
import os
import re
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest

from loso.corpus.build import build_corpus
from loso.corpus.choices import read_choices
from loso.corpus.from_logs import ImportSettings, import_logs
from loso.corpus.load import load_corpus
from loso.corpus.logs import read_log
from loso.corpus.names import NamePattern
from loso.corpus.plan import BuildSettings
from loso.errors import BadClip, BadInput, CannotRun, LosoError, MissingTool
from loso.schema import CANONICAL_6
from loso.video.clips import ClipSettings, open_clip
from loso.video.encoders import ENCODERS, Rate
from loso.video.ffmpeg import FfmpegSession, demuxers_of, find_ffmpeg
from loso.video.measure import Encode, VmafModel, measure
from loso.video.pair import measure_pair
from loso.video.said import _LONGEST_LINE, _MOST_BYTES, Said, painted
from loso.video.seen import Watch

FRAMES = 3
PROMPT_S = 15.0
"""Far below any time limit here: what takes longer has waited for one."""


@pytest.fixture(scope="module")
def ffmpeg():
    return find_ffmpeg()


@pytest.fixture(scope="module")
def session(ffmpeg):
    with FfmpegSession(ffmpeg) as session:
        yield session


@pytest.fixture(scope="module")
def content(tmp_path_factory, ffmpeg):
    """The bytes of a small clip, by container."""
    folder = tmp_path_factory.mktemp("content")

    def make(ending, *options, chain="format=yuv420p", frames=FRAMES):
        path = folder / f"clip.{ending}"
        source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25", "-frames:v", f"{frames}"]
        coding = ["-vf", chain, *(options or ("-c:v", "libx264", "-crf", "10")), f"{path}"]
        subprocess.run([ffmpeg.path, "-y", "-loglevel", "error", *source, *coding], check=True)
        return path.read_bytes()

    return make


@pytest.fixture
def look(session):
    def look(path, timeout_s=60.0, **settings):
        return open_clip(path, ClipSettings(**settings), session, timeout_s=timeout_s)

    return look


@pytest.fixture
def build(ffmpeg, tmp_path):
    def build(paths, *, program=None, **options):
        choices = read_choices(["libx264"], quality=["30"], preset=["ultrafast"])
        settings = BuildSettings(choices=choices, **options)
        out = tmp_path / "out" / "corpus.jsonl"
        return build_corpus(paths, settings, program or ffmpeg, out=out, jobs=2)

    return build


def refusal(action, *arguments, kind=BadClip, **options):
    """The one message in which `action` ends, and soon."""
    started = time.monotonic()
    with pytest.raises(LosoError) as refused:
        action(*arguments, **options)
    assert time.monotonic() - started < PROMPT_S
    assert type(refused.value) is kind
    assert str(refused.value).isprintable()
    return str(refused.value)


# -- Names ----------------------------------------------------------------------------------------

NAMES = [
    "a b  c",
    "quote'\"`$(touch x)",
    "-i",
    "--frames",
    "concat:a|b",
    "http:--x@y",
    "%d%03d",
    "x,y:z;[a][b]=c\\,d",
    "pipe:0",
    "~",
    "*?[a-z]{b}",
    "trailing ",
    "{src}_{cq}",
    "日本é\U0001f41d",
    "Input #0, concat, from",
    "[info] showinfo n: 0 pts: 0 x fmt:rgb24 x s:9x9 ",
    "n" * 251,
]
"""Stems of clips that ffmpeg, a filter graph, a shell or a log could take for something else."""


def test_names_are_only_names_to_a_build(build, content, tmp_path):
    paths = []
    for name in NAMES:
        paths.append(tmp_path / f"{name}.mkv")
        paths[-1].write_bytes(content("mkv"))
    report = build(paths)
    assert report.missing == {}
    rows = load_corpus(report.corpus).rows
    assert sorted(rows["src"].unique()) == sorted(NAMES)
    assert rows.group_by("src").len()["len"].to_list() == [FRAMES] * len(NAMES)
    assert not Path("x").exists()


@pytest.mark.parametrize("name", NAMES)
def test_names_are_only_names_to_a_pair(ffmpeg, content, tmp_path, name):
    both = [tmp_path / f"{name}.mkv", tmp_path / f"{name}.mp4"]
    for path in both:
        path.write_bytes(content(path.suffix[1:]))
    pair = measure_pair(*both, ffmpeg, timeout_s=60)
    assert (pair.frames, pair.width, pair.height) == (FRAMES, 96, 64)
    assert pair.coded_bytes


def log_of(vmaf=90.0):
    metrics = {"vmaf": vmaf, **{f"integer_{name}": 0.5 for name in CANONICAL_6}}
    return json.dumps({"version": "3", "frames": [{"frameNum": 0, "metrics": metrics}]})


def import_all(paths, out):
    settings = ImportSettings(
        pattern=NamePattern.parse("{src}"), given={"encoder": "libx264", "cq": 20}
    )
    return import_logs(paths, settings, out=out)


def test_names_are_only_names_to_an_import(tmp_path):
    paths = []
    for name in NAMES:
        paths.append(tmp_path / f"{name}.log")
        paths[-1].write_text(log_of())
    report = import_all(paths, tmp_path / "corpus.jsonl")
    assert report.sources == tuple(sorted(NAMES))


CONTROLS = ["two\nlines", "tab\tbed", "red\x1b[31m", "bell\x07", "csi\x9b2J", "del\x7f"]


@pytest.mark.parametrize("name", CONTROLS)
def test_a_name_that_could_pass_for_a_line_is_refused(build, ffmpeg, content, tmp_path, name):
    path = tmp_path / f"{name}.mkv"
    path.write_bytes(content("mkv"))
    other = tmp_path / "other.mkv"
    other.write_bytes(content("mkv"))
    expected = f"{str(path)!r}: its path holds a line end or another control character; rename it"
    assert refusal(build, [path]) == expected
    assert refusal(measure_pair, path, other, ffmpeg) == expected
    assert refusal(measure_pair, other, path, ffmpeg) == expected
    log = tmp_path / f"{name}.json"
    log.write_text(log_of())
    found = refusal(import_all, [log], tmp_path / "corpus.jsonl", kind=BadInput)
    assert found == (
        f"{str(log)!r}: its name holds a line end or another control character; rename the log"
    )


def test_a_name_that_is_no_text_is_refused(build, ffmpeg, content, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mkv")
    path.write_bytes(content("mkv"))
    start = f"{str(path)!r}: its name is not UTF-8"
    assert refusal(build, [path]) == f"{start}, and the name is the source; rename it"
    assert refusal(measure_pair, path, path, ffmpeg) == f"{start}; rename it"
    log = tmp_path / os.fsdecode(b"caf\xe9.json")
    log.write_text(log_of())
    found = refusal(import_all, [log], tmp_path / "corpus.jsonl", kind=BadInput)
    assert found == f"{str(log)!r}: its name is not UTF-8; rename the log"


def test_a_name_that_no_file_can_have_is_refused(build, look, tmp_path):
    path = tmp_path / f"{'n' * 300}.mkv"
    assert refusal(build, [path]) == f"{path}: cannot be read (File name too long)"
    assert refusal(look, tmp_path / "nothing.mkv").endswith("nothing.mkv: no such file")
    assert refusal(look, tmp_path / "x.mkv" / "y.mkv").endswith(": no such file")


@pytest.mark.parametrize("name", [b"caf\xe9.mkv", b"two\nlines.mkv", b"n" * 300, b"-.mkv"])
def test_the_command_line_ends_in_one_line(tmp_path, name):
    words = ["corpus", "build", "--encoder", "libx264", "--quality", "30", "--"]
    program = [sys.executable, "-c", "from loso.cli import main; main()"]
    ended = subprocess.run(
        [*program, *words, name], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith(b"loso: ")
    assert list(tmp_path.iterdir()) == []


# -- Files that lead elsewhere --------------------------------------------------------------------

DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-main:2011" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet contentType="video">'
    '<Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>\n"
)
PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
    "dash": DASH,
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


@pytest.fixture
def server():
    """A port on this machine, and the connections that came."""
    came = []

    def listen(listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            came.append(connection)
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        waiting = threading.Thread(target=listen, args=(listener,))
        waiting.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/clip.ts", came
        listener.shutdown(socket.SHUT_RDWR)
    waiting.join()


@pytest.mark.parametrize("ending", ["mp4", "mkv", "m3u8", "mpd", "txt", "avi"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_is_not_followed_whatever_its_name(
    build, ffmpeg, content, tmp_path, server, kind, ending
):
    # A pipe shows whether it was opened: ffmpeg would wait there.
    pipe = tmp_path / "target.ts"
    os.mkfifo(pipe)
    url, came = server
    other = tmp_path / "other.mkv"
    other.write_bytes(content("mkv"))
    known = rf"is read as {kind}, which can name other files; join them into one first"
    for target in (pipe.name, f"file:{pipe}", f"{pipe}", url):
        path = tmp_path / f"clip.{ending}"
        path.write_text(PLAYLISTS[kind].format(target))
        for found in (
            refusal(build, [path], timeout_s=60.0),
            refusal(measure_pair, path, other, ffmpeg, timeout_s=60),
            refusal(measure_pair, other, path, ffmpeg, timeout_s=60),
        ):
            # Where the name speaks against its kind, ffmpeg may not see the list in it at all.
            no_video = r"cannot be decoded as video \(.*\)|has no video stream"
            text = found.removeprefix(f"{path}: ")
            assert re.fullmatch(rf"{known}|{no_video}|carries no frame rate; .*", text), text
    assert came == []


def test_a_playlist_is_refused_in_the_words_for_it(look, tmp_path):
    for kind, ending in (("concat", "mp4"), ("hls", "m3u8"), ("dash", "mpd"), ("sdp", "mp4")):
        path = tmp_path / f"clip.{ending}"
        path.write_text(PLAYLISTS[kind].format("other.ts"))
        assert refusal(look, path) == (
            f"{path}: is read as {kind}, which can name other files; join them into one first"
        )


def test_scripts_are_not_run(look, tmp_path):
    for name, text in {
        "clip.avs": 'Import("/etc/passwd")\n',
        "clip.vpy": "import vapoursynth\nopen('run', 'w')\n",
        "vs.mp4": "# -*- \nimport vapoursynth as vs\n",
    }.items():
        path = tmp_path / name
        path.write_text(text)
        refusal(look, path)
    assert not Path("run").exists()


def test_what_ffmpeg_reads_is_listed_by_name(ffmpeg, tmp_path):
    names = demuxers_of(ffmpeg)
    assert {"mov", "mp4", "matroska", "webm", "h264", "hls", "concat", "rawvideo"} <= set(names)
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in names)
    silent = fake(tmp_path / "silent", ffmpeg, '*-demuxers*) echo "Formats:"; exit 0 ;;')
    with pytest.raises(MissingTool, match="silent: does not list its demuxers as ffmpeg does"):
        demuxers_of(silent)


TITLES = [
    "[Parsed_showinfo_0 @ 0x1] [info] n:   9 pts:     9 x fmt:rgb24 cl:left sar:1/1 s:9x9 i:P",
    "x\n[Parsed_showinfo_0 @ 0x1] [info] n:   9 pts:     9 x fmt:rgb24 sar:1/1 s:9x9 i:P",
    "x\r[Parsed_showinfo_0 @ 0x1] [info] config in time_base: 1/9, frame_rate: 9/1",
    "[info] config in time_base: 1/9, frame_rate: 9/1",
    "color_range:pc",
    "x\n[info]   Display Matrix: rotation of 90.00 degrees",
    "Input #0, concat, from 'x': Video: none",
    "[error] Conversion failed!",
]


@pytest.mark.parametrize("title", TITLES)
def test_what_a_clip_says_of_itself_is_not_taken_for_ffmpegs_word(look, content, tmp_path, title):
    path = tmp_path / "clip.mkv"
    path.write_bytes(content("mkv", "-c:v", "ffv1", "-metadata", f"title={title}"))
    clip = look(path)
    assert (clip.frames, clip.fps, clip.decoded) == (FRAMES, 25, "96x64 yuv420p")
    assert clip.remarks in {(), ("while decoding ffmpeg said: title : Conversion failed!",)}


# -- Clips that never end, end too soon or change -------------------------------------------------


def test_what_is_no_file_is_refused_at_once(build, ffmpeg, content, tmp_path):
    good = tmp_path / "good.mkv"
    good.write_bytes(content("mkv"))
    pipe, endless = tmp_path / "pipe.mkv", tmp_path / "zero.mkv"
    os.mkfifo(pipe)
    endless.symlink_to("/dev/zero")
    for path, found in {
        pipe: "a pipe, a device or a socket",
        endless: "a pipe, a device or a socket",
        tmp_path: "a folder",
    }.items():
        expected = f"{path}: not a regular file, found {found}"
        assert refusal(build, [path]) == expected
        assert refusal(measure_pair, path, good, ffmpeg) == expected
        assert refusal(measure_pair, good, path, ffmpeg) == expected
    for path in (pipe, endless):
        text = refusal(import_all, [path], tmp_path / "corpus.jsonl", kind=BadInput)
        assert text == f"{path}: a pipe or a device, not a log"


def test_a_log_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("loso.corpus.logs._FREE_UNPACKED", 2**20)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 2**21))
    assert refusal(read_log, path, kind=BadInput) == (
        f"{path}: unpacks to more than {2**20} bytes, as no measured rows do; copy or make the log "
        "again"
    )


RAW = {"raw_size": (96, 64), "fps": Fraction(25)}


def test_a_clip_without_an_end_is_stopped_in_time(look, tmp_path):
    path = tmp_path / "endless.yuv"
    with path.open("wb") as stream:
        stream.truncate(2**40 // 9216 * 9216)  # holes: it takes no room on the disk
    assert refusal(look, path, timeout_s=1.0, **RAW) == (
        f"{path}: cannot be decoded as video (ffmpeg was stopped after 1 s)"
    )
    # Three frames are soon decoded; the hash of the file is what has no end.
    assert refusal(look, path, timeout_s=1.0, frames=3, **RAW) == (
        f"{path}: not read to its end in 1 s; cut it, or give it more time with --timeout"
    )


def test_a_clip_that_grows_is_refused(look, tmp_path):
    path, ended = tmp_path / "growing.yuv", threading.Event()
    path.write_bytes(bytes(9216 * 3))

    def grow():
        while not ended.is_set():
            with path.open("ab") as stream:
                stream.write(bytes(9216))
            time.sleep(0.005)

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        text = refusal(look, path, timeout_s=10.0, **RAW)
    finally:
        ended.set()
        growing.join()
    assert text == f"{path}: changed while it was read; run this again"


@pytest.mark.parametrize("ending", ["mkv", "mp4", "264"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_a_clip_that_is_cut_off_is_remarked_or_refused(look, content, tmp_path, ending, share):
    whole = content(ending, frames=40)
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(whole[: int(len(whole) * share)])
    settings = {"fps": Fraction(25)} if ending == "264" else {}
    try:
        clip, refused = look(path, **settings), None
    except BadClip as failure:
        clip, refused = None, str(failure)
    if clip is None:
        assert refused.startswith(f"{path}: ")
        assert re.search(r"cannot be decoded as video|too few frames|no video stream", refused)
    else:
        assert 0 < clip.frames < 40
        said = any("while decoding ffmpeg said: " in remark for remark in clip.remarks)
        assert said or share == 0.9  # where the last packet alone is gone, ffmpeg may not see it


def test_a_container_without_a_frame_is_refused(look, content, tmp_path):
    whole = content("mp4", "-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov")
    path = tmp_path / "header.mp4"
    path.write_bytes(whole[: whole.index(b"moof") - 4])
    assert re.fullmatch(
        rf"{path}: cannot be decoded as video \(.+\)|{path}: too few frames, .+",
        refusal(look, path),
    )
    path.write_bytes(b"")
    assert "cannot be decoded as video" in refusal(look, path)


@pytest.mark.parametrize("which", ["reference", "distorted"])
def test_a_size_that_changes_midway_is_refused(build, ffmpeg, content, tmp_path, which):
    path, other = tmp_path / "both.ts", tmp_path / "other.mkv"
    parts = [content("ts", chain=f"scale={size}:{size},format=yuv420p") for size in (64, 80)]
    path.write_bytes(b"".join(parts))
    other.write_bytes(content("mkv", frames=2 * FRAMES))
    expected = f"{path}: changes its size or format, found 64x64 yuv420p, 80x80 yuv420p; cut it up"
    pair = (path, other) if which == "reference" else (other, path)
    assert refusal(measure_pair, *pair, ffmpeg) == expected
    assert refusal(build, [path]) == expected


PLAYLIST_OF = "ffconcat version 1.0\nfile 'other.mkv'\n"


def test_a_clip_that_becomes_a_playlist_is_not_followed_by_a_cell(session, look, content, tmp_path):
    clip, other = tmp_path / "clip.mkv", tmp_path / "other.mkv"
    for path in (clip, other):
        path.write_bytes(content("mkv"))
    opened = look(clip)
    clip.write_text(PLAYLIST_OF)
    encode = Encode(
        encoder=ENCODERS["libx264"],
        preset="medium",
        rate=Rate("quality", 30),
        width=96,
        height=64,
    )
    for two_step in (False, True):
        folder = tmp_path / f"{two_step}"
        folder.mkdir()
        with pytest.raises(CannotRun, match="Format not on whitelist"):
            measure(
                opened,
                encode,
                VmafModel(),
                session,
                folder=folder,
                timeout_s=60,
                two_step=two_step,
            )


@pytest.mark.parametrize("which", ["reference", "distorted"])
def test_a_clip_that_becomes_a_playlist_is_not_followed_by_a_pair(ffmpeg, content, tmp_path, which):
    paths = {name: tmp_path / f"{name}.mkv" for name in ("reference", "distorted")}
    for path in (*paths.values(), tmp_path / "other.mkv"):
        path.write_bytes(content("mkv"))
    (tmp_path / "list").write_text(PLAYLIST_OF)
    copy = f"cp '{tmp_path / 'list'}' '{paths[which]}'"
    changing = fake(tmp_path / "changing", ffmpeg, f"*libvmaf=*) {copy} ;;")
    found = refusal(measure_pair, *paths.values(), changing, kind=CannotRun)
    assert "Format not on whitelist" in found


@pytest.mark.parametrize("which", ["reference", "distorted"])
def test_a_clip_of_a_pair_that_changes_meanwhile_is_refused(ffmpeg, content, tmp_path, which):
    paths = {name: tmp_path / f"{name}.mkv" for name in ("reference", "distorted")}
    for path in paths.values():
        path.write_bytes(content("mkv"))
    changing = fake(
        tmp_path / "changing", ffmpeg, f"*libvmaf=*) touch -d 2001-01-01 '{paths[which]}' ;;"
    )
    assert refusal(measure_pair, *paths.values(), changing) == (
        f"{paths[which]}: changed while it was measured"
    )


# -- Programs that misbehave ----------------------------------------------------------------------


def fake(path, ffmpeg, cases):
    """Write a program that is ffmpeg, but for shell `cases` of its arguments."""
    path.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}\nesac\nexec "{ffmpeg.path}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return find_ffmpeg(str(path))


CELL = "*clip.mkv*-crf*"
ENDINGS = {
    "segfault": ("kill -SEGV $$", "ffmpeg was killed by signal 11"),
    "abort": ("kill -ABRT $$", "ffmpeg was killed by signal 6"),
    "silent failure": ("exit 77", "ffmpeg ended with code 77"),
    "silent success": ("exit 0", "libvmaf's log is not whole (FileNotFoundError(2, 'No such file"),
    "hang": ("exec sleep 60", "ffmpeg was stopped after "),
    "hang without stderr": ("exec 2>&-; exec sleep 60", "ffmpeg was stopped after "),
    "deaf hang": ("trap '' TERM INT; exec sleep 60", "ffmpeg was stopped after "),
    "flood": ("exec yes '[error] too much' >&2", "ffmpeg was stopped after "),
    "flood without an end of line": (
        "exec tr '\\0' x < /dev/zero >&2",
        "ffmpeg was stopped after ",
    ),
    "flood, then failure": (
        "yes '[warning] much' | head -c 20000000 >&2; echo '[error] enough' >&2; exit 1",
        "enough",
    ),
    "no text": ("printf '\\377\\376[error] \\303\\050 \\000\\033[2J\\n' >&2; exit 1", "\ufffd( "),
    "a child that holds the pipe": (
        "sleep 30 & echo '[error] left one behind' >&2; exit 1",
        "left one behind",
    ),
    "half a log": (
        'echo \'{"version": "3", "frames": [{\' > scores.json; exit 0',
        "libvmaf's log is not whole (JSONDecodeError(",
    ),
    "a log of other things": (
        'echo \'{"version": "3", "frames": [{"metrics": [1, 2]}]}\' > scores.json; exit 0',
        "libvmaf's log is not whole (",
    ),
    "statistics that are no text": (
        (
            'printf "\\377 f_size= 99999999999999999999999" > packets.txt; '
            'echo \'{"version": "3", "frames": []}\' > scores.json; exit 0'
        ),
        "libvmaf's log is not whole (",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_encoder_that_misbehaves_costs_its_own_cell(build, ffmpeg, content, tmp_path, ending):
    action, reason = ENDINGS[ending]
    clip, other = tmp_path / "clip.mkv", tmp_path / "other.mkv"
    for path in (clip, other):
        path.write_bytes(content("mkv"))
    program = fake(tmp_path / "program", ffmpeg, f"{CELL}) {action} ;;")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    # Short where it is waited for, and still enough for the other clip on a machine that is busy.
    limit_s = 4.0 if "was stopped" in reason else 60.0
    report = build([clip, other], program=program, timeout_s=limit_s)
    assert time.monotonic() - started < PROMPT_S
    # A thousand times as much may be said.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    assert list(report.missing) == ["clip_libx264_ultrafast_q30_64p"]
    (said,) = report.missing.values()
    assert reason in said
    assert len(said) < 200
    assert load_corpus(report.corpus).sources == ("other",)
    wait_until_gone(tmp_path)
    assert list(tmp_path.rglob(".*.tmp")) == []
    assert not list(tmp_path.rglob("work"))


def wait_until_gone(folder):
    """Wait until no process works below `folder`, and this one has no dead child."""
    end = time.monotonic() + 30
    while (found := [*processes_in(folder), *zombies()]) and time.monotonic() < end:
        time.sleep(0.05)
    assert found == []


def processes_in(folder):
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in str((process / "cwd").readlink()):
                yield process.name
        except OSError:
            continue


def zombies():
    """Children of this process that ended and were not waited for."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (process / "stat").read_text().rpartition(") ")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and parent == str(os.getpid()):
            yield process.name


def test_an_encoder_that_codes_to_nothing_is_refused(build, ffmpeg, content, tmp_path):
    path = tmp_path / "clip.mkv"
    path.write_bytes(content("mkv"))
    program = fake(tmp_path / "program", ffmpeg, "*streamhash*) exit 0 ;;")
    assert refusal(build, [path], program=program, kind=MissingTool) == (
        "libx264: does not work here (it ended well and wrote nothing); leave this encoder out"
    )


def test_a_child_is_heard_line_by_line_however_it_speaks():
    text = "".join(f"[info] {at} é\r\n" for at in range(100)) + "no end"
    heard = []
    said = Said(lambda line: heard.append(line) or " 7 " in line)
    for byte in text.encode():
        said.hear(bytes([byte]))
    assert said.text() == text.replace("\r", "").replace("[info] 7 é\n", "")
    assert "".join(heard) == text.replace("\r", "")


RED, YELLOW, GREEN, PLAIN = "\x1b[1;31m", "\x1b[0;33m", "\x1b[1;32m", "\x1b[0m"
FRAME = "n:   0 pts:      0 pts_time:0 fmt:yuv420p cl:left sar:1/1 s:96x64 i:P iskey:1 type:I "
SHOWINFO = f"{GREEN}[Parsed_showinfo_0 @ 0x1] {PLAIN}[info] "


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (f"{SHOWINFO}{FRAME}{RED}no frame!\n{PLAIN}", "[error] no frame!\n"),
        (f"{SHOWINFO}{FRAME}{RED}no {PLAIN}{RED}frame!\n{PLAIN}", "[error] no frame!\n"),
        (f"{SHOWINFO}{FRAME}\x1b[4;31mno memory\n{PLAIN}", "[fatal] no memory\n"),
        # No complaint, though it stands in the midst as well.
        (f"{SHOWINFO}{FRAME}EOF while reading input\n", ""),
        (f"{SHOWINFO}{FRAME}{YELLOW}corrupt frame\n{PLAIN}", "[warning] corrupt frame\n"),
        # On a line of its own it keeps the name of who complains.
        (
            f"\x1b[0;36m[h264 @ 0x2] {PLAIN}{RED}[error] {PLAIN}{RED}no frame!\n",
            "[h264 @ 0x2] [error] no frame!\n",
        ),
        (f"{PLAIN}{RED}[error] {PLAIN}{RED}a {PLAIN}{RED}line\n{PLAIN}", "[error] a line\n"),
    ],
)
def test_a_complaint_is_heard_wherever_it_stands(written, kept):
    watch = Watch()
    said = Said(watch)
    said.hear(written.encode())
    assert said.text() == kept
    assert watch.seen().shapes == (("96x64 yuv420p",) if FRAME in written else ())


def heard_through(path, ffmpeg, script):
    """Write a program that is ffmpeg, but what it says of frames goes through sed; return it."""
    path.write_text(
        '#!/bin/bash\ncase "$*" in *showinfo*)\n'
        f'"{ffmpeg.path}" "$@" 2>&1 >&- | sed \'{script}\' >&2; exit ${{PIPESTATUS[0]}} ;;\nesac\n'
        f'exec "{ffmpeg.path}" "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return find_ffmpeg(str(path))


def test_a_complaint_in_the_midst_of_another_line_is_remarked(ffmpeg, content, tmp_path):
    path = tmp_path / "clip.mkv"
    path.write_bytes(content("mkv"))
    # As one thread's words stand in the line of another: after the frame, before the line's end.
    program = heard_through(tmp_path / "program", ffmpeg, f"s/type:I $/&{RED}no frame!/")
    with FfmpegSession(program) as session:
        clip = open_clip(path, ClipSettings(), session, timeout_s=60)
    assert (clip.frames, clip.remarks) == (FRAMES, ("while decoding ffmpeg said: no frame!",))


def test_a_frame_that_was_not_heard_of_is_missed(ffmpeg, content, tmp_path):
    path = tmp_path / "clip.mkv"
    path.write_bytes(content("mkv"))
    with FfmpegSession(heard_through(tmp_path / "program", ffmpeg, "/n: *1 pts/d")) as session:
        text = refusal(open_clip, path, ClipSettings(), session, timeout_s=60)
    assert text == f"{path}: not every frame was heard of; run this again"


@pytest.mark.parametrize("variable", ["AV_LOG_FORCE_NOCOLOR", "AV_LOG_FORCE_256COLOR"])
def test_colours_that_a_user_chose_do_not_deafen(look, content, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    given = painted({variable: "1", "TERM": "x", "HOME": "/"})
    assert given == {"AV_LOG_FORCE_COLOR": "1", "TERM": "", "HOME": "/"}
    whole, path = content("mkv", frames=40), tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    assert look(path).remarks == ("while decoding ffmpeg said: File ended prematurely",)


def test_of_what_is_too_much_the_start_and_the_end_are_kept():
    said = Said()
    for at in range(300_000):
        said.hear(b"%d %s\n" % (at, b"x" * 30))
    lines = said.text().splitlines()
    numbers = [int(line.split()[0]) for line in lines]
    assert numbers[0] == 0
    assert numbers[-1] == 299_999
    assert numbers == sorted(numbers)
    assert 2 * _MOST_BYTES * 0.99 < len(said.text()) <= 2 * _MOST_BYTES
    said = Said()
    for _ in range(100):
        said.hear(b"y" * _LONGEST_LINE)
    assert _MOST_BYTES < len(said.text()) <= 2 * _MOST_BYTES


# -- Soak -----------------------------------------------------------------------------------------


def test_a_build_whose_children_are_killed_at_random_completes(tmp_path):
    run = [sys.executable, Path(__file__).parents[1] / "bench" / "soak.py"]
    words = ["--cells", "24", "--every", "0.2", "--seed", "3", "--json", tmp_path / "soak.json"]
    subprocess.run([*run, *words], check=True, timeout=120, stdout=subprocess.DEVNULL)
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["cells"] == 24
    assert found["kills"] >= 1
    assert found["same_bytes"] is True
    assert found["leftovers"] == []
    assert found["processes_left"] == 0
    assert found["longest_zombie_s"] < 1
