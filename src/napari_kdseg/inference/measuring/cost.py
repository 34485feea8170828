"""What a network costs here: latency, throughput, memory. Measured once for each network and machine, and kept."""

from __future__ import annotations

import hashlib
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from napari_kdseg.errors import KdsegError
from napari_kdseg.inference.measuring.card import ModelCard, keep_measurements, read_card
from napari_kdseg.inference.measuring.cost_figures import Cost, CostConfig, CostResult, Subject
from napari_kdseg.inference.measuring.tuning import bytes_per_pixel, tune
from napari_kdseg.inference.network.engine import Engine, choose_device, fast_arithmetic
from napari_kdseg.inference.network.header import build_blank
from napari_kdseg.inference.network.loading import ready_to_run
from napari_kdseg.inference.provenance import file_sha256
from napari_kdseg.inference.tiles.threads import threads_of_a_tile, tile_threads, tiles_at_once
from napari_kdseg.jobs import Control, Emit, Message, Started, Step
from napari_kdseg.networks import (
    NetworkSpec,
    count_parameters,
    input_multiple,
    inspect,
    load,
)
from napari_kdseg.networks.anatomy.cost import multiply_adds, peak_bytes
from napari_kdseg.networks.checkpoints.formats import Format, is_checkpoint, resolve, sniff
from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork

#: Runs of one image, of which the fastest counts; fewer where they take longer than this together.
RUNS, LONGEST_S = 5, 2.0


def measure_costs(config: CostConfig, emit: Emit, control: Control) -> CostResult:
    """Measure networks (a job).

    Parameters
    ----------
    config
        Which.
    emit
        A ``Message`` before and a ``Step`` after each.
    control
        Looked at between the measurements.

    Returns
    -------
    CostResult
        A network that cannot be measured does not stop the others.
    """
    emit(Started("cost", len(config.networks)))
    costs: dict[str, Cost] = {}
    problems: dict[str, str] = {}
    before = torch.get_num_threads()
    try:
        for done, (name, network) in enumerate(config.networks.items(), start=1):
            control.check()
            try:
                costs[name] = _cost(network, config, emit, control)
            except KdsegError as error:
                problems[name] = str(error)
            emit(Step("cost", done, len(config.networks)))
    finally:
        torch.set_num_threads(before)
    return CostResult(costs=costs, problems=problems)


def _cost(network: Subject, config: CostConfig, emit: Emit, control: Control) -> Cost:
    """Look a network up, or measure it."""
    path = Path(network.network).expanduser()
    is_file = path.exists() or is_checkpoint(path)
    spec, identity = _identify(network, path if is_file else None, config)
    device = choose_device(config.device)
    multiple = input_multiple(spec)
    side = -(-config.side // multiple) * multiple
    machine, key = _machine(device, config), f"{side} {_machine(device, config)} torch {torch.__version__}"
    found = None if config.measure == "all" else read_card(identity).costs.get(key)
    if found is None and config.measure == "none":
        raise KdsegError(f"{network.network} was not measured on {machine} yet.")
    if found is None:
        emit(Message(f"Measuring {network.network} on {machine} …"))
        module = (
            load(path).module if is_file else build_blank(spec)
        )  # random weights cost what trained ones do
        control.check()
        found = _Measurement(module, spec, multiple, side, device, config, control).cost(machine)
        keep_measurements(ModelCard(sha256=identity, costs={key: found}))
    return found.model_copy(update={"mpp": spec.mpp})


def _identify(network: Subject, path: Path | None, config: CostConfig) -> tuple[NetworkSpec, str]:
    """Return the description of a network, and what the costs of two networks that cost the same are kept by."""
    if path is None:
        classes = ("background", *(f"class {index}" for index in range(1, config.classes)))
        spec = NetworkSpec(
            architecture=network.network,
            in_channels=config.channels,
            classes=classes,
            options=network.options,
        )
    else:
        spec = inspect(path)
        if sniff(resolve(path)) is Format.ONNX:
            return spec, file_sha256(path)
    built = f"{spec.architecture} {spec.in_channels} {len(spec.classes)} {sorted(spec.options.items())}"
    return spec, hashlib.sha256(built.encode()).hexdigest()


def _machine(device: torch.device, config: CostConfig) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = threads_of_a_tile(config.threads or torch.get_num_threads())
    count = tiles_at_once(config.threads, threads) * threads
    return f"{platform.processor() or platform.machine()} CPU ({count} thread{'s' if count > 1 else ''})"


class _Measurement:
    """One network, measured in the ways a prediction runs it."""

    def __init__(
        self,
        module: nn.Module,
        spec: NetworkSpec,
        multiple: int,
        side: int,
        device: torch.device,
        config: CostConfig,
        control: Control,
    ):
        self._onnx = isinstance(module, OnnxNetwork)
        self._facts = module.facts if isinstance(module, OnnxNetwork) else None
        self._parameters = self._facts.parameters if self._facts else count_parameters(module) or None
        self._multiply_adds = None if self._onnx else multiply_adds(module, side, side, spec.in_channels)
        self._weights = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
        control.check()
        _, module = ready_to_run(module.to(device), spec, multiple, device)
        arithmetic = "float32" if self._onnx else fast_arithmetic(device)
        self._engine = Engine(module, spec, device, arithmetic)
        self._multiple, self._side, self._config, self._control = multiple, side, config, control

    def cost(self, machine: str) -> Cost:
        """Measure memory, latency and throughput, in this order: the first warms up."""
        engine, side = self._engine, self._side
        peak = self._peak()
        self._control.check()
        latency = self._latency()
        self._control.check()
        threads = threads_of_a_tile(self._config.threads or torch.get_num_threads())
        with tile_threads(self._config.threads, threads) as (pool, at_once):
            tuned = tune(engine, 0, self._multiple, pool, at_once, tile=side)
        return Cost(
            parameters=self._parameters,
            multiply_adds=self._multiply_adds,
            side=side,
            latency_ms=1000 * latency,
            mpx_per_s=tuned.mpx_per_s,
            images_per_s=tuned.mpx_per_s * 1e6 / side**2,
            batch_size=tuned.batch_size,
            peak_bytes=peak,
            arithmetic=engine.arithmetic,
            machine=machine,
        )

    def _window(self) -> torch.Tensor:
        noise = np.random.default_rng(0).integers(
            0, 256, (self._side, self._side, self._engine.spec.in_channels), np.uint8
        )
        return self._engine.collate([noise])

    def _peak(self) -> int:
        if self._onnx:
            return round(bytes_per_pixel(self._engine, self._multiple) * self._side**2)
        shape = (1, self._engine.spec.in_channels, self._side, self._side)
        kind = next(self._engine.module.parameters())
        image = torch.zeros(shape, device=kind.device, dtype=kind.dtype)
        return self._weights + image.numel() * image.element_size() + peak_bytes(self._engine.module, image)

    def _latency(self) -> float:
        batch = self._window()
        times: list[float] = []
        while len(times) < RUNS and (not times or sum(times) < LONGEST_S):
            began = time.perf_counter()
            self._engine.classify(batch, probability=False, checked=False)()
            times.append(time.perf_counter() - began)
        return min(times)
