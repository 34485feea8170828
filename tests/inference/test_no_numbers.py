"""A network that puts out NaN or infinite values gives no mask, and is never said to agree with anything."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.inference.network import loading
from napari_kdseg.inference.network.engine import Engine
from napari_kdseg.inference.running import planning
from napari_kdseg.jobs import Done, Failed, Message, run_inline
from napari_kdseg.masks import open_masks
from napari_kdseg.networks import Checkpoint, NetworkSpec
from napari_kdseg.slides import open_slide

SPEC = NetworkSpec(
    architecture="enet", classes=("background", "dark", "bright"), mpp=0.5, mean=(0, 0, 0), std=(1, 1, 1)
)
DARK, BRIGHT = 40, 220
NAN, INF = float("nan"), float("inf")


class Squares(nn.Module):
    """Logits (0.1, (1 - x) t, x t) with t = 5e5 x²: beyond float16, which ends at 65504, where x is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(700.0))

    def forward(self, image):
        x = image[:, :1]
        t = (x * self.scale) ** 2
        return torch.cat([torch.full_like(x, 0.1), (1 - x) * t, x * t], dim=1)


class Constant(nn.Module):
    """The same three logits everywhere, or others where the image is bright."""

    def __init__(self, *logits: float, bright: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor([logits, bright or logits]))

    def forward(self, image):
        chosen = self.values[(image[:, 0] > 0.7).long()]  # bright patches only: noise has a mean of 0.5
        return chosen.permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Dark on the left, bright on the right."""
    path = tmp_path_factory.mktemp("slide") / "two.tif"
    pixels = np.full((256, 512, 3), DARK, np.uint8)
    pixels[:, 256:] = BRIGHT
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        tile=(128, 128),
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )
    return path


@pytest.fixture
def prediction(tmp_path, slide, checkpoint, monkeypatch):
    """Predict the slide with a module."""
    loading._load.cache_clear()

    def start(module: nn.Module, **settings):
        monkeypatch.setattr(loading, "load", lambda path, device: Checkpoint(module.eval(), SPEC, path))
        config = {
            "slide": str(slide), "networks": {"it": checkpoint}, "output": tmp_path / "masks.ome.zarr", "tile": 128,
            "halo": 32, "batch_size": 1, "precision": "float32", "skip_background": False,
        }  # fmt: skip
        return run_inline(predict, PredictConfig(**(config | settings)))

    yield start
    loading._load.cache_clear()


def test_what_is_too_large_for_float16_is_said_with_the_way_out(prediction, tmp_path):
    end = prediction(Squares(), precision="float16").end
    assert isinstance(end, Failed)
    assert "puts out NaN or infinite values" in end.message
    assert (
        "It was run in float16, which may be too narrow for it: choose the precision float32" in end.message
    )
    end = prediction(Squares(), output=tmp_path / "again.ome.zarr").end
    assert isinstance(end, Done), end
    mask = np.asarray(open_masks(end.result.output)["it"].levels[0])
    assert (mask[:, :256] == 1).all()
    assert (mask[:, 256:] == 2).all()


def test_what_is_no_number_does_not_agree_with_float32(prediction, monkeypatch, slide):
    monkeypatch.setattr(planning, "fast_arithmetic", lambda device: "float16")
    job = prediction(Squares(), precision="auto")
    assert isinstance(job.end, Done), job.end
    said = [event.text for event in job.history if isinstance(event, Message)]
    with open_slide(
        slide
    ) as opened:  # samples of 256 pixels, at a sixth, a half and five sixths of the diagonal
        corners = [(round(256 * share) - 128, round(512 * share) - 128) for share in (1 / 6, 1 / 2, 5 / 6)]
        light = np.mean([opened.read(0, y, x, 256, 256)[..., 0] > 0.3656 * 255 for y, x in corners])
    assert 0.4 < light < 0.9
    assert any(
        f"float16 would be faster, but gave another class for {light:.2%} of the" in text for text in said
    )
    assert job.end.result.masks["it"].plan.arithmetic == "float32"


@pytest.mark.parametrize(
    "logits", [(NAN, NAN, NAN), (0.0, NAN, 1.0), (NAN, 0.0, 1.0), (0.0, INF, 1.0), (-INF,) * 3]
)
def test_a_network_without_numbers_is_refused_before_anything_is_made(prediction, tmp_path, logits):
    end = prediction(Constant(*logits)).end
    assert isinstance(end, Failed)
    assert "student.safetensors puts out NaN or infinite values" in end.message
    assert "diverged" in end.message
    assert not list(tmp_path.glob("*.ome.zarr"))


@pytest.mark.parametrize("probabilities", [True, False])
def test_one_class_may_be_impossible(prediction, probabilities):
    end = prediction(Constant(-INF, 0.0, 1.0), probabilities=probabilities).end
    assert isinstance(end, Done), end
    assert (np.asarray(open_masks(end.result.output)["it"].levels[0]) == 2).all()


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
@pytest.mark.parametrize("bad", [(0.0, NAN, 1.0), (0.0, INF, 1.0), (-INF,) * 3])
def test_one_window_is_enough(arithmetic, bad):
    engine = Engine(
        Constant(0.0, 1.0, 2.0, bright=bad).eval(),
        SPEC,
        torch.device("cpu"),
        arithmetic,
        name="a.safetensors",
    )
    good, one = np.full((32, 32, 3), DARK, np.uint8), np.full((32, 32, 3), DARK, np.uint8)
    one[5, 7] = BRIGHT
    assert (engine.classify(engine.collate([good]))()[0] == 2).all()
    batch = engine.collate([good, one])
    for attempt in (
        lambda: engine.classify(batch)(),
        lambda: engine.classify(batch, probability=False)(),
        lambda: engine.probabilities(batch),
    ):
        with pytest.raises(ConfigurationError, match=r"a\.safetensors puts out NaN or infinite values"):
            attempt()
    away = (slice(8, None), slice(None))
    assert (engine.classify(batch, away)()[0] == 2).all(), "what lies beyond the core is not looked at"
    assert engine.classify(batch, checked=False)()[0].shape == (2, 32, 32)
