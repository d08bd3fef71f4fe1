import json

import numpy as np
import polars as pl
import pytest

from loso.errors import BadCorpus, BadInput, BadSettings
from loso.features import Condition, column_values, load_feature_set
from loso.schema import CANONICAL, CANONICAL_6, FeatureSet

ROWS = pl.DataFrame({"src": ["ant", "bee"], "height": [360, 1080], "mos": [4.5, None]})


def written(tmp_path, content):
    path = tmp_path / "set.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_the_default_set_is_that_of_vmaf():
    assert load_feature_set("canonical6") == CANONICAL
    assert CANONICAL.features == CANONICAL.columns == CANONICAL_6


def test_a_set_is_read_from_a_file_in_its_order(tmp_path):
    path = written(tmp_path, {"name": "v1", "features": ["adm3", {"motion": "motion3_v2"}]})
    assert load_feature_set(path) == FeatureSet("v1", ("adm3", "motion"), ("adm3", "motion3_v2"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"name": "v1", "features": []}, "features cannot be used: List should have at least 1"),
        ({"name": "v1"}, "features cannot be used: Field required"),
        ({"name": "v 1", "features": ["a"]}, "name cannot be used"),
        ({"name": "v1", "features": ["a"], "more": 1}, "more cannot be used"),
        ({"name": "v1", "features": ["a", {"a": "b"}]}, "feature a stands there twice"),
        ("{", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_feature_set_is_refused(tmp_path, content, text):
    with pytest.raises(BadInput, match=text):
        load_feature_set(written(tmp_path, content))


def test_a_set_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(BadSettings, match=r"expected canonical6 or a \.json file, found canon"):
        load_feature_set("canon")
    with pytest.raises(BadInput, match="file not found"):
        load_feature_set(str(tmp_path / "none.json"))


@pytest.mark.parametrize("text", ["height", "log2:height"])
def test_a_condition_says_its_own_name(text):
    assert Condition.parse(text).name == text


def test_the_values_of_a_condition():
    assert Condition.parse("height").values(ROWS, "c").tolist() == [360.0, 1080.0]
    assert Condition.parse("log2:height").values(ROWS, "c") == pytest.approx(
        [np.log2(360), np.log2(1080)]
    )


@pytest.mark.parametrize("text", ["", "log2:", "log10:height", "sqrt:log2:height"])
def test_a_condition_of_another_form_is_refused(text):
    with pytest.raises(BadSettings, match=r"no such condition, expected COL or log2:COL"):
        Condition.parse(text)


def test_values_that_are_not_there_are_refused():
    with pytest.raises(BadCorpus, match=r"c: no column heigth.*did you mean height\?"):
        column_values(ROWS, "heigth", "c")
    with pytest.raises(BadCorpus, match="mos has no finite value in 1 of 2 rows, found None for"):
        column_values(ROWS, "mos", "c")
    with pytest.raises(BadCorpus, match="src is not a number, found String"):
        column_values(ROWS, "src", "c")
    with pytest.raises(BadCorpus, match="log2 of height needs numbers above 0, found -1"):
        Condition.parse("log2:height").values(ROWS.with_columns(height=pl.lit(-1)), "c")
