import contextlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zarr

from napari_kdseg.errors import OutputError, SlideError
from napari_kdseg.masks.disk import InUseError
from napari_kdseg.masks.metadata import journal_path
from napari_kdseg.masks.pyramid import open_masks, sample_nearest
from napari_kdseg.masks.reduction import reduce_classes, reduce_probabilities
from napari_kdseg.masks.tiling import plan_tiles
from napari_kdseg.masks.writing import writer as writer_module
from napari_kdseg.masks.writing.journal import read_journal
from napari_kdseg.masks.writing.slabs import Slab
from napari_kdseg.masks.writing.store import MaskSpec, MaskStore, pyramid_shapes
from napari_kdseg.slides import layer_transform, open_slide

SHAPE, TILE = (300, 450), 64
STUDENT = MaskSpec("labels", "student", "class", ("background", "tumour"), ((0, 0, 0), (230, 159, 0)))
CONFIDENCE = MaskSpec("probabilities", "student", "probability of the predicted class")


@pytest.fixture
def slide():
    with open_slide("synthetic:900x600?seed=1&mpp=0.5") as slide:
        yield slide


@pytest.fixture
def store(tmp_path, slide):
    return MaskStore(tmp_path / "slide.ome.zarr", slide)


def begin(store, masks=(STUDENT, CONFIDENCE), **changes):
    settings = {"shape": SHAPE, "downsample": (2.0, 2.0), "tile": TILE, "made_by": {"checkpoint": "a"}}
    return store.begin(masks, **{**settings, **changes})


def random_masks(seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 2, SHAPE).astype(np.uint8), random.integers(0, 255, SHAPE).astype(np.uint8)


def cut(mask, tile):
    return mask[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]


def write(writer, tiles, masks):
    return [writer.write_tile(tile, [cut(mask, tile) for mask in masks]) for tile in tiles]


def pyramid_of(mask, reduce):
    levels = [mask]
    while max(levels[-1].shape) > 64:
        levels.append(reduce(levels[-1]))
    return levels


def test_all_levels_are_those_of_the_whole_mask_whatever_the_order(store):
    masks = random_masks()
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    np.random.default_rng(3).shuffle(tiles)
    with begin(store) as writer:
        for index, tile in enumerate(tiles):
            write(writer, [tile], masks)
            if index % 5 == 0:
                writer.commit()
        writer.finish(None)
    opened = open_masks(store.path)
    assert set(opened) == {"student", "probabilities/student"}
    for name, mask, reduce in [
        ("student", masks[0], reduce_classes),
        ("probabilities/student", masks[1], reduce_probabilities),
    ]:
        expected = pyramid_of(mask, reduce)
        assert [level.shape for level in opened[name].levels] == pyramid_shapes(SHAPE)
        for level, values in zip(opened[name].levels, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(level), values)
    assert opened["student"].classes == ("background", "tumour")
    assert opened["student"].colours == ((0, 0, 0), (230, 159, 0))
    assert opened["student"].metadata["status"] == "complete"


