import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loso.errors import BadInput, BadSettings, Busy, Refused
from loso.export import export_model
from loso.files import sha256_of
from loso.locks import folder_lock
from loso.model.files import Promotion, read_record
from loso.model.sums import files_to_sum, read_sums, refresh_sums
from loso.recipe import Compute, GateThresholds
from loso.registry import flip, list_models, unflip
from loso.verdict import validate_run

SEEDS = (0, 1)
STEM = "fr"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def small(_seed, content):
    content.update(epochs=1, hidden=3)


@pytest.fixture
def exported(make_run, tmp_path):
    """A model folder, and the verdict that it was exported on."""
    run, corpus = make_run(seeds=SEEDS, edit=small), tmp_path / "corpus.jsonl"
    validate_run(run, SEEDS, corpus=corpus)
    compute = Compute(device="cpu", threads=1)
    export_model(run, corpus, tmp_path / "model", stem=STEM, compute=compute)
    return tmp_path / "model", run / "PROMOTE.json"


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("[!.]*"))}


def flags(folder):
    """What marks members as production: manifest, and registry by id."""
    entries = json.loads((folder / "registry.json").read_text())["models"]
    manifest = json.loads((folder / f"{STEM}.json").read_text())
    return manifest["smoke"], {entry["id"]: entry["smoke"] for entry in entries}


