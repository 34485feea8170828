"""What a plan has to know of a network on a slide: looked up on the card of the model, or else measured."""

from __future__ import annotations

from collections.abc import Callable

import torch

from napari_kdseg.inference.measuring.card import ModelCard, Reach, read_card
from napari_kdseg.inference.measuring.context import Context, measure_halo, measure_seams
from napari_kdseg.inference.measuring.receptive_field import LIMIT, receptive_field_radius
from napari_kdseg.inference.measuring.samples import Samples
from napari_kdseg.inference.measuring.tuning import Tuning, tune
from napari_kdseg.inference.network.engine import Arithmetic, Engine, decided
from napari_kdseg.inference.network.loading import LoadedNetwork
from napari_kdseg.inference.tiles.blending import blending_halo
from napari_kdseg.inference.tiles.threads import tile_threads
from napari_kdseg.memory import give_back
from napari_kdseg.networks import sees_everything

#: Side of the part of a sample on which two arithmetics are compared.
SAMPLE = 256
#: Tiles that seams are measured with where the tile is not given.
BLENDED_TILE = 512


class Measurements:
    """Measures what is asked for and not known yet. Nothing is written: :attr:`new` is what to keep.

    Parameters
    ----------
    network
        Ready to run.
    samples
        Of the slide.
    say
        Receives a sentence before something is measured that takes a while.

    Attributes
    ----------
    say
        As given.
    new
        A card that holds only what was measured here.
    """

    def __init__(self, network: LoadedNetwork, samples: Samples, say: Callable[[str], None]):
        self._network = network
        self._samples = samples
        self.say = say
        self._known = read_card(network.sha256)
        self.new = ModelCard(sha256=network.sha256)

    def known_radius(self) -> int | None:
        """Return the receptive-field radius if it was measured before, else ``None``."""
        return None if self._known.reach is None else self._known.reach.radius

    def known_contexts(self) -> list[Context]:
        """Return the contexts that were measured before on these samples."""
        return [item for key, item in self._known.contexts.items() if key.startswith(self._samples.key)]

    def radius(self) -> int | None:
        """Return the receptive-field radius; ``None`` for a network that sees the whole image."""
        network = self._network
        if network.facts is not None:
            return network.facts.radius
        if sees_everything(network.module):
            return None
        reach = self._known.reach or self.new.reach
        if reach is None:
            self.say(f"Measuring how far {network.path.name} looks …")
            channels = network.spec.in_channels
            reach = Reach(radius=receptive_field_radius(network.module, channels, network.multiple, LIMIT))
            self.new.reach = reach
            give_back()
        return reach.radius

    def context(self, tile: int | None) -> Context:
        """Return the context that tiles need, of ``tile`` pixels if that is given."""
        radius = self.radius()
        key = self._samples.key if radius is not None else f"{self._samples.key} {tile or 'auto'}"
        found = self._known.contexts.get(key)
        if found is None:
            self.say(f"Measuring how much context tiles need for {self._network.path.name} on this slide …")
            found = self._measure_context(radius, tile or BLENDED_TILE)
            self.new.contexts[key] = found
            give_back()
        return found

    def _measure_context(self, radius: int | None, tile: int) -> Context:
        engine, multiple, samples = self._network.engine("float32"), self._network.multiple, self._samples
        if radius is not None:
            return measure_halo(engine, samples.read, samples.centres, radius, multiple)
        return measure_seams(engine, samples.read, samples.centres, tile, blending_halo(tile, multiple))

    def agreement(self, arithmetic: Arithmetic) -> float:
        """Return the share of pixels of the samples whose class in ``arithmetic`` is that of float32.

        What is NaN or infinite has no class, and is like nothing.
        """
        key = f"{arithmetic} {self._network.device.type} {self._samples.key}"
        found = self._known.agreements.get(key)
        if found is None:
            found = self._compare(self._network.engine("float32"), self._network.engine(arithmetic))
            self.new.agreements[key] = found
            give_back()
        return found

    def _compare(self, exact: Engine, fast: Engine) -> float:
        side = -(-SAMPLE // self._network.multiple) * self._network.multiple
        same = 0.0
        for y, x in self._samples.centres:
            batch = exact.collate(
                [self._samples.read(round(y) - side // 2, round(x) - side // 2, side, side)]
            )
            wanted, got = exact.logits(batch), fast.logits(batch)
            exact.refuse_unless(bool(decided(wanted).all()))
            same += float(((wanted.argmax(1) == got.argmax(1)) & decided(got)).float().mean())
        return same / len(self._samples.centres)

    def tuning(
        self,
        engine: Engine,
        halo: int | None,
        total_threads: int | None,
        threads: int,
        *,
        tile: int | None,
        batch_size: int | None,
    ) -> Tuning:
        """Return the fastest tile and batch.

        Parameters
        ----------
        engine
            As the network will run.
        halo
            Context of tiles; ``None`` where they are blended.
        total_threads, threads
            That compute, by default all, and how many of them a tile.
        tile, batch_size
            Those that are fixed already.
        """
        machine = torch.cuda.get_device_name() if engine.device.type == "cuda" else "cpu"
        key = f"{machine} {engine.arithmetic} {total_threads} {threads} {halo} {tile} {batch_size}"
        found = self._known.tunings.get(key)
        if found is None:
            self.say(f"Finding the fastest tile for {self._network.path.name} …")
            multiple = self._network.multiple
            with tile_threads(total_threads, threads) as (pool, at_once):
                found = tune(engine, halo, multiple, pool, at_once, tile=tile, batch_size=batch_size)
            self.new.tunings[key] = found
        return found
