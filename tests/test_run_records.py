"""Records beside a run's seeds: those of these very seeds, and refusals that name the file."""

import json
import re
from datetime import UTC, datetime

import pytest

from loso.errors import BadEvidence
from loso.intervals import parse_intervals
from loso.run_records import read_beside, read_calls, read_verdict
from loso.seedfile import read_seed_file
from loso.verdict import validate_run

CALL = {"started_at_utc": "2026-11-22T10:00:00+00:00", "trained_seeds": [0, 1], "threads": None}


def write_calls(folder, *calls, **more):
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"calls": calls, **more}))
    return folder


def test_the_calls_of_a_run_are_told_in_their_order(tmp_path):
    later = {**CALL, "command": ["loso", "run"], "wall_time_s": 1.5, "threads": 2, "new": [None]}
    first, last = read_calls(write_calls(tmp_path, CALL, later, schema_version=1))
    assert first.started_at_utc == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert (first.command, first.trained_seeds, first.kept_seeds) == ((), (0, 1), ())
    assert (first.threads, first.wall_time_s) == (None, None)
    assert (last.command, last.threads, last.wall_time_s) == (("loso", "run"), 2, 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the record cannot be used: Invalid JSON"),
        ("[]", "the record cannot be used: "),
        ("{}", "calls cannot be used: Field required"),
        ('{"calls": []}', "calls cannot be used: "),
        ('{"calls": {}}', "calls cannot be used: "),
        ('{"calls": [0]}', "calls.0 cannot be used: "),
        ('{"calls": [{"started_at_utc": "soon"}]}', "calls.0.started_at_utc cannot be used: "),
        ('{"calls": [{"started_at_utc": 5}]}', "calls.0.started_at_utc cannot be used: "),
        ('{"calls": [{"started_at_utc": "2026-11-22T10:00:00"}]}', "calls.0.started_at_utc"),
        ('{"calls": [{"trained_seeds": 3}]}', "calls.0.trained_seeds cannot be used: "),
        ('{"calls": [{"command": "loso"}]}', "calls.0.command cannot be used: "),
        ('{"calls": [{"wall_time_s": NaN}]}', "calls.0.wall_time_s cannot be used: "),
    ],
)
def test_a_damaged_record_of_calls_is_refused_by_its_key(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(BadEvidence, match=re.escape(f"{tmp_path / 'run.json'}: {message}")):
        read_calls(tmp_path)


def test_a_record_of_calls_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadEvidence, match=r"run\.json: cannot be read \(No such file"):
        read_calls(tmp_path)


def test_the_verdict_is_told_with_its_sentences(make_run):
    folder = make_run(seeds=(0, 1))
    assert read_verdict(folder) is None
    verdict, path = validate_run(folder, [0, 1], now=lambda: datetime(2026, 11, 22, tzinfo=UTC))
    found = read_verdict(folder)
    assert f"{found.verdict}.json" == path.name
    assert found.recommendation == verdict.recommendation
    assert found.generated_at_utc == "2026-11-22T00:00:00+00:00"
    assert [each.check for each in found.gate.advisory] == [
        each.check for each in verdict.gate.advisory
    ]


def test_two_verdicts_are_refused_by_their_names(make_run):
    folder = make_run(seeds=(0, 1))
    _, path = validate_run(folder, [0, 1])
    (other,) = {"PROMOTE.json", "HOLD.json"} - {path.name}
    (folder / other).write_bytes(path.read_bytes())
    said = f"{folder}: both PROMOTE.json and HOLD.json stand there, and only one can be true; "
    with pytest.raises(BadEvidence, match=re.escape(said + "judge again with loso validate ")):
        read_verdict(folder)


def test_a_damaged_verdict_is_refused(make_run):
    folder = make_run(seeds=(0, 1))
    (folder / "HOLD.json").write_text('{"verdict": "HOLD"}')
    said = r"HOLD\.json: seeds cannot be used: Field required, found .*; judge again with loso val"
    with pytest.raises(BadEvidence, match=said):
        read_verdict(folder)


def test_what_was_made_of_other_predictions_is_not_told(whole_run):
    seeds = [read_seed_file(whole_run / f"loso_seed{seed}.json") for seed in range(3)]
    path = whole_run / "intervals.json"
    assert read_beside(path, parse_intervals, seeds).seeds == (0, 1, 2)
    assert read_beside(path, parse_intervals, seeds[:2]) is None
    assert read_beside(whole_run / "none.json", parse_intervals, seeds) is None


def test_a_verdict_that_says_something_else_than_its_name_is_refused(make_run, loso):
    run = make_run(noise=30)
    assert loso("validate", run)[0] == 1
    (run / "HOLD.json").rename(run / "PROMOTE.json")
    with pytest.raises(BadEvidence, match=r"PROMOTE\.json: does not say .* found HOLD, passed Fal"):
        read_verdict(run)