def edit_json(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# -- Flip -----------------------------------------------------------------------------------------


def test_a_flip_marks_members_and_writes_its_grounds(exported):
    folder, verdict = exported
    before = contents(folder)
    assert flags(folder) == (True, {"fr_seed0": True, "fr_seed1": True})
    record = flip(folder, verdict, now=lambda: NOON)
    assert flags(folder) == (False, {"fr_seed0": False, "fr_seed1": False})
    after = contents(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"fr.json", "registry.json", "fr.promotion.json", "SHA256SUMS"}
    assert read_record(folder / "fr.promotion.json", Promotion) == record
    judged = json.loads(verdict.read_text())
    assert record.state == "promoted"
    assert record.at_utc == "2026-01-02T12:00:00+00:00"
    assert record.verdict_sha256 == sha256_of(verdict)
    assert record.verdict_generated_at_utc == judged["generated_at_utc"]
    assert record.corpus_sha256 == judged["evidence"]["corpus_sha256"]
    assert record.evidence["seeds"] == judged["evidence"]["seeds"]
    assert record.members == {f"fr_seed{s}": sha256_of(folder / f"fr_seed{s}.onnx") for s in SEEDS}
    assert read_sums(folder) == {n: sha256_of(folder / n) for n in files_to_sum(folder)}
    assert json.loads(after["fr.json"]) == json.loads(before["fr.json"]) | {"smoke": False}


def test_the_same_flip_again_changes_nothing(exported):
    folder, verdict = exported
    flip(folder, verdict, now=lambda: NOON)
    before = contents(folder)
    assert flip(folder, verdict).at_utc == "2026-01-02T12:00:00+00:00"
    assert contents(folder) == before


def test_other_models_keep_their_entries(exported):
    folder, verdict = exported
    other = {"id": "other", "kind": "filter", "onnx": "o.onnx", "license": "BSD", "smoke": True}

    def add(registry):
        registry["$schema"] = "./registry.schema.json"
        registry["models"].insert(1, other)

    edit_json(folder / "registry.json", add)  # as another tool would: SHA256SUMS knows nothing
    flip(folder, verdict)
    registry = json.loads((folder / "registry.json").read_text())
    assert registry["$schema"] == "./registry.schema.json"
    assert registry["models"][1] == other
    assert [entry["smoke"] for entry in registry["models"]] == [False, True, False]
    unflip(folder, "done")
    assert json.loads((folder / "registry.json").read_text())["models"][1] == other


def test_of_two_models_the_named_one_is_flipped(exported, tmp_path):
    folder, verdict = exported
    compute = Compute(device="cpu", threads=1)
    export_model(verdict.parent, tmp_path / "corpus.jsonl", folder, stem="two", compute=compute)
    with pytest.raises(BadInput, match=r"found fr\.json, two\.json; name one of them with --name"):
        flip(folder, verdict)
    flip(folder, verdict, stem="two")
    assert flags(folder) == (
        True,
        {"fr_seed0": True, "fr_seed1": True, "two_seed0": False, "two_seed1": False},
    )


REFUSALS = {
    "graph": (lambda d: d.joinpath("fr_seed1.onnx").write_bytes(b""), "not the graph in the man"),
    "ensemble": (lambda d: d.joinpath("fr.onnx").write_bytes(b""), "not the graph in the manifest"),
    "sidecar": (
        lambda d: edit_json(d / "fr_seed0.json", lambda c: c.update(notes="")),
        r"fr_seed0\.json: not as in SHA256SUMS",
    ),
    "gate": (
        lambda d: edit_json(d / "fr_seed0.json", lambda c: c["gate"].update(mean_plcc=0.1)),
        r"fr_seed0\.json: gate\.mean_plcc is not the verdict's, expected 0\.99.*found 0\.1",
    ),
    "seed's plcc": (
        lambda d: edit_json(d / "fr_seed1.json", lambda c: c["gate"].update(this_seed_loso_plcc=1)),
        r"gate\.this_seed_loso_plcc is not the verdict's",
    ),
    "limit": (
        lambda d: edit_json(
            d / "fr_seed1.json", lambda c: c["gate"].update(per_seed_min_threshold=0.9)
        ),
        r"gate\.per_seed_min_threshold is not the verdict's",
    ),
    "sidecar's corpus": (
        lambda d: edit_json(d / "fr_seed0.json", lambda c: c["corpus"].update(sha256="0" * 64)),
        "does not name the corpus",
    ),
    "sidecar's verdict": (
        lambda d: edit_json(d / "fr_seed0.json", lambda c: c.update(verdict_sha256="0" * 64)),
        "does not name the verdict",
    ),
    "sidecar's evidence": (
        lambda d: edit_json(d / "fr_seed0.json", lambda c: c["evidence"]["seeds"].popitem()),
        "does not name what the verdict judged",
    ),
    "sidecar's graph": (
        lambda d: edit_json(d / "fr_seed0.json", lambda c: c.update(sha256="0" * 64)),
        "does not name the graph in the manifest",
    ),
    "sidecar's seed": (
        lambda d: edit_json(d / "fr_seed0.json", lambda c: c.update(seed=7)),
        "does not name the seed in the manifest",
    ),
    "no sidecar": (lambda d: (d / "fr_seed0.json").unlink(), "file not found"),
    "manifest": (
        lambda d: edit_json(d / "fr.json", lambda c: c["feature_mean"].__setitem__(0, 0.5)),
        r"fr\.json: not as in SHA256SUMS",
    ),
    "manifest's verdict": (
        lambda d: edit_json(d / "fr.json", lambda c: c.update(verdict_sha256="0" * 64)),
        "not the verdict that the model was exported on",
    ),
    "manifest's corpus": (
        lambda d: edit_json(d / "fr.json", lambda c: c.update(corpus_sha256="0" * 64)),
        "another corpus",
    ),
    "member gone": (
        lambda d: edit_json(d / "fr.json", lambda c: c["members"].pop()),
        "other seeds than those of the verdict",
    ),
    "no entry": (
        lambda d: edit_json(d / "registry.json", lambda c: c["models"].pop(0)),
        "fr_seed0 does not stand there once, with its graph",
    ),
    "entry's hash": (
        lambda d: edit_json(d / "registry.json", lambda c: c["models"][0].update(sha256="0" * 64)),
        "fr_seed0 does not stand there once, with its graph",
    ),
    "entry twice": (
        lambda d: edit_json(d / "registry.json", lambda c: c["models"].append(c["models"][0])),
        "fr_seed0 does not stand there once, with its graph",
    ),
    "sums": (lambda d: (d / "SHA256SUMS").write_text("what\n"), "line 1: not a line of sha256sum"),
    "a line gone": (
        lambda d: (d / "SHA256SUMS").write_text(f"{'0' * 64}  fr.json\n"),
        r"not as in SHA256SUMS",
    ),
    "no sums": (lambda d: (d / "SHA256SUMS").unlink(), "SHA256SUMS: file not found"),
    "no registry": (lambda d: (d / "registry.json").unlink(), "does not stand there once"),
    "no manifest": (lambda d: (d / "fr.json").unlink(), "one manifest of kind fr_ensemble"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_flip_is_refused_on_any_mismatch_and_writes_nothing(exported, what):
    folder, verdict = exported
    edit, text = REFUSALS[what]
    edit(folder)
    before = contents(folder)
    with pytest.raises((Refused, BadInput), match=text):
        flip(folder, verdict)
    assert contents(folder) == before


def test_another_verdict_is_refused(exported):
    folder, verdict = exported
    hold = verdict.with_name("HOLD.json")
    shutil.copy(verdict, hold)
    edit_json(hold, lambda c: c.update(verdict="HOLD"))
    with pytest.raises(Refused, match="the verdict is not to promote, found HOLD"):
        flip(folder, hold)
    # The same judgement, on another day: not the file that the members cite.
    edit_json(verdict, lambda c: c.update(generated_at_utc="2020-01-01T00:00:00+00:00"))
    with pytest.raises(Refused, match="not the verdict that the model was exported on"):
        flip(folder, verdict)
    with pytest.raises(BadInput, match="cannot be read"):
        flip(folder, verdict.with_name("none.json"))


def test_names_in_the_manifest_lead_nowhere_else(exported):
    folder, verdict = exported
    edit_json(folder / "fr.json", lambda c: c["members"][0].update(onnx="../fr_seed0.onnx"))
    with pytest.raises(BadInput, match=r"members\.0\.onnx cannot be used"):
        flip(folder, verdict)


# -- Cut short, and at the same time --------------------------------------------------------------


class Killed(BaseException):
    """A process that ends in the middle, as far as one can be that has to go on."""


@pytest.mark.parametrize("verb", ["flip", "unflip"])
def test_cut_short_anywhere_the_same_call_completes_it(exported, tmp_path, monkeypatch, verb):
    folder, verdict = exported
    if verb == "unflip":
        flip(folder, verdict, now=lambda: NOON)

    def call(target):
        if verb == "flip":
            flip(target, verdict, now=lambda: NOON)
        else:
            unflip(target, "broken", now=lambda: NOON)

    done = tmp_path / "done"
    shutil.copytree(folder, done)
    call(done)
    before, after, real = contents(folder), contents(done), Path.replace
    for n in range(1, 5):  # four files change, one after the other
        target, calls = tmp_path / f"cut{n}", []
        shutil.copytree(folder, target)

        def cut(self, to, n=n, calls=calls):
            calls.append(to)
            if len(calls) == n:
                raise Killed
            return real(self, to)

        monkeypatch.setattr(Path, "replace", cut)
        with pytest.raises(Killed):
            call(target)
        monkeypatch.setattr(Path, "replace", real)
        found = contents(target)
        assert all(content in {before.get(name), after[name]} for name, content in found.items())
        # Whatever is for production has its grounds beside it.
        assert all(flags(target)[1].values()) or "fr.promotion.json" in found
        sums = {name: sha256_of(target / name) for name in files_to_sum(target)}
        assert (read_sums(target) == sums) is (n == 1)
        call(target)
        assert contents(target) == after


def test_of_two_flips_at_once_one_may_wait_and_files_stay_whole(exported):
    folder, verdict = exported
    start = threading.Barrier(8)

    def attempt(_):
        start.wait()
        try:
            flip(folder, verdict)
        except Busy:
            return "busy"
        return "done"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(8)))
    assert "done" in answers
    assert set(answers) <= {"busy", "done"}
    assert flags(folder) == (False, {"fr_seed0": False, "fr_seed1": False})
    assert read_sums(folder) == {n: sha256_of(folder / n) for n in files_to_sum(folder)}


def test_a_folder_in_use_is_busy(exported):
    folder, verdict = exported
    with folder_lock(folder, "x"), pytest.raises(Busy, match="using this folder for flipping"):
        flip(folder, verdict)


# -- Unflip ---------------------------------------------------------------------------------------


def test_an_unflip_records_why(exported):
    folder, verdict = exported
    flip(folder, verdict)
    record, left = unflip(folder, " VMAF of dark scenes is off ", now=lambda: NOON)
    assert left == ()
    assert flags(folder) == (True, {"fr_seed0": True, "fr_seed1": True})
    assert (record.state, record.reason) == ("withdrawn", "VMAF of dark scenes is off")
    assert record.at_utc == "2026-01-02T12:00:00+00:00"
    assert record.verdict_sha256 == sha256_of(verdict)
    assert read_record(folder / "fr.promotion.json", Promotion) == record
    assert read_sums(folder) == {n: sha256_of(folder / n) for n in files_to_sum(folder)}
    with pytest.raises(
        Refused, match=r"the model was withdrawn \(VMAF of dark scenes is off\); say"
    ):
        flip(folder, verdict)
    assert flags(folder)[0] is True
    flip(folder, verdict, again=True)
    assert flags(folder)[0] is False


@pytest.mark.parametrize("name", ["fr.json", "SHA256SUMS"])
def test_a_damaged_manifest_or_sums_do_not_keep_a_model_in_production(exported, name):
    folder, verdict = exported
    flip(folder, verdict)
    (folder / name).write_bytes(b"\xff{")
    record, left = unflip(folder, "broken")
    assert [text.split()[0] for text in left] == [name]
    assert (folder / name).read_bytes() == b"\xff{"
    assert record.members == {f"fr_seed{s}": sha256_of(folder / f"fr_seed{s}.onnx") for s in SEEDS}
    assert [model.entry.smoke for model in list_models(folder)] == [True, True]
    assert read_record(folder / "fr.promotion.json", Promotion) == record


def test_which_model_to_withdraw_must_be_clear(exported):
    folder, _ = exported
    entry = {"id": "two_seed0", "kind": "fr", "onnx": "two_seed0.onnx", "sha256": "0" * 64}
    edit_json(folder / "registry.json", lambda c: c["models"].append(entry))
    with pytest.raises(BadInput, match="found fr, two; name one of them with --name"):
        unflip(folder, "x")
    with pytest.raises(BadInput, match="expected members of three"):
        unflip(folder, "x", stem="three")
    unflip(folder, "x", stem="two")
    assert json.loads((folder / "registry.json").read_text())["models"][-1]["smoke"] is True


def test_limits_looser_than_the_standard_must_be_accepted(make_run, tmp_path):
    run, corpus = make_run(seeds=SEEDS, edit=small), tmp_path / "corpus.jsonl"
    loose = GateThresholds(mean_plcc_threshold=0.5, plcc_spread_max=1.0, per_seed_min=0.96)
    verdict = validate_run(run, SEEDS, loose, corpus=corpus)[1]
    folder = tmp_path / "model"
    compute = Compute(device="cpu", threads=1)
    export_model(run, corpus, folder, stem=STEM, compute=compute)
    text = r"looser than the standard ones, expected mean_plcc_threshold 0\.95, plcc_spread_max 0"
    with pytest.raises(Refused, match=text):
        flip(folder, verdict)
    assert flags(folder)[0] is True
    record = flip(folder, verdict, accept_limits=True)
    assert record.accepted_limits == {"mean_plcc_threshold": 0.5, "plcc_spread_max": 1.0}


@pytest.mark.parametrize("verb", ["flip", "unflip"])
@pytest.mark.parametrize("number", ["NaN", "1e999"])
def test_a_number_that_is_none_in_a_foreign_entry_stops_all_before_the_first_write(
    exported, verb, number
):
    folder, verdict = exported
    path = folder / "registry.json"
    theirs = f'"models": [{{"id": "other", "size": {number}}}, '
    path.write_text(path.read_text().replace('"models": [', theirs))
    before = contents(folder)
    with pytest.raises(BadInput, match=r"registry\.json: (not valid JSON|cannot be written again)"):
        flip(folder, verdict) if verb == "flip" else unflip(folder, "x")
    assert contents(folder) == before


def test_an_entry_that_does_not_say_is_on_trial_if_it_is_a_member(exported):
    folder, _ = exported

    def change(registry):
        del registry["models"][0]["smoke"]
        other = {"id": "other", "kind": "fr", "onnx": "other.onnx", "sha256": "0" * 64}
        registry["models"].append(other)

    edit_json(folder / "registry.json", change)
    smoke = {model.entry.id: model.entry.smoke for model in list_models(folder)}
    assert smoke == {"fr_seed0": True, "fr_seed1": True, "other": False}


def test_pipes_and_links_are_not_opened(exported):
    folder, verdict = exported
    os.mkfifo(folder / "pipe.json")
    (folder / "link.json").symlink_to(folder / "fr.json")
    graph = folder / "fr_seed0.onnx"
    shutil.move(graph, folder / "elsewhere.onnx")
    graph.symlink_to(folder / "elsewhere.onnx")
    assert [model.state for model in list_models(folder)] == ["missing", "whole"]
    graph.unlink()
    shutil.move(folder / "elsewhere.onnx", graph)
    assert flip(folder, verdict).id == STEM


def test_what_is_broken_can_be_withdrawn_and_stays_visible(exported):
    folder, verdict = exported
    flip(folder, verdict)
    (folder / "fr_seed0.onnx").write_bytes(b"broken")
    unflip(folder, "broken")
    assert flags(folder)[0] is True
    assert read_sums(folder)["fr_seed0.onnx"] != sha256_of(folder / "fr_seed0.onnx")


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 513])
def test_a_reason_is_one_line(exported, reason):
    with pytest.raises(BadSettings, match="give a reason, in one line"):
        unflip(exported[0], reason)


