from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loso.engine import (
    Member,
    Network,
    TrainingPlan,
    _torch_threads,
    batched,
    choose,
    counter_torch,
    train_members,
)
from loso.engine.counter import Purpose, dropout_bits, fold_in, shuffled
from loso.engine.network import first_network
from loso.errors import BadSettings, Diverged, MissingTool
from loso.recipe import Recipe

# Both engines do the same float64 arithmetic in another order of summation; each of the steps
# adds a few units in the last place, and Adam's division by small gradients enlarges them.
FLOAT64 = 1e-9
# The same in float32: 2**-24 a rounding, over some hundred steps.
FLOAT32 = 1e-4


def make_plan(*, dtype=np.float64, rows=101, members=3, inputs=5, uneven=True, **recipe):
    random = np.random.default_rng(7)
    x = random.normal(3.0, 2.0, (rows, inputs)).astype(dtype)
    y = (50 + 5 * x[:, 0] - x[:, 1] * x[:, 2]).astype(dtype)
    chosen = []
    for fold in range(members):
        left_out = 3 + 7 * fold if uneven else 10
        train = np.sort(random.permutation(rows)[left_out:]).astype(np.int32)
        chosen.append(
            Member(
                seed=fold // 2,
                fold=fold,
                held_out=f"source{fold}",
                train=train,
                mean=x[train].mean(axis=0, dtype=float),
                std=x[train].std(axis=0, dtype=float),
            )
        )
    return TrainingPlan(x, y, tuple(chosen), Recipe(**recipe))


def largest_difference(a, b):
    """Largest difference over largest weight, the worst of all tensors of all members."""
    return max(
        np.abs(x - y).max() / np.abs(x).max()
        for one, other in zip(a.networks, b.networks, strict=True)
        for x, y in zip(one.weights + one.biases, other.weights + other.biases, strict=True)
    )


def weight_bytes(trained):
    return [a.tobytes() for n in trained.networks for a in (*n.weights, *n.biases)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, FLOAT64), (np.float32, FLOAT32)])
def test_batched_follows_the_plain_loop_step_by_step(dtype, tolerance):
    # 101 rows make four steps an epoch, the last one short: 200 steps and more.
    plan = make_plan(dtype=dtype, epochs=50, dropout=0.0, hidden=16, lr=5e-3)
    reference = train_members(plan, engine="reference")
    batched = train_members(plan, engine="batched")
    assert largest_difference(reference, batched) < tolerance
    np.testing.assert_allclose(reference.losses, batched.losses, rtol=tolerance)
    assert (reference.losses[:, -1] < reference.losses[:, 0] / 5).all()


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(60, 90),
    members=st.integers(1, 4),
    inputs=st.integers(1, 9),
    hidden=st.integers(1, 12),
    depth=st.integers(1, 4),
    batch_size=st.integers(1, 70),
)
def test_engines_agree_on_any_shape(rows, members, inputs, hidden, depth, batch_size):
    plan = make_plan(
        rows=rows,
        members=members,
        inputs=max(inputs, 3),
        epochs=2,
        dropout=0.0,
        hidden=hidden,
        depth=depth,
        batch_size=batch_size,
    )
    reference = train_members(plan, engine="reference")
    assert largest_difference(reference, train_members(plan, engine="batched")) < FLOAT64


def test_threads_and_company_do_not_change_bytes():
    plan = make_plan(dtype=np.float32, members=23, epochs=100, uneven=False, hidden=16, lr=5e-3)
    tensors = 2 * (plan.recipe.depth + 1)

    def bytes_of(members, threads=1):
        chosen = TrainingPlan(plan.inputs, plan.target, members, plan.recipe)
        flat = weight_bytes(train_members(chosen, engine="batched", threads=threads))
        return [flat[i : i + tensors] for i in range(0, len(flat), tensors)]

    together = bytes_of(plan.members)
    assert bytes_of(plan.members, threads=2) == together
    assert bytes_of(plan.members[::-1]) == together[::-1]
    assert bytes_of(plan.members[3:6]) == together[3:6]


def test_seed_and_fold_each_change_the_member():
    a, b, c = (
        first_network(6, Recipe(), seed=seed, fold=fold).weights[0]
        for seed, fold in ((0, 0), (1, 0), (0, 1))
    )
    assert not (a == b).any()
    assert not (a == c).any()


def test_first_weights_are_spread_as_torch_linear_spreads_them():
    recipe = Recipe(hidden=512)
    ours = first_network(20, recipe, seed=3, fold=1)
    torch.manual_seed(0)
    theirs = [torch.nn.Linear(20, 512), torch.nn.Linear(512, 512)]
    for i, layer in enumerate(theirs):
        for mine, other in ((ours.weights[i], layer.weight), (ours.biases[i], layer.bias)):
            other = other.detach().numpy()  # noqa: PLW2901 (the same thing as an array)
            # 512 draws and more: a uniform's spread is known to 4 % (three standard errors).
            assert mine.std() == pytest.approx(other.std(), rel=0.1)
            bound = 1 / np.sqrt(layer.in_features)
            assert np.abs(mine).max() <= bound
            assert np.abs(mine).max() > 0.98 * bound


