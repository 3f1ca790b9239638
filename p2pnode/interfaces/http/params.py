"""What parameters mean to a node that several APIs have."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from p2pnode.interfaces.http.errors import wrong
from p2pnode.interfaces.http.fields import Fields

MAX_TOKENS: Final = 4096
"""Tokens of an answer whose request names no limit, if the context has room: memory for them is
reserved in every stage, so the context's end would be dear."""

MOST_TOKENS: Final = 1_000_000
"""That a request may name; an answer ends at the context's end anyway."""

MOST_PAST: Final = 8192
"""Tokens of an answer whose tokens depend on those before, and that penalties look back on."""

WAIT: Final = 30.0
"""Seconds that an answer waits for peers which cover the model."""

_MOST_SEED: Final = 2**63


def seed_of(fields: Fields) -> int:
    """Return the seed; without one each answer is another, as temperature means it."""
    seed = fields.whole("seed", -_MOST_SEED, _MOST_SEED, None)
    return secrets.randbits(63) if seed is None else seed % 2**64


def stops_of(fields: Fields, name: str) -> list[str]:
    return [stop for stop in fields.texts(name) if stop]


def within_past(params: dict[str, Any]) -> dict[str, Any]:
    """Return the same, with no more tokens than a draw may look back on, where it does."""
    looks_back = (
        params.get("schema")
        or params.get("json_mode")
        or params.get("tool_choice") not in (None, "auto", "none")
        or any(
            params.get(name, usual) != usual
            for name, usual in (
                ("presence_penalty", 0),
                ("frequency_penalty", 0),
                ("repetition_penalty", 1),
            )
        )
    )
    if looks_back:
        return {**params, "max_tokens": min(params["max_tokens"], MOST_PAST)}
    return params


def format_params(wanted: Mapping[str, Any] | None, place: str) -> dict[str, Any]:
    """Return what form the answer has: ``response_format``, or what other APIs have in its place.

    Raises:
        ApiError: There is no such form.
    """
    if wanted is None:
        return {}
    if not isinstance(wanted, Mapping):
        raise wrong(place, f"{place} must be an object")
    match wanted.get("type"):
        case "text":
            return {}
        case "json_object":
            return {"json_mode": True}
        case "json_schema":
            named = wanted.get("json_schema", wanted)
            schema = named.get("schema") if isinstance(named, Mapping) else None
            if not isinstance(schema, Mapping):
                raise wrong(place, f"{place} of type json_schema has no schema")
            return {"schema": schema}
        case _:
            raise wrong(place, f"{place}.type must be text, json_object or json_schema")