def test_a_growing_mask_shows_at_every_level_to_a_reader_that_opened_it_before(store):
    masks = random_masks()
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    with begin(store) as writer:
        seen = open_masks(store.path)["student"]
        assert (np.asarray(seen.levels[-1]) == 255).all()
        rectangle = write(writer, tiles[:1], masks)[0]
        tile = tiles[0]
        assert rectangle == (2 * tile.y, 2 * tile.x, 2 * tile.height, 2 * tile.width)
        np.testing.assert_array_equal(cut(np.asarray(seen.levels[0]), tile), cut(masks[0], tile))
        writer.commit()
        coarsest = np.asarray(seen.levels[-1])
        step = 2 ** (len(seen.levels) - 1)
        inside = coarsest[tile.y // step : (tile.y + TILE) // step, tile.x // step : (tile.x + TILE) // step]
        assert (inside != 255).all()
        assert (coarsest != 255).sum() == inside.size


def test_plain_zarr_reads_it_and_the_metadata_is_ome_zarr_05(store, slide):
    with begin(store) as writer:
        write(writer, plan_tiles(SHAPE, None, TILE, 0), random_masks())
        writer.finish(None)
    root = zarr.open_group(store.path, mode="r")
    ome = root.attrs["ome"]
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    assert image["axes"][1] == {"name": "y", "type": "space", "unit": "micrometer"}
    assert root["0"].shape[0] == 3
    assert root["0"].dtype == np.uint8
    assert root["labels"].attrs["ome"]["labels"] == ["student"]

    label = root["labels/student"]
    ome = label.attrs["ome"]
    assert ome["version"] == "0.5"
    assert ome["image-label"]["colors"][1] == {"label-value": 1, "rgba": [230, 159, 0, 255]}
    assert ome["image-label"]["properties"][1] == {"label-value": 1, "class": "tumour"}
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["y", "x"]
    for index, dataset in enumerate(image["datasets"]):
        array = label[dataset["path"]]
        assert array.metadata.zarr_format == 3
        assert array.fill_value == 255
        assert array.chunks == (TILE, TILE)
        assert array.shape == pyramid_shapes(SHAPE)[index]
        scale, translation = dataset["coordinateTransformations"]
        expected = layer_transform(2.0 * 2**index, slide.mpp)
        assert (tuple(scale["scale"]), tuple(translation["translation"])) == expected
        # The centre of the first pixel lies half its width from the corner of the slide, which is at -mpp / 2.
        assert translation["translation"][0] - scale["scale"][0] / 2 == pytest.approx(-0.25)


def test_without_a_pixel_size_the_unit_is_the_pixel(tmp_path):
    with open_slide("synthetic:200x100?seed=1") as slide:
        slide.mpp = None
        store = MaskStore(tmp_path / "slide.ome.zarr", slide)
        with begin(store, [STUDENT], shape=(100, 200), downsample=(1.0, 1.0)):
            pass
    (image,) = zarr.open_group(store.path / "labels" / "student", mode="r").attrs["ome"]["multiscales"]
    assert "unit" not in image["axes"][0]
    assert image["datasets"][1]["coordinateTransformations"][1]["translation"] == [0.5, 0.5]


def test_the_overview_lies_on_the_slide(store, slide):
    overview = zarr.open_group(store.path, mode="r")["0"]
    np.testing.assert_array_equal(np.moveaxis(overview[:], 0, -1), slide.read(0, 0, 0, 600, 900))


def test_the_same_settings_go_on_where_they_stopped(store):
    masks = random_masks()
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    with begin(store) as writer:
        write(writer, tiles[:7], masks)
    with begin(store) as writer:
        assert set(writer.done) == {(tile.row, tile.column) for tile in tiles[:7]}
        write(writer, tiles[7:], masks)
        writer.finish(None)
    for name, mask in zip(["student", "probabilities/student"], masks, strict=True):
        np.testing.assert_array_equal(np.asarray(open_masks(store.path)[name].levels[0]), mask)


def test_a_mask_made_by_something_else_is_kept_unless_replacing_it_is_allowed(store):
    masks = random_masks()
    with begin(store) as writer:
        write(writer, plan_tiles(SHAPE, None, TILE, 0), masks)
    with pytest.raises(OutputError, match="labels/student, made with another checkpoint"):
        begin(store, made_by={"checkpoint": "b"})
    np.testing.assert_array_equal(np.asarray(open_masks(store.path)["student"].levels[0]), masks[0])

    with begin(store, [STUDENT], made_by={"checkpoint": "b"}, overwrite=True) as writer:
        assert not writer.done
    replaced = open_masks(store.path)
    assert set(replaced) == {"student"}, "probabilities of the old network must not stay beside the new mask"
    assert (np.asarray(replaced["student"].levels[0]) == 255).all()
    assert sorted(item.name for item in store.path.iterdir()) == ["0", "labels", "probabilities", "zarr.json"]


def test_a_mask_that_is_being_written_cannot_be_replaced_or_continued(store):
    with begin(store):
        for settings in ({}, {"made_by": {"checkpoint": "b"}, "overwrite": True}):
            with pytest.raises(OutputError, match="Another job is writing"):
                begin(store, **settings)
    begin(store).__exit__(None, None, None)


def test_two_masks_are_written_side_by_side(store):
    teacher = MaskSpec("labels", "teacher", "class", STUDENT.classes, STUDENT.colours)
    with begin(store, [STUDENT]) as first, begin(store, [teacher]) as second:
        for tile in plan_tiles(SHAPE, None, TILE, 0):
            write(first, [tile], random_masks(0)[:1])
            write(second, [tile], random_masks(1)[:1])
    masks = open_masks(store.path)
    assert zarr.open_group(store.path / "labels", mode="r").attrs["ome"]["labels"] == ["student", "teacher"]
    np.testing.assert_array_equal(np.asarray(masks["teacher"].levels[0]), random_masks(1)[0])


def test_another_slide_or_another_folder_is_refused(store, tmp_path):
    with (
        open_slide("synthetic:900x600?seed=2&mpp=0.5") as other,
        pytest.raises(OutputError, match="another slide"),
    ):
        MaskStore(store.path, other)
    empty = tmp_path / "empty.ome.zarr"
    empty.mkdir()
    with open_slide("synthetic:900x600?seed=2&mpp=0.5") as other:
        MaskStore(empty, other)
    assert open_masks(empty) == {}
    folder = tmp_path / "photos.ome.zarr"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"precious")
    with (
        open_slide("synthetic:900x600?seed=2&mpp=0.5") as other,
        pytest.raises(OutputError, match="not a mask store"),
    ):
        MaskStore(folder, other)
    assert (folder / "holiday.jpg").read_bytes() == b"precious"
    with pytest.raises(SlideError, match="not a mask store"):
        open_masks(folder)


