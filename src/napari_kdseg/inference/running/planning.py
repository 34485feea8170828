"""How one network is run on one slide: decided from the settings, from what was begun, and from what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.measuring.context import Context
from napari_kdseg.inference.measuring.measurements import Measurements
from napari_kdseg.inference.network.engine import Arithmetic, fast_arithmetic
from napari_kdseg.inference.network.loading import LoadedNetwork
from napari_kdseg.inference.tiles.threads import threads_of_a_tile

#: Share of pixels whose class has to be that of float32 for a faster arithmetic to be taken by itself.
AGREEMENT = 0.995


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


def choose_threads(config: PredictConfig, begun: dict[str, Any]) -> int:
    """Return how many threads compute a tile: as a mask was begun, else a share of those there are."""
    return begun.get("threads") or threads_of_a_tile(config.threads or torch.get_num_threads())


def make_plan(
    config: PredictConfig,
    network: LoadedNetwork,
    begun: dict[str, Any],
    threads: int,
    measurements: Measurements,
) -> Plan:
    """Decide how a network is run. Only what the settings and ``begun`` leave open is measured.

    Parameters
    ----------
    config
        The settings.
    network
        Ready to run.
    begun
        What decided the bytes of a mask that is to be continued; empty for a new one.
    threads
        That compute a tile; torch has as many while something is measured.
    measurements
        Of this network on this slide.
    """
    context = _choose_context(config, network, begun, measurements)
    arithmetic, agreement = _choose_arithmetic(config, network, begun, measurements)
    tile = begun.get("tile") if config.tile == "auto" else config.tile
    batch_size = begun.get("batch_size") if config.batch_size == "auto" else config.batch_size
    if tile is not None and batch_size is not None:
        return Plan(tile, batch_size, threads, arithmetic, context, agreement)
    if context.blended and tile is None:
        tile = 8 * context.halo  # what its seams were measured with
    tuned = measurements.tuning(
        network.engine(arithmetic, config.compile),
        None if context.blended else context.halo,
        config.threads,
        threads,
        tile=tile,
        batch_size=batch_size,
    )
    return Plan(tuned.tile, tuned.batch_size, threads, arithmetic, context, agreement, tuned.mpx_per_s)


def _choose_context(
    config: PredictConfig, network: LoadedNetwork, begun: dict[str, Any], measurements: Measurements
) -> Context:
    if isinstance(config.halo, int):
        halo = -(-config.halo // network.multiple) * network.multiple
        return Context(halo=halo, radius=measurements.known_radius())
    if config.halo == "auto" and "halo" in begun:
        halo, blended = begun["halo"], begun["blended"]
        measured = (
            item for item in measurements.known_contexts() if (item.halo, item.blended) == (halo, blended)
        )
        return next(measured, Context(halo=halo, blended=blended, radius=measurements.known_radius()))
    radius = measurements.radius()
    if config.halo == "exact" and radius is not None:
        return Context(halo=radius, radius=radius)
    return measurements.context(None if config.tile == "auto" else config.tile)


def _choose_arithmetic(
    config: PredictConfig, network: LoadedNetwork, begun: dict[str, Any], measurements: Measurements
) -> tuple[Arithmetic, float | None]:
    """Return the arithmetic, and the share of pixels whose class it leaves as it is, where that was compared."""
    wanted: Arithmetic | None = None if config.precision == "auto" else config.precision
    wanted = wanted or begun.get("precision")
    fastest: Arithmetic = "float32" if network.by_onnxruntime else fast_arithmetic(network.device)
    chosen = wanted or fastest
    if chosen == "float32":
        return chosen, None
    agreement = measurements.agreement(chosen)
    if wanted is None and agreement < AGREEMENT:
        measurements.say(
            f"{chosen} would be faster, but gave another class for {1 - agreement:.2%} of the pixels of sample "
            "tiles, so float32 is used."
        )
        return "float32", None
    return chosen, agreement
