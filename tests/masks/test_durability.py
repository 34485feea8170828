"""What the journal says is on disk is on disk: the order of the system's calls, as a power cut would see it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from napari_kdseg.masks import MaskSpec, MaskStore, plan_tiles
from napari_kdseg.masks.metadata import journal_path
from napari_kdseg.masks.writing.store import pyramid_shapes
from napari_kdseg.slides import open_slide

SHAPE, TILE = (300, 450), 64
MASKS = (
    MaskSpec("labels", "student", "class", ("background", "tumour"), ((0, 0, 0), (230, 159, 0))),
    MaskSpec("probabilities", "student", "probability of the predicted class"),
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are made durable on POSIX only")


class Disk:
    """A disk that forgets, at a power cut, what was not made durable: new content, and new names in folders.

    It follows the calls of the program and lets them do their work.
    """

    def __init__(self, monkeypatch, journal: Path):
        self.journal, self.lines, self.fsyncs = journal, 0, 0
        self.durable: set[int] = set()
        self.content: dict[Path, int] = {}
        self.names: dict[int, set[Path]] = {}
        self.was_unsafe: set[Path] = set()
        self.lines_when_unsafe: list[str] = []
        for name in ("replace", "rename", "fsync", "mkdir"):
            monkeypatch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))

    def is_unsafe(self, path: Path) -> bool:
        """Whether a power cut would lose ``path``."""
        names = set().union(*self.names.values())
        return path in self.content or path in names or any(folder in names for folder in path.parents)

    @property
    def unsafe(self) -> bool:
        """Whether a power cut would lose anything."""
        return bool(self.content) or any(self.names.values())

    def _replace(self, original):
        def replace(source, target, **more):
            original(source, target, **more)
            target = Path(target)
            if _inode(target) not in self.durable:
                self.content[target] = _inode(target)
            self._name(target)

        return replace

    _rename = _replace

    def _mkdir(self, original):
        def mkdir(path, *more, **options):
            original(path, *more, **options)
            self._name(Path(path))

        return mkdir

    def _name(self, path: Path):
        self.names.setdefault(_inode(path.parent), set()).add(path)
        self.was_unsafe.add(path)

    def _fsync(self, original):
        def fsync(descriptor):
            self._check_journal()
            inode = os.fstat(descriptor).st_ino
            original(descriptor)
            self.fsyncs += 1
            self.durable.add(inode)
            self.names.pop(inode, None)
            self.content = {path: other for path, other in self.content.items() if other != inode}

        return fsync

    def _check_journal(self):
        """No line may come into the file, durable or not, while a chunk it speaks of is not safe."""
        lines = self.journal.read_text().splitlines()
        new, known, self.lines = lines[self.lines :], lines, len(lines)
        for line in new:
            if "tile" in line:
                self._check(line, json.loads(line)["tile"], levels=[0])
            else:
                for tile in [json.loads(other)["tile"] for other in known if "tile" in other]:
                    self._check(line, tile, levels=range(len(pyramid_shapes(SHAPE))))

    def _check(self, line, tile, levels):
        row, column = tile
        for mask in MASKS:
            folder = self.journal.parents[3] / mask.group / mask.name
            for level in levels:
                chunk = folder / str(level) / "c" / str(row >> level) / str(column >> level)
                assert chunk.exists()
                if self.is_unsafe(chunk):
                    self.lines_when_unsafe.append(f"{line}: {chunk}")


def _inode(path: Path) -> int:
    return os.stat(path).st_ino


def test_a_line_of_the_journal_follows_the_chunks_it_speaks_of(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    random.shuffle(tiles)
    with open_slide("synthetic:900x600?seed=1&mpp=0.5") as slide:
        store = MaskStore(tmp_path / "a.ome.zarr", slide)
        grid = {"shape": SHAPE, "downsample": (2.0, 2.0), "tile": TILE}
        with store.begin(MASKS, **grid, made_by={}) as writer:
            disk = Disk(monkeypatch, journal_path(store.path / "labels" / "student"))
            for index, tile in enumerate(tiles):
                writer.write_tile(
                    tile, [random.integers(0, 2, (tile.height, tile.width)).astype(np.uint8)] * 2
                )
                assert not disk.unsafe
                if index % 4 == 0:
                    writer.commit()
                    assert not disk.unsafe
            writer.commit()
    assert len(writer.done) == len(tiles)
    assert disk.lines > len(tiles)
    assert disk.fsyncs > 4 * len(tiles)
    assert len(disk.was_unsafe) > 2 * len(tiles), "the test sees what is not safe yet"
    assert not disk.lines_when_unsafe


def test_a_packed_mask_is_durable_before_its_metadata_names_it_and_before_the_old_one_goes(
    tmp_path, monkeypatch
):
    with open_slide("synthetic:900x600?seed=1&mpp=0.5") as slide:
        store = MaskStore(tmp_path / "a.ome.zarr", slide)
        grid = {"shape": SHAPE, "downsample": (2.0, 2.0), "tile": TILE}
        with store.begin(MASKS, **grid, made_by={}) as writer:
            for tile in plan_tiles(SHAPE, None, TILE, 0):
                writer.write_tile(tile, [np.ones((tile.height, tile.width), np.uint8)] * 2)
            writer.finish(None, pack=False)
            folder = store.path / "labels" / "student"
            safe, gone = set(), []
            fsync, replace, unlink = os.fsync, os.replace, os.unlink

            def remember_fsync(descriptor):
                fsync(descriptor)
                safe.add(os.fstat(descriptor).st_ino)

            def check_replace(source, target, **more):
                if Path(target) == folder / "zarr.json" and "s0" in Path(source).read_text():
                    assert not gone
                    new = [item for path in folder.glob("s*") for item in [path, *path.rglob("*")]]
                    assert len(new) > 20
                    assert [item for item in [folder, *new] if _inode(item) not in safe] == []
                    assert _inode(Path(source)) in safe
                    safe.clear()
                replace(source, target, **more)

            def check_unlink(path, **more):
                if str(path).startswith(str(folder / "0")):
                    assert _inode(folder) in safe, "the new metadata must be durable before the old arrays go"
                    gone.append(path)
                unlink(path, **more)

            monkeypatch.setattr(os, "fsync", remember_fsync)
            monkeypatch.setattr(os, "replace", check_replace)
            monkeypatch.setattr(os, "unlink", check_unlink)
            writer.finish(None)
            assert gone


def test_every_level_is_that_of_the_finest_after_every_commit(tmp_path):
    """Tiles come in random order with commits in between: no level is ever behind, the coarsest least of all."""
    from napari_kdseg.masks import open_masks
    from napari_kdseg.masks.reduction import reduce_classes, reduce_probabilities

    random = np.random.default_rng(1)
    tiles = plan_tiles(SHAPE, None, TILE, 0)
    random.shuffle(tiles)
    whole = [np.full(SHAPE, 255, np.uint8) for _ in MASKS]
    with open_slide("synthetic:900x600?seed=1&mpp=0.5") as slide:
        store = MaskStore(tmp_path / "a.ome.zarr", slide)
        grid = {"shape": SHAPE, "downsample": (2.0, 2.0), "tile": TILE}
        with store.begin(MASKS, **grid, made_by={}) as writer:
            masks = open_masks(store.path)
            for tile in tiles:
                blocks = [
                    random.integers(0, top, (tile.height, tile.width)).astype(np.uint8) for top in (4, 255)
                ]
                for mask, block in zip(whole, blocks, strict=True):
                    mask[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = block
                writer.write_tile(tile, blocks)
                if random.random() < 0.4:
                    continue
                writer.commit()
                for name, level, reduce in zip(
                    masks, whole, (reduce_classes, reduce_probabilities), strict=True
                ):
                    for stored in masks[name].levels:
                        np.testing.assert_array_equal(np.asarray(stored), level)
                        level = reduce(level)
