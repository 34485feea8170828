"""A finished mask becomes few large files: the same pixels, the same bytes in any order, nothing lost when killed."""

from __future__ import annotations

import os
import shutil
import signal
import threading

import numpy as np
import pytest
import zarr

from napari_kdseg.errors import OutputError
from napari_kdseg.jobs import JobCancelled
from napari_kdseg.masks import MaskSpec, MaskStore, open_masks, plan_tiles
from napari_kdseg.masks.metadata import journal_path, level_paths, read_attributes
from napari_kdseg.masks.writing import packing
from napari_kdseg.masks.writing.journal import read_journal
from napari_kdseg.slides import open_annotation, open_slide

SHAPE, TILE = (300, 450), 32
MASKS = (
    MaskSpec("labels", "student", "class", ("background", "tumour"), ((0, 0, 0), (230, 159, 0))),
    MaskSpec("probabilities", "student", "probability of the predicted class"),
)
ADDRESS = "synthetic:900x600?seed=1&mpp=0.5"


@pytest.fixture
def slide():
    with open_slide(ADDRESS) as slide:
        yield slide


def begin(path, slide, shape=SHAPE, made_by="a", masks=MASKS, **more):
    grid = {"shape": shape, "downsample": (2.0, 2.0), "tile": TILE}
    return MaskStore(path, slide).begin(masks, **grid, made_by={"checkpoint": made_by}, **more)


def values(shape=SHAPE):
    random = np.random.default_rng(5)
    classes = random.integers(0, 2, shape).astype(np.uint8)
    classes[:, 256:] = 255  # nothing there, not even a chunk
    return classes, random.integers(0, 255, shape).astype(np.uint8)


def fill(path, slide, tiles, shape=SHAPE, **finish):
    classes, probabilities = values(shape)
    with begin(path, slide, shape) as writer:
        for tile in tiles:
            cut = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
            writer.write_tile(tile, [classes[cut], probabilities[cut]], {"tumour": int(classes[cut].sum())})
        writer.finish(None, **finish)


def contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()
    }


def pixels(path):
    return {name: [np.asarray(level) for level in mask.levels] for name, mask in open_masks(path).items()}


