"""From annotated tiles to a distilled student: data, configuration, the loop, run folders, scores, the job itself.

Configurations load without torch; what computes is imported when it is first asked for.
"""

from importlib import import_module
from typing import Any

from napari_kdseg.training.config import DistillConfig
from napari_kdseg.training.settings import (
    AugmentationConfig,
    DataConfig,
    NetworkChoice,
    OptimiserConfig,
    TrainingConfig,
)

_LATER = {
    "DistillResult": "job",
    "RunFolder": "run.run_folder",
    "SegmentationScore": "scores.metrics",
    "TileCollection": "tiles.data",
    "TileDataset": "tiles.dataset",
    "cut_tiles": "tiles.patches",
    "describe": "tiles.data",
    "discover": "tiles.data",
    "distill": "job",
    "read_history": "run.run_folder",
    "resume_config": "run.run_folder",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "AugmentationConfig",
    "DataConfig",
    "DistillConfig",
    "NetworkChoice",
    "OptimiserConfig",
    "TrainingConfig",
]