def test_predict_is_what_torch_computes():
    recipe = Recipe(hidden=7, depth=3)
    network = first_network(4, recipe, seed=0, fold=0)
    x = np.random.default_rng(0).normal(size=(20_000, 4))  # more than one piece
    expected = torch.from_numpy(x)
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        linear = torch.nn.functional.linear(
            expected, torch.from_numpy(weight), torch.from_numpy(bias)
        )
        expected = torch.nn.functional.gelu(linear)
    expected = expected @ torch.from_numpy(network.weights[-1][0]) + network.biases[-1][0]
    np.testing.assert_allclose(network.predict(x), expected.numpy(), rtol=FLOAT64, atol=1e-12)


def test_dropout_keeps_the_expected_output():
    """A linear unit's mean over masks is its value: the scaling undoes the dropping."""
    from loso.engine.batched import _dropout_masks, _keys

    plan = make_plan(dropout=0.3, hidden=33)
    step_keys = fold_in(_keys(plan, Purpose.DROPOUT), np.arange(100))
    masks = _dropout_masks(plan, step_keys)
    assert len(masks) == plan.recipe.depth
    for mask in masks:
        assert np.unique(mask).tolist() == pytest.approx([0.0, 1 / 0.7])
        # 3 x 100 x 33 x 32 bits: the standard error of the mean is 0.0012.
        assert mask.mean() == pytest.approx(1.0, abs=0.006)


def test_dropout_regularises_like_torch_does():
    plan = make_plan(rows=300, members=2, epochs=60, dropout=0.5, hidden=16, lr=1e-2)
    reference = train_members(plan, engine="reference").losses[:, -10:].mean()
    batched = train_members(plan, engine="batched").losses[:, -10:].mean()
    without = (
        train_members(make_plan(rows=300, members=2, epochs=60, dropout=0.0, hidden=16, lr=1e-2))
        .losses[:, -10:]
        .mean()
    )
    # Different random bits: the mean of 2 x 10 noisy epochs agrees to about a tenth.
    assert batched == pytest.approx(reference, rel=0.25)
    assert without < reference / 2


@pytest.mark.parametrize("engine", ["reference", "batched"])
def test_divergence_names_seed_and_source(engine):
    plan = make_plan(dtype=np.float32, members=2, epochs=30, lr=1e3, hidden=64)
    plan.target[:] = 1e30
    with pytest.raises(Diverged, match=r"seed 0, held out source0: .*not finite, found epoch \d+"):
        train_members(plan, engine=engine)


@pytest.mark.parametrize("engine", ["reference", "batched", "native"])
def test_members_that_diverge_can_be_told_from_those_that_do_not(engine):
    """The second member's target is beyond the floats once it is squared; its company is sound."""
    plan = make_plan(dtype=np.float32, members=2, epochs=3)
    lost = replace(plan.members[1], target_std=1e-30)
    plan = replace(plan, members=(plan.members[0], lost))
    trained = train_members(plan, engine=engine, keep_diverged=True)
    sound, failure = trained.failures(plan)
    assert sound is None
    assert str(failure).startswith(f"seed {lost.seed}, held out {lost.held_out}: training diverged")
    with pytest.raises(Diverged, match=f"held out {lost.held_out}"):
        train_members(plan, engine=engine)


def test_divergence_in_the_last_step_shows_in_the_weights():
    plan = make_plan(members=1, epochs=1)
    trained = train_members(plan)
    trained.networks[0].weights[0][0, 0] = np.nan
    with pytest.raises(Diverged, match="seed 0, held out source0"):
        trained.require_finite(plan)


def test_progress_ends_at_the_total():
    for engine in ("reference", "batched"):
        seen = []
        train_members(
            make_plan(epochs=2),
            engine=engine,
            progress=lambda done, total, _="", seen=seen: seen.append((done, total)),
        )
        assert seen[-1][0] == seen[-1][1]
        assert seen == sorted(seen)


def test_unknown_engine_and_device_are_refused():
    with pytest.raises(BadSettings, match=r"no such engine, expected auto or .*, found jax"):
        choose("jax", "auto")
    with pytest.raises(BadSettings, match="no such device, expected auto, cpu or cuda, found tpu"):
        choose("auto", "tpu")


def test_network_predicts_nothing_for_no_rows():
    network = Network((np.ones((1, 2)),), (np.zeros(1),))
    assert network.predict(np.empty((0, 2))).shape == (0,)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(MissingTool, match="no CUDA device is visible to torch; use --device cpu"):
        choose("batched", "cuda")


def as_tensor(keys):
    return torch.from_numpy(keys.view(np.int64))


any_keys = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6).map(
    lambda words: np.array(words, np.uint64)
)


