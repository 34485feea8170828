"""ONNX files of other programs: what they end in, and how their channels lie, against the logits that torch makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_kdseg.errors import CheckpointError
from napari_kdseg.inference.export import describe_onnx
from napari_kdseg.networks import NetworkSpec, load

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
ort = pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
helper = onnx.helper
TWO = NetworkSpec(architecture="onnx", classes=("background", "tumour"), options={"multiple": 8})


def convolution(outputs: int = 2) -> nn.Conv2d:
    """A convolution whose logits are far apart: some probabilities are all but 0 and 1."""
    torch.manual_seed(outputs)
    layer = nn.Conv2d(3, outputs, 3, padding=1, bias=False)
    layer.weight.data *= 4
    return layer.eval()


def write(path, layer, *ending, last_in=False, last_out=False, dtype=1, sizes=None):
    """Write a convolution with onnx itself: channels first or last, and the nodes that it ends in."""
    outputs = len(layer.weight)
    weight = helper.make_tensor("weight", 1, layer.weight.shape, layer.weight.detach().flatten().tolist())
    nodes, name = [], "x"

    def add(kind, *inputs, **attributes):
        nonlocal name
        nodes.append(helper.make_node(kind, [name, *inputs], [f"t{len(nodes)}"], **attributes))
        name = f"t{len(nodes) - 1}"

    if last_in:
        add("Transpose", perm=[0, 3, 1, 2])
    add("Conv", "weight", pads=[1, 1, 1, 1])
    if last_out:
        add("Transpose", perm=[0, 2, 3, 1])
    for kind, attributes in ending:
        add(kind, **attributes)
    shape = sizes or (["n", "h", "w", outputs] if last_out else ["n", outputs, "h", "w"])
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["n", "h", "w", 3] if last_in else ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info(name, dtype, shape)],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.fixture
def image():
    return torch.randn(2, 3, 40, 24, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("last_in", [False, True])
@pytest.mark.parametrize("last_out", [False, True])
@pytest.mark.parametrize("open_sizes", [False, True])
def test_probabilities_of_a_softmax_are_turned_back(last_in, last_out, open_sizes, tmp_path, image):
    layer = convolution(3)
    sizes = ["n", "a", "b", "c"] if open_sizes else None
    path = write(
        tmp_path / "x.onnx", layer, ("Softmax", {"axis": -1 if last_out else 1}), last_in=last_in,
        last_out=last_out, sizes=sizes,
    )  # fmt: skip
    spec = NetworkSpec(architecture="onnx", classes=("background", "a", "b"), options={"multiple": 8})
    network = load(path, expect=spec)
    with torch.no_grad():
        got, wanted = network.module(image), layer(image)
    assert got.shape == wanted.shape
    assert torch.isfinite(got).all()
    # Rounded probabilities keep their logarithm to 2^-23, and softmax is what soft labels are made of.
    torch.testing.assert_close(got.softmax(1), wanted.softmax(1), rtol=1e-5, atol=1e-7)
    twice = wanted.softmax(1).softmax(1)
    assert (twice - wanted.softmax(1)).abs().max() > 0.4, "what was done before"
    said = " ".join(network.notes)
    assert "It ends in a softmax" in said
    assert ("It takes channels last" in said) == last_in
    assert ("It puts out channels last" in said) == last_out


def test_the_soft_label_that_was_flattened_twice():
    """Of logits (0, 3.3) softmax gives 0.965 and softmax of softmax 0.717; the file gives the first."""
    from napari_kdseg.networks.foreign.onnx_ending import OnnxEnding

    chance = torch.tensor([0.0, 3.3168]).softmax(0)
    assert abs(float(chance[1]) - 0.965) < 5e-4
    assert abs(float(chance.softmax(0)[1]) - 0.717) < 1e-3
    logits = OnnxEnding(kind="softmax").logits(chance.reshape(1, 2, 1, 1))
    assert abs(float(logits.softmax(1)[0, 1]) - 0.965) < 5e-4
    certain = OnnxEnding(kind="softmax").logits(torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1))
    assert certain.isfinite().all()


@pytest.mark.parametrize("ending", [(), (("LogSoftmax", {"axis": 1}),), (("Identity", {}),)])
def test_logits_and_their_logarithms_are_left_as_they_are(ending, tmp_path, image):
    layer = convolution()
    network = load(write(tmp_path / "x.onnx", layer, *ending), expect=TWO)
    with torch.no_grad():
        torch.testing.assert_close(
            network.module(image).softmax(1), layer(image).softmax(1), rtol=1e-5, atol=1e-6
        )
    assert network.notes == ()


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_sigmoids_and_single_outputs(outputs, sigmoid, tmp_path, image):
    """One output z is class 1 of two: softmax of (0, z) is (1 - sigmoid z, sigmoid z)."""
    layer = convolution(outputs)
    layer.weight.data /= 8  # nearer to 1 than 2^-24 a sigmoid in float32 says nothing any more
    path = write(tmp_path / "x.onnx", layer, *((("Sigmoid", {}),) if sigmoid else ()))
    names = ("background", "a", "b")[: max(2, outputs)]
    network = load(path, expect=NetworkSpec(architecture="onnx", classes=names, options={"multiple": 8}))
    with torch.no_grad():
        got, wanted = network.module(image), layer(image)
    if outputs == 1:
        torch.testing.assert_close(got.softmax(1)[:, 1:], wanted.sigmoid(), rtol=1e-4, atol=1e-6)
    else:
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    assert any("It ends in a sigmoid" in note for note in network.notes) == sigmoid


def test_logits_that_happen_to_lie_between_0_and_1_are_no_sigmoid(tmp_path, image):
    layer = convolution()
    layer.weight.data *= 1e-3
    path = write(tmp_path / "x.onnx", layer, ("Relu", {}))
    network = load(path, expect=TWO)
    with torch.no_grad():
        torch.testing.assert_close(network.module(image), functional.relu(layer(image)))


@pytest.mark.parametrize(
    ("ending", "last_out", "over"),
    [
        (("Softmax", {"axis": 2}), False, "rows"),
        (("Softmax", {"axis": 3}), False, "columns"),
        (("Softmax", {"axis": 1}), True, "rows"),
    ],
)
def test_a_softmax_over_another_axis_is_refused(ending, last_out, over, tmp_path):
    path = write(tmp_path / "x.onnx", convolution(), ending, last_out=last_out)
    with pytest.raises(CheckpointError, match=f"goes over the {over}, not over the classes"):
        load(path, expect=TWO)
    with pytest.raises(CheckpointError, match="not over the classes"):
        describe_onnx(path, tmp_path / "copy.onnx", TWO, 8)
    assert not (tmp_path / "copy.onnx").exists()


@pytest.mark.parametrize(
    ("ending", "dtype", "sizes"),
    [
        ([("ArgMax", {"axis": 1, "keepdims": 1})], 7, ["n", 1, "h", "w"]),
        ([("ArgMax", {"axis": 1, "keepdims": 0})], 7, ["n", "h", "w"]),
        ([("ArgMax", {"axis": 1, "keepdims": 1}), ("Cast", {"to": 1})], 1, ["n", 1, "h", "w"]),
        ([("Hardmax", {"axis": 1})], 1, ["n", 2, "h", "w"]),
    ],
)
def test_class_numbers_are_refused(ending, dtype, sizes, tmp_path):
    path = write(tmp_path / "x.onnx", convolution(), *ending, dtype=dtype, sizes=sizes)
    with pytest.raises(CheckpointError, match="puts out the numbers of classes"):
        load(path, expect=TWO)


def test_channels_last_of_fixed_sides_are_told_from_classes(tmp_path):
    path = write(tmp_path / "x.onnx", convolution(), last_in=True)
    model = onnx.load(str(path))
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 64
    onnx.save(model, str(path))
    with pytest.raises(CheckpointError, match="takes images of 64 x 64 pixels only"):
        load(path, expect=TWO)


def test_a_described_copy_keeps_what_was_found(tmp_path, image):
    layer = convolution()
    path = write(tmp_path / "x.onnx", layer, ("Softmax", {"axis": -1}), last_out=True)
    facts = describe_onnx(path, tmp_path / "copy.onnx", TWO, 8)
    assert (facts.ends, facts.classes_last, facts.radius) == ("softmax", True, 8)
    network = load(tmp_path / "copy.onnx")
    with torch.no_grad():
        torch.testing.assert_close(
            network.module(image).softmax(1), layer(image).softmax(1), rtol=1e-5, atol=1e-7
        )
    assert len(network.notes) == 2
    raw = ort.InferenceSession(str(tmp_path / "copy.onnx")).run(None, {"x": image.numpy()})[0]
    np.testing.assert_allclose(raw.sum(-1), 1, atol=1e-5, equal_nan=False)
    # A copy that was described before anybody looked says nothing of it; it is looked at when it is opened.
    old = onnx.load(str(tmp_path / "copy.onnx"))
    for item in old.metadata_props:
        if item.key == "kdseg_facts":
            item.value = '{"multiple": 8, "radius": 8, "bytes_per_pixel": 100.0}'
    onnx.save(old, str(tmp_path / "old.onnx"))
    assert load(tmp_path / "old.onnx").notes == network.notes
