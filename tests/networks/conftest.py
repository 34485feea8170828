"""Small networks and a spec, made once."""

from __future__ import annotations

import pytest
import torch

from napari_kdseg.networks import NetworkSpec, create_from


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def enet_spec() -> NetworkSpec:
    return NetworkSpec(
        architecture="enet",
        classes=("background", "tumour"),
        colours=("#000000", "#c2185b"),
        mpp=0.5,
        input_size=64,
        method="plc-kd",
        metrics={"dice/tumour": 0.75},
        versions={"napari-kdseg": "0.0.test"},
    )


@pytest.fixture(scope="session")
def enet(enet_spec):
    return create_from(enet_spec).eval()
