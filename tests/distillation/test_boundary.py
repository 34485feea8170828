from __future__ import annotations

import pytest
import torch

from napari_kdseg.distillation.correction.boundary import boundary_and_inner, boundary_transform


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_inner(labels, c, width):
    """Pixels of class c from which no known other class lies within the square; the edge and 255 hide nothing else."""
    height, breadth = labels.shape
    inner = torch.zeros(labels.shape, dtype=torch.bool)
    for i in range(height):
        for j in range(breadth):
            square = labels[max(i - width, 0) : i + width + 1, max(j - width, 0) : j + width + 1]
            inner[i, j] = labels[i, j] == c and all(int(v) in (c, 255) for v in square.flatten())
    return inner


def blobs(seed, classes=3, size=(20, 17)):
    """Blocky regions with some pixels ignored."""
    coarse = torch.randint(0, classes, (1, 1, 3, 3), generator=generator(seed)).float()
    labels = torch.nn.functional.interpolate(coarse, size=size, mode="nearest")[0, 0].long()
    labels[torch.rand(size, generator=generator(seed + 1)) < 0.02] = 255
    return labels


@pytest.mark.parametrize("seed", range(12))
def test_band_and_inner_equal_naive(seed):
    labels = blobs(seed)
    for c in (1, 2):
        band, inner = boundary_and_inner(labels == c, labels == 255, 4)
        for width in (4, 3, 2, 1):  # shrinks until there is an inside
            expected = naive_inner(labels, c, width)
            if expected.any():
                break
        assert torch.equal(inner, expected)
        assert torch.equal(band, (labels == c) & ~expected)


def naive_band(lesion, width, start):
    """The lesion's pixels by their distance in king's moves from the background, or from the contour pixels."""
    pixels = [tuple(p) for p in lesion.nonzero().tolist()]
    background = [tuple(p) for p in (~lesion).nonzero().tolist()]

    def distance(p, others):
        return min(max(abs(p[0] - q[0]), abs(p[1] - q[1])) for q in others)

    contour = [p for p in pixels if distance(p, background) == 1]
    band = torch.zeros_like(lesion)
    for p in pixels:
        band[p] = distance(p, background if start == "edge" else contour) <= width
    return band


@pytest.mark.parametrize("start", ["edge", "contour"])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_band_begins_at_the_edge_or_at_the_contour(start, width):
    """With a share of 1 all pixels of the smaller of band and inside are swapped, each with one of the other."""
    y, x = torch.meshgrid(torch.arange(44), torch.arange(40), indexing="ij")
    lesion = (y - 22) ** 2 + 1.3 * (x - 19) ** 2 < 20**2
    lesion[32:, 18:20] = False  # a notch: the band turns corners
    band = naive_band(lesion, width, start)
    inside = lesion & ~band
    smaller = min(band, inside, key=lambda region: int(region.sum()))
    image = torch.arange(44.0 * 40).reshape(1, 1, 44, 40)
    moved = boundary_transform(
        image, lesion.long()[None], width=width, fraction=1.0, start=start, generator=generator(3)
    )
    changed = (moved != image)[0, 0]
    assert inside.any()
    assert torch.equal(changed & smaller, smaller)
    assert int((changed & band).sum()) == int((changed & inside).sum()) == int(smaller.sum())
    assert set(moved[0, 0][smaller].tolist()) <= set(image[0, 0][lesion & ~smaller].tolist())


def test_delta_of_five_on_a_square():
    """A square of 30 pixels: 5 pixels along the edge are 30² - 20² = 500, six are 30² - 18² = 576."""
    lesion = torch.zeros(40, 40, dtype=torch.bool)
    lesion[5:35, 5:35] = True
    for start, pixels in (("edge", 500), ("contour", 576)):
        assert int(naive_band(lesion, 5, start).sum()) == pixels
    for width, pixels in ((5, 500), (6, 576)):
        assert int(boundary_and_inner(lesion, torch.zeros_like(lesion), width)[0].sum()) == pixels


