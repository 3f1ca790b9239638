"""Which of several models a name means, and what each is called where two share a name.

A name is a label, which its file chooses: two models may have the same. Their roots differ, so
``NAME@root`` tells them apart, with as many digits of the root as that takes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from p2pnode.errors import UnknownModelError

LEAST_DIGITS: Final = 8
"""Digits of a root in a name, at least: 32 bits, as people compare them."""

_WITH_ROOT: Final = re.compile(r"(.+)@([0-9a-f]{8,64})")
_OLLAMAS: Final = ":latest"  # the tag that programs made for Ollama put behind every name
_SHOWN: Final = 100  # letters of a name in a message


@dataclass(frozen=True, slots=True)
class ModelName:
    """What a model is called.

    Attributes:
        name: By its file.
        root: The root over its tensors, in hex.
        also: What else it is called here, such as its name in the catalogue or its path; these
            count where no model has the name itself.
    """

    name: str
    root: str
    also: tuple[str, ...] = ()


def labels(models: Sequence[ModelName]) -> tuple[str, ...]:
    """Return what each is called, in order: its name, with its root where another has the same."""
    return tuple(_label(one, [other for other in models if other is not one]) for one in models)


def meant(asked: str, models: Sequence[ModelName]) -> int:
    """Return the number of the model that a name means; an empty one means the first.

    Case does not matter. ``NAME@root`` takes 8 digits of the root or more.

    Raises:
        UnknownModelError: It means none, or several; names those that there are.
    """
    if not models:
        raise UnknownModelError("this node has no model", hint="p2pnode models load NAME loads one")
    if not asked:
        return 0
    wanted = asked.casefold()
    for name in (wanted, wanted.removesuffix(_OLLAMAS)):
        for found in (_named(name, models), _rooted(name, models), _also(name, models)):
            if len(found) == 1:
                return found[0]
            if found:
                raise _ambiguous(asked, models, found)
    there = ", ".join(labels(models))
    raise UnknownModelError(
        f"no model {asked[:_SHOWN]!r} on this node; there is: {there}",
        hint="p2pnode models load NAME loads another; one that only other nodes hold is not asked",
    )


def _named(name: str, models: Sequence[ModelName]) -> list[int]:
    return [number for number, one in enumerate(models) if one.name.casefold() == name]


def _rooted(name: str, models: Sequence[ModelName]) -> list[int]:
    match = _WITH_ROOT.fullmatch(name)
    if match is None:
        return []
    return [
        number for number in _named(match[1], models) if models[number].root.startswith(match[2])
    ]


def _also(name: str, models: Sequence[ModelName]) -> list[int]:
    return [
        number
        for number, one in enumerate(models)
        if any(other.casefold() == name for other in one.also)
    ]


def _ambiguous(asked: str, models: Sequence[ModelName], found: Iterable[int]) -> UnknownModelError:
    shown = labels(models)
    several = " or ".join(shown[number] for number in found)
    return UnknownModelError(
        f"{asked[:_SHOWN]!r} could be {several}",
        hint="name one of them with its root",
        is_ambiguous=True,
    )


def _label(one: ModelName, others: Iterable[ModelName]) -> str:
    name = one.name.casefold()
    alike = [other.root for other in others if other.name.casefold() == name]
    if not alike:
        return one.name
    digits = LEAST_DIGITS
    while digits < len(one.root) and any(root[:digits] == one.root[:digits] for root in alike):
        digits += 1
    return f"{one.name}@{one.root[:digits]}"