@settings(deadline=None)
@given(
    keys=any_keys, word=st.integers(0, 2**31), units=st.integers(1, 40), batch=st.integers(1, 70)
)
def test_torch_draws_the_bits_that_numpy_draws(keys, word, units, batch):
    folded = counter_torch.fold_in(as_tensor(keys), word)
    assert np.array_equal(folded.numpy().view(np.uint64), fold_in(keys, word))
    bits = counter_torch.dropout_bits(as_tensor(keys), units, batch)
    assert np.array_equal(bits.numpy(), dropout_bits(keys, units, batch))


@settings(deadline=None)
@given(
    keys=any_keys,
    size=st.integers(1, 5000)
    | st.integers(1, 2**31 - 1)
    | st.sampled_from([2**k for k in range(31)]),
    places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=60),
)
def test_torch_draws_the_orders_that_numpy_draws(keys, size, places):
    keys, sizes = keys[:, None], np.array([[size]])
    position = (np.array(places) * size).astype(np.int64)
    found = counter_torch.shuffled(
        as_tensor(keys), torch.from_numpy(sizes), torch.from_numpy(position)
    )
    assert np.array_equal(found.numpy(), shuffled(keys, sizes, position))


def captured_by_hand(runs):
    """As CUDA capture: some runs to warm up, then the same callable again and again."""

    def captured(step):
        for _ in range(3):
            step()

        def replay():
            runs.append(1)
            step()

        return replay

    return captured


def train_directly(plan, seen=None, **options):
    progress = (lambda *_: None) if seen is None else (lambda done, *_: seen.append(done))
    with _torch_threads(1):
        return batched.train(plan, device="cpu", progress=progress, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_replayed_steps_on_device_draws_give_the_same_bytes(monkeypatch, dtype, dropout):
    # Members of 3 and of 4 steps an epoch end at different times, in spans of 16 and of 512 steps.
    plan = make_plan(dtype=dtype, members=3, epochs=11, dropout=dropout, hidden=16, batch_size=29)
    runs, seen = [], []
    monkeypatch.setattr(batched, "_captured", captured_by_hand(runs))
    direct = train_directly(plan)
    replayed = train_directly(plan, seen, replayed=True)
    steps = sorted({plan.steps(member) for member in plan.members})
    assert (seen, len(runs)) == (steps, steps[-1])
    assert len(steps) > 1
    assert weight_bytes(direct) == weight_bytes(replayed)
    assert direct.losses.tobytes() == replayed.losses.tobytes()


def test_a_device_that_holds_few_masks_draws_in_more_spans(monkeypatch):
    plan = make_plan(members=2, epochs=20, hidden=8, batch_size=32)
    monkeypatch.setattr(batched, "_captured", captured_by_hand([]))
    at_once = train_directly(plan, replayed=True)
    monkeypatch.setattr(counter_torch, "_MASK_NUMBERS", 0)
    seen = []
    in_spans = train_directly(plan, seen, replayed=True)
    assert seen == [16, 32, 48, 60, 76, 80]
    assert weight_bytes(at_once) == weight_bytes(in_spans)
    assert at_once.losses.tobytes() == in_spans.losses.tobytes()


def test_divergence_is_found_in_replayed_steps_too(monkeypatch):
    plan = make_plan(dtype=np.float32, members=2, epochs=30, lr=1e3, hidden=64)
    plan.target[:] = 1e30
    monkeypatch.setattr(batched, "_captured", captured_by_hand([]))
    trained = train_directly(plan, replayed=True)
    with pytest.raises(Diverged, match=r"seed 0, held out source0: .*not finite, found epoch \d+"):
        trained.require_finite(plan)


def test_batched_learns_a_standardised_target_as_the_plain_loop_does():
    plan = make_plan(epochs=5, dropout=0.0, hidden=16)
    members = tuple(replace(m, target_mean=40.0 + m.fold, target_std=7.0) for m in plan.members)
    plan = replace(plan, members=members)
    reference = train_members(plan, engine="reference")
    trained = train_members(plan, engine="batched")
    assert largest_difference(reference, trained) < FLOAT64
    np.testing.assert_allclose(reference.losses, trained.losses, rtol=FLOAT64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, FLOAT64), (np.float32, FLOAT32)])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_cuda_trains_what_the_cpu_trains(dtype, tolerance, dropout):
    plan = make_plan(dtype=dtype, members=5, epochs=50, dropout=dropout, hidden=16, lr=5e-3)
    on_cpu = train_members(plan, engine="batched", device="cpu")
    on_cuda = train_members(plan, engine="batched", device="cuda")
    assert largest_difference(on_cpu, on_cuda) < tolerance
    np.testing.assert_allclose(on_cpu.losses, on_cuda.losses, rtol=tolerance)
    again = train_members(plan, engine="batched", device="cuda")
    assert weight_bytes(again) == weight_bytes(on_cuda)