# -- List, and sums -------------------------------------------------------------------------------


def test_models_are_listed_with_the_state_of_their_graphs(exported):
    folder, _ = exported
    assert [(m.entry.id, m.state) for m in list_models(folder)] == [
        ("fr_seed0", "whole"),
        ("fr_seed1", "whole"),
    ]
    (folder / "fr_seed0.onnx").unlink()
    (folder / "fr_seed1.onnx").write_bytes(b"")
    (folder.parent / "x.onnx").write_bytes(b"")

    def add(registry):
        registry["models"].append({"id": "x", "kind": "fr", "onnx": "a/../../x.onnx"})
        registry["models"][-1]["sha256"] = "0" * 64

    edit_json(folder / "registry.json", add)
    states = [model.state for model in list_models(folder)]
    assert states == ["missing", "changed", "outside the folder"]
    with pytest.raises(BadInput, match=r"registry\.json: file not found"):
        list_models(folder.parent)


def test_a_line_of_sums_ends_at_its_newline_alone(tmp_path):
    name = "a\x0bb\u2028c"
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n", newline="\n")
    assert read_sums(tmp_path) == {name: "0" * 64}


def test_sums_speak_of_every_file_but_private_ones(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b", "a", "sub/c", ".hidden", "model.sig", "SHA256SUMS", "odd\\name"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert files_to_sum(tmp_path) == ("a", "b", "sub/c")
    (tmp_path / "SHA256SUMS").unlink()
    refresh_sums(tmp_path, [])
    first = read_sums(tmp_path)
    assert first == {name: sha256_of(tmp_path / name) for name in ("a", "b", "sub/c")}
    (tmp_path / "a").write_text("edited")
    (tmp_path / "b").write_text("edited")
    (tmp_path / "sub/c").unlink()
    (tmp_path / "d").write_text("new")
    refresh_sums(tmp_path, ["a"])
    assert read_sums(tmp_path) == {
        "a": sha256_of(tmp_path / "a"),
        "b": first["b"],
        "d": sha256_of(tmp_path / "d"),
    }


# -- Signatures -----------------------------------------------------------------------------------


def test_a_signed_folder_is_signed_anew_by_whatever_changes_it(exported, tmp_path):
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from loso.model.signing import check_signature

    key = ec.generate_private_key(ec.SECP256R1())
    secret, public = tmp_path / "key.pem", tmp_path / "key.pub"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    folder, verdict = exported
    export = (verdict.parent, tmp_path / "corpus.jsonl", folder)
    compute = Compute(device="cpu", threads=1)
    export_model(*export, stem=STEM, compute=compute, sign_key=secret)
    check_signature(folder, public)
    before = contents(folder)
    for change in (
        lambda: flip(folder, verdict),
        lambda: unflip(folder, "x"),
        lambda: export_model(*export, stem=STEM, compute=compute),
    ):
        with pytest.raises(BadInput, match="the folder is signed"):
            change()
    assert contents(folder) == before
    flip(folder, verdict, sign_key=secret)
    check_signature(folder, public)
    edit_json(folder / "registry.json", lambda c: c["models"][0].update(smoke=True))
    with pytest.raises(Refused, match="Hash mismatch for 'registry"):
        check_signature(folder, public)
    unflip(folder, "x", sign_key=secret)
    check_signature(folder, public)
