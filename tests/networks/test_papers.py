"""The papers' networks: any size of image, a single image in training, their layers, and what they distil into."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from napari_kdseg.distillation import get_method
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.inference.measuring.receptive_field import receptive_field_radius
from napari_kdseg.networks import (
    NetworkSpec,
    capture,
    create,
    find_taps,
    input_multiple,
    inspect,
    last_feature,
    load,
    output_stride,
    save,
    sees_everything,
)
from napari_kdseg.networks.anatomy.named_layers import NAMED_LAYERS
from napari_kdseg.networks.catalogue import PAPERS
from napari_kdseg.networks.papers.blocks import GridPool
from napari_kdseg.networks.single_image import PooledNorm2d

STRIDES = {"@stem": 2, "@shallow": 4, "@middle": 8, "@deep": 4}
GRAPH_FLOW, EMKD = "Graph-FLow at c52427a", "EMKD at 943c9dc"
# What the networks of the published code give to be distilled from: channels, and pixels of the image to one of theirs.
PUBLISHED_TAPS = [
    (GRAPH_FLOW, "enet", "@shallow", "stage1", 64, 4, "the fifth and last block of stage 1"),
    (GRAPH_FLOW, "enet", "@deep", "stage4", 64, 4, "the last block of stage 4"),
    (
        GRAPH_FLOW,
        "erfnet",
        "@shallow",
        "stage1.0",
        64,
        4,
        "the encoder's first layer behind the initial block",
    ),
    (GRAPH_FLOW, "erfnet", "@deep", "stage3", 64, 4, "the decoder's third layer"),
    (GRAPH_FLOW, "mobile-unet", "@shallow", "encoder.3", 24, 4, "the backbone's features up to 3"),
    (GRAPH_FLOW, "mobile-unet", "@deep", "decoder.2", 24, 4, "the third inverted residual of the decoder"),
    (GRAPH_FLOW, "fanet", "@shallow", "encoder.2", 256, 4, "the third level of the encoder"),
    (GRAPH_FLOW, "fanet", "@deep", "up.0", 256, 4, "the first transposed convolution"),
    (GRAPH_FLOW, "unetplusplus", "@shallow", "node2_0", 256, 4, "node 2, 0"),
    (GRAPH_FLOW, "unetplusplus", "@deep", "node2_2", 256, 4, "node 2, 2"),
    (EMKD, "enet-emkd", "@stem", "initial", 16, 2, "the initial block"),
    (EMKD, "enet-emkd", "@middle", "stage3", 128, 8, "the last block of stage 3"),
    (EMKD, "espnet", "@stem", "level1", 16, 2, "level 1, before the image is put beside it"),
    (EMKD, "espnet", "@middle", "join3", 256, 8, "level 3 and what it read, normalised"),
    (EMKD, "mobilenetv2", "@stem", "features.0", 32, 2, "the first convolution"),
    (EMKD, "mobilenetv2", "@middle", "features.18", 1280, 8, "the last convolution"),
    (EMKD, "resnet18", "@stem", "stem", 64, 2, "the ReLU before the pooling"),
    (EMKD, "resnet18", "@middle", "layer2", 128, 8, "layer 2"),
    (EMKD, "raunet", "@stem", "stem", 64, 2, "the ReLU before the pooling"),
    (EMKD, "raunet", "@middle", "layer2", 128, 8, "layer 2"),
    (EMKD, "unet", "@stem", "encoder.1", 128, 2, "the second level"),
    (EMKD, "unetplusplus", "@stem", "node1_0", 128, 2, "node 1, 0"),
    (EMKD, "unetplusplus", "@middle", "node3_0", 512, 8, "node 3, 0"),
]
LIBRARY = (
    "unet/mobilenet_v2",
    "unetplusplus/mobilenet_v2",
    "manet/mobilenet_v2",
    "linknet/resnet18",
    "fpn/mobilenet_v2",
    "pspnet/resnet18",
    "deeplabv3/mobilenet_v2",
    "deeplabv3plus/mobilenet_v2",
    "pan/resnet18",
    "upernet/mobilenet_v2",
    "segformer/mit_b0",
    "unet/tu-mobilenetv3_small_050",
)


@functools.cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    with torch.inference_mode(False):  # the first to ask may be inside of it
        return create(name).eval()


@pytest.fixture(params=PAPERS)
def name(request) -> str:
    return request.param


def test_multiples_are_taken_and_odd_sizes_are_refused(name):
    multiple = input_multiple(name)
    height, width = -(-37 // multiple) * multiple, -(-51 // multiple) * multiple
    with torch.inference_mode():
        logits = network(name)(torch.rand(1, 3, height, width))
        assert logits.shape == (1, 2, height, width)
        assert logits.isfinite().all()
        if name != "enet":  # takes any
            with pytest.raises(ConfigurationError, match=f"multiples of {multiple} pixels"):
                network(name)(torch.rand(1, 3, 37, 64))


def test_catalogue_and_class_agree(name):
    assert type(network(name)).__name__ == PAPERS[name].class_name
    assert network(name).multiple == input_multiple(name)
    assert output_stride(network(name)) == network(name).output_stride
    assert input_multiple(name) % output_stride(network(name)) == 0


def test_other_channels_and_classes(name):
    with torch.device("meta"):
        assert create(name, 2, 5).eval()(torch.rand(2, 2, 64, 32)).shape == (2, 5, 64, 32)


def test_one_image_trains(name):
    """Parameters that are counted but never read aside, all of them learn from a batch of one."""
    made = network(name)
    made.zero_grad(set_to_none=True)
    made.requires_grad_().train()(torch.rand(1, 3, 64, 64)).square().mean().backward()
    made.eval()
    idle = {path for path, parameter in made.named_parameters() if parameter.grad is None}
    assert all(
        "unused" in path or "image_classifier" in path or "encoder_classifier" in path for path in idle
    )
    assert all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize("library", LIBRARY)
def test_one_image_trains_library_networks(library):
    made = create(library).train()
    made(torch.rand(1, 3, 128, 128)).square().mean().backward()
    gradients = [parameter.grad for parameter in made.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.numeric
def test_normalisation_of_pooled_maps_is_the_ordinary_one_but_for_a_single_image():
    torch.manual_seed(0)
    pooled, plain = PooledNorm2d(4), nn.BatchNorm2d(4)
    two, one = torch.randn(2, 4, 1, 1), torch.randn(1, 4, 1, 1)
    assert torch.equal(pooled(two), plain(two))
    before = pooled.running_mean.clone()
    assert torch.equal(pooled(one), plain.eval()(one))
    assert torch.equal(pooled.running_mean, before)
    assert torch.equal(pooled.eval()(two), plain(two))


@pytest.mark.numeric
@pytest.mark.parametrize(("side", "shape"), [(3, (8, 11)), (6, (5, 7)), (12, (16, 33))])
def test_grids_are_those_of_adaptive_pooling(side, shape):
    image, pool = torch.rand(2, 3, *shape), GridPool(side)
    rows, columns = (pool.averages(length, image) for length in shape)
    torch.testing.assert_close(rows @ image @ columns.T, pool(image))


def test_roles_are_layers_of_the_size_they_say(name):
    taps = find_taps(network(name), (3, 128, 128))
    assert set(taps) == set(NAMED_LAYERS)
    with capture(network(name), list(taps.values())) as features, torch.inference_mode():
        network(name)(torch.rand(1, 3, 128, 128))
    for role, stride in STRIDES.items():
        assert features[taps[role]].shape[-2:] == (128 // stride, 128 // stride), role
    assert features[taps["@bottom"]].shape[-1] == 128 // output_stride(network(name))
    assert taps["@shallow"] != taps["@deep"]


@pytest.mark.parametrize(
    ("source", "tapped", "role", "layer", "channels", "stride", "theirs"),
    PUBLISHED_TAPS,
    ids=[f"{row[1]} {row[2]}" for row in PUBLISHED_TAPS],
)
def test_roles_are_the_layers_of_the_published_code(source, tapped, role, layer, channels, stride, theirs):
    made = network(tapped)
    assert find_taps(made, (3, 64, 64))[role] == layer, f"{source}: {theirs}"
    with capture(made, [layer]) as features, torch.inference_mode():
        made(torch.rand(1, 3, 64, 64))
    assert features[layer].shape == (1, channels, 64 // stride, 64 // stride)


@pytest.mark.numeric
def test_last_feature_feeds_the_classifier(name):
    made, seen = network(name), []
    hook = made.classifier.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    with capture(made, [last_feature(made)]) as features, torch.inference_mode():
        made(torch.rand(1, 3, 64, 64))
    hook.remove()
    assert torch.equal(features[last_feature(made)], seen[0])


def test_networks_that_see_everything_say_so(name):
    """A change in one corner reaches the other one, or it does not within the radius that is measured."""
    made = network(name)
    assert sees_everything(made) == (name in ("fanet", "raunet", "transunet"))
    if sees_everything(made):
        image = torch.rand(1, 3, 32, 512)
        other = image.clone()
        other[..., :16] = 0
        with torch.inference_mode():
            assert not torch.equal(made(image)[..., -16:], made(other)[..., -16:])


def test_networks_of_limited_view_are_measured():
    """By hand, kernels and dilations times the stride they work at: 73 px, and the enlargement by 8."""
    made = network("mobilenetv2")
    assert not sees_everything(made)
    assert receptive_field_radius(made, 3, 8) == 88


@pytest.mark.parametrize("any_name", [*PAPERS, *LIBRARY])
def test_checkpoints_round_trip(any_name, tmp_path):
    spec = NetworkSpec(architecture=any_name, classes=("background", "tumour"), versions={"test": "1"})
    made, image = network(any_name), torch.rand(1, 3, 128, 128)
    path = save(tmp_path / "x.safetensors", made, spec)
    assert inspect(path) == spec
    with torch.inference_mode():
        assert torch.equal(load(path).module(image), made(image))
    path.unlink()


@pytest.mark.parametrize("pair", [("unet", "enet"), ("erfnet", "unet/mobilenet_v2")])
def test_distils_by_every_kind_of_layer(pair):
    """Both sides of methods that tap roles: deep and shallow pairs, embeddings, what the classifier reads."""
    for method in ("emkd", "coco:cocod", "fsp", "at"):
        two_steps(method, *pair)


@pytest.mark.parametrize("student", ["enet", "unet/mobilenet_v2"])
def test_teaches_enet_and_a_library_student(name, student):
    method = "kd+fitnet" if student == "enet" else "kd"
    two_steps(method, name, student)


def two_steps(method: str, teacher: str, student: str, side: int = 32) -> None:
    torch.manual_seed(0)
    stage = get_method(method).stages(
        network(teacher),
        create(student),
        get_method(method).settings({}),
        seed=1,
        input_shape=(3, side, side),
    )[-1]
    stage.network.train()
    stage.begin_epoch(0, 1)
    optimiser = torch.optim.SGD(stage.trainable_parameters(), lr=1e-3)
    for _ in range(2):
        target = torch.randint(0, 2, (2, side, side))
        loss = stage.loss(torch.rand(2, 3, side, side), target)["loss"]
        assert loss.isfinite()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
