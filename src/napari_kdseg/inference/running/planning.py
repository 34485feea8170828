"""How one network is run on one slide: settled once, from what was asked, what was begun, and what is measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.measuring.card import ModelCard, Reach, note, read_card
from napari_kdseg.inference.measuring.context import Context, measure_halo, measure_seams
from napari_kdseg.inference.measuring.receptive_field import LIMIT, receptive_field_radius
from napari_kdseg.inference.measuring.samples import sample_centres
from napari_kdseg.inference.measuring.tuning import Tuning, tune
from napari_kdseg.inference.network.engine import Arithmetic, Engine, fast_arithmetic
from napari_kdseg.inference.network.loading import LoadedNetwork
from napari_kdseg.inference.tiles.blending import blending_halo
from napari_kdseg.inference.tiles.threads import threads_of_a_tile, tile_threads
from napari_kdseg.memory import give_back
from napari_kdseg.networks import sees_everything
from napari_kdseg.slides import Slide, TissueMask

#: Share of pixels whose class has to be that of float32 for a faster arithmetic to be taken without being asked for.
AGREEMENT = 0.995
SAMPLE = 256


@dataclass(frozen=True)
class Plan:
    """Everything about running a network that decides the bytes of its mask, and what was measured to settle it.

    Attributes
    ----------
    tile, batch_size, arithmetic
        As :class:`~napari_kdseg.inference.config.PredictConfig` has them, none left open.
    threads
        That compute one tile. Others compute other tiles meanwhile, which changes nothing.
    context
        Halo, or blending.
    agreement
        Share of pixels of sample tiles whose class is that of float32; ``None`` where that was not compared.
    mpx_per_s
        Millions of result pixels a second that were seen when the tile was chosen; ``None`` if it was given.
    """

    tile: int
    batch_size: int
    threads: int
    arithmetic: Arithmetic
    context: Context
    agreement: float | None = None
    mpx_per_s: float | None = None

    def describe(self) -> str:
        """Say in a sentence or two what the result differs by from the whole image in float32."""
        if self.agreement is None:
            return self.context.describe()
        same = f"{self.arithmetic} gives the class of float32 for {self.agreement:.2%} of pixels."
        return f"{self.context.describe()} {same}"

    def record(self) -> dict[str, Any]:
        """Return what decides the bytes."""
        return {
            "tile": self.tile,
            "halo": self.context.halo,
            "blended": self.context.blended,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "precision": self.arithmetic,
        }

    def measured(self) -> dict[str, Any]:
        """Return what was measured, to be kept with the mask."""
        return {"context": self.context.model_dump(), "agreement_with_float32": self.agreement}


class Planner:
    """Settles plans for networks on one slide; measures what nobody knows yet, and keeps that in the model's card.

    Parameters
    ----------
    config
        What a person asked for.
    slide
        In the colours that networks see.
    downsample
        ``(y, x)`` of the mask.
    tissue
        Where samples are taken from.
    say
        Receives a sentence while something is measured.
    """

    def __init__(
        self,
        config: PredictConfig,
        slide: Slide,
        downsample: tuple[float, float],
        tissue: TissueMask | None,
        say: Callable[[str], None],
    ):
        self._config = config
        self._slide = slide
        self._downsample = downsample
        self._say = say
        centres = sample_centres(slide.shape, tissue)
        self._centres = [(y / downsample[0], x / downsample[1]) for y, x in centres]
        self._place = f"{slide.identity()} {downsample[0]:.6g} {downsample[1]:.6g} {config.colours}"

    def plan(self, network: LoadedNetwork, begun: dict[str, Any] | None) -> Plan:
        """Settle how ``network`` is run.

        Parameters
        ----------
        network
            Ready to run.
        begun
            What decided the bytes of a mask that is to be continued; ``None`` for a new one.
        """
        card, begun = read_card(network.sha256), begun or {}
        asked = self._config
        threads = begun.get("threads") or threads_of_a_tile(asked.threads or torch.get_num_threads())
        torch.set_num_threads(threads)
        context = self._context(network, card, begun)
        arithmetic, agreement = self._arithmetic(network, card, begun)
        tile = begun.get("tile") if asked.tile == "auto" else asked.tile
        batch_size = begun.get("batch_size") if asked.batch_size == "auto" else asked.batch_size
        if tile is not None and batch_size is not None:
            return Plan(tile, batch_size, threads, arithmetic, context, agreement)
        tuned = self._tune(network, card, context, arithmetic, threads, tile, batch_size)
        return Plan(tuned.tile, tuned.batch_size, threads, arithmetic, context, agreement, tuned.mpx_per_s)

    def _context(self, network: LoadedNetwork, card: ModelCard, begun: dict[str, Any]) -> Context:
        asked = self._config.halo
        if isinstance(asked, int):
            return Context(halo=-(-asked // network.multiple) * network.multiple, radius=_known_radius(card))
        if asked == "auto" and "halo" in begun:
            known = [item for key, item in card.contexts.items() if key.startswith(self._place)]
            begun_with = Context(halo=begun["halo"], blended=begun["blended"], radius=_known_radius(card))
            return next((item for item in known if _same(item, begun_with)), begun_with)
        radius = self._radius(network, card)
        if asked == "exact" and radius is not None:
            return Context(halo=radius, radius=radius)
        key = self._place if radius is not None else f"{self._place} {self._config.tile}"
        if key not in card.contexts:
            self._say(f"Measuring how much context tiles need for {network.path.name} on this slide …")
            card.contexts[key] = self._measure_context(network, radius)
            note(network.sha256, "contexts", card.contexts[key], key)
            give_back()
        return card.contexts[key]

    def _radius(self, network: LoadedNetwork, card: ModelCard) -> int | None:
        if network.facts is not None:
            return network.facts.radius
        if sees_everything(network.module):
            return None
        if card.reach is None:
            self._say(f"Measuring how far {network.path.name} looks …")
            radius = receptive_field_radius(network.module, network.spec.in_channels, network.multiple, LIMIT)
            card.reach = Reach(radius=radius)
            note(network.sha256, "reach", card.reach)
            give_back()
        return card.reach.radius

    def _measure_context(self, network: LoadedNetwork, radius: int | None) -> Context:
        engine = network.engine("float32")
        if radius is not None:
            return measure_halo(engine, self._read, self._centres, radius, network.multiple)
        tile = 512 if self._config.tile == "auto" else self._config.tile
        return measure_seams(engine, self._read, self._centres, tile, blending_halo(tile, network.multiple))

    def _arithmetic(
        self, network: LoadedNetwork, card: ModelCard, begun: dict[str, Any]
    ) -> tuple[Arithmetic, float | None]:
        asked = None if self._config.precision == "auto" else self._config.precision
        fastest: Arithmetic = "float32" if network.by_onnxruntime else fast_arithmetic(network.device)
        chosen: Arithmetic = asked or begun.get("precision") or fastest
        if chosen == "float32":
            return chosen, None
        key = f"{chosen} {network.device.type} {self._place}"
        agreement = card.agreements.get(key)
        if agreement is None:
            agreement = self._agreement(network.engine("float32"), network.engine(chosen), network.multiple)
            note(network.sha256, "agreements", agreement, key)
            give_back()
        if asked is None and "precision" not in begun and agreement < AGREEMENT:
            self._say(
                f"{chosen} would be faster, but gave another class for {1 - agreement:.2%} of the pixels of sample "
                "tiles, so float32 is used."
            )
            return "float32", None
        return chosen, agreement

    def _agreement(self, exact: Engine, fast: Engine, multiple: int) -> float:
        side = -(-SAMPLE // multiple) * multiple
        same = 0.0
        for y, x in self._centres:
            batch = exact.collate([self._read(round(y) - side // 2, round(x) - side // 2, side, side)])
            same += float((exact.logits(batch).argmax(1) == fast.logits(batch).argmax(1)).float().mean())
        return same / len(self._centres)

    def _tune(
        self,
        network: LoadedNetwork,
        card: ModelCard,
        context: Context,
        arithmetic: Arithmetic,
        threads: int,
        tile: int | None,
        batch_size: int | None,
    ) -> Tuning:
        halo = None if context.blended else context.halo
        if context.blended and tile is None:
            tile = 8 * context.halo  # what its seams were measured with
        machine = torch.cuda.get_device_name() if network.device.type == "cuda" else "cpu"
        key = f"{machine} {arithmetic} {self._config.threads} {threads} {halo} {tile} {batch_size}"
        found = card.tunings.get(key)
        if found is None:
            self._say(f"Finding the fastest tile for {network.path.name} …")
            engine = network.engine(arithmetic, self._config.compile)
            with tile_threads(self._config.threads, threads) as (pool, at_once):
                found = tune(engine, halo, network.multiple, pool, at_once, tile=tile, batch_size=batch_size)
            note(network.sha256, "tunings", found, key)
        return found

    def _read(self, y: int, x: int, height: int, width: int) -> Any:
        return self._slide.read_scaled(self._downsample, y, x, height, width)


def _same(one: Context, other: Context) -> bool:
    return (one.halo, one.blended) == (other.halo, other.blended)


def _known_radius(card: ModelCard) -> int | None:
    return None if card.reach is None else card.reach.radius
