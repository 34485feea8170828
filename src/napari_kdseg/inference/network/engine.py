"""A network on a device: uint8 windows in, classes and their probabilities of the tiles inside out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.masks.settings import Device
from napari_kdseg.networks import NetworkSpec, to_input

Arithmetic = Literal["float32", "bfloat16", "float16"]
Core = tuple[slice, slice]
#: Classes uint8 ``[N, h, w]`` and, where asked for, the probability of each, float32 ``[N, h, w]``.
Classified = tuple[np.ndarray, np.ndarray | None]
WHOLE: Core = (slice(None), slice(None))


def choose_device(device: Device) -> torch.device:
    """Return the device that ``device`` means here.

    Raises
    ------
    ConfigurationError
        If CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigurationError("There is no usable CUDA device here. Choose the device 'cpu' or 'auto'.")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def fast_arithmetic(device: torch.device) -> Arithmetic:
    """Return the fastest arithmetic that the hardware has instructions for."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    has = (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported)
    return "bfloat16" if any(supported() for supported in has) else "float32"


class Engine:
    """Runs one network in inference mode. May be used by several threads.

    Parameters
    ----------
    module
        ``[N, C_in, H, W]`` -> logits ``[N, C, H, W]``; in eval mode, on ``device``, channels last.
    spec
        Says how pixels are normalised.
    device, arithmetic
        Where, and how precisely.
    compiled
        Compile it on first use (CUDA, many tiles of one size).
    name
        Begins the message where it puts out no numbers.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: NetworkSpec,
        device: torch.device,
        arithmetic: Arithmetic = "float32",
        *,
        compiled: bool = False,
        name: str = "The network",
    ):
        self._name = name
        self._type: torch.dtype = getattr(torch, arithmetic)
        if arithmetic != "float32":
            module = copy.deepcopy(module).to(self._type)
        self.module = module
        self._module = torch.compile(module) if compiled else module
        self.spec = spec
        self.device = device
        self.arithmetic = arithmetic

    def layers(self) -> list[nn.Module]:
        """Return the layers that hold no others."""
        return [layer for layer in self.module.modules() if not any(layer.children())]

    def collate(self, windows: Sequence[np.ndarray], size: int | None = None) -> Tensor:
        """Make a batch where the device can fetch it beside its work; called in the thread that reads.

        Parameters
        ----------
        windows
            uint8 ``[H, W, C_in]`` each.
        size
            Of the batch, which the last window fills up: numbers may depend on how many images a network sees at
            once.

        Returns
        -------
        Tensor
            uint8 ``[size, H, W, C_in]``, in pinned memory for a GPU.
        """
        count = max(len(windows), size or 0)
        if count == 1 and self.device.type == "cpu" and windows[0].flags.writeable:
            return torch.from_numpy(windows[0])[None]
        out = torch.empty(
            (count, *windows[0].shape), dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        filled = out.numpy()
        for index in range(count):
            filled[index] = windows[min(index, len(windows) - 1)]
        return out

    def logits(self, batch: Tensor) -> Tensor:
        """Return logits ``[N, C, H, W]`` on the device, in its arithmetic, of windows uint8 ``[N, H, W, C_in]``."""
        with torch.inference_mode():
            return self._module(to_input(batch, self.spec, self.device).to(self._type))

    def probabilities(self, batch: Tensor, core: Core = WHOLE) -> Tensor:
        """Return float32 probabilities ``[N, C, h, w]`` of the core, on the device.

        Raises
        ------
        ConfigurationError
            If they are none; see :meth:`refuse_unless`.
        """
        with torch.inference_mode():
            logits = self.logits(batch)[(..., *core)].float()
            self.refuse_unless(bool(decided(logits).all()))
            return torch.softmax(logits, dim=1)

    def refuse_unless(self, are_numbers: bool) -> None:
        """Refuse logits by which no class is the most likely one: a mask of them would look like any other.

        Raises
        ------
        ConfigurationError
            In plain words.
        """
        if are_numbers:
            return
        if self.arithmetic == "float32":
            why = "The training that made it may have diverged, or it was made for other images: choose another one."
        else:
            why = f"It was run in {self.arithmetic}, which may be too narrow for it: choose the precision float32."
        raise ConfigurationError(
            f"{self._name} puts out NaN or infinite values, from which no class follows, so no mask was written of "
            f"them. {why}"
        )

    def classify(
        self, batch: Tensor, core: Core = WHOLE, *, probability: bool = True, checked: bool = True
    ) -> Callable[[], Classified]:
        """Begin to predict the core of the windows of a batch.

        Parameters
        ----------
        batch
            From :meth:`collate`.
        core
            What of each window is wanted.
        probability
            Whether the probability of the predicted class is wanted, too.
        checked
            Whether logits that are no numbers are refused; where only time is measured they do no harm.

        Returns
        -------
        callable
            Waits for the result where the device works on its own, and returns it or refuses it
            (:meth:`refuse_unless`).
        """
        with torch.inference_mode():
            logits = self.logits(batch)[(..., *core)]
            # Plane by plane, in float32: exact, and compared many times as fast as what is shorter or interleaved.
            planes = [logits[:, index].float().contiguous() for index in range(logits.shape[1])]
            classes, most = _most_likely(planes)
            numbers = torch.isfinite(most).all() if checked else torch.ones((), dtype=torch.bool)
            if not probability:
                return self._to_host(numbers, classes, None)
            total = torch.zeros_like(most)
            for plane in planes:
                total += (plane - most).exp_()
            return self._to_host(numbers, classes, total.reciprocal_())

    def _to_host(self, numbers: Tensor, classes: Tensor, chance: Tensor | None) -> Callable[[], Classified]:
        here = [tensor for tensor in (numbers, classes, chance) if tensor is not None]
        ready = None
        if self.device.type == "cuda":
            here = [_pinned_copy(tensor) for tensor in here]
            ready = torch.cuda.Event()
            ready.record()

        def wait() -> Classified:
            if ready is not None:
                ready.synchronize()
            self.refuse_unless(bool(here[0]))
            return here[1].numpy(), here[2].numpy() if len(here) > 2 else None

        return wait


def decided(logits: Tensor) -> Tensor:
    """Return where the largest of logits ``[N, C, ...]`` is a number, bool ``[N, ...]``; none may be NaN.

    Minus infinity, the logarithm of a probability of 0, is one as long as another class has more.
    """
    return torch.isfinite(logits.amax(dim=1))


def _most_likely(planes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the first class of the largest logit, uint8 ``[N, h, w]``, and that logit, of logits class by class.

    Maxima of numbers take a hundredth of the time of writing where a mask says so.
    """
    most = planes[0]
    classes = torch.zeros(most.shape, dtype=torch.uint8, device=most.device)
    for index, plane in enumerate(planes[1:], start=1):
        classes = torch.maximum(classes, (plane > most).view(torch.uint8).mul_(index))
        most = torch.maximum(most, plane)
    return classes, most


def _pinned_copy(tensor: Tensor) -> Tensor:
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return here.copy_(tensor, non_blocking=True)
