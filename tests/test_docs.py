"""The documents say what the program does: keys, columns, commands, options, exit codes, links."""

import json
import re
import shlex
from dataclasses import fields
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from documents import (
    CLI,
    COMMANDS,
    DOCUMENTS,
    FORMATS,
    command_lines,
    each,
    sections,
    split,
    table,
)
from loso import errors, pipeline
from loso.cli import main
from loso.cli.endings import BROKEN_PIPE, FAULT
from loso.corpus.plan import rows_of
from loso.data import demo_corpus_path
from loso.model.files import ENSEMBLE_OUTPUTS, INPUT_NAMES, MEMBER_OUTPUTS, Confidence
from loso.recipe import InputSpec, Recipe
from loso.schema import (
    CODEC_BLOCK_COLUMNS,
    CODEC_BLOCK_WIDTH,
    ENCODER_VOCAB,
    ENCODER_VOCAB_VERSION,
    IDENTITY,
    REQUIRED_NUMBERS,
    REQUIRED_TEXTS,
)
from loso.seedfile import FoldScore, Predictions, SeedFile
from loso.verdict import validate_run
from loso.video.encoders import ENCODERS, Rate
from loso.video.gpus import NvidiaGpu, RenderNode

by_document = each(DOCUMENTS)


# -- Reading the documents ------------------------------------------------------------------------


def names(path, title, first):
    """The first column of a table, without its backquotes, in its order."""
    column = [row[0] for row in table(path, title, first)]
    assert len(column) == len(set(column)), f"{title} says something twice"
    assert all(re.fullmatch("`[^`]+`", cell) for cell in column), f"{title}: {column}"
    return [cell.strip("`") for cell in column]


def key_paths(value, names_of=None, prefix=""):
    """Every key in `value` as a path: a.b, and a[].b for lists of objects.

    `names_of` says where keys are data: their word, such as SRC, or None to stop there.
    """
    paths = set()
    for key, inner in value.items():
        path = f"{prefix}{key}"
        paths.add(path)
        if isinstance(inner, list | tuple):
            for item in inner:
                if isinstance(item, dict):
                    paths |= key_paths(item, names_of, f"{path}[].")
        elif isinstance(inner, dict):
            word = (names_of or {}).get(path, "")
            if word:
                for item in inner.values():
                    paths |= key_paths(item, names_of, f"{path}.{word}.")
            elif word is not None:
                paths |= key_paths(inner, names_of, f"{path}.")
    return paths


def leaves_and_listed(found, documented):
    """`found` without objects that the document does not list by themselves, such as `tools`."""
    parents = {path for path in found if any(other.startswith(f"{path}.") for other in found)}
    return found - (parents - set(documented))


def assert_documented(found, title, first="key"):
    documented = names(FORMATS, title, first)
    missing = leaves_and_listed(found, documented) - set(documented)
    stale = set(documented) - found
    assert not missing, f"docs/formats.md, {title}: say what {sorted(missing)} are"
    assert not stale, f"docs/formats.md, {title}: {sorted(stale)} no longer exist"


# -- docs/formats.md: the contract with trained models --------------------------------------------

VERSION_2 = (
    "libx264 libx265 libsvtav1 libvvenc libvpx-vp9 h264_nvenc hevc_nvenc av1_nvenc "
    "h264_qsv hevc_qsv av1_qsv unknown"
).split()
REQUIRED_BY_VERSION_2 = (
    "src encoder cq frame_index vmaf adm2 vif_scale0 vif_scale1 vif_scale2 vif_scale3 motion2"
).split()
NEW_VERSION = (
    "Every trained model depends on this. If the change is meant, raise ENCODER_VOCAB_VERSION, "
    "retrain every model, and pin the new version here and in docs/formats.md"
)


def test_the_vocabulary_is_that_of_version_2():
    assert ENCODER_VOCAB_VERSION == 2, NEW_VERSION
    assert list(ENCODER_VOCAB) == VERSION_2, NEW_VERSION
    rows = table(FORMATS, "Encoder vocabulary, version 2", "index")
    assert rows == [[str(index), f"`{name}`"] for index, name in enumerate(VERSION_2)]


