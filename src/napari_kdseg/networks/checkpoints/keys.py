"""The names of weights in a file, brought to those of a network: what wrappers put before every name is taken off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_kdseg.errors import CheckpointError

_OWN_WRAPPERS = ("", "network.", "vit.")
"""What modules of this program put before the names of a network they hold."""
_TRIED = 5


@dataclass(frozen=True)
class _Match:
    """Names after ``taken_off`` in the file are those after ``put_on`` in the network."""

    taken_off: str
    put_on: str
    found: int
    fitting: int


def fitting_names(
    state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], subject: str
) -> dict[str, Tensor]:
    """Rename weights as a network names them.

    Parameters
    ----------
    state
        Weights as they are in a file, perhaps behind ``model.``, ``module.``, ``_orig_mod.`` or any other prefix.
    wanted
        Name -> shape of the network's weights.
    subject
        Begins a message: ``"This checkpoint (a.ckpt)"``.

    Returns
    -------
    dict
        What lay behind the prefix with which most names, and most shapes, are the network's. What lay beside it (a
        loss, metrics) is left out.

    Raises
    ------
    CheckpointError
        If two sets of weights in it fit equally.
    """
    matches = sorted(_matches(state, wanted), key=lambda match: (match.found, match.fitting), reverse=True)
    if not matches:
        return _without_common_prefix(state)
    best = [m for m in matches if (m.found, m.fitting) == (matches[0].found, matches[0].fitting)]
    if len(best) > 1:
        best = [match for match in best if "ema" in match.taken_off] or best
    if len(best) > 1:
        places = " and ".join(repr(match.taken_off or "no prefix") for match in best)
        raise CheckpointError(
            f"{subject} holds several networks of this kind (names behind {places}). Save the state_dict of the one "
            "you want alone."
        )
    off, on = best[0].taken_off, best[0].put_on
    return {on + key[len(off) :]: tensor for key, tensor in state.items() if key.startswith(off)}


def _matches(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> Iterable[_Match]:
    tried = set()
    for put_on in _OWN_WRAPPERS:
        names = [name.removeprefix(put_on) for name in wanted if name.startswith(put_on)]
        if not names:
            continue
        for name in _spread(names):
            for key in state:
                off = key.removesuffix(name)
                if (off and not off.endswith(".")) or not key.endswith(name) or (off, put_on) in tried:
                    continue
                if put_on and off.endswith(put_on):  # the same as with neither
                    continue
                tried.add((off, put_on))
                pairs = [
                    (state[off + inner], wanted[put_on + inner]) for inner in names if off + inner in state
                ]
                alike = sum(tensor.shape == shape for tensor, shape in pairs)
                yield _Match(off, put_on, len(pairs), alike)


def _spread(names: list[str]) -> list[str]:
    """A few names from all over the network: one that the file lacks must not decide."""
    step = max(1, len(names) // _TRIED)
    return names[::step][:_TRIED]


def _without_common_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefixes = ("module.", "_orig_mod.", "model.", "net.", "network.")
    named = dict(state)
    while named and (prefix := next((p for p in prefixes if all(k.startswith(p) for k in named)), None)):
        named = {key.removeprefix(prefix): tensor for key, tensor in named.items()}
    return named
