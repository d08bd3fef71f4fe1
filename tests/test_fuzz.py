"""Whatever is read from outside ends in what was read, or in a refusal by name: never otherwise.

The targets stand in `fuzz/targets.py`; `make fuzz` tries them for longer.
"""

import json
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loso.corpus.names import NamePattern
from loso.errors import BadInput

FUZZ = Path(__file__).parents[1] / "fuzz"
sys.path.append(str(FUZZ))

import explore  # noqa: E402 (stands in the folder that was just named)
from mangle import mangle  # noqa: E402 (the same)
from targets import TARGETS, attempt, make_material  # noqa: E402 (the same)

EXAMPLES = 100

pytestmark = pytest.mark.filterwarnings("default")  # of numbers out of all range: they are said


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_whole_examples_are_taken(material, target):
    for example in target.examples(material.whole):
        if target.name not in {"file names", "corpus, columns of odd types"}:
            assert attempt(target, example, material) == "taken"


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_mangled_examples_are_taken_or_refused_by_name(material, target):
    examples = target.examples(material.whole)

    @given(st.integers(0, 2**32), st.sampled_from(examples))
    @settings(max_examples=round(EXAMPLES * target.weight), derandomize=True)
    def hold(seed, example):
        attempt(target, mangle(example, Random(seed)), material)

    hold()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@given(data=st.binary(max_size=200))
@settings(max_examples=20, derandomize=True)
def test_any_bytes_are_taken_or_refused_by_name(material, target, data):
    attempt(target, data, material)


# -- What was found once --------------------------------------------------------------------------


def odd_name(content):
    """A graph whose first input has a name that is no UTF-8, at the same length."""
    return content.replace(b"features", b"feature\xff")


FOUND = [
    ("model's registry.json", b'{"schema_version": 1, "models": ["m"]}', "BadInput"),
    ("feature set", b'{"name": "a", "features": [{}]}', "BadInput"),
    ("finished cell", b'{"fingerprint": "mark", "vmaf": [], "features": 7}', "taken"),
    ("finished cell", b"7", "taken"),
    ("finished cell", b"[" * 100_000, "taken"),
    ("finished recipe", b"[" * 100_000, "taken"),
    ("finished recipe", b'{"content": {}}', "taken"),
    ("finished recipe", b'{"name": "NAME", "content": []}', "taken"),
    ("finished recipe", b'{"name": "NAME", "content": {"y_pred": {"a": {}}, "out": {}}}', "taken"),
    ("finished recipe", b'{"name": "NAME", "content": {"y_pred": {"a": "A"}, "out": {}}}', "taken"),
    ("table of scores", b'{"clip": "a", "mos": 2, "n": 9223372036854775808}', "taken"),
    ("file names", b"{a}_{b}_{src}_{c}_{d}_{cq}\n" + b"_" * 249 + b"1", "BadInput"),
    ("libvmaf log, CSV", b"Frame,vmaf" + b"x" * 9000 + b",\n0,1,\n", "BadInput"),
]


@pytest.mark.parametrize(("name", "data", "outcome"), FOUND)
def test_what_was_found_once_is_refused_by_name_or_passed_over(material, name, data, outcome):
    assert attempt(TARGETS[name], data, material) == outcome


def test_a_graph_with_a_name_that_is_no_text_is_refused(material):
    content = odd_name((material.whole / "model" / "m_seed0.onnx").read_bytes())
    with pytest.raises(BadInput, match=r"^m\.onnx: other inputs, expected features, codec"):
        TARGETS["ONNX member"].read(content, material)


def test_a_limit_that_no_float_holds_is_a_finding(material):
    sidecar = json.loads((material.whole / "model" / "m_seed0.json").read_bytes())
    sidecar["gate"]["mean_plcc_threshold"] = -(10**400)
    target = TARGETS["model's m_seed0.json"]
    assert attempt(target, json.dumps(sidecar).encode(), material) in {"taken", "BadInput"}


def test_a_name_that_can_be_read_in_billions_of_ways_is_refused_soon():
    pattern = NamePattern.parse("{a}_{b}_{src}_{c}_{encoder}_{cq}")
    with pytest.raises(BadInput, match=r"its name can be read in more than 4096 ways, expected"):
        pattern.read("_" * 249 + "1")
    assert pattern.read("_" * 250) is None
    assert pattern.read("a_b_c_d_libx264_20")["encoder"] == "libx264"


def test_a_refusal_lacks_the_middle_of_what_is_too_long_to_read():
    refusal = BadInput("no such column", where="a.csv", found="x" * 700 + "y" * 700, fix="drop it")
    assert str(refusal) == f"a.csv: no such column, found {'x' * 500} ... {'y' * 500}; drop it"
    assert refusal.found == "x" * 700 + "y" * 700


def test_what_atheris_works_in_is_gone_afterwards(monkeypatch, tmp_path):
    """It ends its process itself, before anything there could be removed."""
    seen = []

    def run(words, **_):
        seen.append(Path(words[words.index("--folder") + 1]))
        (seen[0] / "corpus").mkdir()
        said = "stat::number_of_executed_units: 7\n"
        return explore.subprocess.CompletedProcess(words, 0, "", said)

    monkeypatch.setattr(explore.subprocess, "run", run)
    assert explore.by_coverage("corpus lines", 1.0, tmp_path)["tried"] == 7
    assert not seen[0].exists()
