import importlib
import pkgutil

import pytest
from pydantic import BaseModel, ValidationError

import loso
from loso.errors import BadEvidence, BadInput
from loso.records import OneFault, first_fault, parse_record

MANY = 50_000


class Inner(OneFault, BaseModel):
    number: int


class Outer(OneFault, BaseModel):
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] = {}
    nested: dict[int, dict[str, list[int]]] = {}
    either: int | list[int] = 0
    one: int = 0


def faults(content):
    with pytest.raises(ValidationError) as failure:
        Outer.model_validate_json(content)
    return failure.value


def test_what_is_right_is_read():
    content = (
        '{"many": [{"number": 1}], "named": {"a": {"number": 2}}, "nested": {"3": {"b": [4]}}}'
    )
    read = Outer.model_validate_json(content)
    assert read.many[0].number + read.named["a"].number + read.nested[3]["b"][0] == 7


ZEROS = "0," * MANY + "0"
NAMED_ZEROS = ",".join(f'"{at}": 0' for at in range(MANY))


@pytest.mark.parametrize(
    "content",
    [
        f'{{"many": [{ZEROS}]}}',
        f'{{"many": [{ZEROS.replace("0", "{}")}]}}',
        f'{{"named": {{{NAMED_ZEROS}}}}}',
        f'{{"nested": {{{NAMED_ZEROS}}}}}',
        f'{{"nested": {{"1": {{"a": [{ZEROS.replace("0", "null")}]}}}}}}',
    ],
    ids=["list", "objects", "names", "numbers", "nested"],
)
def test_many_faults_of_one_kind_are_one(content):
    assert faults(content).error_count() == 1


def test_faults_of_different_keys_are_all_kept():
    error = faults('{"many": [0, 0], "one": "a", "either": ["a", "b"]}')
    places = [fault["loc"] for fault in error.errors()]
    assert places == [("many", 0), ("either", "int"), ("either", "list[int]", 0), ("one",)]
    assert first_fault(error) == ("many.0", error.errors()[0]["msg"], "0")


def test_every_record_of_the_package_stops_at_one_fault():
    for module in pkgutil.walk_packages(loso.__path__, "loso."):
        if not module.name.endswith(("counter_torch", "reference", "batched")):
            importlib.import_module(module.name)
    kinds, found = [BaseModel], []
    while kinds:
        below = kinds.pop().__subclasses__()
        kinds += below
        found += [kind for kind in below if kind.__module__.startswith("loso.")]
    assert len(found) > 20
    assert [kind for kind in found if not issubclass(kind, OneFault)] == []


def test_a_refusal_names_the_key_and_what_it_holds(tmp_path):
    with pytest.raises(BadEvidence) as failure:
        parse_record(Outer, b'{"one": "x"}', tmp_path / "a", refusal=BadEvidence, fix="mend it")
    message = "one cannot be used: Input should be a valid integer, unable to parse string as an"
    assert str(failure.value) == f"{tmp_path}/a: {message} integer, found 'x'; mend it"
    with pytest.raises(BadInput, match="the record cannot be used: Invalid JSON: EOF"):
        parse_record(Outer, b"{", tmp_path)
