import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from loso.corpus.load import load_corpus
from loso.data import demo_corpus_path
from loso.engine import Member, TrainingPlan, choose, train_members
from loso.engine.counter import Purpose, dropout_bits, fold_in, keep_threshold, member_key, shuffled
from loso.engine.network import first_network
from loso.errors import BadSettings, Diverged, MissingExtra
from loso.folds import leave_one_source_out
from loso.inputs import Scaler, build_inputs
from loso.progress import silent
from loso.recipe import Recipe

if find_spec("loso.engine._kernel") is None and shutil.which("c++") is None:
    pytest.skip("no compiler: loso is installed without its kernel", allow_module_level=True)

from loso.engine import _kernel, native

NATIVE = Path(__file__).parents[1] / "native"
ISAS = _kernel.instruction_sets()

# The same float64 arithmetic in another order of summation: some units in the last place a step,
# enlarged by Adam's division by small gradients.
FLOAT64 = 1e-9
# In float32 a step rounds to 2**-24 and its GELU is exact to 1e-7: 500 steps of that.
FLOAT32 = 5e-5


def make_plan(*, dtype=np.float32, rows=101, members=3, inputs=5, **recipe):
    random = np.random.default_rng(7)
    x = random.normal(3.0, 2.0, (rows, inputs)).astype(dtype)
    y = (50 + 5 * x[:, 0] - x[:, -1] * x[:, inputs // 2]).astype(dtype)
    chosen = []
    for fold in range(members):
        train = np.sort(random.permutation(rows)[3 + 7 * fold :]).astype(np.int32)
        mean, std = x[train].mean(axis=0, dtype=float), x[train].std(axis=0, dtype=float)
        chosen.append(Member(fold // 2, fold, f"source{fold}", train, mean, std))
    return TrainingPlan(x, y, tuple(chosen), Recipe(**recipe))


@pytest.fixture(scope="module")
def demo():
    """A member on the demo corpus: 5,400 rows, 169 steps an epoch."""
    corpus = load_corpus(demo_corpus_path())
    inputs = build_inputs(corpus)
    fold = leave_one_source_out(corpus.rows["src"].to_numpy())[0]
    scaler = Scaler.fit(inputs.matrix[fold.train], inputs.scaled)
    member = Member(0, fold.index, fold.held_out, fold.train, scaler.mean, scaler.std)
    return TrainingPlan(inputs.matrix, inputs.target, (member,), Recipe(epochs=3, dropout=0.0))


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    """Each instruction set that this machine runs, in turn."""
    monkeypatch.setenv("LOSO_ISA", request.param)
    return request.param


def in_dtype(plan, dtype):
    return replace(plan, inputs=plan.inputs.astype(dtype), target=plan.target.astype(dtype))


def largest_difference(a, b):
    """Largest difference over largest weight, the worst of all tensors of all members."""
    return max(
        np.abs(x - y).max() / np.abs(x).max()
        for one, other in zip(a.networks, b.networks, strict=True)
        for x, y in zip(one.weights + one.biases, other.weights + other.biases, strict=True)
    )


def weight_bytes(network):
    return [a.tobytes() for a in (*network.weights, *network.biases)]


def python(code, *words, **options):
    """Run `code` in a fresh interpreter."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, **options)


# Randomness: bit for bit that of counter.py.


@given(
    st.integers(0, 2**32),
    st.integers(0, 1000),
    st.sampled_from(Purpose),
    st.integers(0, 2**40),
)
def test_keys_are_those_of_python(seed, fold, purpose, word):
    key = member_key(seed, fold, purpose)
    assert _kernel.member_key(seed, fold, purpose) == key[0]
    assert _kernel.fold_in(int(key[0]), word) == fold_in(key, word)[0]


@given(st.integers(0, 2**64 - 1), st.integers(1, 3000))
def test_orders_are_those_of_python(key, size):
    places = np.empty(size, np.uint32)
    _kernel.shuffled(key, places)
    expected = shuffled(np.array([key], np.uint64), np.array([size]), np.arange(size))
    assert np.array_equal(places, expected)


@pytest.mark.parametrize("size", [2**16, 2**16 + 1, 1_000_003])
def test_long_orders_are_those_of_python(size):
    places = np.empty(size, np.uint32)
    _kernel.shuffled(12345, places)
    positions = np.array([0, 1, 31, 32, size // 2, size - 1])
    assert np.array_equal(
        places[positions], shuffled(np.array([12345], np.uint64), np.array([size]), positions)
    )


@given(
    st.integers(0, 2**64 - 1),
    st.integers(1, 70),
    st.integers(0, 3),
    st.floats(0.001, 0.9),
)
def test_dropout_bits_are_those_of_python(key, units, block, dropout):
    masks = np.empty((32, units), np.float32)
    recipe = native._kernel_recipe(Recipe(hidden=units, dropout=dropout), inputs=1)
    _kernel.dropout_masks(recipe, key, block, masks)
    bits = dropout_bits(np.array([key], np.uint64), units, 32 * (block + 1))[0, :, 32 * block :]
    kept = (bits < keep_threshold(dropout)).T
    assert np.array_equal(masks, kept / np.float32(1.0 - dropout))


# GELU.


def gelu(isa, x):
    value, slope = np.empty_like(x), np.empty_like(x)
    _kernel.gelu(isa, x, value, slope)
    return value, slope


@pytest.mark.parametrize("isa", ISAS)
def test_gelu_is_accurate_to_float32(isa):
    x = np.concatenate([np.linspace(-20, 20, 400_003), [-1e30, -1e-30, 0.0, 1e-30, 1e30]])
    x = x.astype(np.float32)
    value, slope = gelu(isa, x)
    wide = x.astype(float)
    density = np.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    assert np.abs(slope - (ndtr(wide) + wide * density)).max() < 1e-6
    # An error of 1e-6 in erf, which is 2 * ndtr(x * sqrt(2)) - 1, is half of that in value / x.
    assert (np.abs(value - wide * ndtr(wide)) <= 0.5e-6 * np.abs(wide)).all()


@pytest.mark.parametrize("isa", ISAS)
def test_gelu_is_accurate_to_float64(isa):
    x = np.random.default_rng(0).uniform(-12, 12, 301)
    value, slope = gelu(isa, x)
    with mpmath.workdps(40):
        exact = [mpmath.mpf(v) * mpmath.ncdf(v) for v in x]
        steep = [mpmath.ncdf(v) + mpmath.mpf(v) * mpmath.npdf(v) for v in x]
        # The argument's own rounding counts x**2 times in the tail.
        assert (
            max(abs(v / e - 1) / (1 + u * u) for u, v, e in zip(x, value, exact, strict=True))
            < 1e-15
        )
        assert max(abs(s - e) for s, e in zip(slope, steep, strict=True)) < 1e-15


def test_gelu_passes_on_what_is_not_a_number():
    for dtype in (np.float32, np.float64):
        value, _ = gelu(ISAS[0], np.array([np.nan], dtype))
        assert np.isnan(value).all()


# The gradient.


def loss_and_gradient(plan, network, *, dropout_key=0, isa=ISAS[0]):
    dtype = plan.inputs.dtype
    parameters = native._flat(network).astype(dtype)
    gradient = np.empty_like(parameters)
    loss = _kernel.loss_and_gradient(
        isa,
        native._kernel_recipe(plan.recipe, plan.inputs.shape[1]),
        plan.inputs,
        plan.target,
        dropout_key,
        parameters,
        gradient,
    )
    return loss, gradient


@settings(max_examples=40)
@given(
    rows=st.integers(1, 80),
    inputs=st.integers(1, 9),
    hidden=st.integers(1, 40),
    depth=st.integers(1, 4),
    dropout=st.sampled_from([0.0, 0.3]),
    isa=st.sampled_from(ISAS),
    data=st.data(),
)
def test_gradients_are_central_differences(rows, inputs, hidden, depth, dropout, isa, data):
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    recipe = Recipe(hidden=hidden, depth=depth, dropout=dropout)
    plan = TrainingPlan(random.normal(size=(rows, inputs)), random.normal(size=rows), (), recipe)
    first = first_network(inputs, recipe, seed=0, fold=0)
    loss, gradient = loss_and_gradient(plan, first, dropout_key=5, isa=isa)
    if not dropout:
        assert loss == pytest.approx(np.square(first.predict(plan.inputs) - plan.target).mean())
    _, narrow = loss_and_gradient(in_dtype(plan, np.float32), first, dropout_key=5, isa=isa)
    step = 1e-5  # the differences are exact to step**2 and to 1e-16 / step
    for i in random.integers(len(gradient), size=12):
        moved = []
        for sign in (1, -1):
            parameters = native._flat(first)
            parameters[i] += sign * step
            moved.append(
                loss_and_gradient(
                    plan, native._network(parameters, inputs, recipe), dropout_key=5, isa=isa
                )[0]
            )
        slope = (moved[0] - moved[1]) / (2 * step)
        assert gradient[i] == pytest.approx(slope, rel=1e-7, abs=1e-8)
        assert narrow[i] == pytest.approx(slope, rel=1e-5, abs=1e-5)


# The same numbers as PyTorch.


@pytest.fixture(scope="module")
def demo_reference(demo):
    assert demo.steps(demo.members[0]) > 500
    return train_members(demo, engine="reference", threads=1)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, FLOAT64), (np.float32, FLOAT32)])
def test_native_follows_the_plain_loop_on_real_measurements(demo, demo_reference, dtype, tolerance):
    trained = train_members(in_dtype(demo, dtype), engine="native")
    assert largest_difference(demo_reference, trained) < tolerance
    np.testing.assert_allclose(trained.losses, demo_reference.losses, rtol=tolerance)
    assert trained.networks[0].weights[0].dtype == dtype


@pytest.mark.usefixtures("isa")
def test_native_drops_what_batched_drops():
    # A batch of 70 is two whole blocks of samples and a part; 101 rows make the last one short.
    plan = make_plan(dtype=np.float64, epochs=40, dropout=0.4, hidden=23, batch_size=70, lr=5e-3)
    one, other = (train_members(plan, engine=engine, threads=1) for engine in ("batched", "native"))
    assert largest_difference(one, other) < FLOAT64
    np.testing.assert_allclose(one.losses, other.losses, rtol=FLOAT64)


@settings(max_examples=30)
@given(
    rows=st.integers(40, 90),
    members=st.integers(1, 4),
    inputs=st.integers(1, 9),
    hidden=st.integers(1, 40),
    depth=st.integers(1, 4),
    batch_size=st.integers(1, 100),
    dropout=st.sampled_from([0.0, 0.1, 0.9]),
    isa=st.sampled_from(ISAS),
)
def test_any_shape_agrees_with_batched(isa, **shape):
    plan = make_plan(dtype=np.float64, epochs=2, **shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSO_ISA", isa)
        trained = native.train(plan, threads=2, progress=silent)
    assert largest_difference(train_members(plan, engine="batched", threads=1), trained) < FLOAT64


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(
    "shape",
    [
        {"hidden": 512, "depth": 4, "batch_size": 1024, "rows": 1100},
        {"hidden": 512, "depth": 1, "batch_size": 33},
        {"hidden": 1, "depth": 1, "batch_size": 1},
        {"hidden": 3, "depth": 2, "inputs": 1000},
    ],
    ids=str,
)
def test_extreme_shapes_agree_with_batched(shape):
    plan = make_plan(dtype=np.float64, epochs=1, members=1, **shape)
    trained = native.train(plan, threads=1, progress=silent)
    assert largest_difference(train_members(plan, engine="batched", threads=1), trained) < FLOAT64


# The same bytes, whoever does the work.


@pytest.mark.usefixtures("isa")
def test_threads_and_the_order_of_members_do_not_change_bytes():
    plan = make_plan(members=5, epochs=4)
    alone = native.train(plan, threads=1, progress=silent)
    for threads in (2, 3):
        together = native.train(plan, threads=threads, progress=silent)
        assert [*map(weight_bytes, together.networks)] == [*map(weight_bytes, alone.networks)]
        assert together.losses.tobytes() == alone.losses.tobytes()
    turned = replace(plan, members=plan.members[::-1])
    backwards = native.train(turned, threads=2, progress=silent)
    assert [*map(weight_bytes, backwards.networks[::-1])] == [*map(weight_bytes, alone.networks)]


def test_more_threads_than_members():
    plan = make_plan(members=1, epochs=1)
    many = native.train(plan, threads=9, progress=silent)
    one = native.train(plan, threads=1, progress=silent)
    assert weight_bytes(many.networks[0]) == weight_bytes(one.networks[0])


def test_an_instruction_set_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv("LOSO_ISA", "altivec")
    with pytest.raises(
        BadSettings,
        match=r"LOSO_ISA: this machine does not run that instruction set, "
        r"expected .*portable, found altivec",
    ):
        train_members(make_plan(), engine="native")


def test_the_best_instruction_set_is_the_default(monkeypatch):
    monkeypatch.delenv("LOSO_ISA", raising=False)
    assert native.instruction_set() == ISAS[0]
    assert ISAS[-1] == "portable"


# While it works.


@pytest.mark.usefixtures("isa")
def test_a_member_that_diverges_leaves_the_others_alone():
    plan = make_plan(members=3, epochs=5)
    # A row that only the first member trains on.
    first, *others = (set(member.train) for member in plan.members)
    row = min(first.difference(*others))
    plan.target[row] = 1e30
    trained = native.train(plan, threads=2, progress=silent)
    assert np.isnan(trained.losses[0]).any()
    others = replace(plan, members=plan.members[1:])
    expected = native.train(others, threads=1, progress=silent)
    assert [*map(weight_bytes, trained.networks[1:])] == [*map(weight_bytes, expected.networks)]
    with pytest.raises(Diverged, match=r"seed 0, held out source0: .*not finite, found epoch 0"):
        train_members(plan, engine="native")


@pytest.mark.usefixtures("isa")
def test_inputs_that_are_not_numbers_do_not_crash():
    plan = make_plan(epochs=2)
    plan.inputs[5] = np.nan
    plan.inputs[6] = np.inf
    assert np.isnan(native.train(plan, threads=2, progress=silent).losses).all()


def test_progress_names_member_and_epoch_and_ends_at_the_total():
    seen = []
    plan = make_plan(members=4, epochs=400)
    native.train(plan, threads=2, progress=lambda *said: seen.append(said))
    assert seen[-1][0] == seen[-1][1] == sum(plan.steps(member) for member in plan.members)
    assert seen == sorted(seen, key=lambda said: said[0])
    assert seen[-1][2].startswith("seed ")
    assert seen[-1][2].endswith(", epoch 400")


def test_a_failing_progress_stops_the_work():
    def fail(*_):
        raise RuntimeError("nobody watches")

    started = time.monotonic()
    with pytest.raises(RuntimeError, match="nobody watches"):
        native.train(make_plan(epochs=1_000_000), threads=2, progress=fail)
    assert time.monotonic() - started < 1


def test_interrupt_stops_the_work_within_a_second():
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from test_native import make_plan, native
plan = make_plan(epochs=1_000_000)
try:
    native.train(plan, threads=2, progress=lambda *_: print("on", flush=True))
except KeyboardInterrupt:
    print("interrupted")
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "on\n"
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert time.monotonic() - started < 1
    assert said.endswith("interrupted\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: replace(m, train=m.train[:0]), "a member without rows"),
        (lambda m: replace(m, train=m.train + 200), "a row that is not in the corpus"),
        (lambda m: replace(m, train=-m.train), "a row that is not in the corpus"),
        (lambda m: replace(m, mean=m.mean[:2]), "mean"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(change, message):
    plan = make_plan(members=1)
    with pytest.raises(ValueError, match=message):
        native.train(replace(plan, members=(change(plan.members[0]),)), threads=1, progress=silent)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_grows_with_rows_not_with_members():
    code = """
import numpy as np
from loso.engine import Member, TrainingPlan, train_members
from loso.recipe import Recipe
rows, folds = 1_000_000, 9
x = np.random.default_rng(0).random((rows, 20), np.float32)
scale = np.zeros(20), np.ones(20)
train = [np.flatnonzero(np.arange(rows) % folds != f).astype(np.int32) for f in range(folds)]
members = [Member(s, f, f"s{f}", train[f], *scale) for s in range(5) for f in range(folds)]
plan = TrainingPlan(x, x[:, 0].copy(), tuple(members), Recipe(epochs=1, batch_size=1024, hidden=8))
train_members(plan, engine="native", device="cpu")
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(int(peak.split()[1]) * 1024, x.nbytes)
"""
    peak, matrix = map(int, python(code).stdout.split())
    assert peak < 1.5 * matrix + 300e6


# Which engine, and what is loaded for it.


def test_auto_is_native_and_leaves_torch_alone():
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import loso.engine as engine
engine._has_nvidia_driver = lambda: False
assert engine.choose("auto", "auto") == ("native", "cpu")
assert engine.choose("native", "auto") == ("native", "cpu")
import numpy as np
from loso.recipe import Recipe
member = engine.Member(0, 0, "a", np.arange(9, dtype=np.int32), np.zeros(2), np.ones(2))
plan = engine.TrainingPlan(np.ones((9, 2)), np.ones(9), (member,), Recipe(epochs=1))
engine.train_members(plan)
print("torch" in sys.modules)
"""
    assert python(code, str(Path(__file__).parent)).stdout == "False\n"


def test_without_the_kernel_auto_falls_back_in_one_line():
    code = """
import loso.engine as engine
engine._has_kernel = lambda: False
print(*engine.choose("auto", "cpu"))
"""
    ran = python(code)
    assert ran.stdout == "batched cpu\n"
    assert ran.stderr == "loso was installed without its compiled kernel: training with torch\n"


def test_an_engine_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("loso.engine._has_kernel", lambda: False)
    with pytest.raises(
        MissingExtra,
        match=r"without its compiled kernel; reinstall it where there is a C\+\+20 compiler, "
        "or use --engine batched",
    ):
        choose("native", "cpu")
    monkeypatch.setattr("loso.engine.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"the batched engine needs torch; pip install 'loso"):
        choose("auto", "cpu")


def test_native_does_not_run_on_cuda():
    with pytest.raises(BadSettings, match="the native engine runs on the CPU; use --engine"):
        choose("native", "cuda")


# The sources, built by hand.

BUILD = ["-std=gnu++20", "-fno-math-errno", "-ffp-contract=fast"]
FLAGS = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"],
}


def compiler(name):
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def build(command, *words):
    subprocess.run([compiler(command), *BUILD, *map(str, words)], check=True)


def test_sanitizers_find_nothing(tmp_path):
    isa = "avx2" if "avx2" in ISAS else "portable"
    sources = [NATIVE / name for name in ("check.cpp", "kernel.cpp", "pool.cpp")]
    program = tmp_path / "check"
    checks = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-pthread"]
    define = ["-DLOSO_X86", f"-DLOSO_ISA={isa}", *FLAGS[isa]]
    build("g++", *checks, *define, *sources, "-o", program)
    ran = subprocess.run([program], capture_output=True, text=True, check=False)
    assert ran.stdout == f"{isa}: 0 failures\n", ran.stderr


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="not an x86 machine")
def test_instruction_sets_share_no_code(tmp_path):
    """Two builds of one function would be merged by the linker, and the wrong one might run."""
    build("g++", "-O3", "-DLOSO_ISA=avx2", *FLAGS["avx2"], "-c", NATIVE / "kernel.cpp", "-o",
          tmp_path / "kernel.o")  # fmt: skip
    listed = subprocess.run(
        [compiler("nm"), "-C", tmp_path / "kernel.o"], capture_output=True, text=True, check=True
    )
    weak = [line for line in listed.stdout.splitlines() if " W " in line]
    assert weak
    assert all("loso::avx2::" in line for line in weak)


@pytest.mark.parametrize("command", ["aarch64-linux-gnu-g++", "clang++"])
def test_other_compilers_take_the_portable_kernel(command, tmp_path):
    build(command, "-O1", "-Wall", "-Wextra", "-Werror", "-c", NATIVE / "kernel.cpp", "-o",
          tmp_path / "kernel.o")  # fmt: skip


def test_the_package_installs_without_a_compiler(tmp_path):
    pytest.importorskip("scikit_build_core")
    code = "import sys; from scikit_build_core.build import build_wheel; build_wheel(sys.argv[1])"
    false = shutil.which("false")
    python(code, str(tmp_path), cwd=NATIVE.parent, env=os.environ | {"CC": false, "CXX": false})
    (wheel,) = tmp_path.glob("*-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "loso/engine/native.py" in names
    assert not [name for name in names if name.endswith(".so")]
