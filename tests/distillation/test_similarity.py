from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from napari_kdseg.distillation.correction.similarity import ClassMeans, similarity_correction


def random_maps(seed, count=3, classes=4, size=(9, 8), ignored=0.1, skill=0.0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (count, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < ignored] = 255
    one_hot = F.one_hot(target.clamp(max=classes - 1), classes).movedim(-1, 1)
    logits = torch.randn(count, classes, *size, generator=generator, dtype=torch.float64) + skill * one_hot
    vectors = torch.randn(count, 5, *size, generator=generator, dtype=torch.float64)
    return logits.softmax(1), target, vectors


def naive_correction(probabilities, target, vectors):
    """Pixel by pixel: the most similar right pixel of the same class in the image, then in the batch, then a swap."""
    p, y, v = (np.asarray(tensor) for tensor in (probabilities, target, vectors))
    count, _, height, width = p.shape
    corrected, codes = p.copy(), np.zeros(y.shape, dtype=np.uint8)
    places = [(n, i, j) for n in range(count) for i in range(height) for j in range(width)]
    right = {
        place
        for place in places
        if y[place] != 255 and p[place[0], :, place[1], place[2]].argmax() == y[place]
    }

    def cosine(a, b):
        a, b = v[a[0], :, a[1], a[2]], v[b[0], :, b[1], b[2]]
        return float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))

    for place in places:
        if y[place] == 255 or place in right:
            continue
        n, i, j = place
        same_class = [other for other in places if other in right and y[other] == y[place]]
        candidates = [other for other in same_class if other[0] == n] or same_class
        if candidates:
            m, k, q = max(candidates, key=lambda other: cosine(place, other))
            corrected[n, :, i, j], codes[place] = p[m, :, k, q], 3
        else:
            own, top = y[place], p[n, :, i, j].argmax()
            corrected[n, [own, top], i, j], codes[place] = p[n, [top, own], i, j], 4
    return torch.from_numpy(corrected), torch.from_numpy(codes)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("chunk", [1, 7, 16384])
def test_equals_naive_loop(seed, chunk):
    probabilities, target, vectors = random_maps(seed)
    expected, expected_codes = naive_correction(probabilities, target, vectors)
    corrected, codes = similarity_correction(probabilities, target, vectors, chunk=chunk)
    assert torch.equal(corrected, expected)
    assert torch.equal(codes, expected_codes)


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("classes", "chunk"), [(2, 4096), (2, 300), (7, 4096)])
def test_large_image_equals_one_large_product(device, classes, chunk):
    """Several parts of the bank and several of the false pixels, none of them full at the end."""
    generator = torch.Generator().manual_seed(classes)
    target = torch.randint(0, classes, (1, 90, 91), generator=generator)
    one_hot = F.one_hot(target, classes).movedim(-1, 1)
    noise = torch.randn(one_hot.shape, generator=generator)
    probabilities = (one_hot + noise).softmax(1)
    vectors = torch.randn(1, 64, 90, 91, generator=generator)
    corrected, codes = similarity_correction(
        probabilities.to(device), target.to(device), vectors.to(device), chunk=chunk
    )

    labels, soft = target.flatten(), probabilities[0].flatten(1).T
    right = soft.argmax(1) == labels
    units = F.normalize(vectors[0].flatten(1).T.double(), dim=1)
    similarity = units[~right] @ units.T
    similarity[(labels[~right, None] != labels) | ~right] = -2
    expected = soft.clone()
    expected[~right] = soft[similarity.argmax(1)]
    assert (~right).sum() > 1500
    assert torch.equal(corrected[0].flatten(1).T.cpu(), expected)
    assert torch.equal(codes.flatten().cpu() == 3, ~right)


class LargestTensor(TorchFunctionMode):
    """Remembers how many elements the largest tensor returned by any function had."""

    elements = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for one in out if isinstance(out, list | tuple) else (out,):
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return out


