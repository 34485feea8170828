from __future__ import annotations

import pytest
import torch

from napari_kdseg.distillation.correction.false_pixels import FalsePixelQueues, false_pixel_images
from napari_kdseg.errors import ConfigurationError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def coded_image(target, prediction, start=0):
    """Every pixel tells its true class, its predicted class, and a number of its own."""
    number = torch.arange(start, start + target.numel()).reshape(target.shape)
    return torch.stack([target, prediction, number], dim=1).float()


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("k", [1, 4, 1000])
def test_holds_false_pixels_of_the_right_class_only(classes, k, contents):
    queues = FalsePixelQueues(classes, 3, 4000)
    expected = [0] * classes
    for seed in range(5):
        target = torch.randint(0, classes, (3, 9, 7), generator=generator(seed))
        prediction = torch.randint(0, classes, (3, 9, 7), generator=generator(seed + 100))
        target[:, 0] = 255
        queues.push(
            coded_image(target, prediction, seed * target.numel()), target, prediction, k, generator(seed)
        )
        for n in range(3):
            for c in range(classes):
                false = sum(
                    int(t) == c and int(p) != c
                    for t, p in zip(target[n].flatten(), prediction[n].flatten(), strict=True)
                )
                expected[c] += min(k, false)
    assert queues.sizes == tuple(expected)
    for c in range(classes):
        held = contents(queues, c)
        assert (held[:, 0] == c).all()  # its class
        assert (held[:, 1] != c).all()  # taken for another
        assert len(held[:, 2].unique()) == len(held)  # never one pixel twice


def test_binary_queues_are_false_negatives_and_false_positives(contents):
    target = torch.tensor([[[1, 1, 0, 0]]])
    prediction = torch.tensor([[[0, 1, 1, 0]]])
    queues = FalsePixelQueues(2, 3, 10)
    queues.push(coded_image(target, prediction), target, prediction, 5, generator())
    assert contents(queues, 1)[:, 2].tolist() == [0]  # the false negative
    assert contents(queues, 0)[:, 2].tolist() == [2]  # the false positive


@pytest.mark.parametrize("length", [1, 5, 7, 64])
def test_first_in_first_out(length, contents):
    queues, everything = FalsePixelQueues(2, 1, length), []
    for seed in range(8):
        count = int(torch.randint(0, 12, (), generator=generator(seed)))
        target, prediction = (
            torch.ones(1, 1, count, dtype=torch.long),
            torch.zeros(1, 1, count, dtype=torch.long),
        )
        image = torch.arange(len(everything), len(everything) + count).reshape(1, 1, 1, count).float()
        before = contents(queues, 1).flatten().tolist()
        queues.push(image, target, prediction, 1000, generator(seed))
        held = contents(queues, 1).flatten().tolist()
        kept = min(length, count)
        assert (
            held[: len(held) - kept] == before[len(before) - (len(held) - kept) :]
        )  # the newest of before, in order
        if count <= length:
            assert sorted(held[len(held) - kept :]) == list(range(len(everything), len(everything) + count))
        everything += range(count)
        assert queues.sizes == (0, min(length, len(everything)))
    assert not queues.full  # class 0 has none


def test_full_when_every_queue_is():
    queues = FalsePixelQueues(2, 3, 4)
    target = torch.tensor([[[0, 1], [0, 1]]])
    for fill in (2, 4):
        assert not queues.full
        queues.push(torch.rand(1, 3, 2, 2), target, 1 - target, 9, generator())
        assert queues.sizes == (fill, fill)
    assert queues.full


def test_choice_is_uniform(contents):
    target, prediction = torch.ones(1, 1, 10, dtype=torch.long), torch.zeros(1, 1, 10, dtype=torch.long)
    image = torch.arange(10.0).reshape(1, 1, 1, 10)
    queues, rng = FalsePixelQueues(2, 1, 10000), generator(1)
    for _ in range(1000):
        queues.push(image, target, prediction, 3, rng)
    share = torch.bincount(contents(queues, 1).flatten().long(), minlength=10) / 3000
    assert (share - 0.1).abs().max() < 0.03


