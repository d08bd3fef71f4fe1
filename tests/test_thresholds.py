import pytest

from loso.errors import BadSettings
from loso.recipe import GateThresholds
from loso.thresholds import load_thresholds

EXPECTED = "expected mean_plcc_threshold or plcc_spread_max or per_seed_min"


@pytest.fixture
def refused(tmp_path):
    """The refusal of a file with that content."""

    def load(content):
        path = tmp_path / "gate.toml"
        path.write_bytes(content)
        with pytest.raises(BadSettings) as refusal:
            load_thresholds(path)
        return str(refusal.value).removeprefix(f"{path}: ")

    return load


def test_limits_that_a_file_does_not_name_are_the_usual_ones(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text("mean_plcc_threshold = 0.9 # of a panel\nper_seed_min = 1\n")
    assert load_thresholds(path) == GateThresholds(mean_plcc_threshold=0.9, per_seed_min=1)
    path.write_text("")
    assert load_thresholds(path) == GateThresholds()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"per_seed_minimum = 0.9",
            f"no such limit: per_seed_minimum, {EXPECTED}; did you mean per_seed_min?",
        ),
        (b"tolerance = 1", f"no such limit: tolerance, {EXPECTED}"),
        (b"[gate]\nper_seed_min = 0.9", f"no such limit: gate, {EXPECTED}"),
        (
            b"plcc_spread_max = 3",
            "plcc_spread_max is out of range, expected a number in 0..2, found 3",
        ),
        (
            b"per_seed_min = '0.9'",
            "per_seed_min is out of range, expected a number in -1..1, found '0.9'",
        ),
        (
            b"per_seed_min = nan",
            "per_seed_min is out of range, expected a number in -1..1, found nan",
        ),
        (b"per_seed_min = true", "found True"),
        (b"per_seed_min", "not valid TOML (Expected '='"),
        (b"per_seed_min = 0.9 # \xff", "not valid TOML ("),
    ],
)
def test_what_is_no_limit_is_refused(refused, content, message):
    found = refused(content)
    assert found == message or (message in found and message.startswith(("not", "found")))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "gate.toml"
    with pytest.raises(BadSettings) as refusal:
        load_thresholds(path)
    assert str(refusal.value) == f"{path}: cannot be read (No such file or directory)"
