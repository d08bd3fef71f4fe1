"""The package's shape: who may import whom, what is public, what loads when."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import loso

PACKAGE = Path(loso.__file__).parent

# In the order in which data passes through them: a module imports only what stands before it.
ORDER = """
errors files locks stored decoder spelling records schema recipe thresholds features progress
journal machine extras
cluster cluster.dispatch cluster.roster cluster.crew executors
metrics.correlation metrics.error metrics.mapping metrics.resampling metrics.agreement
metrics.pooling metrics
video video.encoders video.said video.ffmpeg video.gpus video.allowed video.seen video.clips
video.logged video.measure video.scan video.trial video.pair
corpus corpus.jsonl corpus.rows corpus.load corpus.units corpus.view corpus.twins corpus.check
corpus.choices corpus.parts corpus.plan corpus.cells corpus.place corpus.prepare corpus.worker
corpus.remote corpus.manifest corpus.build
corpus.logs corpus.names corpus.table corpus.scores corpus.store corpus.join corpus.from_logs
corpus.order corpus.shard corpus.origins corpus.merge
folds inputs
engine.counter engine.network engine.plan engine.reference
engine.counter_torch engine.batched engine.native engine.shards engine engine.trial
seedfile crossval run_folder evidence recheck ridge baselines intervals coverage calibration
ablation sweep sweep.grid sweep.scores sweep.choose sweep.fits sweep.kept sweep.ensembles
sweep.records sweep.figures sweep.nested
made gate diagnosis verdict model model.grounds run_records
model.files model.sums model.sources model.onnx_build model.onnx_graph model.final_fit model.signing
model.card model.records
export registry verify.folder verify.graphs verify.model verify.grounds verify.chain verify
model.opening model.feed predict evaluate sklearn
recommend recommend.curve recommend.bdrate recommend.scale recommend.search recommend.segments
recommend.bound recommend.question recommend.judge recommend.grids recommend.opinion
recommend.desk recommend.work recommend.answer recommend.calibrate recommend.ask
recommend.hull recommend.compare recommend.apply recommend.record
doctor
report report.parts report.figures report.reading report.scores report.judged report.bounds
report.residuals report.content report.training report.worth report.provenance report.page
report.compare report.write
tracking tracking.content tracking.store
data pipeline
cli.bars cli.console cli.help cli.endings cli.lazy
cli.options cli.settings cli.clips cli.coding
cli.logs cli.merge cli.check cli.corpus cli.judge cli.ablate cli.model
cli.predict cli.evaluate cli.answers cli.recommend
cli.verify cli.report cli.train cli.sweep cli.doctor cli
""".split()

HEAVY = {
    "torch": {"engine", "engine.batched", "engine.counter_torch", "engine.reference"},
    "imageio_ffmpeg": {"video.ffmpeg"},
    "subprocess": {"stored", "video.ffmpeg"},
    "dask": set(),
    "distributed": {"executors"},
    "filelock": {"locks"},
    "model_signing": {"model.signing"},
    "onnx": {"model.onnx_build", "model.onnx_graph"},
    "onnxruntime": {"model.onnx_graph"},
    "pandas": set(),
    "plotly": {
        *("report.figures", "report.page", "report.judged", "report.bounds", "report.residuals"),
        *("report.content", "report.training", "report.worth", "report.compare"),
    },
    "jinja2": {"report.page"},
    "mlflow": {"tracking.store"},
    "sqlalchemy": {"tracking.store"},
    "sklearn": {"sklearn"},
    "scipy": {
        "diagnosis",
        "engine.network",
        "metrics.correlation",
        "metrics.mapping",
        "metrics.resampling",
    },
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree):
    """Dotted names a module imports; imports for the type checker alone do not count."""
    skipped = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names
            if not all(name.removeprefix("loso.") in ORDER for name in names):
                yield node.module


def test_every_module_has_its_place_in_the_order():
    assert sorted(name for name, _ in modules()) == sorted(ORDER)


@pytest.mark.parametrize(
    ("name", "tree"), list(modules()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_module_imports_only_what_stands_before_it(name, tree):
    own = ORDER.index(name)
    for target in imported(tree):
        place = target.removeprefix("loso.")
        if target.startswith("loso.") and place in ORDER:
            assert ORDER.index(place) < own, f"{name} imports {place}, which stands after it"
        root = target.split(".")[0]
        assert root not in HEAVY or name in HEAVY[root], f"{root} has no door in {name}"


@pytest.mark.parametrize(
    "command",
    ["import loso", "from loso.cli import app", "import loso.gate", "import loso.pipeline"],
)
def test_nothing_heavy_loads_before_it_is_needed(command):
    heavy = {"torch", "scipy", "onnx", "onnxruntime", "pandas", "sklearn", "imageio_ffmpeg"}
    heavy |= {"plotly", "jinja2", "mlflow", "sqlalchemy", "distributed"}
    heavy |= {"rich.progress"}
    if command in {"import loso", "from loso.cli import app"}:
        heavy |= {"numpy", "polars", "pydantic"}
    code = f"{command}; import sys; print(*sorted(set(sys.modules) & {heavy!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


ALWAYS = "cli cli.bars cli.console cli.endings cli.lazy errors journal progress spelling"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--version", ""),
        ("--help", "cli.help"),
        ("gate --help", "cli.help cli.judge cli.options cli.settings recipe schema"),
    ],
)
def test_a_command_loads_its_own_modules_only(words, expected):
    code = (
        "import sys; from loso.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(n.removeprefix('loso.') for n in sys.modules if n.startswith('loso.')))"
    )
    run = [sys.executable, "-c", code, *words.split()]
    lines = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(lines[-1].split()) == sorted([*ALWAYS.split(), *expected.split()])


def test_public_names_are_sorted_and_real():
    assert loso.__all__ == sorted(loso.__all__)
    assert set(loso.__all__) == set(loso._HOMES)
    for name in loso.__all__:
        assert getattr(loso, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = loso.nothing


def test_every_module_names_what_it_offers():
    for name, tree in modules():
        exported = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        defined = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        if any(not node.name.startswith("_") for node in defined):
            assert exported, f"{name} has public names and no __all__"


def test_no_module_is_longer_than_one_idea():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path.name


def test_what_builds_the_kernel_is_pinned_too():
    """cmake and ninja are fetched where a system lacks them, and pyproject.toml does not say it."""
    root = Path(__file__).parents[1]
    pinned = (root / "constraints.txt").read_text(encoding="utf-8").replace("_", "-").splitlines()
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert {*project["build-system"]["requires"]} <= {*pinned}
    for name in ("cmake", "ninja"):
        assert [line for line in pinned if re.fullmatch(rf"{name}==[0-9.]+", line)], name