def test_seeds_only_empty_queues_with_least_confident_right_pixels(contents):
    target = torch.tensor([[[0, 0, 0, 1, 1, 1, 255]]])
    p1 = torch.tensor([[[0.1, 0.4, 0.8, 0.6, 0.9, 0.7, 0.5]]])
    probabilities = torch.stack([1 - p1, p1], dim=1)
    prediction = probabilities.argmax(1)  # class 0 has one false pixel (0.8), class 1 none
    image = coded_image(target, prediction)
    queues = FalsePixelQueues(2, 3, 10)
    queues.push(image, target, prediction, 5, generator())
    assert queues.seed_least_confident(image, target, probabilities, 2) == (1,)
    assert contents(queues, 0)[:, 2].tolist() == [2]
    assert contents(queues, 1)[:, 2].tolist() == [3, 5]  # p = 0.6, 0.7
    assert queues.seed_least_confident(image, target, probabilities, 2) == ()
    absent = FalsePixelQueues(3, 3, 10)
    probabilities = torch.nn.functional.pad(probabilities, (0, 0, 0, 0, 0, 1))
    assert absent.seed_least_confident(image, target, probabilities, 2) == (
        0,
        1,
    )  # nothing of class 2 is there


def filled_queues(classes=3, each=50):
    queues = FalsePixelQueues(classes, 3, 100)
    target = torch.arange(classes).repeat_interleave(each).reshape(1, classes, each)
    queues.push(
        coded_image(target, (target + 1) % classes), target, (target + 1) % classes, each, generator()
    )
    return queues


def test_images_hold_only_queue_pixels_of_their_class(contents):
    queues = filled_queues()
    masks = torch.randint(0, 3, (2, 11, 9), generator=generator(2))
    image, target = false_pixel_images(queues, masks, generator(3))
    assert image.shape == (2, 3, 11, 9)
    assert torch.equal(target, masks)
    assert target.dtype == torch.int64
    for c in range(3):
        drawn = image.movedim(1, -1)[masks == c]
        held = {tuple(row) for row in contents(queues, c).tolist()}
        assert all(tuple(row) in held for row in drawn.tolist())  # the whole vector, never a mixture


def test_draws_are_uniform_and_independent_of_place():
    queues = filled_queues(classes=2, each=5)
    image, _ = false_pixel_images(queues, torch.ones(1, 100, 100, dtype=torch.long), generator(4))
    number = image[0, 2].long() - 5
    share = torch.bincount(number.flatten(), minlength=5) / 10000
    assert (share - 0.2).abs().max() < 0.02
    same_as_neighbour = (number[:, 1:] == number[:, :-1]).float().mean()
    assert abs(same_as_neighbour - 0.2) < 0.02


def test_ignored_pixels_and_classes_without_false_pixels():
    queues = FalsePixelQueues(3, 3, 10)
    target = torch.tensor([[[0, 1]]])
    queues.push(coded_image(target, 1 - target), target, 1 - target, 5, generator())
    masks = torch.tensor([[[0, 1, 2, 255]]])
    image, labels = false_pixel_images(queues, masks, generator())
    assert labels.tolist() == [[[0, 1, 255, 255]]]
    assert image[0, 0, 0].tolist() == [0, 1, 0, 0]  # what cannot be drawn looks like background

    only_one = FalsePixelQueues(2, 3, 10)
    only_one.push(
        coded_image(target, 1 - target)[..., 1:], target[..., 1:], 1 - target[..., 1:], 5, generator()
    )
    image, labels = false_pixel_images(only_one, torch.tensor([[[0, 1]]]), generator())
    assert labels.tolist() == [[[255, 1]]]
    assert image[0, 0, 0].tolist() == [1, 1]

    with pytest.raises(ConfigurationError, match="no false pixel"):
        false_pixel_images(FalsePixelQueues(2, 3, 10), masks, generator())


def test_state_round_trip_gives_the_same_next_images(tmp_path):
    queues, rng = filled_queues(), generator(9)
    torch.save({"queues": queues.state_dict(), "rng": rng.get_state()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again, rng_again = FalsePixelQueues(3, 3, 100), torch.Generator()
    again.load_state_dict(state["queues"])
    rng_again.set_state(state["rng"])
    target = torch.randint(0, 3, (2, 30, 30), generator=generator(5))
    prediction = torch.randint(0, 3, (2, 30, 30), generator=generator(6))
    image = coded_image(target, prediction)
    for one, random in ((queues, rng), (again, rng_again)):
        one.push(image, target, prediction, 70, random)
    for a, b in zip(
        false_pixel_images(queues, target, rng), false_pixel_images(again, target, rng_again), strict=True
    ):
        assert torch.equal(a, b)
    with pytest.raises(ConfigurationError, match="settings of the run"):
        FalsePixelQueues(2, 3, 100).load_state_dict(state["queues"])
