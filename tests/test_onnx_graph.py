import hashlib
import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from loso.engine.network import Network, first_network
from loso.errors import BadInput, BadSettings
from loso.intervals import Rule
from loso.model import onnx_graph
from loso.model.onnx_graph import Session, check_graph, ensemble_graph, member_graph, read_graph
from loso.recipe import Recipe

FLOAT32 = 2e-5
"""Scores near 90 are stored in steps of 8e-6; a graph adds a few of them up."""

F, C = 6, 14
SMALL = Recipe(hidden=5)
MEAN = np.array([0.9, 0.5, 0.7, 0.8, 0.9, 5.0])
STD = np.array([0.05, 0.1, 0.1, 0.08, 0.05, 4.0])


def network(seed=0, recipe=SMALL, bias=90.0):
    """An untrained network in float32 whose scores lie around `bias`."""
    made = first_network(F + C, recipe, seed=seed, fold=0)
    weights, biases = ([a.astype(np.float32) for a in part] for part in (made.weights, made.biases))
    biases[-1] = biases[-1] + np.float32(bias)
    return Network(tuple(weights), tuple(biases))


def rows(count, seed=0):
    random = np.random.default_rng(seed)
    features = (MEAN + STD * random.normal(size=(count, F))).astype(np.float32)
    codec = np.eye(C, dtype=np.float32)[random.integers(0, 12, count)]
    codec[:, 12:] = random.random((count, 2))
    return features, codec


def checked(content, outputs=("score",), **options):
    return check_graph(content, where="model.onnx", outputs=outputs, **options)


def ensemble(networks, **options):
    return ensemble_graph(networks, feature_mean=MEAN, feature_std=STD, **options)


# -- What graphs compute --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
@pytest.mark.parametrize("recipe", [Recipe(), *(Recipe(hidden=5, depth=d) for d in (1, 3, 4))])
def test_a_member_gives_what_its_weights_give(recipe, count):
    one = network(recipe=recipe)
    graph = checked(member_graph(one), widths=(F, C))
    features, codec = rows(count)
    found = Session(graph, threads=1).run(features, codec)["score"]
    assert found.dtype == np.float32
    assert found.shape == (count,)
    assert found == pytest.approx(one.predict(np.hstack([features, codec])), abs=FLOAT32)


def test_a_member_gives_what_torch_gives():
    torch = pytest.importorskip("torch")
    one = network(recipe=Recipe())
    layers = []
    for weight, bias in zip(one.weights, one.biases, strict=True):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
        layers += [linear, torch.nn.GELU()]
    features, codec = rows(50)
    with torch.no_grad():
        expected = torch.nn.Sequential(*layers[:-1])(torch.tensor(np.hstack([features, codec])))
    found = Session(checked(member_graph(one))).run(features, codec)["score"]
    assert found == pytest.approx(expected[:, 0].numpy(), abs=FLOAT32)


@pytest.mark.parametrize("count", [1, 7, 1000])
@pytest.mark.parametrize(
    "rule",
    [
        None,
        Rule(form="absolute", s0=0, quantiles={"0.8": 2.0, "0.9": 7.0}),
        Rule(form="scaled", s0=0.5, quantiles={"0.8": 2.0, "0.9": 7.0}),
    ],
)
def test_an_ensemble_gives_mean_spread_and_bounds(rule, count):
    networks = [network(seed, bias=96 + seed) for seed in range(5)]
    outputs = ("mu", "sigma", "lower", "upper") if rule else ("mu", "sigma")
    content = ensemble(networks, rule=rule, level=0.9, target_range=(0, 100))
    features, codec = rows(count)
    found = Session(checked(content, outputs)).run(features, codec)
    standardised = np.hstack([(features - MEAN) / STD, codec])
    scores = np.stack([one.predict(standardised) for one in networks])
    mu, sigma = scores.mean(axis=0), scores.std(axis=0, ddof=1)
    expected = {"mu": mu, "sigma": sigma}
    if rule:
        half = rule.half_width(sigma, 0.9)
        expected["lower"] = np.clip(mu - half, 0, 100)
        expected["upper"] = np.clip(mu + half, 0, 100)
        assert expected["upper"].max() == 100
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=5 * FLOAT32), name


