import pytest

from loso.spelling import did_you_mean, nearest, spelt_out


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("libx26", ["libx264", "libsvtav1"], "libx264"),
        ("MOSX", ["vmaf", "mos"], "mos"),
        ("mos", ["MOS", "vmaf"], "MOS"),
        ("hieght", ["weight", "height"], "height"),
        ("theora", ["libx264", "libsvtav1"], None),
        ("", ["libx264"], None),
        ("anything", [], None),
    ],
)
def test_the_nearest_name_is_found_or_none(name, known, expected):
    assert nearest(name, known) == expected
    assert did_you_mean(name, known) == (f"did you mean {expected}?" if expected else "")


def test_more_likeness_can_be_demanded():
    assert nearest("vp9", ["libvpx-vp9"], least=0.4) == "libvpx-vp9"
    assert nearest("vp9", ["libvpx-vp9"], least=0.8) is None


def test_a_line_holds_nothing_that_would_end_it_or_move_the_cursor():
    assert spelt_out("é 映像 [red] \\n") == "é 映像 [red] \\n"
    hostile = "a\nb\r\x1b[2J\x07\x7f\x9b1m\u202e\u2028\udcff"
    assert spelt_out(hostile) == r"a\nb\r\x1b[2J\x07\x7f\x9b1m\u202e\u2028\udcff"
