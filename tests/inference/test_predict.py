from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.inference.measuring.receptive_field import receptive_field_radius
from napari_kdseg.inference.network.engine import Engine, choose_device
from napari_kdseg.inference.network.loading import loaded_network
from napari_kdseg.jobs import (
    Cancelled,
    Checkpointed,
    Control,
    Done,
    Failed,
    Message,
    Started,
    Step,
    run_inline,
    run_job,
)
from napari_kdseg.masks import open_masks
from napari_kdseg.masks.tiling import plan_tiles
from napari_kdseg.networks import NetworkSpec
from napari_kdseg.slides import open_slide

SLIDE = "synthetic:600x400?seed=1&mpp=0.5"
SPEC = NetworkSpec(architecture="enet", classes=("background", "a", "b"))


def config(tmp_path, checkpoint, name="student", **changes) -> PredictConfig:
    settings = {
        "slide": SLIDE,
        "networks": {name: checkpoint},
        "output": tmp_path / "slide.ome.zarr",
        "tile": 128,
        "halo": 32,
        "batch_size": 1,
        "precision": "float32",
    }
    return PredictConfig(**{**settings, **changes})


def run(settings, observer=None) -> tuple:
    job = run_inline(predict, settings, observer)
    assert not isinstance(job.end, Failed), job.end.details
    return job.end, job.history


def student(end):
    """What the job did for the one mask it made."""
    (mask,) = end.result.masks.values()
    return mask


def chunks(path) -> dict[str, bytes]:
    return {
        str(item.relative_to(path)): item.read_bytes()
        for item in sorted(path.rglob("c/*/*"))
        if item.is_file()
    }