def test_bounds_without_a_range_are_not_clipped():
    rule = Rule(form="absolute", s0=0, quantiles={"0.8": 40.0})
    content = ensemble([network(0), network(1)], rule=rule, level=0.8)
    found = Session(checked(content, ("mu", "sigma", "lower", "upper"))).run(*rows(3))
    assert found["upper"] - found["mu"] == pytest.approx(40.0, abs=1e-4)
    assert found["upper"].min() > 100


def test_a_small_spread_around_a_large_score_keeps_its_digits():
    one = network()
    shifts = (-0.01, 0.0, 0.01)
    networks = [
        replace(one, biases=(*one.biases[:-1], one.biases[-1] + np.float32(s))) for s in shifts
    ]
    found = Session(checked(ensemble(networks), ("mu", "sigma"))).run(*rows(100))["sigma"]
    assert found == pytest.approx(0.01, abs=FLOAT32)


def test_many_rows_are_taken_in_pieces():
    session = Session(checked(member_graph(network())))
    features, codec = rows(25)
    whole = session.run(features, codec)["score"]
    session._rows_at_once = 10
    assert session.run(features, codec)["score"] == pytest.approx(whole, abs=FLOAT32)


def test_equal_networks_give_equal_bytes():
    assert member_graph(network()) == member_graph(network())
    networks = [network(0), network(1)]
    assert ensemble(networks) == ensemble(networks)
    assert ensemble(networks) != ensemble(networks[::-1])


def test_graphs_keep_to_plain_operators_with_all_weights_inside():
    member = onnx.load_model_from_string(member_graph(network()))
    rule = Rule(form="scaled", s0=1, quantiles={"0.8": 1.0})
    both = [network(0), network(1)]
    bounds = ensemble(both, rule=rule, level=0.8, target_range=(0, 100))
    whole = onnx.load_model_from_string(bounds)
    plain = {"Concat", "Gemm", "Div", "Erf", "Add", "Mul", "Squeeze"}
    assert {node.op_type for node in member.graph.node} == plain
    more = {"Sub", "Sqrt", "ReduceMean", "Clip"}
    assert {node.op_type for node in whole.graph.node} == plain | more
    for model in (member, whole):
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
        assert not any(t.external_data for t in model.graph.initializer)


def test_an_ensemble_of_one_and_an_unknown_level_are_refused():
    with pytest.raises(BadSettings, match="two networks or more, found 1"):
        ensemble([network()])
    rule = Rule(form="absolute", s0=0, quantiles={"0.8": 1.0})
    with pytest.raises(BadSettings, match=r"do not have this level, expected 0\.8, found 0\.9"):
        ensemble([network(), network(1)], rule=rule, level=0.9)


# -- What is refused ------------------------------------------------------------------------------


def edited(edit):
    model = onnx.load_model_from_string(member_graph(network()))
    edit(model)
    return model.SerializeToString()


def rename(values, name):
    values[0].name = name


def set_weight(graph, value):
    array = numpy_helper.to_array(graph.initializer[0]).copy()
    array.flat[0] = value
    graph.initializer[0].CopyFrom(numpy_helper.from_array(array, graph.initializer[0].name))


def put_subgraph(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["inputs"], ["x"], then_branch=body))


def smuggle_subgraph(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("then_branch", body))


def add_function(model):
    node = helper.make_node("Add", ["a", "a"], ["b"])
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("", "Twice", ["a"], ["b"], [node], opset))


