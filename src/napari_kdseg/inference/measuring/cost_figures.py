"""What running a network costs, as figures, and how people read them. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from napari_kdseg.masks.settings import Device
from napari_kdseg.settings import setting

#: Area that seconds are told for where no slide is open, in mm2, and its resolution where a network has none.
STANDARD_MM2 = 100.0
STANDARD_MPP = 0.5


class Cost(BaseModel):
    """What one network costs on this machine.

    Attributes
    ----------
    parameters, multiply_adds
        Of one image of ``side`` x ``side`` pixels; ``None`` where an ONNX file does not tell.
    side
        Of the images, in pixels.
    latency_ms
        From one image to its classes, alone.
    mpx_per_s, images_per_s
        In all threads, with the fastest batch; reading, writing and the context of tiles aside.
    batch_size
        That batch.
    peak_bytes
        Memory of the weights and of tensors at the worst moment of one image.
    arithmetic
        Such as ``"float32"``.
    machine
        What it was measured on.
    mpp
        Micrometres a pixel that the network was trained at.
    """

    model_config = ConfigDict(frozen=True)

    parameters: int | None
    multiply_adds: int | None
    side: int
    latency_ms: float
    mpx_per_s: float
    images_per_s: float
    batch_size: int
    peak_bytes: int
    arithmetic: str
    machine: str
    mpp: float | None = None

    def seconds(self, area_mm2: float, mpp: float | None = None) -> float:
        """Return the seconds that ``area_mm2`` takes at ``mpp``: by default the network's own, else the standard."""
        scale = mpp or self.mpp or STANDARD_MPP
        return area_mm2 * 1e6 / scale**2 / 1e6 / self.mpx_per_s


class Subject(BaseModel):
    """A network to be measured: a checkpoint, or a name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str = setting(
        ..., "Network", "Path of a checkpoint, or a name such as unet/resnet34.", min_length=1
    )
    options: dict[str, Any] = setting({}, "Options", "Of the architecture, for a name.")


class CostConfig(BaseModel):
    """What is measured, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    networks: dict[str, Subject] = setting(
        ..., "Networks", "Each by what it is called in the result.", min_length=1
    )
    measure: Literal["missing", "all", "none"] = setting(
        "missing",
        "Measure",
        "What was not measured here yet, everything anew, or nothing: only what is kept.",
    )
    side: int = setting(
        512, "Side (pixels)", "Side of the images that networks are measured on.", ge=32, le=8192
    )
    channels: int = setting(3, "Channels", "Of images, for networks by name.", ge=1)
    classes: int = setting(2, "Classes", "Of networks by name.", ge=2, le=255)
    device: Device = setting(
        "auto", "Device", "Where networks are measured. 'auto' takes the GPU if there is one."
    )
    threads: int | None = setting(None, "Threads", "That compute, on a CPU. Empty: all.", ge=1)


class CostResult(BaseModel):
    """What was measured, and of each network that could not be the sentence why."""

    costs: dict[str, Cost]
    problems: dict[str, str]


Row = tuple[str, ...]


def table(costs: dict[str, Cost], area_mm2: float | None = None, mpp: float | None = None) -> list[Row]:
    """Lay costs beside each other, as text.

    Parameters
    ----------
    costs
        One or two, by name.
    area_mm2, mpp
        Area that seconds are told for; by default :data:`STANDARD_MM2` at the scale of each network.

    Returns
    -------
    list of tuple
        The head, then a row a figure; of two networks the last cell is the first figure divided by the second.
    """
    shown = list(costs.values())
    side = shown[0].side
    area = STANDARD_MM2 if area_mm2 is None else area_mm2
    figures: list[tuple[str, Callable[[Cost], float | None], Callable[[float], str]]] = [
        ("parameters", lambda cost: cost.parameters, lambda value: f"{value / 1e6:.2f} M"),
        (f"multiply-adds ({side} px)", lambda cost: cost.multiply_adds, lambda value: f"{value / 1e9:.2f} G"),
        (f"latency ({side} px)", lambda cost: cost.latency_ms, lambda value: f"{value:.1f} ms"),
        ("throughput", lambda cost: cost.mpx_per_s, lambda value: f"{value:.2f} Mpx/s"),
        (f"images ({side} px)", lambda cost: cost.images_per_s, lambda value: f"{value:.2f} /s"),
        ("peak memory", lambda cost: cost.peak_bytes, lambda value: f"{value / 1e6:.0f} MB"),
        (f"{area:.3g} mm²", lambda cost: cost.seconds(area, mpp), lambda value: f"{value:.0f} s"),
    ]
    rows: list[Row] = [("", *costs, *(["ratio"] if len(shown) == 2 else []))]
    for name, figure, text in figures:
        values = [figure(cost) for cost in shown]
        cells = ["?" if value is None else text(value) for value in values]
        rows.append((name, *cells, *([_ratio(values)] if len(shown) == 2 else [])))
    return rows


def conditions(costs: Sequence[Cost]) -> str:
    """Say in a sentence how the figures came about."""
    first = costs[0]
    scales = {cost.mpp or STANDARD_MPP for cost in costs}
    at = " and ".join(f"{scale:g}" for scale in sorted(scales))
    return (
        f"Measured on {first.machine} in {' and '.join(sorted({cost.arithmetic for cost in costs}))}; an area at {at} "
        "µm per pixel, without the context of tiles."
    )


def _ratio(values: Sequence[float | None]) -> str:
    first, second = values
    return "?" if not first or not second else f"{first / second:.3g}"
