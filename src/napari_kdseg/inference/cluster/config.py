"""What a prediction of many slides is told. Neither torch nor dask here."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.settings import setting
from napari_kdseg.synthetic.address import is_address

LOCAL = "local"


class PredictManyConfig(BaseModel):
    """Predict slides on the workers of a dask scheduler.

    Notes
    -----
    All of them see the same files under the same paths. Each slide has a mask store of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: tuple[PredictConfig, ...] = setting(..., "Slides", "What to do on each slide.", min_length=1)
    scheduler: str = setting(
        LOCAL,
        "Scheduler",
        "Address of a dask scheduler (tcp://host:8786); 'local' starts workers on this machine.",
        min_length=1,
    )
    workers: int | None = setting(
        None, "Workers", "To start here. Empty: one a GPU, else one for four processors.", ge=1
    )

    @model_validator(mode="after")
    def _one_store_each(self) -> PredictManyConfig:
        stores = [str(_absolute(config.output)) for config in self.slides]
        twice = sorted({store for store in stores if stores.count(store) > 1})
        if twice:
            names = [config.slide for config in self.slides if str(_absolute(config.output)) in twice]
            raise ValueError(
                f"{', '.join(names)} would be written to the same store {twice[0]}; predict them into different folders"
            )
        return self

    def absolute(self) -> tuple[PredictConfig, ...]:
        """Return what to do on each slide with paths that mean the same wherever a worker was started."""
        return tuple(
            config.model_copy(
                update={
                    "slide": config.slide if is_address(config.slide) else str(_absolute(Path(config.slide))),
                    "output": _absolute(config.output),
                    "networks": {name: _absolute(path) for name, path in config.networks.items()},
                }
            )
            for config in self.slides
        )


def _absolute(path: Path) -> Path:
    return Path(path).expanduser().absolute()