def test_the_codec_block_is_that_of_version_2():
    columns = [*(f"encoder_onehot[{name}]" for name in VERSION_2), "preset_norm", "crf_norm"]
    assert list(CODEC_BLOCK_COLUMNS) == columns, NEW_VERSION
    assert CODEC_BLOCK_WIDTH == 14, NEW_VERSION
    rows = table(FORMATS, "Codec block", "index")
    assert [row[:2] for row in rows] == [[str(i), f"`{c}`"] for i, c in enumerate(columns)]


def test_the_required_columns_are_those_of_version_2():
    assert [*REQUIRED_TEXTS, *REQUIRED_NUMBERS] == REQUIRED_BY_VERSION_2, NEW_VERSION
    assert names(FORMATS, "Required columns", "column") == REQUIRED_BY_VERSION_2


def test_the_identity_of_a_row_is_documented():
    sentence = " ".join(sections(FORMATS)["Identity"]).partition(";")[0]
    assert re.findall(r"`(\w+)`", sentence) == list(IDENTITY)


# -- docs/formats.md: files -----------------------------------------------------------------------


def test_every_column_that_a_build_adds_is_documented():
    clip = SimpleNamespace(src="a", fps=Fraction(25), frames=1)
    measured = SimpleNamespace(vmaf=(90.0,), features={}, packet_bytes=(1,))
    found = set()
    for name, preset in (("libx264", "medium"), ("h264_videotoolbox", "default")):
        encode = SimpleNamespace(
            encoder=ENCODERS[name], preset=preset, rate=Rate("quality", 60), width=2, height=2
        )
        cell = SimpleNamespace(name="a_b", clip=clip, encode=encode)
        found |= rows_of(cell, measured)[0].keys()
    assert_documented(
        found - set(REQUIRED_BY_VERSION_2), "Columns that loso corpus build adds", "column"
    )


def test_every_key_of_a_seed_file_is_documented():
    found = set(SeedFile.model_fields) - {"predictions"}
    found |= {f"folds[].{key}" for key in FoldScore.model_fields}
    found |= {f"predictions.{key}" for key in Predictions.model_fields}
    assert_documented(found, "loso_seed{N}.json")


def test_every_key_of_what_goes_in_is_documented():
    documented = names(FORMATS, "What goes into a network", "key")
    assert documented == [field.name for field in fields(InputSpec)]


def test_every_file_of_a_run_is_documented(make_corpus, tmp_path):
    corpus = make_corpus(
        sources=["ant", "bee", "cat", "dog"],
        frames=8,
        edit=lambda _, row: row.update(clip=f"{row['src']}{row['encoder']}{row['cq']}"),
    )
    folder = tmp_path / "run"
    pipeline.run(corpus, folder, Recipe(epochs=1, hidden=4), [0, 1])

    seed_names = {re.sub(r"\d+", "{N}", path.name) for path in folder.glob("*seed*")}
    others = {path.name for path in folder.glob("[!.]*")} - {p.name for p in folder.glob("*seed*")}
    documented = {name.rstrip("/") for name in names(FORMATS, "A run's folder", "file")}
    assert documented == seed_names | others | {"PROMOTE.json"}

    for name in ("oof_seed0.parquet", "losses.parquet"):
        columns = pl.read_parquet(folder / name).columns
        title = name.replace("0", "{N}")
        assert names(FORMATS, title, "column") == columns

    record = json.loads((folder / "loso_seed0.json").read_text())
    opaque = {"versions": None, "inputs": None}
    written = key_paths(record, opaque)
    documented = set(names(FORMATS, "loso_seed{N}.json", "key"))
    assert written - {"predictions"} <= documented
    usual = {"note", "excluded_sources", "folds[].reason", "inputs", "standardise_target"}
    assert documented - written == usual

    call = key_paths(json.loads((folder / "run.json").read_text()), opaque)
    assert_documented(call, "run.json")

    verdict = json.loads((folder / "HOLD.json").read_text())
    data_keys = dict.fromkeys(["gate.per_seed_plccs", "evidence.seeds", "evidence.predictions"])
    assert_documented(key_paths(verdict, data_keys), "PROMOTE.json and HOLD.json")
    checks = [advice["check"] for advice in verdict["gate"]["advisory"]]
    assert sorted(names(FORMATS, "PROMOTE.json and HOLD.json", "check")) == sorted(checks)


