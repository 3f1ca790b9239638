"""How many patterns of a JSON schema one text would have to match at once.

The library makes one expression of them, by their number twice as large with each: 17 took 10 s and
300 MB, 20 more than 40 s and a GB, before its limits count (measured). So they are counted here.
"""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

Json: TypeAlias = Any

MOST_MEETING: Final = 8
"""Patterns and formats that one text has to match; they take 0.1 s. Of more than 4 the library
seldom finds out whether any text does, and refuses them itself."""

_MOST_STEPS: Final = 10_000  # of the count: references may multiply
_MOST_DEEP: Final = 200
"""Schemas within each other, references followed; 64 braces alone make 128. Each takes 3 of the
1,000 frames that Python allows."""
_PATTERNS: Final = ("pattern", "format")
_CHOICES: Final = ("anyOf", "oneOf")


def most_meeting(schema: Mapping[str, Json]) -> float:
    """Return how many patterns meet at the most; more than there are where it cannot be told."""
    there = len(set(_texts(schema)))
    return there if there <= MOST_MEETING else min(there, _Count(schema).of(schema))


def _texts(schema: Json) -> Iterator[tuple[str, str]]:
    left = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
            for key in _PATTERNS:
                if isinstance(text := value.get(key), str):
                    yield key, text
        elif isinstance(value, list):
            left += value


class _Count:
    """Counts from above: what stands beside each other meets, of choices one does.

    A schema within another meets what stands in the same place of others, say, ``properties``.
    """

    def __init__(self, whole: Mapping[str, Json]) -> None:
        self._whole = whole
        self._steps = 0
        self._deep = 0
        self._followed: set[str] = set()

    def of(self, schema: Json) -> float:
        self._steps += 1
        if self._steps > _MOST_STEPS or self._deep >= _MOST_DEEP:
            return inf
        self._deep += 1
        found = self._within(schema)
        self._deep -= 1
        return found

    def _within(self, schema: Json) -> float:
        if isinstance(schema, list):
            return max(map(self.of, schema), default=0)
        if not isinstance(schema, dict):
            return 0
        meeting = [
            float(sum(isinstance(schema.get(key), str) for key in _PATTERNS)),
            *(self.of(one) for one in _listed(schema.get("allOf"))),
            *(self.of(_listed(schema.get(key))) for key in _CHOICES),
            self._of_reference(schema.get("$ref")),
        ]
        beside = {"allOf": list, "anyOf": list, "oneOf": list, "$ref": str}
        inner = [one for key, one in schema.items() if not isinstance(one, beside.get(key, ()))]
        return max(meeting[0], self.of(inner)) + sum(meeting[1:])

    def _of_reference(self, reference: Json) -> float:
        if not isinstance(reference, str):
            return 0
        if reference in self._followed or not reference.startswith("#"):
            return inf  # what comes round may meet itself each time
        self._followed.add(reference)
        found = self.of(self._target(reference))
        self._followed.discard(reference)
        return found

    def _target(self, reference: str) -> Json:
        value: Json = self._whole
        for step in unquote(reference).lstrip("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and key.isdecimal() and int(key[:9]) < len(value):
                value = value[int(key[:9])]
            else:
                return None  # the library refuses it
        return value


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