def test_a_damaged_mask_is_named(store):
    with begin(store, [STUDENT]):
        pass
    (store.path / "labels" / "student" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(SlideError, match=r"'student'.*damaged"):
        open_masks(store.path)


def test_a_place_that_cannot_be_written_is_explained(tmp_path, slide):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        MaskStore(tmp_path / "file" / "slide.ome.zarr", slide)


def test_a_full_disk_is_explained_and_loses_nothing(store):
    """A limit on the size of files stands in for a disk that is full: both fail in the middle of a write."""
    resource = pytest.importorskip("resource", reason="limits on the size of files are a matter of Unix")
    masks = random_masks()
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    with begin(store) as writer:
        write(writer, tiles[:10], masks)
    kept = {path: path.read_bytes() for path in (store.path / "labels").rglob("c/*/*")}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OutputError, match=r"could not be written.*kept"), begin(store) as writer:  # noqa: PT012
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            write(writer, tiles[10:], masks)
            writer.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old_handler)
    finest = {path: data for path, data in kept.items() if path.parts[-4] == "0"}
    assert finest
    assert all(path.read_bytes() == data for path, data in finest.items())
    assert not list(store.path.rglob("*.partial"))
    with begin(store) as writer:
        assert len(writer.done) == 10
        write(writer, [tile for tile in tiles if (tile.row, tile.column) not in writer.done], masks)
    mask = open_masks(store.path)["student"]
    for level, values in zip(mask.levels, pyramid_of(masks[0], reduce_classes), strict=True):
        np.testing.assert_array_equal(np.asarray(level), values)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is a matter of Unix")
