"""Which class of one mask is which of another: by name, by what a person said, and by number only where it has no name.

The common classes are those of the first mask, and after them those that only others name. Nothing is guessed from the
order of two lists: ``stroma`` of one mask is not ``tumour`` of another because both come second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from napari_kdseg.comparison.compared.mask import ROLES, ComparedMask
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.slides.annotations.classes import BACKGROUND, UNNAMED

#: What masks are called whose file names no classes.
NUMBERED = re.compile(r"class \d+")
#: What stands for a value that its mask does not name; no common class has this number, so counting refuses it.
WITHOUT_A_NAME = NOT_COMPUTED - 1
Said = Mapping[str, Mapping[str, str]]


def common_classes(
    masks: Sequence[ComparedMask], said: Said | None = None
) -> tuple[list[ComparedMask], tuple[str, ...]]:
    """Give masks one list of classes.

    Parameters
    ----------
    masks
        The first one's classes are the common ones.
    said
        By role, the common class of each own class, both by name or number; 255 leaves a class out. The role ``""``
        stands for every mask but the first.

    Returns
    -------
    masks, classes
        The masks with their maps and what there is to say of them, and the names of the common classes.

    Raises
    ------
    ConfigurationError
        If a class is named that is not there, or outlines without a class could be any of several.
    """
    said = said or {}
    _check_known(masks, said)
    common = list(masks[0].classes)
    found = []
    for mask in masks:
        of_all = said.get("", {}) if mask is not masks[0] else {}
        found.append(_mapping(mask, common, {**of_all, **said.get(mask.role, {})}))
    mapped = []
    for mask, (mapping, added) in zip(masks, found, strict=True):
        unnamed = dict.fromkeys(range(len(mask.classes), len(common)), WITHOUT_A_NAME)
        note = f"Only the {mask.role} knows {', '.join(map(repr, added))}: counted as a class of its own."
        mapped.append(mask.mapped({**unnamed, **mapping}, *([note] if added else ())))
    return mapped, tuple(common)


def as_assignments(mask: ComparedMask, common: Sequence[str]) -> list[str]:
    """Return the map of a mask's classes as :func:`read_classes` reads it, for a form or to be kept."""
    wanted = [mask.mapping.get(own, own) for own in range(len(mask.classes))]
    names = ["255" if value == NOT_COMPUTED else common[value] for value in wanted]
    return [f"{mask.role}:{own}={name}" for own, name in zip(mask.classes, names, strict=True)]


def _mapping(
    mask: ComparedMask, common: list[str], said: Mapping[str, str]
) -> tuple[dict[int, int], list[str]]:
    """Return the common class of each own one, and the names that were added to ``common``, which grows."""
    owns = {own: _own_class(mask, own) for own in said}
    wanted = {own: _common_class(common, said[text]) for text, own in owns.items() if own is not None}
    mapping, added = dict(wanted), []
    for index, name in enumerate(mask.classes):
        found = wanted[index] if index in wanted else _by_name(mask, index, name, common)
        if found is None:
            added.append(name)
            common.append(name)
            found = len(common) - 1
        mapping[index] = found
    return mapping, added


def _by_name(mask: ComparedMask, index: int, name: str, common: list[str]) -> int | None:
    lower = [known.lower() for known in common]
    if name.lower() in lower:
        return lower.index(name.lower())
    if index == 0 or name.lower() == BACKGROUND:
        return 0
    if name == UNNAMED:
        if len(common) == 2:
            return 1
        raise ConfigurationError(
            f"The outlines of the {mask.role} name no class, and there are {', '.join(map(repr, common[1:]))}. Say "
            f"which one they are, for instance: --classes '{mask.role}:{UNNAMED}={common[1]}'."
        )
    return index if NUMBERED.fullmatch(name) and index < len(common) else None


def _own_class(mask: ComparedMask, text: str) -> int | None:
    """Return the class of a mask by name or number; ``None`` if it has none of that name."""
    lower = [name.lower() for name in mask.classes]
    if text.lower() in lower:
        return lower.index(text.lower())
    return int(text) if text.isdigit() and int(text) <= NOT_COMPUTED else None


def _common_class(common: list[str], text: str) -> int:
    lower = [name.lower() for name in common]
    if text.lower() in lower:
        return lower.index(text.lower())
    if text.isdigit() and (int(text) < len(common) or int(text) == NOT_COMPUTED):
        return int(text)
    if text.isdigit():
        raise ConfigurationError(
            f"There is no common class {text}: they go from 0 to {len(common) - 1} ({', '.join(common)}), and 255 "
            "leaves a class out. Give a new class a name instead."
        )
    common.append(text)
    return len(common) - 1


def _check_known(masks: Sequence[ComparedMask], said: Said) -> None:
    for role, pairs in said.items():
        asked = [mask for mask in masks if mask.role == role] if role else list(masks[1:])
        for own in pairs:
            if not any(_own_class(mask, own) is not None for mask in asked):
                known = "; ".join(f"{mask.role}: {', '.join(mask.classes)}" for mask in masks)
                raise ConfigurationError(f"No mask {role!r} has a class {own!r}. There are: {known}.")


def read_classes(assignments: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read what people write: ``"3=1"``, ``"student:stroma=background"``, ``"reference:Tumour=tumour"``.

    Raises
    ------
    ConfigurationError
        If one of them says something else.
    """
    said: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        start, colon, rest = assignment.partition(":")
        role, pair = (start.strip(), rest) if colon and start.strip() in ROLES else ("", assignment)
        own, equals, common = pair.rpartition("=")
        if not (equals and own.strip() and common.strip()):
            raise ConfigurationError(
                f"Classes are mapped as own=common, such as 3=1 or student:stroma=background, not {assignment!r}."
            )
        said.setdefault(role, {})[own.strip()] = common.strip()
    return said