def double_up(model):
    """Thirty nodes whose last value would take four billion numbers a row."""
    name = "inputs"
    for i in range(30):
        model.graph.node.append(helper.make_node("Concat", [name, name], [f"d{i}"], axis=1))
        name = f"d{i}"


def shape_of(value, *dims):
    value.type.tensor_type.shape.CopyFrom(helper.make_tensor_type_proto(1, dims).tensor_type.shape)


HOSTILE = {
    "operator": (lambda m: rename_op(m.graph, "Sin"), "operator Sin is not one of Add, Concat"),
    "domain": (lambda m: rename_domain(m.graph), "operator com.microsoft.Gemm is not one of"),
    "subgraph": (put_subgraph, "operator If is not one of"),
    "hidden subgraph": (smuggle_subgraph, "Concat with then_branch, a subgraph or a tensor"),
    "function": (add_function, "functions of its own"),
    "sparse": (
        lambda m: m.graph.sparse_initializer.append(onnx.SparseTensorProto()),
        "sparse weights",
    ),
    "training": (
        lambda m: m.training_info.append(onnx.TrainingInfoProto()),
        "training information",
    ),
    "nodes": (
        lambda m: m.graph.node.extend([m.graph.node[0]] * 4096),
        "nodes, at most 4096 are run",
    ),
    "other opset": (lambda m: set_opset(m, 22), r"opset out of range, expected 7\.\.21"),
    "old opset": (lambda m: set_opset(m, 6), r"opset out of range, expected 7\.\.21, found 6"),
    "foreign opset": (
        lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
        "operators of other makers, expected ai.onnx alone",
    ),
    "input": (
        lambda m: rename(m.graph.input, "x"),
        "other inputs, expected features, codec_onehot",
    ),
    "output": (lambda m: rename(m.graph.output, "y"), "other outputs, expected score, found y"),
    "more outputs": (lambda m: m.graph.output.append(m.graph.output[0]), "other outputs"),
    "rank": (lambda m: shape_of(m.graph.output[0], "batch", 1), "score has another rank, found 2"),
    "fixed rows": (lambda m: shape_of(m.graph.input[0], 3, 6), "takes a fixed number of rows"),
    "no width": (lambda m: shape_of(m.graph.input[0], "b", "f"), "inputs of no fixed width"),
    "width": (lambda m: shape_of(m.graph.input[0], "b", 7), r"another width, expected \(6, 14\)"),
    "double": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.DOUBLE),
        "features is not float32",
    ),
    "nan": (lambda m: set_weight(m.graph, np.nan), r"weights 'layer0.weight' are not finite"),
    "inf": (lambda m: set_weight(m.graph, np.inf), r"weights 'layer0.weight' are not finite"),
    "short weights": (
        lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234"),
        "weights 'layer0.weight' are not whole",
    ),
    "huge shape": (
        lambda m: m.graph.initializer[0].dims.append(2**40),
        "weights 'layer0.weight' are not whole",
    ),
    "strings": (
        lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.STRING),
        "neither float32 nor int64",
    ),
    "cycle": (lambda m: m.graph.node[0].input.append("score"), "not a graph that can run"),
    "shapes": (lambda m: m.graph.initializer[0].dims.reverse(), "not a graph that can run"),
    "memory": (double_up, "takes too much memory for a row"),
}


def rename_op(graph, name):
    graph.node[1].op_type = name


def rename_domain(graph):
    graph.node[1].domain = "com.microsoft"


def set_opset(model, version):
    model.opset_import[0].version = version


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_graph_is_refused_with_its_reason(what):
    edit, text = HOSTILE[what]
    with pytest.raises(BadInput, match=f"^model.onnx: .*{text}"):
        checked(edited(edit), widths=(F, C))


def test_operators_of_the_ensemble_are_refused_in_a_member():
    content = ensemble([network(), network(1)])
    with pytest.raises(BadInput, match="operator Sub is not one of"):
        checked(content)


