"""What an asker is told while an answer is mended or waits, and when it was cut short."""

from collections.abc import Mapping
from typing import Any

from p2pnode.phrases import holding, listed, runs_text


def lost(event: Mapping[str, Any]) -> str:
    """Say who was lost, why, and for how long others are looked for."""
    pairs = zip(event["names"], event["layers"], strict=True)
    who = listed(holding(name, range(*layers)) for name, layers in pairs) or "a stage"
    return f"[lost {who}: {event['reason']}; looking for others, {event['wait']:.0f} s at most]"


def mended(event: Mapping[str, Any]) -> str:
    """Say that the answer goes on, and who took over."""
    took = listed(holding(stage["name"], range(*stage["layers"])) for stage in event["instead"])
    after = f"{event['seconds'] * 1e3:.0f} ms after that was noticed"
    said = f"[the answer goes on, {after}{f': {took} took over' if took else ''}]"
    return said if event.get("bit_reproducible", True) else f"{said}\n{changed(event)}"


def changed(facts: Mapping[str, Any]) -> str:
    """Say why an answer is no longer bit-reproducible."""
    return f"[no longer bit-reproducible: {facts['bit_reproducible_why']}]"


def waiting(event: Mapping[str, Any]) -> str:
    """Say which layers nobody serves, and how long they are waited for."""
    runs = runs_text(range(*run) for run in event["layers"])
    return f"[nobody serves layers {runs}: waiting for them, {event['wait']:.0f} s more at most]"


def cut(tokens: int, most: int, more: str = "--max-tokens N") -> str:
    """Say that an answer ended at a limit: that of its asker, or that of the model's context.

    ``more`` is how the asker raises it.
    """
    if tokens < most:
        return f"[the answer was cut at {tokens} tokens: the model's context is full]"
    return f"[the answer was cut at {tokens} tokens: {more} for more]"