def test_a_killed_program_leaves_a_mask_that_is_completed_to_the_same_values(tmp_path):
    """SIGKILL at any moment: tiles in the journal are whole at every level, the others are computed again."""
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import test_mask_store as t
        from napari_kdseg.slides import open_slide
        with open_slide("synthetic:900x600?seed=1&mpp=0.5") as slide:
            store = t.MaskStore(Path(sys.argv[1]), slide)
            with t.begin(store) as writer:
                tiles = t.plan_tiles(t.SHAPE, None, t.TILE, 0)
                tiles = [tile for tile in tiles if (tile.row, tile.column) not in writer.done]
                for index, tile in enumerate(tiles):
                    t.write(writer, [tile], t.random_masks())
                    if index == 9:
                        writer.commit()
                    if index == 13:
                        os.kill(os.getpid(), signal.SIGKILL)
                writer.finish(None)
        """
    )
    path = tmp_path / "slide.ome.zarr"
    for _ in range(20):
        run = subprocess.run(
            [sys.executable, "-c", program, str(path)], cwd=__file__.rpartition("/")[0], capture_output=True
        )
        if run.returncode != -signal.SIGKILL:
            break
    assert run.returncode == 0, run.stderr.decode()
    mask = open_masks(path)["student"]
    for level, values in zip(mask.levels, pyramid_of(random_masks()[0], reduce_classes), strict=True):
        np.testing.assert_array_equal(np.asarray(level), values)
    journal = read_journal(journal_path(path / "labels" / "student"))
    assert len(journal.done) == len(plan_tiles(SHAPE, None, TILE, 0))


@pytest.mark.parametrize("wanted", [(1.0, 1.0), (2.0, 2.0), (3.3, 2.6), (8.0, 8.0), (7.9, 64.0)])
def test_any_downsample_is_read_by_nearest_neighbour(wanted):
    random = np.random.default_rng(0)
    levels = pyramid_of(random.integers(0, 5, (101, 77)).astype(np.uint8), reduce_classes)
    downsamples = [(2.0 * 2**index, 2.0 * 2**index) for index in range(len(levels))]
    y, x, height, width = -5, 3, 40, 30
    got = sample_nearest(levels, downsamples, wanted, y, x, height, width)
    index = max([i for i, (f, g) in enumerate(downsamples) if f <= wanted[0] and g <= wanted[1]], default=0)
    for row in range(height):
        for column in range(width):
            # The centre of the pixel in level-0 coordinates, then the pixel of the level it falls into.
            centre = ((row + y + 0.5) * wanted[0], (column + x + 0.5) * wanted[1])
            i, j = (int(np.floor(c / f + 1e-6)) for c, f in zip(centre, downsamples[index], strict=True))
            inside = 0 <= i < levels[index].shape[0] and 0 <= j < levels[index].shape[1]
            assert got[row, column] == (levels[index][i, j] if inside else 255)


def test_tiles_whose_coarser_levels_were_lost_are_carried_again(store, monkeypatch):
    masks = random_masks()
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    monkeypatch.setattr(writer_module, "SECONDS_BETWEEN_COMMITS", 1e9)
    writer = begin(store)
    write(writer, tiles[:5], masks)
    writer.commit()
    write(writer, tiles[5:], masks)
    writer.close()  # what a kill leaves: no commit
    coarsest = open_masks(store.path)["student"].levels[-1]
    assert (np.asarray(coarsest) == 255).any()
    with begin(store) as writer:
        assert len(writer.done) == len(tiles)
    for level, values in zip(
        open_masks(store.path)["student"].levels, pyramid_of(masks[0], reduce_classes), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(level), values)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_slabs_are_written_side_by_side_and_taken_over(store, level, monkeypatch):
    masks = random_masks()
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    with begin(store) as writer:  # begun by one program
        write(writer, tiles[:3], masks)
        with pytest.raises(InUseError):
            begin(store, slab=Slab(level, 0, 0))
    slabs = sorted({Slab.around((tile.row, tile.column), level) for tile in tiles})
    with contextlib.ExitStack() as stack:
        writers = {slab: stack.enter_context(begin(store, slab=slab)) for slab in slabs}
        with pytest.raises(InUseError):
            begin(store, slab=slabs[0])
        with pytest.raises(InUseError):
            begin(store)
        for tile in tiles:
            writer = writers[Slab.around((tile.row, tile.column), level)]
            if (tile.row, tile.column) not in writer.done:
                write(writer, [tile], masks)
    killed = begin(store, slab=slabs[-1])  # dies without a commit of the coarser levels
    last = [tile for tile in tiles if slabs[-1].holds((tile.row, tile.column))]
    write(killed, last, masks)
    killed.note_unreadable(0, 3, 4)
    killed.close()
    with begin(store) as writer:
        assert len(writer.done) == len(tiles)
        assert writer.unreadable == 1
        writer.finish(None)
    for name, mask, reduce in [
        ("student", masks[0], reduce_classes),
        ("probabilities/student", masks[1], reduce_probabilities),
    ]:
        opened = open_masks(store.path)[name]
        for found, values in zip(opened.levels, pyramid_of(mask, reduce), strict=True):
            np.testing.assert_array_equal(np.asarray(found), values)
    assert opened.metadata["unreadable_tiles"] == 1
    assert not list(store.path.rglob("*slab*"))