def test_a_truncated_graph_is_refused():
    content = member_graph(network())
    for end in range(0, len(content), 41):
        with pytest.raises(BadInput):
            checked(content[:end])
    with pytest.raises(BadInput, match="not a whole ONNX file"):
        checked(content[:-1])


@given(st.binary(max_size=200))
def test_bytes_that_are_no_graph_are_refused(content):
    with pytest.raises(BadInput):
        checked(content)


@given(st.data())
def test_a_damaged_graph_is_refused_or_runs(data):
    content = bytearray(member_graph(network()))
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = checked(bytes(content), widths=(F, C))
        Session(graph, threads=1).run(*rows(2))
    except BadInput:
        pass


def test_a_huge_graph_is_refused_before_it_is_parsed(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 100)
    with pytest.raises(BadInput, match="too large for a graph, expected at most 100 bytes"):
        checked(b"\x00" * 101)
    path = tmp_path / "huge.onnx"
    path.write_bytes(b"\x00" * 101)
    with pytest.raises(
        BadInput, match=r"huge.onnx: not opened, expected a regular file of at most 100 bytes"
    ):
        read_graph(path, outputs=("score",))


def chained(nodes, extra=(), width=F):
    """A graph of the ensemble's operators: `nodes` from `features` to (rows, 1), then the score."""
    last = helper.make_node("ReduceMean", [nodes[-1].output[0]], ["mu"], axes=[1], keepdims=0)
    rows_of = lambda name, *width: helper.make_tensor_value_info(  # noqa: E731
        name, TensorProto.FLOAT, ["batch", *width]
    )
    graph = helper.make_graph(
        [*nodes, last, helper.make_node("Mul", ["mu", "mu"], ["sigma"])],
        "hostile",
        [rows_of("features", width), rows_of("codec_onehot", C)],
        [rows_of("mu"), rows_of("sigma")],
        [*extra],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def wide_layers(count, width=4096):
    """Layers that share their weights: each node is small, the file too, and all together not."""
    up = numpy_helper.from_array(np.zeros((F, width), dtype=np.float32), "up")
    nodes = [helper.make_node("Gemm", ["features", "up"], [f"x{i}"]) for i in range(count)]
    nodes.append(helper.make_node("Concat", ["x0", "x1"], ["end"], axis=1))
    return chained(nodes, [up])


def test_memory_is_counted_over_all_nodes():
    graph = checked(wide_layers(20), ("mu", "sigma"))
    assert graph.numbers_a_row == 22 * 4096 + 2
    session = Session(graph)
    assert session._rows_at_once == 64 * 2**20 // (4 * graph.numbers_a_row) == 186
    assert session.run(*rows(400))["mu"].tolist() == [0.0] * 400
    with pytest.raises(BadInput, match=r"for a row, expected at most 262144 numbers, found 270338"):
        checked(wide_layers(64), ("mu", "sigma"))


def test_the_largest_recipe_fits_twenty_times():
    largest = Recipe(hidden=512, depth=4)
    of_member = checked(member_graph(first_network(F + C, largest, seed=0, fold=0)), ("score",))
    assert 20 * of_member.numbers_a_row + 100 <= onnx_graph._MOST_NUMBERS_A_ROW
    assert of_member.numbers_a_row == F + C + 4 * 6 * 512 + 2


@pytest.mark.parametrize("claim", [False, True])
@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Gemm", ["features", "features"], ["all"], transB=1)],
        [helper.make_node("Concat", ["features", "features"], ["all"], axis=0)],
    ],
    ids=["each row with each", "rows twice"],
)
def test_values_that_grow_otherwise_than_with_the_rows_are_refused(nodes, claim):
    content = chained(nodes)
    if claim:  # the file says that they have six columns and a row each
        model = onnx.load_model_from_string(content)
        claimed = helper.make_tensor_value_info("all", TensorProto.FLOAT, ["batch", F])
        model.graph.value_info.append(claimed)
        content = model.SerializeToString()
    with pytest.raises(BadInput, match=r"has no known size for a row|not a graph that can run"):
        checked(content, ("mu", "sigma"))


