"""A checkpoint and a network that do not go together, in a sentence and a short table."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from napari_kdseg.errors import CheckpointError
from napari_kdseg.networks.build import canonical_name
from napari_kdseg.networks.spec import NetworkSpec

_SHOWN = 5


def spec_misfit(have: NetworkSpec, want: NetworkSpec, subject: str) -> str | None:
    """Compare the network that a checkpoint describes with the one asked for.

    Parameters
    ----------
    have, want
        Names of classes may differ, their number may not.
    subject
        Begins the message: ``"This checkpoint (a.safetensors)"``.

    Returns
    -------
    str or None
        None if they are alike.
    """
    rows = {
        "architecture": (canonical_name(have.architecture), canonical_name(want.architecture)),
        "classes": (len(have.classes), len(want.classes)),
        "channels": (have.in_channels, want.in_channels),
        "options": (json.dumps(have.options, sort_keys=True), json.dumps(want.options, sort_keys=True)),
    }
    differing = [label for label, (found, asked) in rows.items() if found != asked]
    if not differing:
        return None
    label = differing[0]
    found, asked = rows[label]
    has = f"{found} {label}" if label in ("classes", "channels") else f"the {label} {found}"
    width = max(len(str(found)) for found, _ in rows.values())
    table = "\n".join(
        f"  {name:12}  {found!s:{width}}  asked for: {asked}{'  (differs)' if name in differing else ''}"
        for name, (found, asked) in rows.items()
    )
    mend = (
        "ask for a new head, which is then trained" if label == "classes" else "ask for the network it holds"
    )
    return (
        f"{subject} has {has}, the network asked for {asked}. Choose another checkpoint, or {mend}.\n{table}"
    )


def weights_misfit(
    have: Mapping[str, torch.Size], module: nn.Module, spec: NetworkSpec, subject: str
) -> str | None:
    """Compare the shapes of weights with those of a network.

    Parameters
    ----------
    have
        Name -> shape of the weights.
    module
        The network.
    spec
        Its description.
    subject
        Begins the message: ``"This checkpoint (a.pth)"``.

    Returns
    -------
    str or None
        A sentence and a short table; None if everything fits.
    """
    want = {key: tensor.shape for key, tensor in module.state_dict().items()}
    missing = [key for key in want if key not in have]
    unexpected = [key for key in have if key not in want]
    other = [key for key in want if key in have and have[key] != want[key]]
    if not missing and not unexpected and not other:
        return None
    rows = {
        "missing": missing,
        "unexpected": unexpected,
        "other shape": [f"{key} {list(have[key])}, expected {list(want[key])}" for key in other],
    }
    table = "\n".join(f"  {label} ({len(keys)}): {_first(keys)}" for label, keys in rows.items() if keys)
    return f"{subject} {_reason(have, want, spec)}\n  network: {spec.describe()}\n{table}"


def refuse_not_finite(state: Mapping[str, Tensor], subject: str, free: Collection[str] = ()) -> None:
    """Refuse weights that are not a number or infinite: what a network makes of them is no result.

    Parameters
    ----------
    state
        Name -> weights.
    subject
        Begins the message: ``"This checkpoint (a.pth)"``.
    free
        Names of those that may be infinite, as a mask of attention is; not a number may none be.

    Raises
    ------
    CheckpointError
        With the first names and the count.
    """
    bad = [key for key, tensor in state.items() if not _is_finite(tensor, infinite=key in free)]
    if bad:
        raise CheckpointError(
            f"{subject} holds numbers that are NaN or infinite in {len(bad)} of its {len(state)} weights "
            f"({_first(bad)}), so the network puts out nothing that means anything. The training that wrote it "
            "diverged, or the file is damaged: choose an earlier checkpoint."
        )


def _is_finite(tensor: Tensor, *, infinite: bool) -> bool:
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    low, high = (float(end) for end in torch.aminmax(tensor))  # both are NaN if any number is
    return not math.isnan(low) if infinite else math.isfinite(low) and math.isfinite(high)


def _reason(have: Mapping[str, torch.Size], want: Mapping[str, torch.Size], spec: NetworkSpec) -> str:
    """Put the difference into a sentence where only the number of classes or of channels differs."""
    if have.keys() != want.keys():
        return f"does not hold the weights of {spec.architecture}. Choose the architecture it was made with."
    for key, expected in want.items():
        found = have[key]
        differ = [axis for axis, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b]
        if len(found) != len(expected) or len(differ) != 1:
            continue
        axis = differ[0]
        if key.startswith(("segmentation_head", "classif")) and expected[axis] == len(spec.classes):
            return (
                f"has {found[axis]} classes, the network asked for {expected[axis]}. Choose another checkpoint, or ask "
                "for a new head, which is then trained."
            )
        if axis == 1 and expected[1] == spec.in_channels:
            return f"has {found[1]} channels, the network asked for {expected[1]}. Choose another checkpoint."
    return f"has the layers of {spec.architecture}, but in other sizes. Choose the options it was made with."


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