@pytest.fixture
def printed(monkeypatch, capsys):
    """Run a command line as a shell would; return the objects it prints on stdout."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["loso", *map(str, words)])
        with pytest.raises(SystemExit):
            main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def test_the_manifest_and_what_a_build_prints_are_documented(printed, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (2, 96 * 64 * 3 // 2), dtype=np.uint8)
    (tmp_path / "noise.yuv").write_bytes(picture.tobytes())
    out = tmp_path / "tiny.jsonl"
    raw = ["--width", 96, "--height", 64, "--fps", 25]
    coder = ["--encoder", "libx264", "--preset", "ultrafast", "--quality", 30]
    (report,) = printed(
        *("corpus", "build", tmp_path / "noise.yuv", *raw, *coder, "--out", out, "--json")
    )
    assert_documented(key_paths(report, {"missing": None}), "loso corpus build --json")
    manifest = json.loads((tmp_path / "tiny.manifest.json").read_text())
    assert f"{tmp_path}" not in json.dumps({**manifest, "command": ""})
    shipped = json.loads(demo_corpus_path().with_name("demo.manifest.json").read_text())
    for content in (manifest, shipped):
        found = key_paths(content, {"clips": "SRC", "missing": None, "settings.clips.fps_of": None})
        assert_documented(found, "Corpus manifest")


def test_what_recommend_prints_is_documented(printed, tmp_path, monkeypatch):
    clips = [f"noise{number}.yuv" for number in range(5)]
    for number, name in enumerate(clips):
        random = np.random.default_rng(number)
        picture = random.integers(0, 255, (20, 96 * 64 * 3 // 2), dtype=np.uint8)
        (tmp_path / name).write_bytes(picture.tobytes())
    known = [word for name in clips[1:] for word in ("--calibrate-on", name)]
    monkeypatch.chdir(tmp_path)
    raw = ["--width", 96, "--height", "64,64,32", "--fps", 25]
    cut = ["--segments", 2, "--segment-seconds", 0.2]
    coder = [
        "--encoder",
        "libx264",
        "--preset",
        "ultrafast,fast",
        "--target",
        50,
        "--step",
        17,
        *cut,
    ]
    words = [*raw, *coder, *known, "--apply", "out.mkv", "--json"]
    (record,) = printed("recommend", clips[0], *words)
    assert_documented(key_paths(record), "loso recommend --json")


def test_what_doctor_prints_is_documented(printed, monkeypatch):
    gpu = NvidiaGpu("NVIDIA GB10", None, "580.95.05")
    node = RenderNode("/dev/dri/renderD128", "i915", may_open=True)
    monkeypatch.setattr("loso.doctor.nvidia_gpus", lambda: (gpu,))
    monkeypatch.setattr("loso.doctor.render_nodes", lambda: (node,))
    (found,) = printed("doctor", "--json")
    assert_documented(key_paths(found), "loso doctor --json")
    meaning = {row[0]: row[-1] for row in table(FORMATS, "loso doctor --json", "key")}
    assert [job["job"] for job in found["jobs"]] == re.findall("`([^`]+)`", meaning["`jobs`"])


def test_what_check_train_gate_and_refusals_print_is_documented(printed, make_corpus, tmp_path):
    def rise(_, row):
        if row["cq"] == 40:
            row["vmaf"] = 99.0 - row["frame_index"]

    corpus = make_corpus(edit=rise)
    (summary,) = printed("corpus", "check", corpus, "--json")
    found = key_paths(summary, {"features": "NAME", "unknown_encoders": None})
    assert_documented(found, "loso corpus check --json")

    few = ["--min-rows", 1, "--epochs", 1, "--hidden", 4, "--seeds", "0,1"]
    run = tmp_path / "run"
    (trained,) = printed("train", "--corpus", corpus, "--out-dir", run, *few, "--json")
    assert_documented(key_paths(trained, {"mean_plcc": None}), "loso train --json")

    (gate,) = printed("gate", run, "--seeds", "0,1", "--json")
    found = {f"gate.{path}" for path in key_paths(gate, {"per_seed_plccs": None})}
    documented = names(FORMATS, "PROMOTE.json and HOLD.json", "key")
    assert found == {path for path in documented if path.startswith("gate.")}

    (drawn,) = printed("report", run, "--json")
    assert_documented(set(drawn), "loso report --json")

    (refusal,) = printed("gate", tmp_path / "nowhere", "--json")
    assert_documented(set(refusal), "A refusal")


def test_every_file_of_a_model_is_documented(printed, make_run, tmp_path):
    run = make_run(seeds=(0, 1), edit=lambda _, content: content.update(epochs=1, hidden=3))
    corpus, model = tmp_path / "corpus.jsonl", tmp_path / "model"
    _, verdict = validate_run(run, (0, 1), corpus=corpus)
    words = ["export", run, "--corpus", corpus, "--out-dir", model, "--name", "m", "--json"]
    (exported,) = printed(*words)
    assert_documented(key_paths(exported, {"members": None}), "loso export --json")
    (flipped,) = printed("registry", "flip", model, "--verdict", verdict, "--json")
    found = key_paths(flipped, {"members": None, "evidence": None})
    assert_documented(found, "STEM.promotion.json")
    assert json.loads((model / "m.promotion.json").read_text()) == flipped
    (listed,) = printed("registry", "list", model, "--json")
    assert_documented(key_paths(listed), "loso registry list --json")

    written = {
        re.sub(r"\d+\.", "{N}.", path.name.replace("m", "STEM", path.name.startswith("m")))
        for path in model.glob("[!.]*")
    }
    documented = set(names(FORMATS, "A model folder", "file"))
    assert written == documented - {"model.sig"}

    maps = dict.fromkeys(
        ["evidence.seeds", "evidence.predictions", "training_ranges", "training_sources"]
    )
    for name, title in (("m_seed0", "STEM_seed{N}.json"), ("registry", "registry.json")):
        record = json.loads((model / f"{name}.json").read_text())
        assert_documented(key_paths(record, maps), title)
    manifest = key_paths(json.loads((model / "m.json").read_text()), maps)
    inner = {key for key in names(FORMATS, "STEM.json", "key") if key.startswith("confidence.")}
    assert_documented(manifest | inner, "STEM.json")
    confidence = {f"confidence.{key}" for key in Confidence.model_fields} - {
        "confidence.gaussian_z",  # of folders that the replaced exporter wrote
        "confidence.measured_coverage",
    }
    assert confidence == {key for key in inner if key.count(".") == 1}
    tensors = [*INPUT_NAMES, *MEMBER_OUTPUTS, *ENSEMBLE_OUTPUTS]
    assert names(FORMATS, "Graphs", "tensor") == tensors


def test_every_exit_code_is_documented():
    def tree(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from tree(child)

    classes = {kind.__name__: str(kind.exit_code) for kind in tree(errors.LosoError)}
    rows = table(FORMATS, "Exit codes", "class")
    assert {row[0].strip("`"): row[1] for row in rows} == classes
    codes = names(FORMATS, "Exit codes", "code")
    assert set(codes) == {"0", f"{FAULT}", f"{BROKEN_PIPE}", *classes.values()}


# -- docs/cli.md ----------------------------------------------------------------------------------


NEEDED = {
    "loso corpus build": "clip.mp4 --encoder libx264 --encoder libx265",
    "loso corpus check": "corpus.jsonl",
    "loso corpus import": "a_libx264.json --out c.jsonl --name-pattern {src}_{encoder}",
    "loso corpus join": "corpus.jsonl clips.csv --on clip --out new.jsonl",
    "loso corpus merge": "a.jsonl b.jsonl --out new.jsonl",
    "loso calibrate": "runs/first",
    "loso ablate": "runs/first",
    "loso gate": "runs/first",
    "loso validate": "runs/first",
    "loso report": "runs/first",
    "loso export": "runs/first",
    "loso registry list": "model",
    "loso registry flip": "model --verdict PROMOTE.json",
    "loso registry unflip": "model --reason text",
    "loso verify": "model",
    "loso predict": "--model model",
    "loso evaluate": "--model model --corpus corpus.jsonl",
    "loso recommend": "clip.mp4 --encoder libx264 --encoder libx265",
}
"""What a command line cannot do without."""

NEEDED_OPTIONS = {
    "loso corpus build": "--encoder libx264",
    "loso recommend": "--encoder libx264",
    "loso registry flip": "--verdict PROMOTE.json",
    "loso registry unflip": "--reason text",
}
"""What it needs beside its arguments."""


def label(parameter):
    return parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[0]


def default(parameter):
    if parameter.required:
        return "required"
    value = parameter.default
    if isinstance(shown := getattr(parameter, "show_default", None), str):
        return f"`{shown}`"  # not given, it is that of the recipe
    if value is None or value is False or value in ("", []):
        return "-"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_the_list_of_verbs_says_what_each_says_of_itself():
    for name, verb in COMMANDS["loso"].commands.items():
        assert verb.load().help.split("\n\n")[0].replace("\n", " ") == verb.help, name


def test_every_command_has_its_section_and_its_line():
    titled = [title for title in sections(CLI) if re.match(r"loso( |$)", title)]
    assert sorted(titled) == sorted(COMMANDS)
    listed = [re.sub(r"\[`(.*)`\].*", r"\1", row[0]) for row in table(CLI, "Commands", "command")]
    assert sorted(listed) == sorted(set(COMMANDS) - {"loso"})


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_in_its_section_with_its_default(name):
    rows = table(CLI, name, "option")
    documented = {row[0].strip("`"): row[1] for row in rows}
    assert len(documented) == len(rows)
    own = {label(p): default(p) for p in COMMANDS[name].params}
    if name != "loso":
        shared = {
            row[0].strip("`"): row[1] for row in table(CLI, "Options of every command", "option")
        }
        assert own.items() >= shared.items()
        own = {label: text for label, text in own.items() if label not in shared}
    assert documented == own


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"loso"}))
def test_every_example_of_an_option_parses(name):
    for option, _, example, *_ in table(CLI, name, "option"):
        words = shlex.split(example.strip("`"))
        if option.startswith("`--"):
            assert words[0] == option.strip("`")
            words = [*shlex.split(NEEDED.get(name, "")), *words]
        else:
            words += shlex.split(NEEDED_OPTIONS.get(name, ""))
        COMMANDS[name].make_context(name, words)


def test_every_encoder_stands_there_with_its_scale():
    rows = []
    for encoder in ENCODERS.values():
        low, high = encoder.quality_range
        scale = f"{low}..{high}" + ("" if encoder.whole_quality else ", fractions too")
        presets = " ".join(encoder.presets)
        rows.append([f"`{encoder.name}`", scale, presets, encoder.default_preset])
    assert table(CLI, "Encoders", "encoder") == rows


# -- All documents --------------------------------------------------------------------------------


@by_document
def test_every_command_line_parses(path):
    for words in command_lines(path.read_text(encoding="utf-8")):
        _, command, rest = split(words)
        if rest in (["--version"], ["--help"]):
            continue
        command.make_context(" ".join(words), rest)


@by_document
def test_every_command_in_a_sentence_exists(path):
    text = path.read_text(encoding="utf-8")
    for code in re.findall(r"`(loso [^`]+)`", text):
        words = shlex.split(code)
        _, command, rest = split(words)
        known = {option for p in command.params for option in p.opts} | {"--help", "-h"}
        for word in rest:
            assert not word.startswith("--") or word.partition("=")[0] in known, code


@by_document
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), f"{path.name}: {target} leads nowhere"
        if anchor:
            assert anchor in anchors(there), f"{path.name}: {target} has no such heading"


@cache
def anchors(path):
    """The anchors of a document's headings, as GitHub makes them."""
    titles = [title.lower() for title in sections(path)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}
