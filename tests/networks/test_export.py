"""Networks as ONNX and as graphs: equal to PyTorch at any size, described in the file, refused in a sentence."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from napari_kdseg.errors import CheckpointError, ConfigurationError
from napari_kdseg.networks import NetworkSpec, create, input_multiple, inspect, load, recommended_networks
from napari_kdseg.networks.foreign.onnx_export import largest_difference, to_onnx
from napari_kdseg.networks.foreign.onnx_file import OnnxFacts
from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork
from napari_kdseg.networks.foreign.portable import exported_program, for_onnx

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
pytest.importorskip("onnxscript", reason="needs the extra 'onnx'")
pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")

#: Besides the catalogue: every other decoder of segmentation-models-pytorch, and every family of encoders.
OTHERS = (
    "manet/resnet18",
    "linknet/mobileone_s0",
    "fpn/efficientnet-b0",
    "pan/resnet18",
    "deeplabv3/resnet18",
    "dpt/tu-vit_tiny_patch16_224",
    "unet/densenet121",
    "unet/vgg11_bn",
    "unet/se_resnet50",
    "unet/tu-resnest14d",
    "unet/tu-regnetx_002",
    "unetplusplus/mobilenet_v2",
    "segformer/tu-pvt_v2_b0",
)
QUICK = ("enet",)
EVERY = [name for name in (*(choice.name for choice in recommended_networks()), *OTHERS) if name not in QUICK]


def exported(name: str, path, *, classes: int = 3) -> tuple[nn.Module, NetworkSpec]:
    torch.manual_seed(0)
    module = create(name, 3, classes).eval()
    spec = NetworkSpec(architecture=name, classes=[f"c{i}" for i in range(classes)], mpp=0.5)
    multiple = input_multiple(name)
    facts = OnnxFacts(multiple=multiple, radius=40, bytes_per_pixel=1000.0)
    path.write_bytes(to_onnx(exported_program(module, name, 3, multiple), module, spec, facts)[0])
    return module, spec


def check(name: str, path) -> None:
    module, spec = exported(name, path)
    loaded = load(path)
    assert loaded.spec == inspect(path) == spec
    assert loaded.module.facts.largest_difference is not None  # was compared when it was written, too
    multiple = input_multiple(name)
    for count, height, width in ((1, 128, 192), (2, 224, 160)):
        height, width = (-(-side // multiple) * multiple for side in (height, width))
        image = torch.randn(count, 3, height, width)
        with torch.inference_mode():
            wanted, got = module(image), loaded.module(image)
        assert got.shape == wanted.shape == (count, 3, height, width)
        differences = (got - wanted).abs() / wanted.abs().max()
        # A tie of two maxima that rounding decides moves a value (ENet): a few logits may differ, never many.
        assert float((differences > 1e-4).float().mean()) < 0.01


@pytest.mark.parametrize("name", QUICK)
def test_onnx_equals_pytorch_at_any_size(name, tmp_path):
    check(name, tmp_path / "network.onnx")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EVERY)
def test_onnx_of_every_network_equals_pytorch(name, tmp_path):
    check(name, tmp_path / "network.onnx")


class Unpooling(nn.Module):
    """Pools twice and puts the maxima back where they lay."""

    def forward(self, image):
        half, first = nn.functional.max_pool2d(image, 2, return_indices=True)
        quarter, second = nn.functional.max_pool2d(half, 2, return_indices=True)
        return nn.functional.max_unpool2d(nn.functional.max_unpool2d(quarter, second, 2), first, 2)


@pytest.mark.parametrize("cells", [1, (2, 3), 6])
def test_the_forms_for_onnx_equal_what_they_replace(cells):
    module = nn.Sequential(nn.AdaptiveAvgPool2d(cells), nn.Upsample(size=(8, 8)))
    for network in (module.eval(), Unpooling().eval()):
        program = for_onnx(exported_program(network, "a network", 3, 4))
        targets = {str(node.target) for node in program.graph.nodes}
        assert not [name for name in targets if "unpool" in name or "adaptive" in name]
        for size in ((1, 3, 20, 44), (3, 3, 36, 8)):
            image = torch.randn(size)
            assert torch.allclose(program.module()(image), network(image), atol=1e-6)


def test_a_network_for_one_size_only_is_refused():
    class Fixed(nn.Module):
        def forward(self, image):
            return image.reshape(-1, 3, 128, 192)

    with pytest.raises(CheckpointError, match="images of any size"):
        exported_program(Fixed(), "fixed", 3, 32)


def test_an_export_that_computes_something_else_is_refused():
    network = nn.Conv2d(3, 2, 1)
    other = nn.Conv2d(3, 2, 1)
    with pytest.raises(CheckpointError, match="differ from PyTorch"):
        largest_difference(network, other, 3, 8)
    assert largest_difference(network, network, 3, 8) == 0


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An ONNX file of a convolution, made by onnx itself: another program's."""
    return lambda **changes: _foreign(tmp_path_factory.mktemp("onnx") / "other.onnx", **changes)


def _foreign(path, shape=("n", 3, "h", "w"), rank=4, outputs=2):
    helper = onnx.helper
    weight = helper.make_tensor("weight", 1, [outputs, 3, 3, 3], torch.randn(outputs * 27).tolist())
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1])]
    result = ["n", outputs, "h", "w"]
    if rank == 3:
        nodes.append(helper.make_node("ReduceMax", ["y"], ["z"], axes=[1], keepdims=0))
        result = ["n", "h", "w"]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], 1, result)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_onnx_of_another_program_wants_a_description(small):
    with pytest.raises(CheckpointError, match="kdseg describe-onnx"):
        inspect(small())
    with pytest.raises(CheckpointError, match="kdseg describe-onnx"):
        load(small())
    spec = NetworkSpec(architecture="onnx", classes=("background", "a"))
    assert load(small(), expect=spec).spec == spec
    with pytest.raises(CheckpointError, match="has 2 classes, the network asked for 3"):
        load(small(), expect=NetworkSpec(architecture="onnx", classes=("a", "b", "c")))


def test_a_batch_goes_one_by_one_where_the_file_takes_one(small):
    network = OnnxNetwork(small(shape=(1, 3, "h", "w")))
    image = torch.randn(3, 3, 16, 24)
    assert network(image).shape == (3, 2, 16, 24)
    assert torch.equal(network(image)[1:2], network(image[1:2]))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rank": 3}, "has 3 dimensions"),
        ({"shape": ("n", 3, 64, 64)}, "images of 64 x 64 pixels only"),
        ({"shape": ("n", 3, "h", "w", "d")}, "onnxruntime|takes x"),
    ],
)
def test_onnx_that_is_no_network_for_slides_is_refused(small, changes, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        OnnxNetwork(small(**changes))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_half_an_onnx_file_is_called_damaged(small, tmp_path, share):
    content = small().read_bytes()
    half = tmp_path / "half.onnx"
    half.write_bytes(content[: max(3, int(share * len(content)))])
    with pytest.raises(CheckpointError, match=r"damaged|cannot be opened"):
        inspect(half)


def test_wrong_number_of_channels_is_said(small):
    with pytest.raises(ConfigurationError, match="cannot segment images of"):
        OnnxNetwork(small())(torch.zeros(1, 4, 16, 16))


def test_without_onnxruntime_the_sentence_says_what_to_install(small, monkeypatch):
    path = small()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match="pip install 'napari-kdseg\\[onnx\\]'"):
        load(path)
