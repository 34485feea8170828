"""Disks that fill up or fail, folders that cannot be written, two writers: a plain sentence, and nothing good lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest

from napari_kdseg.errors import OutputError
from napari_kdseg.jobs import Control
from napari_kdseg.masks import ExportConfig, MaskSpec, MaskStore, export_masks, open_masks, plan_tiles
from napari_kdseg.masks.metadata import journal_path
from napari_kdseg.slides import open_slide

SHAPE, TILE = (300, 450), 64
MASKS = (
    MaskSpec("labels", "student", "class", ("background", "tumour"), ((0, 0, 0), (230, 159, 0))),
    MaskSpec("probabilities", "student", "probability of the predicted class"),
)
TILES = plan_tiles(SHAPE, None, TILE, 0)


@pytest.fixture
def slide():
    with open_slide("synthetic:900x600?seed=1&mpp=0.5") as slide:
        yield slide


def begin(path, slide, made_by="a", masks=MASKS, **more):
    grid = {"shape": SHAPE, "downsample": (2.0, 2.0), "tile": TILE}
    return MaskStore(path, slide).begin(masks, **grid, made_by={"checkpoint": made_by}, **more)


def write(writer, tiles):
    for tile in tiles:
        random = np.random.default_rng(tile.row * 100 + tile.column)
        writer.write_tile(tile, [random.integers(0, 2, (tile.height, tile.width)).astype(np.uint8)] * 2)


def pixels(path):
    return [np.asarray(level) for mask in open_masks(path).values() for level in mask.levels]


def complete(path, slide):
    """Go on after a fault, and return how many tiles had to be computed again."""
    with begin(path, slide) as writer:
        rest = [tile for tile in TILES if (tile.row, tile.column) not in writer.done]
        write(writer, rest)
        writer.finish(None)
    return len(rest)


@pytest.fixture
def expected(tmp_path, slide):
    complete(tmp_path / "whole.ome.zarr", slide)
    return pixels(tmp_path / "whole.ome.zarr")


@pytest.mark.parametrize("moment", [0, 1, 13, 30, 45, "journal"])
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_once_while_tiles_are_made_durable(
    tmp_path, slide, expected, monkeypatch, fault, moment
):
    """The tiles of that moment are computed again, even though the disk then says that all is well."""
    path = tmp_path / "a.ome.zarr"
    with begin(path, slide) as writer:
        write(writer, TILES[:7])
    calls, fsync = iter(range(10_000)), os.fsync
    journal = os.stat(journal_path(path / "labels" / "student")).st_ino

    def fail_once(descriptor):
        if next(calls) == moment or (moment == "journal" and os.fstat(descriptor).st_ino == journal):
            raise OSError(fault, os.strerror(fault))
        fsync(descriptor)

    with contextlib.suppress(OutputError), begin(path, slide) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail_once)
            with pytest.raises(OutputError, match=r"could not be written.*What was finished before is kept"):
                write(writer, TILES[7:20])
        safe = len(writer.done)
        with pytest.raises(OutputError, match="Start again"):
            writer.commit()
        with pytest.raises(OutputError, match="Start again"):
            writer.finish(None)
    assert open_masks(path)["student"].metadata["status"] == "unfinished"
    # A line of the journal that came to be there does count: all that it speaks of is durable.
    assert complete(path, slide) in (len(TILES) - safe, len(TILES) - safe - 1)
    for ours, whole in zip(pixels(path), expected, strict=True):
        np.testing.assert_array_equal(ours, whole)


@pytest.mark.parametrize("kind", ["geojson", "csv", "tiff"])
def test_a_disk_that_is_full_leaves_no_half_of_an_export(tmp_path, slide, kind):
    resource = pytest.importorskip("resource", reason="limits on the size of files are a matter of Unix")
    complete(tmp_path / "a.ome.zarr", slide)
    config = ExportConfig(stores=(tmp_path / "a.ome.zarr",), output=tmp_path / "out", kinds=(kind,))
    (kept,) = export_masks(config, lambda _event: None, Control())
    before = kept.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        with pytest.raises(OutputError, match="could not be written"):
            export_masks(config.model_copy(update={"overwrite": True}), lambda _event: None, Control())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(kept.parent.iterdir()) == [kept]
    assert kept.read_bytes() == before


@pytest.fixture
def somebody():
    """A folder, and a context in which this process may not write what is not writable (root always may)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)

    @contextlib.contextmanager
    def powerless():
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)

    yield folder, powerless
    for item in [folder, *folder.rglob("*")]:
        item.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="modes of folders are a matter of POSIX")
def test_a_folder_that_cannot_be_written(slide, somebody):
    folder, powerless = somebody
    store = folder / "a.ome.zarr"
    with begin(store, slide) as writer:
        write(writer, TILES[:3])
    for item in [folder, *folder.rglob("*")]:
        item.chmod(0o555 if item.is_dir() else 0o444)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    refused = "could not be written.*This place cannot be written to"
    with powerless():
        with pytest.raises(OutputError, match=refused):
            MaskStore(folder / "new.ome.zarr", slide)
        for settings in ({}, {"made_by": "b", "overwrite": True}):
            with pytest.raises(OutputError, match=refused):
                begin(store, slide, **settings)
        assert (pixels(store)[0] != 255).any(), "it can still be looked at"
        config = ExportConfig(stores=(store,), output=folder / "out")
        with pytest.raises(OutputError, match=refused):
            export_masks(config, lambda _event: None, Control())
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a matter of Unix")
def test_another_program_on_the_same_output(tmp_path, slide, expected):
    """It is refused, also for one mask of several, and what the first one writes is not touched."""
    path = tmp_path / "a.ome.zarr"
    with begin(path, slide) as writer:
        write(writer, TILES[:10])
        for settings in (
            {},
            {"made_by": "b", "overwrite": True},
            {"masks": MASKS[1:], "overwrite": True},
            {"masks": MASKS[:1], "overwrite": True},
        ):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    begin(path, slide, **settings)
                except OutputError as error:
                    code = 0 if "Another job is writing this mask" in str(error) else 2
                os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
        write(writer, TILES[10:])
        writer.finish(None)
    for ours, whole in zip(pixels(path), expected, strict=True):
        np.testing.assert_array_equal(ours, whole)
    assert complete(path, slide) == 0