# -- Files, and weights beside them ---------------------------------------------------------------


def split(folder, location="model.onnx.data", **entries):
    """Write a member as exporters do that put its weights into a second file."""
    model = onnx.load_model_from_string(member_graph(network()))
    data = b""
    for tensor in model.graph.initializer:
        content = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        places = {"location": location, "offset": len(data), "length": len(content)}
        for key, value in (places | entries).items():
            tensor.external_data.add(key=key, value=str(value))
        data += content
    (folder / "model.onnx.data").write_bytes(data)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_graph_is_read_with_its_sha256(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(member_graph(network()))
    graph, sha256 = read_graph(path, outputs=("score",))
    assert graph.widths == (F, C)
    assert graph.external == {}
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match=r"none.onnx: file not found"):
        read_graph(tmp_path / "none.onnx", outputs=("score",))
    with pytest.raises(BadInput, match=r"cannot be read|not opened"):
        read_graph(tmp_path, outputs=("score",))


def test_a_link_and_a_pipe_are_not_opened(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(member_graph(network()))
    (tmp_path / "link.onnx").symlink_to(path)
    with pytest.raises(
        BadInput, match=r"link.onnx: not opened, expected a regular file of at most"
    ):
        read_graph(tmp_path / "link.onnx", outputs=("score",))
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(BadInput, match=r"pipe.onnx: not opened"):
        read_graph(tmp_path / "pipe.onnx", outputs=("score",))


def test_weights_in_a_file_beside_are_taken_in_where_that_is_allowed(tmp_path):
    path = split(tmp_path)
    with pytest.raises(BadInput, match="weights outside the file, expected all inside"):
        read_graph(path, outputs=("score",))
    graph, _ = read_graph(path, outputs=("score",), take_external=True)
    assert set(graph.external) == {"model.onnx.data"}
    (tmp_path / "model.onnx.data").unlink()  # nothing is read from there any more
    features, codec = rows(7)
    expected = network().predict(np.hstack([features, codec]))
    assert Session(graph).run(features, codec)["score"] == pytest.approx(expected, abs=FLOAT32)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"location": "../model.onnx.data"}, r"outside the folder, .*found \.\./model"),
        ({"location": "/etc/passwd"}, "outside the folder, .*found /etc/passwd"),
        ({"location": "a/model.onnx.data"}, "outside the folder"),
        ({"location": "..\\model.onnx.data"}, "outside the folder"),
        ({"location": ""}, "outside the folder"),
        ({"location": ".."}, "outside the folder"),
        ({"location": "none.data"}, r"none.data: file not found"),
        ({"location": "link.data"}, r"link.data: not opened"),
        ({"location": "folder"}, r"folder: (cannot be read|not opened)"),
        ({"offset": -4}, "weights at no place in model.onnx.data"),
        ({"offset": 10**9}, "weights beyond the end of model.onnx.data"),
        ({"length": 10**9}, "weights beyond the end of model.onnx.data"),
        ({"length": "many"}, "weights at no place in model.onnx.data"),
        ({"offset": 0, "length": 4}, "are not whole"),
    ],
)
def test_weights_anywhere_else_are_refused(tmp_path, entries, text):
    (tmp_path / "folder").mkdir()
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "folder").mkdir()
    (inside / "link.data").symlink_to(tmp_path / "model.onnx.data")
    split(tmp_path)
    with pytest.raises(BadInput, match=text):
        read_graph(split(inside, **entries), outputs=("score",), take_external=True)


def test_weights_that_name_one_file_again_and_again_are_counted_each_time(tmp_path, monkeypatch):
    path = split(tmp_path, offset=0, length=500)
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 3000)
    with pytest.raises(BadInput, match="too large"):
        read_graph(path, outputs=("score",), take_external=True)
