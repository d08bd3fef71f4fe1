"""What all commands share: options, help, completion, refusals, endings."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
import typer

from loso import __version__
from loso.cli import app
from loso.cli.endings import BROKEN_PIPE, FAULT
from loso.recipe import DEFAULT_CORPUS, RECIPES
from loso.schema import ENCODER_VOCAB
from loso.video.encoders import ENCODERS
from screen import COLOUR, STYLED

LOSO = (sys.executable, "-c", "from loso.cli import main; main()")
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def commands(command=None, words=("loso",)):
    """Every command that does something, by its words."""
    command = command or typer.main.get_command(app)
    command = command.load() if hasattr(command, "load") else command
    children = getattr(command, "commands", {})
    if not children:
        yield " ".join(words), command
    for name, child in children.items():
        yield from commands(child, (*words, name))


COMMANDS = dict(commands())
by_command = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture
def shell(tmp_path):
    """Run the program by itself in an empty folder; return what came of it."""

    def run(*words, **settings):
        env = {**os.environ, **settings.pop("env", {})}
        given = {"cwd": tmp_path, "capture_output": True, "text": True, "env": env, **settings}
        return subprocess.run([*LOSO, *map(str, words)], check=False, timeout=60, **given)

    return run


# -- Help -----------------------------------------------------------------------------------------


@by_command
def test_every_command_has_an_example_that_parses(name):
    (example,) = re.findall(r"^Example: (loso .+)$", COMMANDS[name].help, re.MULTILINE)
    words = shlex.split(example)
    depth = len(name.split())
    assert words[:depth] == name.split()
    COMMANDS[name].make_context(name, words[depth:])


@by_command
def test_help_fits_80_columns_and_names_every_option(name, loso, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = loso(*name.split()[1:], "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert out.startswith(f"Usage: {name} [OPTIONS]")
    for parameter in COMMANDS[name].params:
        words = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
        for word in words:
            assert re.search(rf"^  (-\w, )?{re.escape(word)}(?![\w-])", out, re.MULTILINE), word
    assert "\n  -h, --help " in out


def test_help_says_values_defaults_and_what_is_required(loso, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = loso("corpus", "build", "-h")
    assert "\n  CLIP...             " in out
    assert re.search(r"\n  --encoder NAME +ffmpeg's name .*\[required\]\n", out)
    assert re.search(r"\n  --timeout NUM +Seconds one encode may take. \[default: 3600\]\n", out)
    assert re.search(r"\n  --jobs N +Encodes", out)
    assert out.index("\nOptions\n") < out.index("\nRaw YUV clips\n") < out.index("Every command")
    _, out, _ = loso("train", "-h")
    assert "\n  --standardise-target / --no-standardise-target\n      " in out
    assert re.search(r"\n  --lr NUM +Adam's learning rate. \[default: 0.0005\]\n", out)


def test_the_verbs_stand_in_the_order_of_the_work(loso):
    code, out, _ = loso("--help")
    assert code == 0
    headings = re.findall(r"^(?:[A-Z].*|  [a-z]+)(?=$|  )", out, re.MULTILINE)
    listed = [heading.strip() for heading in headings]
    assert listed.index("Corpus") < listed.index("corpus") < listed.index("Train and judge")
    assert listed.index("train") < listed.index("validate") < listed.index("Ship and use")
    assert listed.index("export") < listed.index("predict") < listed.index("Look")
    verbs = {name.split()[1] for name in COMMANDS}
    assert verbs <= set(listed)


@pytest.mark.parametrize("words", [[], ["corpus"], ["registry"]])
def test_without_a_command_the_help_is_printed_and_that_is_bad_usage(loso, words):
    code, out, err = loso(*words)
    assert (code, err) == (2, "")
    assert out.startswith("Usage: loso")
    assert loso(*words, "--help")[0] == 0


def test_the_version_is_that_of_the_package(loso):
    assert loso("--version") == (0, f"loso {version('loso')}\n", "")
    assert __version__ == version("loso")


# -- Names that are no text -----------------------------------------------------------------------


@by_command
def test_a_name_that_is_no_text_is_refused_by_every_command_alike(name, loso, tmp_path):
    log = tmp_path / "a.log"
    word = str(tmp_path / os.fsdecode(b"n\xff"))
    code, out, err = loso(*name.split()[1:], word, "--json", "--log-file", log)
    message = f"{word!r}: not UTF-8, and records say which files they speak of; rename it"
    assert (code, err) == (2, f"loso: {message}\n")
    assert json.loads(out)["message"] == message
    assert not list(tmp_path.iterdir())


# -- Misspelt words -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "trian",
            r"^loso: no such command, expected one of .*, found trian; did you mean train\?$",
        ),
        ("registry lst x", r"^loso: registry: no such command, .* did you mean list\?$"),
        ("train --ep 3", r"^loso: train: no such option --ep; did you mean --epochs\?$"),
        (
            "corpus check x --min-row 3",
            r"corpus check: no such option --min-row; did .* --min-rows",
        ),
        (
            "gate x --zzz",
            r"^loso: gate: no such option --zzz; loso gate --help says what there is$",
        ),
        ("--quiet gate x", r"^loso: no such option --quiet; options stand after the command$"),
        ("gate", r"^loso: gate: LOSO_DIR is missing; loso gate --help says"),
        ("evaluate --model x", r"^loso: evaluate: --corpus is missing; "),
        ("gate x y", r"^loso: gate: got unexpected extra argument"),
        ("train --epochs", r"^loso: --epochs needs a value$"),
        ("train --epochs few", r"^loso: train: --epochs: .*integer"),
        ("corpus build a.mp4 --encoder libx26", r"no such encoder, .*; did you mean libx264\?$"),
        ("predict --model m --reference a --distorted b --cq 3 --encoder libx26", "mean libx264"),
        ("corpus build a.mp4 --encoder libx264 --quality 9 --preset slw", r"did you mean slow\?$"),
        ("train --corpus C --target vmfa", r"no column vmfa, .*; did you mean vmaf\?$"),
        ("train --corpus C --condition log2:adn2", r"no column adn2, .*; did you mean adm2\?$"),
        ("train --corpus C --group-by encoders", r"no column encoders .*; did you mean encoder\?$"),
        ("train --corpus C --key frame", r"no column frame .*; did you mean frame_index\?$"),
        ("train --corpus C --exclude-source beee", r"no such source, .*; did you mean bee\?$"),
        ("train --corpus C --recipe clip-mso", r"no such recipe, .*; did you mean clip-mos\?$"),
        ("train --corpus C --unit clips", r"no such unit, .*; did you mean clip\?$"),
        ("train --corpus C --unit clip --statistic meen", r"did you mean mean\?$"),
        ("train --corpus C --features canonical", r"did you mean canonical6\?$"),
        ("train --corpus C --engine nativ", r"no such engine, .*; did you mean native\?$"),
        ("train --corpus C --device cude", r"no such device, .*; did you mean cuda\?$"),
    ],
)
def test_a_misspelt_word_is_refused_with_the_nearest(loso, make_corpus, line, expected):
    corpus = make_corpus(frames=8)
    words = [str(corpus) if word == "C" else word for word in line.split()]
    code, out, err = loso(*words)
    assert (code, out) == (2, "")
    assert re.search(expected, err.splitlines()[-1]), err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_with_json_a_usage_error_is_one_object_too(loso):
    code, out, err = loso("train", "--json", "--ep", "3")
    assert code == 2
    assert json.loads(out) == {
        "error": "BadUsage",
        "message": "train: no such option --ep; did you mean --epochs?",
        "where": "train",
        "problem": "no such option --ep",
        "expected": "",
        "found": "",
        "fix": "did you mean --epochs?",
    }
    assert err == "loso: train: no such option --ep; did you mean --epochs?\n"
    assert json.loads(loso("trian", "--json")[1])["error"] == "BadUsage"


@pytest.mark.parametrize("verb", ["train", "run", "calibrate x", "ablate x", "export x"])
def test_who_gives_no_corpus_is_told_what_to_give(loso, verb, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = loso(*verb.split())
    assert (code, out) == (2, "")
    assert err == (
        f"loso: {DEFAULT_CORPUS}: no corpus was given, and the usual one is not there; give "
        "--corpus FILE: loso corpus build makes one, loso demo brings its own\n"
    )
    assert list(tmp_path.iterdir()) == []


# -- Completion -----------------------------------------------------------------------------------


@pytest.fixture
def complete(shell):
    """Ask what a shell is offered for the last word of a line."""

    def ask(line, name="bash"):
        env = {"_LOSO_COMPLETE": f"complete_{name}"}
        if name == "bash":
            env |= {"COMP_WORDS": line, "COMP_CWORD": f"{line.count(' ')}"}
        else:
            env |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = shell(env=env)
        assert (done.returncode, done.stderr) == (0, "")
        return [word for word in done.stdout.splitlines() if word]

    return ask


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("loso tr", ["train"]),
        ("loso corpus i", ["import"]),
        ("loso train --ep", ["--epochs"]),
        ("loso registry flip model --ver", ["--verdict"]),
        ("loso gate --q", ["--quiet"]),
        ("loso train --engine ", ["auto", "batched", "native", "reference"]),
        ("loso run --device c", ["cpu", "cuda"]),
        ("loso train --recipe ", list(RECIPES)),
        ("loso train --unit cl", ["clip"]),
        ("loso train --unit clip --statistic ", ["mean", "p5", "std"]),
        ("loso corpus build --encoder ", list(ENCODERS)),
        ("loso corpus build --encoder libvvenc --encoder libsvtav1 --preset s", ["slow", "slower"]),
        ("loso corpus build --encoder libvvenc --encoder libsvtav1 --preset 5", ["5"]),
        ("loso predict --encoder ", list(ENCODER_VOCAB)),
        ("loso predict --encoder libvvenc --preset f", ["faster", "fast"]),
        ("loso train --corpus ", []),
    ],
)
def test_bash_is_offered_what_can_follow(complete, line, expected):
    assert complete(line) == expected


def test_zsh_and_fish_are_offered_the_same_with_a_line_of_help(complete):
    (offered,) = complete("loso train --epo", "zsh")
    assert offered == """_arguments '*: :(("--epochs":"Passes over the training rows."))'"""
    assert complete("loso train --epo", "fish") == ["--epochs\tPasses over the training rows."]
    assert complete("loso tr", "fish")[0].startswith("train\tTrain every seed with each source")


def test_completion_does_nothing_else(complete, tmp_path):
    assert complete("loso train --log-file a.log --quiet --ep") == ["--epochs"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("bash", ".bash_completions/loso.sh"),
        ("zsh", ".zfunc/_loso"),
        ("fish", ".config/fish/completions/loso.fish"),
    ],
)
def test_completion_is_shown_and_installed(shell, tmp_path, name, file):
    # The parser asks which shell called it; told not to, it takes the name.
    env = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = shell("--show-completion", name, env=env)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"_LOSO_COMPLETE=complete_{name}" in shown.stdout
    installed = shell("--install-completion", name, env=env)
    assert installed.returncode == 0, installed.stderr
    assert f"_LOSO_COMPLETE=complete_{name}" in (tmp_path / file).read_text()


# -- What is said, and where ----------------------------------------------------------------------

SHORT = ["--epochs", "2", "--hidden", "4", "--seeds", "0,1", "--min-rows", "1"]


@by_command
def test_every_command_takes_quiet_and_a_log_file(name):
    known = {option for p in COMMANDS[name].params for option in p.opts}
    assert {"--quiet", "-q", "--log-file"} <= known


def test_quiet_leaves_results_and_warnings(loso, make_corpus, tmp_path):
    corpus = make_corpus(sources=["ant", "bee", "cat"], frames=8)
    words = ["run", "--corpus", corpus, "--out-dir", tmp_path / "run", *SHORT]
    code, out, err = loso(*words, "--quiet")
    assert code == 1
    assert "HOLD: " in out
    assert err.splitlines() == ["warning: no intervals: 3 sources are too few, they take 4"]
    _, again, loud = loso(*words)
    assert again.splitlines()[-1] == out.splitlines()[-1]
    assert f"wrote {tmp_path}/run/HOLD.json" in loud
    assert loud.count("no intervals: 3 sources") == 1
    code, out, err = loso("gate", tmp_path / "nowhere", "-q")
    assert (code, out) == (2, "")
    assert err.startswith("loso: ")


def test_a_log_file_holds_all_that_was_said(loso, make_corpus, tmp_path):
    corpus, log = make_corpus(sources=["ant", "bee", "cat"], frames=8), tmp_path / "a.log"
    run = tmp_path / "run"
    words = ["run", "--corpus", corpus, "--out-dir", run, *SHORT, "--log-file", log]
    assert loso(*words, "--quiet")[0] == 1
    lines = log.read_text().splitlines()
    assert all(re.match(rf"{STAMP} (INFO|WARNING|ERROR) ", line) for line in lines)
    said = [re.sub(rf"^{STAMP} ", "", line) for line in lines]
    assert (
        said[0] == f"INFO loso {__version__}: {shlex.join(['loso', *map(str, words), '--quiet'])}"
    )
    assert re.fullmatch(r"INFO exit code 1 after \d+\.\d s", said[-1])
    assert any(re.match(r"INFO run: 100% in \d s, stage 1 of 5: training, seed 1", s) for s in said)
    assert f"INFO wrote {run}/HOLD.json" in said
    warning = "WARNING no intervals: 3 sources are too few, they take 4"
    assert said.count(warning) == 1
    (own,) = (run / "logs").iterdir()  # the run's own log, of the same making
    inner = [re.sub(rf"^{STAMP} ", "", line) for line in own.read_text().splitlines()]
    assert set(inner) <= set(said)
    assert warning in inner

    assert loso("gate", tmp_path / "nowhere", "--log-file", log)[0] == 2
    appended = log.read_text().splitlines()[len(lines) :]
    assert "ERROR" in appended[1]
    assert "nowhere" in appended[1]
    assert appended[2].endswith("INFO exit code 2 after 0.0 s")


def test_a_log_file_that_cannot_be_opened_is_refused_before_any_work(loso, make_corpus, tmp_path):
    words = ["train", "--corpus", make_corpus(), "--out-dir", tmp_path / "run", *SHORT]
    code, out, err = loso(*words, "--log-file", tmp_path / "no" / "a.log")
    assert (code, out) == (2, "")
    assert err == f"loso: {tmp_path}/no/a.log: cannot be written (No such file or directory)\n"
    assert not (tmp_path / "run").exists()


def test_colour_goes_into_a_pipe_where_it_is_forced_and_never_into_json(shell, make_run):
    run = make_run()
    plain = shell("gate", run)
    forced = shell("gate", run, env={"FORCE_COLOR": "1", "TERM": "xterm"})
    assert plain.returncode == forced.returncode == 0
    assert not COLOUR.search(plain.stdout + plain.stderr)
    assert STYLED.search(forced.stdout)
    as_json = shell("gate", run, "--json", env={"FORCE_COLOR": "1", "TERM": "xterm"})
    assert as_json.stdout == shell("gate", run, "--json").stdout


def test_names_cannot_write_on_the_terminal_or_into_the_log(loso, tmp_path):
    log = tmp_path / "a.log"
    name = "a\x1b[2Jb\n2000-01-01T00:00:00Z INFO forged"
    _, _, err = loso("gate", name, "--log-file", log)
    assert err.startswith(r"loso: a\x1b[2Jb\n2000-01-01T00:00:00Z INFO forged: not a folder")
    assert len(err.splitlines()) == 1
    assert not re.search("^2000", log.read_text(), re.MULTILINE)
    assert "\x1b" not in log.read_text()


# -- How a command ends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reader", "heard"), [("true", ""), ("head -1", "corpus.jsonl: 1000 rows")]
)
def test_a_reader_who_goes_away_gets_no_message(make_corpus, reader, heard):
    # More than a pipe holds: who writes on is still there when the reader is gone.
    sources = [f"{i:04}{'s' * 90}" for i in range(1000)]
    corpus = make_corpus(sources=sources, encoders=["libx264"], qualities=[20], frames=1)
    line = shlex.join([*LOSO, "corpus", "check", str(corpus)])
    script = f"set -o pipefail; {line} | {reader}; echo $?"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    *lines, code = done.stdout.splitlines()
    assert code == f"{BROKEN_PIPE}"
    assert heard in "".join(lines)
    assert len(lines) == bool(heard)


def test_a_fault_of_the_program_shows_where_and_asks_for_a_report(loso, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise ZeroDivisionError("a slip")

    monkeypatch.setattr("loso.evidence.collect_evidence", broken)
    log = tmp_path / "a.log"
    code, out, err = loso("gate", tmp_path, "--log-file", log)
    assert (code, out) == (FAULT, "")
    assert "ZeroDivisionError: a slip\n" in err
    assert err.splitlines()[-1].startswith("loso: this is a fault of loso itself; please report it")
    assert "ZeroDivisionError: a slip" in log.read_text()
    assert re.search(f"exit code {FAULT} after", log.read_text())


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (MemoryError(), 3, "loso: out of memory\n"),
        (OSError(28, "No space left on device", "/x"), 3, "loso: /x: cannot be used (No space"),
        (PermissionError(13, "Permission denied", "/x"), 2, "loso: /x: cannot be used (Permission"),
        (KeyboardInterrupt(), 130, "loso: stopped\n"),
    ],
)
def test_what_the_machine_does_needs_no_traceback(
    loso, monkeypatch, tmp_path, error, code, expected
):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("loso.evidence.collect_evidence", broken)
    found, out, err = loso("gate", tmp_path)
    assert (found, out) == (code, "")
    assert err.startswith(expected)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("verb", "place", "kept"),
    [
        ("train", "loso.run_folder.train_into", "what was finished is kept, the same command goes"),
        ("run", "loso.pipeline.train_into", "what was finished is kept, the same command goes on"),
        ("demo", "loso.pipeline.train_into", "what was finished is kept, the same command goes on"),
        ("calibrate x", "loso.calibration.calibrate_run", "nothing was written"),
        ("ablate x", "loso.ablation.ablate_run", "nothing was written"),
        ("export x", "loso.export.export_model", "the same command begins anew, and completes"),
        ("verify x", "loso.verify.verify_model", "nothing is ever written here"),
        (
            "corpus import a --out b --name-pattern {src}",
            "loso.corpus.from_logs.import_logs",
            "nothing",
        ),
        (
            "corpus build a.mp4 --encoder libx264 --quality 9",
            "loso.corpus.build.build_corpus",
            "fini",
        ),
    ],
)
def test_who_stops_long_work_is_told_what_is_kept(
    loso, make_corpus, monkeypatch, tmp_path, verb, place, kept
):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, stopped)
    words = verb.split()
    if words[0] in {"train", "run", "calibrate", "ablate", "export"}:
        words += ["--corpus", str(make_corpus(frames=8))]
    if words[0] in {"train", "run", "demo"}:
        words += ["--out-dir", str(tmp_path / "run")]
    code, out, err = loso(*words)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1].startswith(f"loso: stopped; {kept}")


def test_ctrl_c_ends_a_training_in_one_line(make_corpus, tmp_path):
    corpus = make_corpus(sources=["ant", "bee", "cat", "dog"], frames=20)
    words = ["train", "--corpus", corpus, "--out-dir", tmp_path / "run", "--epochs", "100000"]
    child = subprocess.Popen(
        [*LOSO, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(300):  # until it trains: its lock is there
        time.sleep(0.1)
        if (tmp_path / "run" / ".lock").exists():
            break
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (130, "")
    assert err == "loso: stopped; what was finished is kept, the same command goes on from it\n"