def test_never_holds_all_similarities():
    target = torch.zeros(1, 64, 64, dtype=torch.long)
    probabilities = torch.tensor([0.9, 0.1])[:, None, None].repeat(1, 1, 64, 64)
    probabilities[..., ::2, :] = probabilities.flip(1)[..., ::2, :]
    vectors = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    with LargestTensor() as largest:
        _, codes = similarity_correction(probabilities, target, vectors, chunk=256)
    assert (codes == 3).sum() == 32 * 64  # compared with as many others each
    assert largest.elements <= 256 * 256


@pytest.mark.parametrize("chunk", [1, 7, 16384])
def test_of_equally_similar_pixels_the_first_is_taken(chunk):
    probabilities, target, _ = random_maps(9)
    same = torch.ones(3, 1, 9, 8, dtype=torch.float64)
    expected, _ = naive_correction(probabilities, target, same)
    corrected, _ = similarity_correction(probabilities, target, same, chunk=chunk)
    assert torch.equal(corrected, expected)


def test_equals_naive_loop_where_images_lack_right_pixels():
    probabilities, target, vectors = random_maps(20, count=4, classes=3)
    target[0] = torch.where(target[0] == 2, 2, 0)
    wrong_everywhere = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)[:, None]
    probabilities[0][:, target[0] == 2] = wrong_everywhere  # class 2 of image 0: look in the batch
    for n in range(4):
        probabilities[n][:, target[n] == 1] = wrong_everywhere  # class 1: nowhere right
    expected, expected_codes = naive_correction(probabilities, target, vectors)
    corrected, codes = similarity_correction(probabilities, target, vectors, chunk=5)
    assert torch.equal(corrected, expected)
    assert torch.equal(codes, expected_codes)
    assert (codes[0][target[0] == 2] == 3).all()
    assert (codes[target == 1] == 4).all()


