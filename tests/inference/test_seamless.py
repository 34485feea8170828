"""Tiles give what the whole image gives, in any order; what is approximate is measured and said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.inference.measuring.context import HALOS, MARGIN, measure_halo
from napari_kdseg.inference.measuring.receptive_field import receptive_field_radius
from napari_kdseg.inference.network.engine import Engine
from napari_kdseg.inference.network.fusing import fused
from napari_kdseg.inference.network.processor import for_processor
from napari_kdseg.inference.tiles.blending import Blender, blending_halo, gaussian_weights
from napari_kdseg.inference.tiles.lanes import BlendingLane, CroppingLane
from napari_kdseg.inference.tiles.tile_queue import TileQueue
from napari_kdseg.jobs import Control, Failed, Step, run_job
from napari_kdseg.masks import open_masks, plan_tiles
from napari_kdseg.networks import NetworkSpec, create, input_multiple
from napari_kdseg.slides import open_slide

SLIDE = "synthetic:700x500?seed=1&mpp=0.5"
CONVOLUTIONAL = (
    "enet",
    "unet/resnet18",
    "unet/resnet34",
    "unet/mobilenet_v2",
    "linknet/resnet18",
    "unetplusplus/resnet18",
)
CPU = torch.device("cpu")


def network(name: str, classes: int = 3) -> tuple[Engine, torch.nn.Module]:
    """An untrained network whose normalisations have seen images, so that it tells places apart; and with gradients."""
    torch.manual_seed(0)
    module = create(name, 3, classes).train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(2, 3, 128, 128))
    spec = NetworkSpec(architecture=name, classes=tuple("abcdefg"[:classes]))
    image = torch.randn(1, 3, 128, 128)
    module = fused(module.eval().requires_grad_(False), image).to(memory_format=torch.channels_last)
    return Engine(for_processor(module, image), spec, CPU), module


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_exact_halo_gives_what_the_whole_image_gives(name):
    (engine, module), multiple = network(name), input_multiple(name)
    radius = receptive_field_radius(module, 3, multiple, limit=640)
    random = np.random.default_rng(len(name))
    factor = float(random.choice([1, 2]))
    tile = multiple * int(random.integers(2, 5))
    with open_slide("synthetic:330x270?seed=1&mpp=0.5") as slide:
        shape = (int(270 / factor), int(330 / factor))
        margin = -(-radius // multiple) * multiple
        sides = [-(-side // multiple) * multiple + 2 * margin for side in shape]
        whole = slide.read_scaled(factor, -margin, -margin, *sides)
        expected = engine.probabilities(engine.collate([whole]))[0, :, margin:, margin:].numpy()
        tiles = plan_tiles(shape, None, tile, radius, multiple)
        ties = 0
        for index in random.choice(len(tiles), 2, replace=False):
            chosen = tiles[index]
            lane = CroppingLane(
                name, engine, TileQueue([chosen], (factor, factor)), lambda tile: False, 1, probability=True
            )
            work = lane.next_work()
            batch = engine.collate([slide.read_scaled(factor, *work.windows[0].window)])
            ((_, classes, probability),) = lane.submit(work, batch)()
            area = (slice(chosen.y, chosen.y + chosen.height), slice(chosen.x, chosen.x + chosen.width))
            part = expected[(slice(None), *area)]
            np.testing.assert_allclose(probability, part.max(0), atol=1e-5, equal_nan=False)
            least, most = np.partition(part, -2, axis=0)[-2:]
            differ = classes != part.argmax(0)
            ties += int(differ.sum())
            assert not (differ & (most - least > 1e-4)).any()
    print(f"{name}: tile {tile}, downsample {factor:g}, radius {radius}: {ties} ties decided otherwise")


@pytest.mark.numeric
def test_normalisations_are_folded_in_only_where_nothing_changes():
    class Shared(torch.nn.Module):
        """The convolution's output is used beside its normalisation."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.BatchNorm2d(3)
            self.norm.running_mean.fill_(1.0)

        def forward(self, image):
            out = self.conv(image)
            return out + self.norm(out)

    module, image = Shared().eval(), torch.randn(1, 3, 16, 16)
    assert fused(module, image) is module
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    plain[1].running_mean.normal_()
    plain[1].running_var.uniform_(0.5, 2)
    folded = fused(plain, image)
    assert not [part for part in folded.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    torch.testing.assert_close(folded(image), plain(image), atol=1e-5, rtol=1e-5)


@pytest.mark.numeric
@pytest.mark.parametrize(
    "activation",
    [
        torch.nn.ReLU(),
        torch.nn.ReLU6(),
        torch.nn.PReLU(),
        torch.nn.LeakyReLU(0.2),
        torch.nn.PReLU(8),
        torch.nn.SiLU(),
    ],
    ids=str,
)
def test_activations_and_narrow_convolutions_by_onednn_give_the_same(activation):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=2, dilation=2),
        activation,
        torch.nn.Conv2d(8, 8, 1, stride=2, groups=2, bias=False),
        torch.nn.Conv2d(8, 4, 3, padding="same"),
        torch.nn.ReLU(),
    ).eval()
    image = 10 * torch.randn(2, 3, 33, 32)
    changed = for_processor(plain, image)
    kinds = [type(part).__name__ for part in changed]
    merged = "Identity" in kinds
    assert merged == (
        not isinstance(activation, torch.nn.SiLU) and sum(p.numel() for p in activation.parameters()) < 2
    )
    assert kinds[2:] == ["Convolution", "Conv2d", "ReLU"]
    assert changed[3].weight is plain[3].weight
    with torch.inference_mode():
        torch.testing.assert_close(changed(image), plain(image), atol=1e-4, rtol=1e-5)


