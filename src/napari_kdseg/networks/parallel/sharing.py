"""One batch, several processes: each runs the networks on its share of the images, all compute the loss of the whole.

Between networks and losses the shares are put together, with their gradients, so that every process has the outputs of
the whole batch. A loss over the batch (a mean over labelled pixels, a Dice, a similarity of images), a queue, a critic
or a random draw is then the very computation of a single process, and nothing in the science knows of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from napari_kdseg.errors import ConfigurationError, KdsegError
from napari_kdseg.networks.parallel.shared_statistics import WholeBatchStatistics

Items = TypeVar("Items", bound=Sequence[Any] | Tensor)


class LostProcessError(KdsegError):
    """Another process of the run ended, or cannot be reached any more."""


class Shares:
    """How batches are divided among the processes of a run, and put together again.

    With one process every method leaves things as they are, so that no caller has to ask.

    Parameters
    ----------
    rank
        Number of this process, from 0.
    count
        How many there are; their process group of ``torch.distributed`` has been set up.
    device
        Where tensors that travel must lie: a GPU for NCCL.
    """

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | str = "cpu"):
        self.rank, self.count, self.device = rank, count, torch.device(device)
        self._dividing: int | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def mine(self, items: Items) -> Items:
        """Return this process's share: consecutive, as large as any other's or one larger; all of too few items."""
        start, end = self._bounds(len(items))[self.rank]
        return items[start:end]  # type: ignore[return-value]

    def whole(self, own: Tensor, length: int) -> Tensor:
        """Put the shares of ``length`` items together; the gradient finds its way back to the share it belongs to.

        It comes back multiplied by the number of processes, so that the mean over them (:meth:`average`) is the
        gradient of the loss. Whatever else goes into a loss has the same whole gradient in each of them, and its mean.
        """
        if not self._divides(length):
            return own
        return _Gather.apply(own, self, length)  # type: ignore[no-any-return]

    def output(self, own: Tensor) -> Tensor:
        """Put together what a network, or a layer of it, makes of the shares; outside of divided networks a no-op."""
        if self._dividing is None:
            return own
        start, end = self._bounds(self._dividing)[self.rank]
        each, rest = divmod(len(own), end - start)
        if rest or not each:
            raise ConfigurationError(
                f"A layer puts out {len(own)} items for {end - start} images, so what the processes of this run "
                "compute cannot be put together. Train on one process, or tap another layer."
            )
        return self.whole(own, self._dividing) if each == 1 else self._whole_by(each, own)

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their mean over the processes."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
            alike = [gradient for gradient in gradients if gradient.dtype == dtype]
            flat = torch.cat([gradient.flatten() for gradient in alike])
            self.add_up(flat).div_(self.count)
            for gradient, part in zip(alike, flat.split([g.numel() for g in alike]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def add_up(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over the processes, the same to the last bit in each, and return it."""
        if self.count > 1:
            with _others_needed():
                dist.all_reduce(tensor)
        return tensor

    def all(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, of one shape; on :attr:`device`, where there are several."""
        if self.count == 1:
            return [tensor]
        # As bytes: not every backend knows every type.
        content = tensor.detach().to(self.device).contiguous()
        flat = content.flatten().view(torch.uint8)
        received = [torch.empty_like(flat) for _ in range(self.count)]
        with _others_needed():
            dist.all_gather(received, flat)
        return [part.view(content.dtype).view(content.shape) for part in received]

    def largest(self, value: int) -> int:
        """Return the largest value that any process gives; all wait for each other here."""
        return max(int(part) for part in self.all(torch.tensor([value])))

    def agree(self, value: int) -> bool:
        """Say whether all processes give the same value."""
        return len({int(part) for part in self.all(torch.tensor([value]))}) == 1

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the values that the first has, in place."""
        if self.count == 1:
            return
        with _others_needed(), torch.no_grad():
            for tensor in tensors:
                content = tensor.detach().to(self.device).contiguous()
                dist.broadcast(content, src=0)
                tensor.copy_(content)

    @contextmanager
    def dividing(self, length: int) -> Iterator[bool]:
        """While a network runs on its share of ``length`` images; says whether it does, or runs on all of them."""
        divides = self._divides(length)
        self._dividing = length if divides else None
        try:
            yield divides
        finally:
            self._dividing = None

    @property
    def busy(self) -> bool:
        """Whether a network is running on its share."""
        return self._dividing is not None

    def ratio(self) -> float:
        """Items of the whole batch for each of this share."""
        assert self._dividing is not None, "no network is running on its share"
        start, end = self._bounds(self._dividing)[self.rank]
        return self._dividing / (end - start)

    def _divides(self, length: int) -> bool:
        return self.count > 1 and length >= self.count

    def _bounds(self, length: int) -> list[tuple[int, int]]:
        """First item of each share, and the one behind its last."""
        if not self._divides(length):
            return [(0, length)] * self.count
        each, more = divmod(length, self.count)
        starts = [rank * each + min(rank, more) for rank in range(self.count + 1)]
        return list(pairwise(starts))

    def _whole_by(self, each: int, own: Tensor) -> Tensor:
        """Put together layers that put out ``each`` items an image (windows, patches)."""
        assert self._dividing is not None
        by_image = own.reshape(len(own) // each, each, *own.shape[1:])
        return self.whole(by_image, self._dividing).flatten(0, 1)


ALONE = Shares()
_current: ContextVar[Shares] = ContextVar("shares", default=ALONE)


def shares() -> Shares:
    """Return how batches are divided here and now; by default this process is alone."""
    return _current.get()


@contextmanager
def among(these: Shares) -> Iterator[Shares]:
    """Divide batches as ``these`` say while the block runs."""
    token = _current.set(these)
    try:
        yield these
    finally:
        _current.reset(token)


@contextmanager
def divided(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Let networks that are called with a batch run on this process's share of it, and return the whole output.

    The networks must treat images one by one, but for batch normalisation, whose statistics in training are those of
    the whole batch. A batch of fewer images than processes is run whole by each. With one process nothing changes.

    Parameters
    ----------
    networks
        ``network(batch [N, ...])`` -> a tensor ``[N, ...]``, or a list or tuple of such; changed while the block runs.
        Layers tapped by :func:`~napari_kdseg.networks.capture` are put together too.
    """
    changed: list[nn.Module] = []
    try:
        for network in networks if shares().count > 1 else ():
            if "forward" not in vars(network):
                network.forward = _divided_forward(network, network.forward, shares())
                changed.append(network)
        yield
    finally:
        for network in changed:
            del network.forward


def _divided_forward(network: nn.Module, forward: Callable[..., Any], ours: Shares) -> Callable[..., Any]:
    def run(batch: Tensor) -> Any:
        if ours.busy:  # a network inside another one that has its share already
            return forward(batch)
        with ours.dividing(len(batch)) as divides:
            if not divides:
                return forward(batch)
            statistics = (
                WholeBatchStatistics(ours.add_up, ours.ratio()) if network.training else nullcontext()
            )
            with statistics:
                own = forward(ours.mine(batch))
            return _each(own, ours.output)

    return run


def _each(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(output, Tensor):
        return function(output)
    return type(output)(_each(part, function) for part in output)


class _Gather(torch.autograd.Function):
    """The shares of all processes, one behind the other."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ours: Shares, length: int) -> Tensor:
        bounds = ours._bounds(length)
        ctx.bounds, ctx.count = bounds[ours.rank], ours.count
        most = max(end - start for start, end in bounds)
        padded = own.to(ours.device)
        if len(own) < most:
            padded = torch.cat([padded, padded.new_zeros(most - len(own), *own.shape[1:])])
        parts = ours.all(padded)
        return torch.cat([part[: end - start] for part, (start, end) in zip(parts, bounds, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        start, end = ctx.bounds
        return gradients[0][start:end] * ctx.count, None, None


@contextmanager
def _others_needed() -> Iterator[None]:
    """Say in plain words that another process is gone, whichever way the backend notices."""
    try:
        yield
    except RuntimeError as error:  # that of gloo and NCCL, DistBackendError and DistNetworkError among them
        raise LostProcessError(
            "Another process of this run has ended or cannot be reached any more, so this one stops too. If that one "
            "says why, mend it; the same command then goes on from the last checkpoint."
        ) from error
