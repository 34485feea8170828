"""Names -> networks: sizes as published, shapes, and what is said about names that do not exist."""

from __future__ import annotations

import pytest
import torch

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import (
    capture,
    count_parameters,
    create,
    input_multiple,
    last_feature,
    output_stride,
)
from napari_kdseg.networks.build import canonical_name

LIGHT = ("enet", "unet/resnet18", "segformer/mit_b0", "deeplabv3plus/mobilenet_v2")


@pytest.mark.parametrize(("channels", "millions"), [(1, 0.3490), (3, 0.3492)])
def test_enet_has_the_published_size(channels, millions):
    assert round(count_parameters(create("enet", channels, 2)) / 1e6, 4) == millions


def test_enet_stages_have_the_published_widths_and_scales():
    expected = {
        "initial": (16, 2),
        "stage1": (64, 4),
        "stage2": (128, 8),
        "stage3": (128, 8),
        "stage4": (64, 4),
        "stage5": (16, 2),
    }
    network = create("enet").eval()
    with capture(network, list(expected)) as features, torch.inference_mode():
        network(torch.rand(1, 3, 64, 96))
    for stage, (width, scale) in expected.items():
        assert features[stage].shape == (1, width, 64 // scale, 96 // scale)


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (33, 47), (64, 40)])
def test_enet_keeps_the_size_of_its_input(size):
    with torch.inference_mode():
        assert create("enet", 1, 5).eval()(torch.rand(2, 1, *size)).shape == (2, 5, *size)


def test_enet_trains_every_parameter():
    network = create("enet", classes=3)
    network(torch.rand(2, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.numeric
def test_enet_gives_the_same_in_channels_last_memory():
    network, image = create("enet").eval(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(image.to(memory_format=torch.channels_last)), network(image))
        with torch.autocast("cpu", torch.bfloat16):
            assert network(image).isfinite().all()


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("multiples", [(2, 3), (1, 1)])
def test_images_whose_sides_are_multiples_can_be_segmented(name, multiples):
    network = create(name, 3, 4).eval()
    size = [input_multiple(name) * number for number in multiples]
    with torch.inference_mode():
        logits = network(torch.rand(1, 3, *size))
    assert logits.shape == (1, 4, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("U-Net / ResNet-18", "unet/resnet18"),
        ("UNet++/resnet34", "unetplusplus/resnet34"),
        ("DeepLabV3+/mobilenet_v2", "deeplabv3plus/mobilenet_v2"),
        ("unet/tu-resnet18.a1_in1k", "unet/tu-resnet18.a1_in1k"),
        ("unet/timm-mobilenetv3_large_100", "unet/timm-mobilenetv3_large_100"),
        ("ENet", "enet"),
        ("ENet (EMKD)", "enet-emkd"),
        ("Mobile U-Net", "mobile-unet"),
        ("RA-UNet", "raunet"),
        ("MobileNet-V2", "mobilenetv2"),
        ("U-Net", "unet"),
        ("U-Net++", "unetplusplus"),
    ],
)
def test_spelling_is_forgiven(typed, spelled):
    assert canonical_name(typed) == spelled


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("unett/resnet18", {}, "Did you mean unet"),
        ("linknet", {}, "names no encoder. Write architecture/encoder"),
        ("unet/", {}, "names no encoder. Write architecture/encoder"),
        ("enet/resnet18", {}, "Write enet alone"),
        ("unet/resnet81", {}, "Did you mean resnet18"),
        ("unet/tu-convnext_tinny", {}, "Did you mean tu-convnext_tiny"),
        ("unet/tu-hf-hub:someone/something", {}, "no encoder called"),
        ("linknet/mit_b0", {}, "linknet/mit_b0 cannot be built"),
        ("unet/resnet18", {"decoder_chanels": (1,)}, "Did you mean decoder_channels"),
        ("unet/resnet18", {"encoder_weights": "imagenet"}, "nothing is downloaded"),
        ("unet/tu-resnet18", {"checkpoint_path": "x.pth"}, "weights come from checkpoints only"),
        ("unet/resnet18", {"activation": "softmax"}, "return logits"),
        ("unet", {"depth": 3}, "unet has no options, but depth was given"),
        ("enet", {"depth": 3}, "enet has only upsampling_activation, but depth was given"),
        ("resnet18", {"align_corners": "yes"}, "align_corners of resnet18 is true or false, not 'yes'"),
    ],
)
def test_what_cannot_be_built_is_explained(name, options, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        create(name, **options)


@pytest.mark.parametrize("counts", [(0, 2), (3, 1), (3, 256)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ConfigurationError, match="at least 1 channel and 2 to 255 classes"):
        create("enet", *counts)


def test_options_reach_the_architecture():
    thin = create("unet/resnet18", decoder_channels=(32, 16, 8, 8, 8))
    assert count_parameters(thin) < count_parameters(create("unet/resnet18"))


def test_timm_encoders_take_any_number_of_channels():
    network = create("unet/tu-mobilenetv3_small_050", 5, 3).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 5, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", LIGHT)
def test_last_feature_feeds_the_classifier(name):
    network = create(name).eval()
    with capture(network, [last_feature(network)]) as features, torch.inference_mode():
        logits = network(torch.rand(1, 3, 64, 64))
        feature = features[last_feature(network)]
        again = (
            network.classifier(feature, [64, 64]) if name == "enet" else network.segmentation_head(feature)
        )
    assert torch.equal(again, logits)


def test_networks_not_made_here_have_no_known_last_feature():
    with pytest.raises(ConfigurationError, match="Name the layer"):
        last_feature(torch.nn.Conv2d(1, 1, 1))
    with pytest.raises(ConfigurationError, match="not known"):
        output_stride(torch.nn.Conv2d(1, 1, 1))
