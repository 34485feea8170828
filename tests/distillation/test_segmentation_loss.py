from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_kdseg.distillation.losses.segmentation import cross_entropy_dice
from napari_kdseg.errors import ConfigurationError


def naive_cross_entropy_and_dice(logits, target, smooth, focusing=0.0):
    """Pixel by pixel in float64, straight from the formula; the focal loss with ``focusing``."""
    logits, target = np.asarray(logits, dtype=np.float64), np.asarray(target)
    count, classes, height, width = logits.shape
    entropy, pixels = 0.0, 0
    overlap, predicted, true = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for n in range(count):
        for i in range(height):
            for j in range(width):
                label = int(target[n, i, j])
                if label == 255:
                    continue
                z = logits[n, :, i, j]
                p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
                entropy -= (1 - p[label]) ** focusing * math.log(p[label])
                pixels += 1
                overlap[label] += p[label]
                predicted += p
                true[label] += 1
    dice = [(2 * overlap[c] + smooth) / (predicted[c] + true[c] + smooth) for c in range(1, classes)]
    return (entropy / pixels if pixels else 0.0), 1 - sum(dice) / len(dice)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("smooth", [1.0, 1e-3])
@pytest.mark.parametrize("focusing", [0.0, 0.5, 2.0])
def test_equals_naive_loop(classes, smooth, focusing):
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(2, classes, 7, 5, generator=generator)
    target = torch.randint(0, classes, (2, 7, 5), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = 255
    entropy, dice = naive_cross_entropy_and_dice(logits, target, smooth, focusing)
    for a, b in ((1, 1), (1, 0), (0, 1), (0.3, 2.5)):
        value = cross_entropy_dice(
            logits, target, cross_entropy_weight=a, dice_weight=b, smooth=smooth, focusing=focusing
        )
        assert value.item() == pytest.approx(a * entropy + b * dice, rel=1e-5)


@pytest.mark.parametrize("weights", [(), (0.5, 1.0, 2.0)])
def test_the_focal_factor_gets_no_gradient(weights):
    """The gradient is each pixel's of cross entropy, times (1 - p)^2 as a number, as in EMKD's code."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 6, 5, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (2, 6, 5), generator=generator)
    target[0, :2] = 255
    focal = cross_entropy_dice(logits, target, dice_weight=0, class_weights=weights, focusing=2.0)
    (gradient,) = torch.autograd.grad(focal, logits)
    entropy = cross_entropy_dice(logits, target, dice_weight=0, class_weights=weights)
    (plain,) = torch.autograd.grad(entropy, logits)
    p = logits.detach().softmax(dim=1).gather(1, torch.where(target == 255, 0, target).unsqueeze(1))
    torch.testing.assert_close(gradient, plain * (1 - p) ** 2)


def test_parts_equal_torch_and_segmentation_models_pytorch():
    from segmentation_models_pytorch.losses import DiceLoss

    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 4, 9, 8, generator=generator)
    target = torch.randint(0, 4, (3, 9, 8), generator=generator)
    target[0, :2] = 255
    entropy = cross_entropy_dice(logits, target, dice_weight=0)
    torch.testing.assert_close(entropy, F.cross_entropy(logits, target, ignore_index=255))
    dice = cross_entropy_dice(logits, target, cross_entropy_weight=0, smooth=1.0)
    # Theirs is (I + s) / (I + (fp + fn) / 2 + s), so the same smoothing is called half as much.
    theirs = DiceLoss("multiclass", classes=[1, 2, 3], smooth=0.5, ignore_index=255)(logits, target)
    torch.testing.assert_close(dice, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.2, 1.0, 7.0), (0.0, 1.0, 2.0)])
def test_class_weights_are_those_of_torch(weights):
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float32)
    target = torch.randint(0, 3, (2, 6, 5), generator=generator)
    target[0, 0] = 255
    value = cross_entropy_dice(logits, target, dice_weight=0, class_weights=weights)
    expected = F.cross_entropy(logits, target, torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(value, expected)


def test_class_weights_where_nothing_counts():
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    for target in (torch.zeros(1, 3, 3, dtype=torch.long), torch.full((1, 3, 3), 255)):
        value = cross_entropy_dice(logits, target, dice_weight=0, class_weights=(0, 1))
        assert value.item() == 0
        value.backward()


def test_as_many_class_weights_as_classes():
    with pytest.raises(ConfigurationError, match="2 class weights for 3 classes"):
        cross_entropy_dice(
            torch.randn(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long), class_weights=(1, 2)
        )


def test_perfect_prediction_is_nearly_free():
    target = torch.randint(0, 3, (2, 6, 6))
    logits = 50.0 * F.one_hot(target, 3).movedim(-1, 1).float()
    assert cross_entropy_dice(logits, target).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(torch.full((1, 5, 3), 255), id="all ignored"),
        pytest.param(torch.zeros(1, 5, 3, dtype=torch.long), id="all background"),
        pytest.param(torch.ones(1, 5, 3, dtype=torch.long), id="all one class, another absent"),
        pytest.param(F.pad(torch.full((1, 1, 1), 2), (1, 1, 2, 2)), id="one pixel"),
        pytest.param(torch.zeros(1, 5, 3, dtype=torch.uint8), id="uint8 labels"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("focusing", [0.0, 2.0])
def test_degenerate_targets_are_finite_with_gradient(target, dtype, focusing):
    logits = torch.randn(1, 3, 5, 3, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    value = cross_entropy_dice(logits, target, focusing=focusing)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    if (target == 255).all():
        assert value.item() == 0
        assert not logits.grad.any()
    else:
        assert logits.grad.any()


def test_ignored_pixels_get_no_gradient():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    target = torch.randint(0, 2, (1, 4, 4))
    target[0, 1] = 255
    cross_entropy_dice(logits, target).backward()
    assert not logits.grad[:, :, 1].any()


def test_half_precision_autocast():
    logits = torch.randn(1, 2, 8, 8)
    target = torch.randint(0, 2, (1, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cross_entropy_dice(logits, target)
    torch.testing.assert_close(inside, cross_entropy_dice(logits, target))


def test_refuses_what_makes_no_sense():
    target = torch.zeros(1, 2, 2, dtype=torch.long)
    with pytest.raises(ConfigurationError, match="at least two classes"):
        cross_entropy_dice(torch.zeros(1, 1, 2, 2), target)
    with pytest.raises(ConfigurationError, match="above zero"):
        cross_entropy_dice(torch.zeros(1, 2, 2, 2), target, smooth=0)
    with pytest.raises(ConfigurationError, match="must not be negative"):
        cross_entropy_dice(torch.zeros(1, 2, 2, 2), target, focusing=-1)
