"""The names of weights in a file, brought to those of a network: what wrappers put before every name is taken off.

A file may hold the network several times (as it was trained, averaged, a teacher and a student), and other tensors
beside it. Which set is meant is decided by names alone where they decide it; otherwise a person is asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from napari_kdseg.errors import CheckpointError

_OWN_WRAPPERS = ("", "network.", "vit.")
"""What modules of this program put before the names of a network they hold."""
_AVERAGED = {"ema", "swa", "averaged", "average", "avg", "shadow"}
_STILL_TRAINED = {"current", "online", "raw", "live"}
"""Beside one of these the other set is the averaged one (Lightning's ``WeightAveraging``: ``current_model_state``)."""
_LOSSES_AND_METRICS = (
    *(
        "loss",
        "losses",
        "criterion",
        "criteria",
        "criterions",
        "objective",
        "metric",
        "metrics",
        "meter",
        "accuracy",
    ),
    *("acc", "iou", "miou", "jaccard", "dice", "f1", "confmat", "confusion", "auroc", "precision", "recall"),
)
_TRIED = 5
_SHOWN = 3


@dataclass(frozen=True)
class NamedWeights:
    """Weights under the names of a network, and in sentences what was decided on the way."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Match:
    """Names after ``taken_off`` in the file are those after ``put_on`` in the network; parameters are counted."""

    taken_off: str
    put_on: str
    found: int
    fitting: int

    @property
    def place(self) -> str:
        return repr(self.taken_off.removesuffix(".")) if self.taken_off else "no prefix"


def fitting_names(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, torch.Size],
    subject: str,
    buffers: Collection[str] = (),
) -> NamedWeights:
    """Rename weights as a network names them.

    Parameters
    ----------
    state
        Weights as they are in a file, perhaps behind ``model.``, ``module.``, ``_orig_mod.`` or any other prefix.
    wanted
        Name -> shape of the network's weights.
    subject
        Begins a message: ``"This checkpoint (a.ckpt)"``.
    buffers
        Those of ``wanted`` that are no parameters. Averaged weights may lack them.

    Returns
    -------
    NamedWeights
        What lay behind the prefix with which most parameters, and most shapes, are the network's. Of a set that was
        averaged and one that was not the averaged one is taken, and the buffers that it lacks from the other. What lay
        beside the network is left out: behind another prefix anything, behind the same a loss or metrics.

    Raises
    ------
    CheckpointError
        If two sets of weights in it fit equally, and are not the same.
    """
    buffers = frozenset(buffers)
    matches = sorted(_matches(state, wanted, buffers), key=lambda one: (one.found, one.fitting), reverse=True)
    if not matches:
        return NamedWeights(_without_common_prefix(state))
    best = [one for one in matches if (one.found, one.fitting) == (matches[0].found, matches[0].fitting)]
    sets = _distinct(best, state, [name for name in wanted if name not in buffers])
    chosen, notes = _chosen(sets, subject)
    others = [one for one in matches if one.taken_off != chosen.taken_off]
    parameters = len(wanted) - len(buffers)
    networks = [one for one in others if one.found * 2 > parameters]
    tensors = _behind(chosen, state, wanted, networks)
    notes += _partly_averaged(chosen, networks, parameters)
    for other in (one for one in best if one is not chosen):
        lacking = {
            name: state[key]
            for name in buffers - tensors.keys()
            if name.startswith(other.put_on) and (key := other.taken_off + name[len(other.put_on) :]) in state
        }
        if lacking:
            tensors |= lacking
            notes.append(
                f"{len(lacking)} buffers that they lack (statistics of normalisation) are those behind {other.place}."
            )
    used = {chosen.taken_off + name[len(chosen.put_on) :] for name in tensors}
    used |= {one.taken_off + name[len(one.put_on) :] for one in networks for name in wanted}
    beside = [key for key in state if state[key].ndim and key not in used]
    return NamedWeights(tensors, (*notes, *_left_out(beside)))


def _matches(
    state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], buffers: Collection[str]
) -> Iterable[_Match]:
    tried = set()
    for put_on in _OWN_WRAPPERS:
        names = [
            name.removeprefix(put_on) for name in wanted if name.startswith(put_on) and name not in buffers
        ]
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


def _distinct(
    best: Sequence[_Match], state: Mapping[str, Tensor], names: Sequence[str]
) -> list[list[_Match]]:
    """Put matches together whose weights are the same numbers: a network that is kept twice is one."""
    sets: list[list[_Match]] = []
    for one in best:
        for same in sets:
            inner = [name[len(one.put_on) :] for name in names if name.startswith(one.put_on)]
            pairs = [(state.get(one.taken_off + name), state.get(same[0].taken_off + name)) for name in inner]
            if all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs):
                same.append(one)
                break
        else:
            sets.append([one])
    return sets


def _chosen(sets: Sequence[list[_Match]], subject: str) -> tuple[_Match, list[str]]:
    """Choose the set that is meant, by the words of the names it lies behind."""
    if len(sets) == 1:
        return sets[0][0], []
    parts = [one.taken_off.split(".") for group in sets for one in group]
    shared = len(list(takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))))
    ranks = [min(_rank(".".join(one.taken_off.split(".")[shared:])) for one in group) for group in sets]
    if len(sets) > 2 or ranks[0] == ranks[1]:
        places = " and ".join(group[0].place for group in sets)
        raise CheckpointError(
            f"{subject} holds several networks of this kind (names behind {places}). Save the state_dict of the one "
            "you want alone."
        )
    chosen, other = (sets[index][0] for index in sorted((0, 1), key=lambda index: -ranks[index]))
    return chosen, [
        f"The averaged weights (names behind {chosen.place}) are taken, not those behind {other.place}."
    ]


def _rank(prefix: str) -> int:
    """Say whether names behind a prefix are averaged (1), say nothing of it (0), or say that others are (-1)."""
    words = set(_words(prefix))
    return bool(words & _AVERAGED) - bool(words & _STILL_TRAINED)


def _words(name: str) -> list[str]:
    """Divide ``model_ema.Module2`` into ``model``, ``ema``, ``module``: words are compared, never letters in them."""
    return [word.lower() for word in re.findall(r"[fF]1(?!\d)|[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _behind(
    chosen: _Match, state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], networks: Sequence[_Match]
) -> dict[str, Tensor]:
    """Return what lies behind the prefix, under the network's names, without losses and other networks."""
    off, found = chosen.taken_off, {}
    longer = tuple(
        one.taken_off for one in networks if len(one.taken_off) > len(off) and one.taken_off.startswith(off)
    )
    for key, tensor in state.items():
        inner = key[len(off) :]
        name = chosen.put_on + inner
        if not key.startswith(off):
            continue
        if name in wanted or not (key.startswith(longer) or _is_neighbour(inner, chosen, wanted)):
            found[name] = tensor
    return found


def _is_neighbour(inner: str, chosen: _Match, wanted: Mapping[str, torch.Size]) -> bool:
    """Whether a name that the network does not have is that of a loss, of metrics or of the weights of classes."""
    if chosen.put_on + inner in wanted:
        return False
    first, _, rest = inner.partition(".")
    words = set(_words(first))
    return bool(words & set(_LOSSES_AND_METRICS)) or (not rest and bool(words & {"weight", "weights"}))


def _partly_averaged(chosen: _Match, networks: Sequence[_Match], parameters: int) -> list[str]:
    """Say that averaged weights were passed over because there are not enough of them."""
    return [
        f"The averaged weights (names behind {one.place}) lack {parameters - one.found} of {parameters} weights of the "
        f"network, so those behind {chosen.place} are taken."
        for one in networks
        if one.found < chosen.found and _rank(one.taken_off) > 0
    ]


def _left_out(keys: Sequence[str]) -> list[str]:
    if not keys:
        return []
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return [f"Left out, because it lies beside the network: {', '.join(keys[:_SHOWN])}{more}."]


def _without_common_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefixes = ("state_dict.", "module.", "_orig_mod.", "model.", "net.", "network.")
    named = dict(state)
    while named and (prefix := next((p for p in prefixes if all(k.startswith(p) for k in named)), None)):
        named = {key.removeprefix(prefix): tensor for key, tensor in named.items()}
    return named