def assert_same_pixels(one, other):
    assert one.keys() == other.keys()
    for name in one:
        for ours, theirs in zip(one[name], other[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_whole_mask_is_packed_and_a_part_is_not(tmp_path, slide):
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    fill(tmp_path / "a.ome.zarr", slide, tiles, pack=False)
    before = pixels(tmp_path / "a.ome.zarr")
    files = len(contents(tmp_path / "a.ome.zarr"))
    steps = []
    with begin(tmp_path / "a.ome.zarr", slide) as writer:
        assert len(writer.done) == len(tiles)
        writer.finish(None, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(index, len(steps)) for index in range(len(steps))]
    assert_same_pixels(pixels(tmp_path / "a.ome.zarr"), before)
    assert len(contents(tmp_path / "a.ome.zarr")) < files / 4
    group = zarr.open_group(tmp_path / "a.ome.zarr" / "labels" / "student", mode="r")
    assert sorted(group.array_keys()) == ["s0", "s1", "s2", "s3"]
    assert group["s0"].shards == (8 * TILE, 8 * TILE)
    assert group["s0"].chunks == (TILE, TILE)
    assert group["s3"].shards == (2 * TILE, 2 * TILE)
    annotation = open_annotation(tmp_path / "a.ome.zarr" / "labels" / "student", slide)
    np.testing.assert_array_equal(annotation.read_scaled(2.0, 0, 0, *SHAPE), values()[0])

    with begin(tmp_path / "b.ome.zarr", slide) as writer:
        writer.finish((0, 0, 10, 10))
    assert level_paths(read_attributes(tmp_path / "b.ome.zarr" / "labels" / "student"))[0] == "0"


def test_the_bytes_do_not_depend_on_the_order_of_tiles(tmp_path, slide):
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    stores = []
    for seed in range(3):
        stores.append(tmp_path / f"{seed}.ome.zarr")
        np.random.default_rng(seed).shuffle(tiles)
        fill(stores[-1], slide, tiles)
    first = contents(stores[0])
    assert contents(stores[1]) == first
    assert contents(stores[2]) == first


def test_a_packed_mask_is_done_until_it_is_replaced(tmp_path, slide):
    path = tmp_path / "a.ome.zarr"
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    fill(path, slide, tiles)
    before = contents(path)
    with begin(path, slide) as writer:
        assert writer.done[tiles[0].row, tiles[0].column].keys() == {"tumour"}
        assert len(writer.done) == len(tiles)
        assert open_masks(path)["student"].metadata["status"] == "complete"
        with pytest.raises(OutputError, match="takes no more tiles"):
            writer.write_tile(tiles[0], [np.zeros((TILE, TILE), np.uint8)] * 2)
        with pytest.raises(OutputError, match="Another job"):
            begin(path, slide)
        writer.finish(None)
    assert contents(path) == before
    with pytest.raises(OutputError, match="made with another checkpoint"):
        begin(path, slide, made_by="b")
    assert contents(path) == before
    with begin(path, slide, made_by="b", overwrite=True) as writer:
        assert not writer.done
        assert sorted(item.name for item in (path / "labels" / "student").iterdir() if item.is_dir()) == list(
            "0123"
        )
        writer.write_tile(tiles[0], [np.ones((tiles[0].height, tiles[0].width), np.uint8)] * 2)
    assert (pixels(path)["student"][0] == 1).sum() == tiles[0].height * tiles[0].width


def test_a_reader_that_opened_the_mask_before_reads_on(tmp_path, slide):
    """Layers of the window hold levels for hours; meanwhile the mask is packed, replaced, and removed."""
    path = tmp_path / "a.ome.zarr"
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    fill(path, slide, tiles, pack=False)
    opened, expected = open_masks(path), pixels(path)
    wrong, stop = [], threading.Event()

    def read_all_the_time():
        while not stop.is_set():
            for name, mask in opened.items():
                for level, whole in zip(mask.levels, expected[name], strict=True):
                    if not (np.asarray(level[40:300, 20:270]) == whole[40:300, 20:270]).all():
                        wrong.append((name, level))

    reader = threading.Thread(target=read_all_the_time)
    reader.start()
    try:
        with begin(path, slide) as writer:
            writer.finish(None)
    finally:
        stop.set()
        reader.join()
    assert not wrong
    assert_same_pixels(
        {name: [np.asarray(level) for level in mask.levels] for name, mask in opened.items()}, expected
    )

    with begin(path, slide, made_by="b", overwrite=True) as writer:
        assert (np.asarray(opened["student"].levels[0]) == 255).all()
        for tile in tiles:
            writer.write_tile(tile, [np.ones((tile.height, tile.width), np.uint8)] * 2)
        assert (np.asarray(opened["student"].levels[0]) == 1).all()
    with begin(path, slide, (600, 900), made_by="c", overwrite=True) as writer:
        writer.write_tile(tiles[0], [np.ones((TILE, TILE), np.uint8)] * 2)
    assert (np.asarray(opened["student"].levels[0]) == 255).all(), "the pixels of another grid"
    shutil.rmtree(path)
    assert (np.asarray(opened["probabilities/student"].levels[1]) == 255).all()


def test_packing_can_be_stopped(tmp_path, slide):
    path = tmp_path / "a.ome.zarr"
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    fill(path, slide, tiles, pack=False)
    before = contents(path)

    def stop(done, total):
        if done == 1:
            raise JobCancelled

    with pytest.raises(JobCancelled), begin(path, slide) as writer:
        writer.finish(None, progress=stop)
    assert contents(path) == before
    assert open_masks(path)["student"].metadata["status"] == "complete"


def test_a_disk_that_fills_up_while_packing_loses_nothing(tmp_path, slide):
    """A limit on the size of files stands in for a disk that is full: shards are larger than chunks."""
    resource = pytest.importorskip("resource", reason="limits on the size of files are a matter of Unix")
    path = tmp_path / "a.ome.zarr"
    fill(path, slide, plan_tiles(SHAPE, None, TILE, 0), pack=False)
    kept = pixels(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with (
            pytest.raises(OutputError, match=r"complete, but its packed form could not be written"),
            begin(path, slide) as writer,
        ):
            writer.finish(None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((path / "probabilities" / "student").glob("s*"))
    assert_same_pixels(pixels(path), kept)
    with begin(path, slide) as writer:
        writer.finish(None)
    assert_same_pixels(pixels(path), kept)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork are a matter of Unix")
def test_killed_at_any_moment_of_packing_it_is_whole_and_is_packed_the_next_time(tmp_path, slide):
    """The program kills itself at its n-th call that changes the disk, for every seventeenth n."""
    shape = (100, 140)
    made, packed = tmp_path / "made.ome.zarr", tmp_path / "packed.ome.zarr"
    fill(made, slide, plan_tiles(shape, None, TILE, 0), shape, pack=False)
    shutil.copytree(made, packed)
    with begin(packed, slide, shape) as writer:
        writer.finish(None)
    expected, wanted = pixels(made), contents(packed)
    seen = set()
    for moment in range(0, 10_000, 17):
        path = tmp_path / f"{moment}.ome.zarr"
        shutil.copytree(made, path)
        child = os.fork()
        if child == 0:
            _kill_at(moment)
            with begin(path, slide, shape) as writer:
                writer.finish(None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert_same_pixels(pixels(path), expected)
        seen.add(tuple(level_paths(read_attributes(path / mask.group / mask.name))[0] for mask in MASKS))
        assert len(read_journal(journal_path(path / "labels" / "student")).done) == 4 * 5
        with begin(path, slide, shape) as writer:
            assert len(writer.done) == 4 * 5
            writer.finish(None)
        assert contents(path) == wanted
        shutil.rmtree(path)
    assert moment > 50
    assert seen == {("0", "0"), ("s0", "0"), ("s0", "s0")}


def _kill_at(moment):
    calls = iter(range(10_000))
    for name in ("replace", "unlink", "rmdir", "fsync", "mkdir"):
        original = getattr(os, name)

        def call(*given, original=original, **more):
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **more)

        setattr(os, name, call)


def test_shards_are_written_whole_and_one_at_a_time(tmp_path, slide, monkeypatch):
    path = tmp_path / "a.ome.zarr"
    fill(path, slide, plan_tiles(SHAPE, None, TILE, 0), pack=False)
    written = []
    original = zarr.Array.__setitem__

    def remember(array, key, block):
        if array.shards is not None:
            written.append((array.path or str(array.store), key, block.nbytes))
        original(array, key, block)

    monkeypatch.setattr(zarr.Array, "__setitem__", remember)
    with begin(path, slide) as writer:
        writer.finish(None)
    assert max(size for *_, size in written) <= (packing.SHARD_CHUNKS * TILE) ** 2
    places = [(place, tuple((span.start, span.stop) for span in key)) for place, key, _ in written]
    assert len(set(places)) == len(places)