@pytest.mark.parametrize("seed", range(20))
def test_labels_stay_right_and_nothing_is_lost(seed):
    target = torch.stack([blobs(seed), blobs(seed + 50)])
    image = torch.rand(2, 3, 20, 17, generator=generator(seed))
    before, labels_before = image.clone(), target.clone()
    moved = boundary_transform(image, target, width=3, fraction=0.7, generator=generator(seed))
    assert torch.equal(image, before)
    assert torch.equal(target, labels_before)
    for n in range(2):
        still = (target[n] == 0) | (target[n] == 255)
        assert torch.equal(moved[n][:, still], image[n][:, still])
        for c in (1, 2):
            mine = target[n] == c
            old, new = image[n][:, mine].T.tolist(), moved[n][:, mine].T.tolist()
            assert sorted(old) == sorted(new)  # the same pixels, whole vectors, in another order
            band, inner = boundary_and_inner(mine, target[n] == 255, 3)
            changed = (moved[n] != image[n]).any(dim=0)
            pairs = int(0.7 * min(int(band.sum()), int(inner.sum())) + 1e-9)
            assert int((changed & band).sum()) == int((changed & inner).sum()) == pairs
            from_inside = {tuple(v) for v in image[n][:, inner].T.tolist()}
            assert all(tuple(v) in from_inside for v in moved[n][:, changed & band].T.tolist())


@pytest.mark.parametrize(("fraction", "pairs"), [(0.0, 0), (0.29, 29), (0.5, 50), (1.0, 100)])
def test_number_of_pairs(fraction, pairs):
    target = torch.zeros(1, 30, 100, dtype=torch.long)
    target[0, :10] = 1  # only its last row, of 100 pixels, meets background
    image = torch.arange(3000.0).reshape(1, 1, 30, 100)
    moved = boundary_transform(image, target, width=1, fraction=fraction, generator=generator())
    assert int((moved != image).sum()) == 2 * pairs
    assert int((moved != image)[0, 0, 9].sum()) == pairs


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(torch.zeros(1, 9, 9, dtype=torch.long), id="no lesion"),
        pytest.param(torch.full((1, 9, 9), 255), id="nothing annotated"),
        pytest.param(torch.ones(1, 9, 9, dtype=torch.long), id="lesion everywhere: no contour"),
        pytest.param(
            torch.nn.functional.pad(torch.ones(1, 1, 1, dtype=torch.long), (4, 4, 4, 4)), id="one pixel"
        ),
        pytest.param(
            torch.nn.functional.pad(torch.ones(1, 2, 5, dtype=torch.long), (2, 2, 4, 3)), id="two pixels wide"
        ),
    ],
)
def test_identity_where_there_is_nothing_to_swap(target):
    image = torch.rand(1, 3, 9, 9)
    assert torch.equal(boundary_transform(image, target, width=5, fraction=1.0, generator=generator()), image)


def test_lesion_cut_by_the_edge_has_no_boundary_there():
    labels = torch.zeros(10, 10, dtype=torch.long)
    labels[:, :5] = 1
    band, inner = boundary_and_inner(labels == 1, labels == 255, 2)
    assert band[:, 3:5].all()
    assert int(band.sum()) == 20
    assert inner[:, :3].all()


def test_same_generator_same_image_and_one_pixel_images():
    image, target = torch.rand(2, 3, 20, 17), torch.stack([blobs(1), blobs(2)])
    one, two = (
        boundary_transform(image, target, width=2, fraction=0.5, generator=generator(7)) for _ in range(2)
    )
    assert torch.equal(one, two)
    point = torch.rand(1, 3, 1, 1)
    assert torch.equal(boundary_transform(point, torch.ones(1, 1, 1), width=5, fraction=1.0), point)
    assert boundary_transform(image[:0], target[:0], width=2, fraction=0.5).shape == (0, 3, 20, 17)
