"""Tiles as arrays of one size, in an order and with an augmentation that depend on nothing but the seed.

Every random choice is drawn from a hash of (seed, stage, epoch, tile), so that a resumed run sees what the run that was
never stopped would have seen, in whatever order and thread the tiles are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from napari_kdseg.errors import DataError
from napari_kdseg.networks import shares
from napari_kdseg.training.settings import AugmentationConfig
from napari_kdseg.training.tiles.augmentation import augmented, crop
from napari_kdseg.training.tiles.data import IGNORE, TileCollection
from napari_kdseg.training.tiles.pictures import PictureError, read_image, read_mask
from napari_kdseg.training.tiles.sampling import Draw, epoch_order, tile_weights
from napari_kdseg.training.tiles.tile import Tile, stable_hash

Item = TypeVar("Item")

CACHE_BYTES = 2 * 1024**3


class TileDataset(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Tiles of one split as ``uint8 [S, S, C]`` images and ``uint8 [S, S]`` masks.

    Decoded tiles stay in memory until ``cache_bytes`` are used up; those that came later are decoded anew each time
    (with a shuffled order, throwing out the oldest would keep nothing useful).

    Parameters
    ----------
    collection
        Says what the masks mean.
    tiles
        Tiles of the split.
    input_size
        Side ``S``: the shorter side is resized to it, the longer one cropped.
    cache_bytes
        Most memory that decoded tiles may take.
    """

    def __init__(
        self,
        collection: TileCollection,
        tiles: Sequence[Tile],
        input_size: int,
        *,
        cache_bytes: int = CACHE_BYTES,
    ):
        self.collection = collection
        self.tiles = tuple(tiles)
        self.input_size = input_size
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._room = cache_bytes
        self._pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the middle of a tile, as it is."""
        image, mask = self._resized(index)
        return crop(image, mask, self.input_size)

    def example(
        self, index: int, seed: int, settings: AugmentationConfig | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a tile augmented as ``seed`` says and ``settings`` allow."""
        image, mask = self._resized(index)
        return augmented(image, mask, self.input_size, np.random.default_rng(seed), settings)

    def masks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``count`` masks at random, int64 ``[count, S, S]``: those that show two classes, if there are any."""
        drawn: list[Tensor] = []
        for attempt in range(20 * count):
            index = int(torch.randint(len(self), (1,), generator=generator))
            mask = self[index][1]
            labels = np.unique(mask[mask != 255])
            if len(labels) > 1 or attempt >= 19 * count:
                drawn.append(torch.from_numpy(mask.astype(np.int64)))
            if len(drawn) == count:
                break
        return torch.stack(drawn)

    def scales(self) -> list[float] | None:
        """Micrometres per pixel of each tile at the input size; ``None`` if it is not known of all of them."""
        stored = [self.collection.mpp or tile.mpp for tile in self.tiles]
        pairs = zip(self.tiles, stored, strict=True)
        scales = [mpp * min(tile.size) / self.input_size for tile, mpp in pairs if mpp is not None]
        return scales if len(scales) == len(self) > 0 else None

    def presence(self, check: Callable[[], None] = lambda: None) -> np.ndarray:
        """Say which classes each tile shows, bool ``[tiles, C]``; see :meth:`pixels`."""
        return self.pixels(check) > 0

    def pixels(self, check: Callable[[], None] = lambda: None) -> np.ndarray:
        """Count the pixels of each class in each tile, int64 ``[tiles, C]``.

        The masks are read once, as they are stored: what a tile shows must not depend on what is in memory.

        Parameters
        ----------
        check
            Called once a tile: ``control.check`` of a job.
        """
        if self._pixels is None:
            classes = len(self.collection.classes)
            counts = np.zeros((len(self), classes), np.int64)
            for index, tile in enumerate(self.tiles):
                check()
                labels = self._target(tile)
                counts[index] = np.bincount(labels[labels != IGNORE], minlength=classes)
            self._pixels = counts
        return self._pixels

    def _resized(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index in self._cache:
            return self._cache[index]
        tile = self.tiles[index]
        with _usable():
            image = read_image(tile.image, self.collection.channels)
        pair = _resize(image, self._target(tile), self.input_size)
        size = pair[0].nbytes + pair[1].nbytes
        if size <= self._room:
            self._room -= size
            self._cache[index] = pair
        return pair

    def _target(self, tile: Tile) -> np.ndarray:
        with _usable():
            return self.collection.target(tile, read_mask(tile.mask))


@contextmanager
def _usable() -> Iterator[None]:
    """Put failures of a tile's files into words."""
    try:
        yield
    except PictureError as error:
        raise DataError(f"A tile cannot be used: {error}. Replace or remove it.") from error


