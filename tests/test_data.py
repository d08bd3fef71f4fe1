import shlex

from loso import load_corpus
from loso.data import demo_corpus_path
from loso.files import read_json, sha256_of

SOFTWARE = {"libx264", "libx265", "libsvtav1", "libvvenc", "libvpx-vp9"}


def manifest():
    return read_json(demo_corpus_path().with_name("demo.manifest.json"))


def test_the_demo_corpus_is_ten_sources_by_five_encoders_by_four_qualities_by_thirty_frames():
    corpus = load_corpus(demo_corpus_path())
    rows = corpus.rows
    assert rows.height == 10 * 5 * 4 * 30
    assert set(rows["src"]) == set(manifest()["clips"])
    assert rows["src"].n_unique() == 10
    assert set(rows["encoder"]) == SOFTWARE
    assert set(rows.group_by("src", "encoder").len()["len"]) == {4 * 30}
    assert rows.group_by("src", "encoder", "cq").len()["len"].unique().to_list() == [30]
    assert rows["vmaf"].min() < 40
    assert rows["vmaf"].max() > 97


def test_its_manifest_names_the_very_bytes():
    corpus = manifest()["corpus"]
    assert corpus["sha256"] == sha256_of(demo_corpus_path())
    assert corpus["rows"] == load_corpus(demo_corpus_path()).rows.height
    assert manifest()["missing"] == {}
    assert len(manifest()["cells"]) == 200


def test_its_manifest_knows_no_machine_path():
    text = demo_corpus_path().with_name("demo.manifest.json").read_text()
    assert "file:/" not in text
    assert "/home" not in text
    assert "/tmp" not in text


def test_the_readme_gives_the_command_that_the_manifest_records():
    readme = demo_corpus_path().with_name("README.md").read_text()
    command = readme[readme.index("    loso corpus build") :].replace("\\\n", " ")
    assert shlex.split(command) == shlex.split(manifest()["command"])


def test_the_readme_gives_a_licence_and_an_origin_for_every_source():
    readme = demo_corpus_path().with_name("README.md").read_text()
    for source in manifest()["clips"]:
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{source}` |"))
        assert all(cell.strip() for cell in row.strip("|").split("|"))