def test_vectors_are_resized_like_a_map():
    probabilities, target, _ = random_maps(1, size=(12, 10))
    small = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    resized = F.interpolate(small, size=(12, 10), mode="bilinear", align_corners=False)
    for a, b in zip(
        similarity_correction(probabilities, target, small),
        similarity_correction(probabilities, target, resized),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_never_copies_from_another_class():
    target = torch.tensor([[[0, 1, 1]]])
    p1 = torch.tensor([[[0.1, 0.2, 0.7]]])
    probabilities = torch.stack([1 - p1, p1], dim=1)
    vectors = torch.tensor([[[[1.0, 1.0, -1.0]]]])  # the wrong pixel looks just like background
    corrected, codes = similarity_correction(probabilities, target, vectors)
    torch.testing.assert_close(corrected[0, 1, 0], torch.tensor([0.1, 0.7, 0.7]))
    assert codes.tolist() == [[[0, 3, 0]]]


def test_class_mean_comes_before_the_swap():
    means = ClassMeans(3, momentum=0.75)
    first = torch.tensor([[0.1, 0.2, 0.7], [0.2, 0.2, 0.6]]).T.reshape(1, 3, 1, 2)
    everything_two = torch.full((1, 1, 2), 2)
    similarity_correction(first, everything_two, torch.ones(1, 1, 1, 2), class_means=means)
    torch.testing.assert_close(means.mean[2], torch.tensor([0.15, 0.2, 0.65]))
    assert means.seen.tolist() == [False, False, True]

    second = torch.tensor([0.05, 0.05, 0.9]).reshape(1, 3, 1, 1)
    similarity_correction(second, torch.full((1, 1, 1), 2), torch.ones(1, 1, 1, 1), class_means=means)
    expected = 0.75 * torch.tensor([0.15, 0.2, 0.65]) + 0.25 * torch.tensor([0.05, 0.05, 0.9])
    torch.testing.assert_close(means.mean[2], expected)

    wrong = torch.tensor([0.5, 0.3, 0.2]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    corrected, codes = similarity_correction(
        wrong, torch.tensor([[[2, 1]]]), torch.ones(1, 1, 1, 2), class_means=means
    )
    torch.testing.assert_close(corrected[0, :, 0, 0], expected)  # known from before
    torch.testing.assert_close(corrected[0, :, 0, 1], torch.tensor([0.3, 0.5, 0.2]))  # never seen: exchanged
    assert codes.tolist() == [[[4, 4]]]

    again = ClassMeans(3, momentum=0.75)
    again.load_state_dict(means.state_dict())
    assert torch.equal(again.mean, means.mean)
    assert torch.equal(again.seen, means.seen)


@pytest.mark.parametrize("tie", [[0.5, 0.5], [0.5, 0.5, 0.0], [0.25] * 4])
def test_ties_end_strictly_right(tie):
    classes = len(tie)
    probabilities = torch.tensor(tie).reshape(1, classes, 1, 1).expand(1, classes, 1, 2).clone()
    target = torch.tensor(
        [[[0, 1]]]
    )  # arg max of a tie is 0: the first is right and stays, the second is wrong
    corrected, codes = similarity_correction(probabilities, target, torch.ones(1, 2, 1, 2))
    assert torch.equal(corrected[..., 0], probabilities[..., 0])
    own, others = corrected[0, 1, 0, 1], corrected[0, [0, *range(2, classes)], 0, 1]
    assert (own > others).all()
    torch.testing.assert_close(corrected.sum(1), torch.ones(1, 1, 2))
    assert codes.tolist() == [[[0, 4]]]


def test_a_copied_tie_is_lifted():
    probabilities = torch.tensor([[0.5, 0.5], [0.2, 0.8]]).T.reshape(1, 2, 1, 2)
    corrected, codes = similarity_correction(probabilities, torch.zeros(1, 1, 2), torch.ones(1, 1, 1, 2))
    assert torch.equal(corrected[..., 0], probabilities[..., 0])
    assert corrected[0, 0, 0, 1] > corrected[0, 1, 0, 1]
    assert codes.tolist() == [[[0, 3]]]


@pytest.mark.parametrize("scale", [0.0, 1.0, float("nan")])
def test_constant_zero_and_broken_vectors(scale):
    probabilities, target, vectors = random_maps(3)
    corrected, codes = similarity_correction(probabilities, target, scale * torch.ones_like(vectors))
    labelled = target != 255
    assert torch.equal(corrected.argmax(1)[labelled], target[labelled])
    assert not codes[~labelled].any()


@pytest.mark.parametrize("chunk", [1, 2, 16384])
def test_a_broken_vector_spoils_no_other(chunk):
    target = torch.zeros(1, 1, 5, dtype=torch.long)
    p0 = torch.tensor([[[0.9, 0.8, 0.7, 0.6, 0.2]]])  # the last is wrong
    vectors = torch.tensor([[[[float("nan"), 1.0, 1.0, float("inf"), 1.0]], [[1.0, -1.0, 0.5, 1.0, 0.5]]]])
    corrected, codes = similarity_correction(torch.stack([p0, 1 - p0], dim=1), target, vectors, chunk=chunk)
    torch.testing.assert_close(corrected[0, 0, 0], torch.tensor([0.9, 0.8, 0.7, 0.6, 0.7]))
    assert codes.tolist() == [[[0, 0, 0, 0, 3]]]


def test_does_nothing_where_nothing_is_wrong_or_labelled():
    probabilities, target, vectors = random_maps(4)
    for labels in (probabilities.argmax(1), torch.full_like(target, 255)):
        corrected, codes = similarity_correction(probabilities, labels, vectors)
        assert torch.equal(corrected, probabilities)
        assert not codes.any()


def test_not_disturbed_by_autocast():
    probabilities, target, vectors = random_maps(5)
    probabilities, vectors = probabilities.float(), vectors.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = similarity_correction(probabilities, target, vectors)
    outside = similarity_correction(probabilities, target, vectors)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))