def _resize(image: np.ndarray, mask: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Bring the shorter side to ``side``: images by area average or bicubic, masks by nearest neighbour."""
    height, width = mask.shape
    factor = side / min(height, width)
    if factor == 1:
        return image, mask
    size = (max(side, round(width * factor)), max(side, round(height * factor)))
    method = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image[..., channel])).resize(size, method))
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=2), np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def train_batches(
    dataset: TileDataset,
    batch_size: int,
    *,
    seed: int,
    stage: str,
    epoch: int,
    start: int = 0,
    augment: bool | AugmentationConfig = True,
    sampling: str = "all",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the shuffled batches of an epoch from number ``start`` on.

    The incomplete batch at the end is left out (batch normalisation suffers from a single tile; the order changes
    every epoch, so nothing is lost for good).

    Parameters
    ----------
    dataset, batch_size
        What is drawn from, and how many tiles a batch has.
    seed, stage, epoch
        What order and augmentation depend on.
    start
        Number of the first batch.
    augment
        Whether, or how.
    sampling
        See :func:`napari_kdseg.training.tiles.sampling.tile_weights`.

    Yields
    ------
    tuple of Tensor
        ``uint8 [N, S, S, C]`` images and int64 ``[N, S, S]`` targets.
    """
    names = [tile.name for tile in dataset.tiles]
    weights = None if sampling == "all" else tile_weights(dataset.presence(), sampling)
    order = epoch_order(names, weights, seed=seed, stage=stage, epoch=epoch)
    settings = augment if isinstance(augment, AugmentationConfig) else None

    def example(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        index, copy = draw
        if not augment:
            return dataset[index]
        again = (copy,) if copy else ()
        return dataset.example(
            index, stable_hash(seed, "augment", stage, epoch, names[index], *again), settings
        )

    size = min(batch_size, len(order))
    chosen = [order[number * size : (number + 1) * size] for number in range(start, len(order) // size)]
    yield from _prefetched(chosen, example)


def batch_count(tiles: int, batch_size: int) -> int:
    """Batches in an epoch of :func:`train_batches`."""
    return tiles // min(batch_size, tiles)


def all_batches(dataset: TileDataset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every tile once, in order, as it is: for validation and test."""
    indices = range(len(dataset))
    chosen = [list(indices[first : first + batch_size]) for first in range(0, len(dataset), batch_size)]
    yield from _prefetched(chosen, dataset.__getitem__)


def _prefetched(
    chosen: Sequence[Sequence[Item]], example: Callable[[Item], tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Collate batches; one thread prepares the next batch while the network works on this one.

    Of several processes each reads its share, and all get the whole.
    """
    ours = shares()

    def collate(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        pairs = [example(item) for item in ours.mine(items)]
        images = torch.from_numpy(np.stack([image for image, _ in pairs]))
        return images, torch.from_numpy(np.stack([mask for _, mask in pairs]).astype(np.int64))

    if not chosen:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="kdseg-tiles") as pool:
        waiting = pool.submit(collate, chosen[0])
        for items, next_items in zip(chosen, [*chosen[1:], None], strict=True):
            images, targets = waiting.result()
            if next_items is not None:
                waiting = pool.submit(collate, next_items)
            yield ours.whole(images, len(items)), ours.whole(targets, len(items))
