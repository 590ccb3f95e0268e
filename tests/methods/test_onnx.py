"""ONNX files: what is read from the graph, what is run, what is refused."""

import json

import numpy as np
import pytest
import torch

from harness.errors import MeasurementError, UserError, WeightsError
from harness.export.contract import METADATA, Origin
from harness.method import Predictor, find_variant
from harness.run.rows import fitted
from harness.suite.cells import expand
from harness.suite.schema import Suite
from harness.train.checkpoints import open_variant
from methods.onnx import open_file
from methods.parts import onnx_graph

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

K, H, W = 5, 32, 24


def _weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((8, 4, 4, 4)).astype(np.float32),
        "w3": rng.standard_normal((K, 4, 1, 1)).astype(np.float32),
        "b3": rng.standard_normal(K).astype(np.float32),
    }


def _save(path, nodes, weights, shape=(1, 3, H, W), outputs=("maps",)):
    graph = helper.make_graph(
        nodes,
        "pose",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def _body(start="pixels", end="maps"):
    return [
        helper.make_node("Conv", [start, "w1"], ["a"], strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["a", "w2"], ["b"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["b", "w3", "b3"], [end]),
    ]


def _reference(images):
    w = {name: torch.from_numpy(value) for name, value in _weights().items()}
    a = torch.nn.functional.conv2d(images, w["w1"], stride=4, padding=1)
    b = torch.nn.functional.conv_transpose2d(a, w["w2"], stride=2, padding=1)
    return torch.nn.functional.conv2d(b, w["w3"], w["b3"])


MACS = 27 * 8 * 48 + 8 * 4 * 16 * 48 + 4 * K * 192
IMAGES = torch.from_numpy(np.random.default_rng(3).standard_normal((5, 3, H, W)).astype(np.float32))


@pytest.mark.parametrize("batch", [1, 2, "N"])
def test_any_batch_gives_the_numbers_of_torch(tmp_path, batch):
    network = open_file(_save(tmp_path / "n.onnx", _body(), _weights(), (batch, 3, H, W)))
    assert isinstance(network, Predictor)
    assert (network.input_size, network.num_joints, network.batch) == ((H, W), K, None)
    assert torch.allclose(network.predict(IMAGES, {}).exits[0], _reference(IMAGES), atol=1e-3)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_that_is_built_into_the_graph_is_run_in_pieces(tmp_path, batch):
    fixed = helper.make_node("Reshape", ["pixels", "shape"], ["again"])
    weights = {**_weights(), "shape": np.array([batch, 3, H, W], np.int64)}
    network = open_file(_save(tmp_path / "n.onnx", [fixed, *_body("again")], weights, (batch, 3, H, W)))
    assert network.batch == batch
    assert torch.allclose(network.predict(IMAGES, {}).exits[0], _reference(IMAGES), atol=1e-3)


def test_channels_last_in_and_out_is_recognised(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["first"], perm=[0, 3, 1, 2]),
        *_body("first", "inner"),
        helper.make_node("Transpose", ["inner"], ["maps"], perm=[0, 2, 3, 1]),
    ]
    network = open_file(_save(tmp_path / "n.onnx", nodes, _weights(), ("N", H, W, 3)))
    assert network.layout == "nhwc" and network.heatmaps_last and network.num_joints == K
    assert torch.allclose(network.predict(IMAGES, {}).exits[0], _reference(IMAGES), atol=1e-3)
    assert network.macs({}) == MACS


def test_work_and_weights_are_counted_from_the_graph(tmp_path):
    network = open_file(_save(tmp_path / "n.onnx", _body(), _weights()))
    assert network.macs({}) == MACS
    assert network.params == sum(value.size for value in _weights().values())


def test_matrix_products_are_counted(tmp_path):
    nodes = [*_body(end="c"), helper.make_node("MatMul", ["c", "m"], ["maps"])]
    weights = {**_weights(), "m": np.ones((12, 12), np.float32)}
    network = open_file(_save(tmp_path / "n.onnx", nodes, weights))
    assert network.macs({}) == MACS + K * 16 * 12 * 12


def test_an_operator_whose_work_is_not_known_is_refused_by_name(tmp_path):
    nodes = [*_body(end="c"), helper.make_node("Einsum", ["c", "m"], ["maps"], equation="bkhw,wv->bkhv")]
    weights = {**_weights(), "m": np.ones((12, 12), np.float32)}
    network = open_file(_save(tmp_path / "n.onnx", nodes, weights))
    with pytest.raises(MeasurementError, match="Einsum"):
        network.macs({})


def test_an_open_input_size_has_to_be_given(tmp_path):
    path = _save(tmp_path / "n.onnx", _body(), _weights(), ("N", 3, "h", "w"))
    with pytest.raises(WeightsError, match="input size open"):
        open_file(path)
    network = open_file(path, input_size=(H, W))
    assert network.macs({}) == MACS
    assert network.predict(IMAGES, {}).exits[0].shape == (5, K, 16, 12)


def test_the_heatmaps_are_named_where_two_outputs_look_like_them(tmp_path):
    nodes = [*_body(), helper.make_node("Relu", ["maps"], ["other"])]
    path = _save(tmp_path / "n.onnx", nodes, _weights(), outputs=("other", "maps"))
    with pytest.raises(WeightsError, match="2 outputs look like heatmaps"):
        open_file(path)
    maps = open_file(path, output="maps").predict(IMAGES, {}).exits[0]
    assert torch.allclose(maps, _reference(IMAGES), atol=1e-3)


def test_a_network_without_heatmaps_is_refused(tmp_path):
    nodes = [*_body(end="c"), helper.make_node("GlobalAveragePool", ["c"], ["maps"])]
    with pytest.raises(WeightsError, match="no outputs look like heatmaps"):
        open_file(_save(tmp_path / "n.onnx", nodes, _weights()))


def test_tensors_in_other_files_are_refused(tmp_path):
    model = onnx.load(_save(tmp_path / "n.onnx", _body(), _weights()))
    onnx.save_model(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=0)
    with pytest.raises(WeightsError, match=r"'e\.bin', which was not opened"):
        open_file(tmp_path / "e.onnx")


@pytest.mark.parametrize("content", [b"", b"no network at all"])
def test_what_is_no_onnx_file_is_said_to_be_none(tmp_path, content):
    (tmp_path / "n.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match="not an ONNX file"):
        open_file(tmp_path / "n.onnx")


def test_threads_follow_torch(tmp_path):
    network = open_file(_save(tmp_path / "n.onnx", _body(), _weights()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        network.predict(IMAGES, {})
        assert network._session.get_session_options().intra_op_num_threads == 2
    finally:
        torch.set_num_threads(before)


def test_a_pretrained_network_gives_its_stored_output_for_any_batch(shared):
    path = shared / "weights" / "ultralight_simplepose.onnx"
    if not path.is_file():
        pytest.skip("the pretrained ONNX network is not here")
    network = find_variant("onnx").open_file(path)
    with np.load(shared / "weights" / "ultralight_golden.npz") as pair:
        x, y = torch.from_numpy(pair["x"]), pair["y"]
    maps = network.predict(torch.cat([x, 0.5 * x, x]), {}).exits[0].numpy()
    for i in (0, 2):
        assert np.abs(maps[i] - y[0]).max() <= 1e-4 * np.abs(y).max()
    assert network.batch is None and network.macs({}) == 151_950_336


def _origin(**changes):
    origin = Origin(
        variant="somebodys",
        input_size=(H, W),
        num_joints=K,
        protocol={"codec": "udp", "decoder": "udp_dark"},
        weights="",
    )
    return json.dumps({**json.loads(origin.model_dump_json()), **changes})


def _with_metadata(path, text):
    model = onnx.load(_save(path, _body(), _weights()))
    model.metadata_props.add(key=METADATA, value=text)
    onnx.save(model, path)
    return path


def test_an_exported_file_says_where_it_comes_from(tmp_path):
    network, report = open_variant(find_variant("onnx"), _with_metadata(tmp_path / "n.onnx", _origin()))
    assert network.origin.variant == "somebodys" and report.protocol == {"codec": "udp", "decoder": "udp_dark"}
    assert "exported from somebodys (random weights)" in report.notes[0]
    plain, nothing = open_variant(find_variant("onnx"), _save(tmp_path / "p.onnx", _body(), _weights()))
    assert plain.origin is None and nothing is None


@pytest.mark.parametrize(
    "text, named",
    [
        ("no json", "cannot be read"),
        (_origin(schema_version=2), "schema_version"),
        (_origin(variant="<script>"), "variant"),
        (_origin(protocol={"blur": 3}), "blur"),
        (_origin(protocol={"nms": "mine"}), "nms"),
        (_origin(surprise=1), "surprise"),
    ],
)
def test_metadata_that_nobody_exported_is_refused_by_name(tmp_path, text, named):
    with pytest.raises(WeightsError, match=named) as caught:
        open_file(_with_metadata(tmp_path / "n.onnx", text))
    assert "n.onnx" in caught.value.where and "export" in caught.value.expected


def test_a_row_is_scored_with_the_protocol_of_its_file_unless_the_suite_says_otherwise(tmp_path):
    file = _with_metadata(tmp_path / "n.onnx", _origin())
    for own, wanted in (
        ({}, ("udp", "udp_dark")),
        ({"decoder": "argmax"}, ("udp", "argmax")),
        ({"codec": "unbiased", "decoder": "dark"}, ("unbiased", "dark")),
    ):
        suite = Suite(name="s", methods=[{"variant": "onnx", "protocol": own}])
        cell = fitted(expand(suite)[0], file).cell
        assert (cell.protocol.codec, cell.protocol.decoder, cell.input_size) == (*wanted, (H, W))
    biased = Suite(name="s", methods=[{"variant": "onnx", "protocol": {"codec": "biased"}}])
    with pytest.raises(UserError, match="udp_dark does not go with codec biased"):
        fitted(expand(biased)[0], file)


def test_work_that_depends_on_a_computed_size_is_counted_too(tmp_path, monkeypatch):
    nodes = [
        *_body(end="c"),
        helper.make_node("Shape", ["c"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "third"], ["rows"]),
        helper.make_node("Mul", ["rows", "two"], ["twice"]),
        helper.make_node("Div", ["twice", "two"], ["again"]),
        helper.make_node("Reshape", ["again", "list"], ["rest"]),
        helper.make_node("Concat", ["lead", "rest", "tail"], ["shape"], axis=0),
        helper.make_node("Reshape", ["c", "shape"], ["d"]),
        helper.make_node("MatMul", ["d", "m"], ["maps"]),
    ]
    sizes = {"third": 2, "two": 2, "list": [1], "lead": [1, K], "tail": [12]}
    weights = {**_weights(), "m": np.ones((12, 12), np.float32)}
    weights |= {name: np.array(value, np.int64) for name, value in sizes.items()}
    network = open_file(_save(tmp_path / "n.onnx", nodes, weights))
    assert network.macs({}) == MACS + K * 16 * 12 * 12
    monkeypatch.setattr(onnx_graph, "_folded", lambda model: model)
    with pytest.raises(onnx_graph.UncountableError, match="shape of 'd'"):
        onnx_graph.count_macs(network._model, (1, 3, H, W))


def test_a_sparse_weight_in_another_file_is_refused_by_name_and_not_read(tmp_path):
    weight = onnx.TensorProto(name="s", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../../secret.bin")
    sparse = onnx.SparseTensorProto(values=weight, indices=numpy_helper.from_array(np.array([0])), dims=[2])
    model = onnx.load(_save(tmp_path / "sound.onnx", _body(), _weights()))
    model.graph.sparse_initializer.append(sparse)
    onnx.save(model, tmp_path / "sparse.onnx")
    with pytest.raises(WeightsError, match=r"tensor 's' lies in another file, '\.\./\.\./secret\.bin'"):
        open_file(tmp_path / "sparse.onnx")


def test_an_input_that_would_fill_the_memory_is_refused_unopened(tmp_path):
    model = onnx.load(_save(tmp_path / "sound.onnx", _body(), _weights()))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 10**6
    onnx.save(model, tmp_path / "huge.onnx")
    with pytest.raises(WeightsError, match=r"of 1000000x\d+"):
        open_file(tmp_path / "huge.onnx")
