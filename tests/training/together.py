"""What the processes of test_several_processes.py run; started by torchrun, never collected as a test."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace


def kill_second(steps: str, *arguments: str) -> None:
    """Run ``kdseg`` with ``arguments``; the second process is killed before its step of that number."""
    from napari_kdseg.cli import main
    from napari_kdseg.training.run import loop

    step, taken = loop._Fit._step, []

    def step_or_die(self, images, targets):
        if os.environ["RANK"] == "1" and len(taken) == int(steps):
            os.kill(os.getpid(), signal.SIGKILL)
        taken.append(1)
        step(self, images, targets)

    loop._Fit._step = step_or_die
    sys.argv = ["kdseg", *arguments]
    main()


def run_all(report: str, stopped: str, *configurations: str) -> None:
    """Divide a network; run several distillations one after the other; then one that is paused, stopped, resumed."""
    import torch.distributed as dist

    from napari_kdseg.jobs import Cancelled, Done, run_inline
    from napari_kdseg.training import DistillConfig, distill

    dist.init_process_group("gloo")
    compute(Path(report))
    run_each(*configurations)
    with second_process_asks():
        running = run_inline(distill, DistillConfig.load(stopped))
        assert isinstance(running.end, Cancelled), running.end
    running = run_inline(distill, DistillConfig.load(stopped))
    assert isinstance(running.end, Done), running.end
    dist.destroy_process_group()


def run_each(*configurations: str) -> None:
    """Run several distillations one after the other."""
    from napari_kdseg.jobs import Done, run_inline
    from napari_kdseg.training import DistillConfig, distill

    compare_when_saving()
    for path in configurations:
        running = run_inline(distill, DistillConfig.load(path))
        assert isinstance(running.end, Done), running.end


def run_several(*configurations: str) -> None:
    """Run several distillations one after the other, and nothing else."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    run_each(*configurations)
    dist.destroy_process_group()


def compare_when_saving() -> None:
    """Let all that is trained and remembered be the same to the last bit in every process after each epoch."""
    import torch

    from napari_kdseg.networks import shares
    from napari_kdseg.training.run import loop

    save = loop._Fit._save_state

    def compare_and_save(self):
        tensors = [*self.stage.network.state_dict().values(), *_tensors(self.stage.state_dict())]
        flat = torch.cat([tensor.detach().double().flatten() for tensor in tensors])
        first, *others = shares().all(flat)
        assert all(torch.equal(first, other) for other in others), f"{self.stage.name} differs"
        save(self)

    loop._Fit._save_state = compare_and_save


@contextmanager
def second_process_asks():
    """Let the second process alone be asked to pause for a while at its third step, and to stop after its fifth."""
    from napari_kdseg.training.run import loop

    step, taken = loop._Fit._step, []

    def step_and_ask(self, images, targets):
        control = self.workplace.control._own
        if os.environ["RANK"] == "1" and len(taken) == 2:
            control.pause()
            threading.Timer(0.5, control.resume).start()
        step(self, images, targets)
        taken.append(1)
        if os.environ["RANK"] == "1" and len(taken) == 5:
            control.cancel()

    loop._Fit._step = step_and_ask
    try:
        yield
    finally:
        loop._Fit._step = step


def _tensors(state):
    import torch

    if isinstance(state, torch.Tensor):
        yield state
    for part in (
        state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    ):
        yield from _tensors(part)


def compute(place: Path) -> None:
    """Divide a network, and keep what comes out beside what the whole network gives."""
    import torch
    import torch.distributed as dist
    from torch import nn

    from napari_kdseg.distillation.gradients import gradient_norms
    from napari_kdseg.networks import Shares, among, capture, divided, shares

    report = {}
    for length in (1, 2, 5):
        results = []
        for ours in (Shares(), Shares(dist.get_rank(), dist.get_world_size())):
            torch.manual_seed(0)
            network = nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
            ).double()
            batch = torch.randn(length, 3, 8, 8, dtype=torch.double)
            with among(ours), divided([network]), capture(network, ["2"]) as seen:
                output = network(batch)
                # A loss that is no mean of the images' losses: it compares them with each other.
                features = seen["2"].flatten(1)
                parts = {
                    "segmentation": output.square().mean().sqrt(),
                    "weighted/alike": (features @ features.T).softmax(dim=1).diagonal().sum(),
                }
                norms = gradient_norms(SimpleNamespace(network=network), parts)
                loss = sum(parts.values())
                loss.backward()
                shares().average(network.parameters())
            results.append(
                {"output": output.detach(), "feature": seen["2"].detach(), "loss": loss.detach()}
                | {f"gradient {name}": parameter.grad for name, parameter in network.named_parameters()}
                | {f"norm of the gradient of {name}": torch.tensor(norm) for name, norm in norms.items()}
                | dict(network.named_buffers())
            )
        report[length] = results
    if dist.get_rank() == dist.get_world_size() - 1:
        torch.save(report, place)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    {"all": run_all, "several": run_several, "kill": kill_second}[what](*rest)