class SmallNet(nn.Module):
    """Two convolutions around one pooling: it sees 6 px, in steps of 2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.up = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2))
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image):
        return self.head(self.up(self.down(image)))


def predicted(engine, window):
    classes, probability = engine.classify(engine.collate([window]))()
    return classes[0], probability[0]


@pytest.mark.numeric
def test_tiles_with_a_halo_give_what_the_whole_image_gives():
    module = SmallNet().eval()
    radius = receptive_field_radius(module, 3, 2)
    assert 4 <= radius <= 6
    engine = Engine(module, SPEC, torch.device("cpu"), "float32")
    with open_slide(SLIDE) as slide:
        margin = 64
        whole = slide.read(0, -margin, -margin, 400 + 2 * margin, 600 + 2 * margin)
        expected_classes, expected = (
            part[margin:-margin, margin:-margin] for part in predicted(engine, whole)
        )
        assert len(np.unique(expected_classes)) > 1
        for tile, halo in [(64, radius), (96, 16), (512, radius)]:
            for item in plan_tiles((400, 600), None, tile, halo, 2):
                classes, probability = predicted(engine, slide.read(0, *item.window))
                area = slice(item.y, item.y + item.height), slice(item.x, item.x + item.width)
                np.testing.assert_allclose(probability[item.core], expected[area], atol=1e-5, equal_nan=False)
                # Classes may differ only where two of them tie within the arithmetic's precision.
                assert (classes[item.core] != expected_classes[area]).mean() < 1e-4


def test_tiles_of_a_network_that_says_it_sees_everything_are_blended(tmp_path, make_network, monkeypatch):
    """RA-UNet pools over the image; its reach, which takes long to measure, is not measured."""
    network = make_network(tmp_path / "raunet.safetensors", seed=0, mpp=0.5, architecture="raunet")
    monkeypatch.delattr("napari_kdseg.inference.measuring.measurements.receptive_field_radius")
    settings = config(
        tmp_path, network, slide="synthetic:300x200?seed=1&mpp=0.5", halo="auto", skip_background=False
    )
    end, history = run(settings)
    assert student(end).plan.context.blended
    assert student(end).plan.context.radius is None
    assert not any("how far" in event.text for event in history if isinstance(event, Message))


def test_the_receptive_field_of_a_network_that_sees_everything_has_no_radius():
    class Global(SmallNet):
        def forward(self, image):
            return super().forward(image) + image.mean(dim=(2, 3), keepdim=True)

    assert receptive_field_radius(Global().eval(), 3, 2, limit=64) is None
    deep = nn.Sequential(*[nn.Conv2d(3, 3, 5, padding=2) for _ in range(10)]).eval()
    assert receptive_field_radius(deep, 3, 8) == 24  # 20 px, in multiples of 8


def test_a_whole_slide_is_predicted(tmp_path, checkpoint):
    end, history = run(config(tmp_path, checkpoint, probabilities=True, skip_background=False))
    assert isinstance(end, Done)
    result = end.result
    steps = [event for event in history if isinstance(event, Step)]
    assert isinstance(history[0], Started)
    assert history[0].total == len(steps) == student(end).tiles_done == 4 * 5
    assert [step.done for step in steps] == list(range(1, 21))
    assert isinstance(history[-2], Checkpointed)
    assert {"mpx_per_s", "y", "x", "h", "w"} == set(steps[0].values)
    touched = np.zeros((400, 600), int)
    for step in steps:
        y, x, h, w = (int(step.values[key]) for key in "yxhw")
        touched[y : y + h, x : x + w] += 1
    assert (touched == 1).all()

    masks = open_masks(result.output)
    mask, confidence = (np.asarray(masks[name].levels[0]) for name in ("student", "probabilities/student"))
    assert mask.shape == (400, 600)
    assert mask.max() <= 2
    assert confidence.min() >= 254 // 3
    assert confidence.max() <= 254
    made_by = masks["student"].metadata["made_by"]
    assert made_by["checkpoint"]["name"] == checkpoint.name
    assert len(made_by["checkpoint"]["sha256"]) == 64
    assert masks["student"].metadata["versions"]["torch"] == version("torch")

    # The tile in the middle, by hand.
    engine = loaded_network(checkpoint, torch.device("cpu")).engine("float32")
    with open_slide(SLIDE) as slide:
        classes, _ = predicted(engine, slide.read(0, 128 - 32, 256 - 32, 192, 192))
    np.testing.assert_array_equal(mask[128:256, 256:384], classes[32:-32, 32:-32])


def test_batches_do_not_change_the_result(tmp_path, checkpoint):
    one, _ = run(config(tmp_path / "1", checkpoint))
    four, _ = run(config(tmp_path / "4", checkpoint, batch_size=4))
    masks = [np.asarray(open_masks(end.result.output)["student"].levels[0]) for end in (one, four)]
    # ENet unpools to where a maximum lay: on empty glass rounding decides, and it differs with the size of the batch.
    assert (masks[0] != masks[1]).mean() < 0.02
    assert student(one).tiles_done == student(four).tiles_done


def test_a_stopped_job_goes_on_to_the_same_bytes(tmp_path, checkpoint):
    """What is under way when a job is told to stop is finished: the slide has more tiles than that."""
    changes = {"slide": "synthetic:1400x700?seed=1&mpp=0.5", "probabilities": True}
    whole, _ = run(config(tmp_path / "whole", checkpoint, **changes))
    settings = config(tmp_path / "stopped", checkpoint, **changes)

    for stop_after in (1, 5):
        control = Control()
        seen = []

        def observe(event, control=control, seen=seen, stop_after=stop_after):
            seen.append(event)
            if (
                isinstance(event, Step)
                and len([item for item in seen if isinstance(item, Step)]) == stop_after
            ):
                control.cancel()

        assert isinstance(run_job(predict, settings, observe, control), Cancelled)
        assert open_masks(settings.output)["student"].metadata["status"] == "unfinished"
    end, history = run(settings)
    kept = student(end).tiles_kept
    assert kept >= 6
    assert next(event for event in history if isinstance(event, Step)).done == kept + 1
    assert chunks(settings.output) == chunks(whole.result.output)
    assert open_masks(settings.output)["student"].metadata["status"] == "complete"


def test_auto_goes_on_with_what_the_mask_was_begun_with(tmp_path, checkpoint):
    begun, _ = run(config(tmp_path, checkpoint, region=(0, 0, 130, 130), threads=1))
    auto = dict.fromkeys(("tile", "halo", "batch_size", "precision"), "auto")
    end, history = run(config(tmp_path, checkpoint, **auto))
    assert student(end).tiles_kept == student(begun).tiles_done + student(begun).tiles_skipped == 4
    assert student(end).plan.record() == student(begun).plan.record()
    assert not [event for event in history if isinstance(event, Message)], "nothing was measured"
    refused = run_inline(predict, config(tmp_path, checkpoint, batch_size=2)).end
    assert "another batch size" in refused.message


def test_two_networks_go_over_the_slide_together(tmp_path, checkpoint, make_network):
    """At resolutions and with tiles of their own."""
    coarse = make_network(tmp_path / "coarse.safetensors", seed=1, mpp=1.0)
    both, history = run(config(tmp_path / "both", checkpoint, networks={"a": checkpoint, "b": coarse}))
    order = [event.stage for event in history if isinstance(event, Step)]
    assert set(order[:6]) == {"a", "b"}, "neither waits for the other"
    for name, path in (("a", checkpoint), ("b", coarse)):
        alone, _ = run(config(tmp_path / name, path, name=name))
        assert chunks(both.result.output / "labels" / name) == chunks(alone.result.output / "labels" / name)


def test_regions_add_up_to_the_whole_slide(tmp_path, checkpoint):
    whole, _ = run(config(tmp_path / "whole", checkpoint, skip_background=False))
    settings = {"skip_background": False}
    first, _ = run(config(tmp_path / "parts", checkpoint, region=(100, 300, 50, 20), **settings))
    mask = open_masks(first.result.output)["student"]
    known = np.asarray(mask.levels[0]) != 255
    assert known[100:150, 300:320].all()
    assert known.sum() == 2 * 128 * 128
    run(config(tmp_path / "parts", checkpoint, region=(0, 0, 400, 310), **settings))
    last, _ = run(config(tmp_path / "parts", checkpoint, **settings))
    assert student(last).tiles_kept == 4 * 3
    assert chunks(last.result.output) == chunks(whole.result.output)
    assert open_masks(last.result.output)["student"].metadata["regions"] == [
        [100, 300, 50, 20],
        [0, 0, 400, 310],
        None,
    ]


def test_empty_glass_is_background_without_running_the_network(tmp_path, checkpoint):
    end, history = run(config(tmp_path, checkpoint, slide="synthetic:3000x2000?seed=1&mpp=0.5", tile=256))
    result = end.result
    assert student(end).tiles_skipped > 0
    assert student(end).tiles_done > 0
    mask = open_masks(result.output)["student"]
    finest = np.asarray(mask.levels[0])
    assert (finest != 255).all(), "skipped tiles are background, which differs from not computed"
    assert mask.metadata["made_by"]["tissue_mask"]
    assert (
        len([event for event in history if isinstance(event, Step)])
        == student(end).tiles_done + student(end).tiles_skipped
    )


def test_the_model_sees_the_slide_at_its_own_pixel_size(tmp_path, make_network):
    checkpoint = make_network(tmp_path / "coarse.safetensors", seed=0, mpp=1.0)
    end, history = run(config(tmp_path, checkpoint))
    assert student(end).downsample == pytest.approx((2.0, 2.0))
    assert open_masks(end.result.output)["student"].levels[0].shape == (200, 300)
    assert not [event for event in history if isinstance(event, Message)]
    asked, _ = run(config(tmp_path, checkpoint, name="asked", mpp=1.6))
    assert student(asked).downsample == pytest.approx((3.2, 3.2))


@pytest.mark.parametrize(
    ("slide", "mpp", "words"),
    [
        (SLIDE, None, "model does not say at which pixel size"),
        ("without.tif", 0.5, "slide has no pixel size"),
    ],
)
def test_without_a_pixel_size_it_works_at_full_resolution_and_says_so(
    tmp_path, make_network, slide_without_mpp, slide, mpp, words
):
    checkpoint = make_network(tmp_path / "network.safetensors", seed=0, mpp=mpp)
    if slide == "without.tif":
        slide = str(slide_without_mpp)
    settings = config(tmp_path, checkpoint, slide=slide)
    end, history = run(settings)
    assert student(end).downsample == (1.0, 1.0)
    (message,) = [event for event in history if isinstance(event, Message)]
    assert words in message.text
    assert message.level == "warning"


def test_a_person_can_give_the_pixel_size_of_a_slide(tmp_path, checkpoint, slide_without_mpp):
    end, history = run(config(tmp_path, checkpoint, slide=str(slide_without_mpp), slide_mpp=0.25))
    assert student(end).downsample == pytest.approx((2.0, 2.0))
    assert not [event for event in history if isinstance(event, Message)]
    assert open_masks(end.result.output)["student"].mpp == (0.25, 0.25)


def test_a_slide_coarser_than_the_model_is_enlarged_with_a_warning(tmp_path, checkpoint):
    end, history = run(config(tmp_path, checkpoint, slide="synthetic:200x150?seed=1&mpp=1"))
    assert student(end).downsample == (0.5, 0.5)
    assert open_masks(end.result.output)["student"].levels[0].shape == (300, 400)
    assert "enlarged" in next(event for event in history if isinstance(event, Message)).text


def test_a_label_of_another_model_or_other_settings_is_not_touched(tmp_path, checkpoint, make_network):
    end, _ = run(config(tmp_path, checkpoint))
    before = chunks(end.result.output)
    other = make_network(tmp_path / "other.safetensors", seed=7, mpp=0.5)
    for settings, words in [
        (config(tmp_path, other), "another checkpoint"),
        (config(tmp_path, checkpoint, halo=64), "another halo"),
        (
            config(tmp_path, checkpoint, skip_background=False, probabilities=True),
            "another masks and tissue mask",
        ),
        (config(tmp_path, checkpoint, slide="synthetic:600x400?seed=2&mpp=0.5"), "another slide"),
    ]:
        failed = run_inline(predict, settings).end
        assert isinstance(failed, Failed)
        assert words in failed.message
        assert chunks(end.result.output) == before
    replaced, _ = run(config(tmp_path, other, overwrite=True))
    assert student(replaced).tiles_kept == 0
    assert (
        open_masks(end.result.output)["student"].metadata["made_by"]["checkpoint"]["name"]
        == "other.safetensors"
    )


def test_cuda_without_a_gpu_is_refused_in_plain_words():
    if torch.cuda.is_available():
        assert choose_device("cuda").type == "cuda"
    else:
        with pytest.raises(Exception, match="no usable CUDA device"):
            choose_device("cuda")


def test_bfloat16_predicts_nearly_the_same(tmp_path, checkpoint):
    exact, _ = run(config(tmp_path / "a", checkpoint))
    reduced, _ = run(config(tmp_path / "b", checkpoint, precision="bfloat16"))
    masks = [np.asarray(open_masks(end.result.output)["student"].levels[0]) for end in (exact, reduced)]
    assert (masks[0] != masks[1]).mean() < 0.1


def test_settings_survive_json(tmp_path, checkpoint):
    settings = config(tmp_path, checkpoint, region=(1, 2, 3, 4), halo="exact", mpp=0.5)
    assert PredictConfig.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"output": "masks"},
        {"name": "../up"},
        {"region": (0, 0, 0, 5)},
        {"mpp": 0},
        {"tyle": 5},
        {"slide": ""},
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, checkpoint, wrong):
    with pytest.raises(ValidationError):
        config(tmp_path, checkpoint, **wrong)
