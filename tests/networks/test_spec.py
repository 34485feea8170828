"""The description of a network: what it refuses, and that it survives JSON."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from pydantic import ValidationError

from napari_kdseg.errors import ConfigurationError, explain
from napari_kdseg.networks import NetworkSpec, input_multiple, recommended_networks

TWO = ("background", "tumour")


def test_describing_a_network_loads_no_torch():
    code = (
        "import sys, napari_kdseg.networks as n\n"
        "n.NetworkSpec(architecture='enet', classes=('a', 'b')).describe()\n"
        "n.recommended_networks(), n.input_multiple('unet/resnet18'), n.inspect\n"
        "print([m for m in ('torch', 'timm', 'segmentation_models_pytorch', 'qtpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_json_round_trip_keeps_everything():
    spec = NetworkSpec(
        architecture=" UNet/ResNet18 ",
        in_channels=4,
        classes=("background", "Drüse", "腫瘍"),
        metrics={"dice": math.nan, "hd95": math.inf},
        options={"decoder_channels": (64, 32, 16, 8, 4)},
    )
    again = NetworkSpec.model_validate_json(spec.model_dump_json())
    assert math.isnan(again.metrics["dice"])
    assert again.model_copy(update={"metrics": {}}) == spec.model_copy(update={"metrics": {}})
    assert again.architecture == "unet/resnet18"
    assert again.options == {"decoder_channels": [64, 32, 16, 8, 4]}


def test_statistics_default_to_those_of_imagenet_for_three_channels():
    assert NetworkSpec(architecture="enet", classes=TWO).mean == (0.485, 0.456, 0.406)
    one = NetworkSpec(architecture="enet", classes=TWO, in_channels=1)
    assert (one.mean, one.std) == ((0.5,), (0.25,))
    assert NetworkSpec(architecture="enet", classes=TWO, mean=(0.7, 0.5, 0.6)).mean == (0.7, 0.5, 0.6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": ("background",)}, "between 2 and 255 classes"),
        ({"classes": ("a", "a")}, "'a' is used twice"),
        ({"classes": ("a", " ")}, "empty name"),
        ({"classes": tuple(map(str, range(256)))}, "256 were named"),
        ({"colours": ("#000000",)}, "2 classes but 1 colours"),
        ({"colours": ("#000000", "red")}, "write it as #rrggbb"),
        ({"mean": (0.5,)}, "mean needs 3 numbers, one a channel, but has 1"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be above zero"),
        ({"mean": (math.nan, 0.0, 0.0)}, "ordinary numbers"),
        ({"mpp": 0}, "greater than 0"),
        ({"in_channels": 0}, "greater than or equal to 1"),
        ({"options": {"a": object()}}, "only text, numbers"),
        ({"micron": 1}, "micron"),
    ],
)
def test_bad_settings_are_explained(change, sentence):
    with pytest.raises(ValidationError) as caught:
        NetworkSpec(**({"architecture": "enet", "classes": TWO} | change))
    assert sentence in explain(caught.value)


def test_spec_cannot_be_changed():
    with pytest.raises(ValidationError):
        NetworkSpec(architecture="enet", classes=TWO).mpp = 1.0


def test_describe_is_one_line_with_what_matters():
    spec = NetworkSpec(architecture="enet", classes=("background", *"abcde"), mpp=0.5, method="plc-kd")
    assert (
        spec.describe() == "enet, 3 channels, 6 classes (background, a, b, c, ...), 0.5 µm per pixel, plc-kd"
    )


def test_listing_goes_from_small_to_large_students_first():
    roles = [choice.role for choice in recommended_networks()]
    assert roles == sorted(roles)
    assert set(roles) == {"student", "teacher"}
    for role in set(roles):
        sizes = [choice.parameters for choice in recommended_networks() if choice.role == role]
        assert sizes == sorted(sizes)


def test_input_multiple_follows_name_and_options():
    assert input_multiple("enet") == 8
    assert input_multiple("UNet++/resnet34") == 32
    assert input_multiple("pspnet/resnet50") == 8
    deep = NetworkSpec(architecture="pspnet/resnet18", classes=TWO, options={"encoder_depth": 5})
    assert input_multiple(deep) == 32
    with pytest.raises(ConfigurationError, match="no network called"):
        input_multiple("nonet")