@pytest.mark.numeric
def test_an_activation_that_serves_twice_stays():
    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.ReLU()

        def forward(self, x):
            return self.relu(x + self.relu(self.conv(x)))

    plain, image = Residual().eval(), torch.randn(1, 4, 16, 16)
    changed = for_processor(plain, image)
    assert type(changed.conv) is torch.nn.Conv2d
    with torch.inference_mode():
        torch.testing.assert_close(changed(image), plain(image))


@pytest.mark.numeric
@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1), (5, 3, 2)])
@pytest.mark.parametrize("side", [32, 35])
def test_narrow_images_are_pooled_the_same(window, stride, padding, side):
    plain = torch.nn.MaxPool2d(window, stride, padding)
    image = torch.randn(2, 3, side, side + 1).contiguous(memory_format=torch.channels_last)
    (changed,) = for_processor(torch.nn.Sequential(plain), image)
    assert type(changed).__name__ == "MaxPool"
    assert torch.equal(changed(image), plain(image))


def test_the_default_halo_is_the_smallest_that_gives_the_same_classes():
    engine, module = network("enet", 2)
    radius = receptive_field_radius(module, 3, 8)
    with open_slide("synthetic:3000x2000?seed=1&mpp=0.5") as slide:

        def read(y, x, height, width):
            return slide.read(0, y, x, height, width)

        centre = (1000.0, 1500.0)
        found = measure_halo(engine, read, [centre], radius, 8)
        assert found.samples == 1
        assert found.halo < radius

        def classes(halo):
            y, x = (round((place - 128) / 8) * 8 for place in centre)
            window = read(y - halo, x - halo, 256 + 2 * halo, 256 + 2 * halo)
            inside = slice(halo, halo + 256)
            return engine.probabilities(engine.collate([window]), (inside, inside))[0].numpy()

        exact = classes(radius)
        decided = np.abs(exact[0] - exact[1]) > MARGIN
        for halo in [halo for halo in HALOS if halo <= found.halo]:
            got = classes(halo)
            same = (got.argmax(0) == exact.argmax(0))[decided].all()
            assert same == (halo == found.halo)
        assert found.error == pytest.approx(np.abs(classes(found.halo) - exact).max(), abs=1e-6)


@pytest.mark.numeric
def test_blending_is_the_weighted_mean_of_all_windows():
    """Against a canvas on which every window is added up, as MONAI does it."""
    shape, tile, halo = (150, 170), 64, 16
    side = tile + 2 * halo
    tiles = plan_tiles(shape, None, tile, halo, 16)
    random = np.random.default_rng(0)
    windows = {(t.row, t.column): random.random((2, side, side), dtype=np.float32) for t in tiles}
    canvas, total = np.zeros((2, 400, 400)), np.zeros((400, 400))
    for t in tiles:
        at = (
            slice(100 + t.window[0], 100 + t.window[0] + side),
            slice(100 + t.window[1], 100 + t.window[1] + side),
        )
        canvas[(slice(None), *at)] += windows[t.row, t.column] * gaussian_weights(side)
        total[at] += gaussian_weights(side)
    expected = (canvas / np.where(total > 0, total, 1))[:, 100:250, 100:270]
    blender = Blender(tiles, side, CPU)
    for t in tiles:
        blender.keep(t, torch.from_numpy(windows[t.row, t.column]))
    for t in tiles:
        assert not blender.missing(t)
        part = expected[:, t.y : t.y + t.height, t.x : t.x + t.width]
        np.testing.assert_allclose(blender.blend(t).numpy(), part, atol=1e-3, equal_nan=False)


@pytest.mark.parametrize("kept", [12, 1000])
def test_windows_that_made_room_are_predicted_again(monkeypatch, kept):
    """With room for a dozen windows only, the result is the same, and all tiles come."""
    (engine, _), tile = network("enet", 2), 32
    halo = blending_halo(tile, 8)
    tiles = plan_tiles((300, 300), None, tile, halo, 8)
    side = tile + 2 * halo
    monkeypatch.setattr("napari_kdseg.inference.tiles.blending.WINDOW_BYTES", kept * 2 * side * side * 2)
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    lane = BlendingLane(
        "a", engine, TileQueue(tiles, (1, 1), block=4), lambda tile: False, 2,
        probability=False, blender=Blender(tiles, side, CPU),
    )  # fmt: skip
    got = np.full((300, 300), 255, np.uint8)
    while (work := lane.next_work()) is not None:
        windows = [image[50 + t.window[0] :, 50 + t.window[1] :][:side, :side] for t in work.windows]
        batch = engine.collate(windows, 2) if windows else None
        for done, classes, _ in lane.submit(work, batch)():
            assert (got[done.y : done.y + done.height, done.x : done.x + done.width] == 255).all()
            got[done.y : done.y + done.height, done.x : done.x + done.width] = classes
    assert (got != 255).all()
    assert lane.share == 1
    reference = test_windows_that_made_room_are_predicted_again.__dict__.setdefault("result", got)
    np.testing.assert_array_equal(got, reference)


def chunks(path) -> dict[str, bytes]:
    return {
        str(item.relative_to(path)): item.read_bytes()
        for item in sorted(path.rglob("c/*/*"))
        if item.is_file()
    }


@pytest.mark.parametrize("architecture", ["enet", "segformer/mit_b0"])
def test_any_order_of_tiles_gives_the_same_bytes(tmp_path, make_network, architecture):
    checkpoint = make_network(tmp_path / "net.safetensors", seed=0, mpp=0.5, architecture=architecture)
    blended = architecture != "enet"
    stores = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        config = PredictConfig(
            slide=SLIDE, networks={"student": checkpoint}, output=tmp_path / f"{seed}.ome.zarr", tile=128,
            halo="auto" if blended else 32, batch_size=2, precision="float32", probabilities=True,
        )  # fmt: skip
        control = Control()

        def wander(event, control=control, random=random):
            if isinstance(event, Step):
                y, x = random.uniform(0, 500), random.uniform(0, 700)
                control.look_at((y, x, 60.0, 60.0))

        if seed:
            wander(Step("", 0, 0))
        end = run_job(predict, config, wander if seed else lambda event: None, control)
        assert not isinstance(end, Failed), end.details
        assert open_masks(config.output)["student"].metadata["made_by"]["blended"] == blended
        if blended:
            assert 0 < open_masks(config.output)["student"].metadata["context"]["error"] < 1
        stores.append(chunks(config.output))
    assert stores[0] == stores[1]


def test_what_is_on_screen_comes_first_then_what_was_drawn():
    tiles = plan_tiles((1000, 1000), None, 100, 0)
    queue = TileQueue(tiles, (2.0, 2.0), first=[(1800, 1800, 150, 150)])
    assert (queue._tiles[0].row, queue._tiles[0].column) in {(4, 4), (4, 5), (5, 4), (5, 5)}
    assert queue.pop().y == 900
    queue.look_at((0.0, 0.0, 390.0, 190.0))
    seen = [queue.pop() for _ in range(3)]
    assert {(tile.row, tile.column) for tile in seen[:2]} == {(0, 0), (1, 0)}
    assert (seen[2].row, seen[2].column) != (9, 9)
    queue.look_at((1900.0, 0.0, 50.0, 50.0))
    assert (queue.pop().row, len(queue)) == (9, 95)
    order = [queue.pop() for _ in range(95)]
    distances = [np.hypot(tile.y * 2 + 100 - 1925, tile.x * 2 + 100 - 25) for tile in order]
    assert distances == sorted(distances)
    assert not len(queue)
