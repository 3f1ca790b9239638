"""How the config.json of a checkpoint stretches the rotary embedding, or why that is refused.

Every number is checked before torch sees it: a divisor of zero makes no error there, only an
answer of NaN.
"""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from p2pnode.engine.model_config import (
    LEAST_BASE,
    LEAST_FACTOR,
    MOST_BASE,
    MOST_FACTOR,
    RopeKind,
    RopeScaling,
)
from p2pnode.errors import ModelError
from p2pnode.terminal import label

LAYER_TYPES: Final = frozenset({"full_attention", "sliding_attention"})

_KINDS: Final = frozenset({"default", "linear", "llama3", "yarn", "longrope"})
_KINDS_OF: Final[Mapping[str, frozenset[str]]] = {
    "phi3": frozenset({"default", "longrope"}),
    "gemma3_text": _KINDS - {"longrope"},  # transformers makes it for all layers alike
}
_OLD_NAMES: Final[Mapping[str, str]] = {"su": "longrope", "yarn": "longrope"}
"""How the first phi3 checkpoints called it: so meant, and so read by transformers until it
needed the original context first."""

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "linear": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
_FACTOR: Final = (LEAST_FACTOR, MOST_FACTOR)
_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "factor": _FACTOR,
    "attention_factor": _FACTOR,
    "beta_fast": _FACTOR,
    "beta_slow": _FACTOR,
    "low_freq_factor": _FACTOR,
    "high_freq_factor": _FACTOR,
    "mscale": (0, MOST_FACTOR),
    "mscale_all_dim": (0, MOST_FACTOR),
    "rope_theta": (LEAST_BASE, MOST_BASE),
    "partial_rotary_factor": (LEAST_FACTOR, 1),
    "original_max_position_embeddings": (2, (1 << 31) - 1),
}
_LISTS: Final = ("short_factor", "long_factor")
_WORDS: Final = ("rope_type", "type", "truncate")
_MOST_NUMBERS: Final = 4096  # of a list that nobody reads
_MOST_NUMBER: Final = 1e12  # likewise
_PHI3_CONTEXT: Final = 4096  # what transformers takes where a phi3 says no original context


def named_anew(settings: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Return the settings with the old names of a kind of stretching replaced."""
    found = dict(settings)
    for key in ("rope_scaling", "rope_parameters"):
        said = found.get(key)
        if model_type != "phi3" or not isinstance(said, dict):
            continue
        word = "rope_type" if "rope_type" in said else "type"
        kind = said.get(word)
        if isinstance(kind, str) and kind in _OLD_NAMES:
            found[key] = {**said, word: _OLD_NAMES[kind]}
    return found


def read_rope(settings: Mapping[str, Any], model_type: str, name: str) -> RopeScaling:
    """Check how the rotary embedding is stretched; say what decides a session's divisors.

    Raises:
        ModelError: It is of a kind that is not computed, or a number makes no sense.
    """
    _check_part(settings.get("partial_rotary_factor"), model_type, name)
    found = RopeScaling()
    for key in ("rope_scaling", "rope_parameters"):
        said = settings.get(key, {})
        nested = [said[kind] for kind in sorted(LAYER_TYPES) if said.get(kind) is not None]
        if nested and model_type != "gemma3_text":
            _refuse(name, f"{key} by the type of a layer")
        for one in nested or [said]:
            if not isinstance(one, dict):
                _refuse(name, f"a {key} of {one!r}"[:60])
            found = _one_rope(one, settings, model_type, name) or found
    return found


def _one_rope(
    said: Mapping[str, Any], settings: Mapping[str, Any], model_type: str, name: str
) -> RopeScaling | None:
    kind = said.get("rope_type", said.get("type", "default"))
    if not isinstance(kind, str) or kind not in _KINDS_OF.get(model_type, _KINDS):
        _refuse(name, f"a rotary embedding scaled as {label(str(kind))[:40]!r}")
    _check_part(said.get("partial_rotary_factor"), model_type, name)
    pairs = _turned(said, settings, name) // 2
    for key, value in said.items():
        if value is not None and key not in _WORDS:
            _check(key, value, pairs, name)
    for key in _NEEDED.get(kind, ()):
        if said.get(key) is None:
            raise ModelError(
                f"the config.json of {name} scales the rotary embedding as {kind}, without {key}",
                hint="Take the config.json that came with the checkpoint.",
            )
    if kind == "llama3" and said["low_freq_factor"] >= said["high_freq_factor"]:
        _unusable(name, "high_freq_factor", said["high_freq_factor"])
    return _longrope(said, settings, model_type) if kind == "longrope" else None


def _longrope(said: Mapping[str, Any], settings: Mapping[str, Any], model_type: str) -> RopeScaling:
    key = "original_max_position_embeddings"
    usual = _PHI3_CONTEXT if model_type == "phi3" else settings["max_position_embeddings"]
    inner = None if model_type == "phi3" else said.get(key)  # transformers reads a phi3's outside
    original = settings.get(key, inner or usual)
    return RopeScaling(kind=RopeKind.LONGROPE, original_context=int(original))


def _turned(said: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> int:
    """Return how many of a head's numbers turn."""
    width = settings.get("head_dim") or settings["hidden_size"] // max(
        settings["num_attention_heads"], 1
    )
    key = "partial_rotary_factor"
    turned = int(width * (said.get(key) or settings.get(key, 1.0)))
    if turned < 2 or turned % 2:
        _refuse(name, f"a rotary embedding of {turned} of a head's {width} numbers")
    return turned


def _check_part(part: object, model_type: str, name: str) -> None:
    if part is None:
        return
    _check("partial_rotary_factor", part, 0, name)
    if part != 1 and model_type != "phi3":
        _refuse(name, f"a rotary embedding of a part of each head (partial_rotary_factor = {part})")


def _check(key: str, value: object, pairs: int, name: str) -> None:
    """Refuse a number out of its bounds, and a list that is not a divisor for each pair."""
    if isinstance(value, bool) and key not in {*_BOUNDS, *_LISTS}:
        return  # a note of whoever trained it, which nobody reads: finetuned
    numbers: list[Any] = value if isinstance(value, list) else [value]
    if key in _LISTS:
        if not isinstance(value, list) or len(value) != pairs:
            size = len(value) if isinstance(value, list) else repr(value)[:20]
            raise ModelError(
                f"the config.json of {name} has a {key} of {size}: each of the {pairs} pairs of a "
                "head's numbers that turn needs one",
                hint="Take the config.json that came with the checkpoint.",
            )
        low, high = _FACTOR
    else:
        low, high = _BOUNDS.get(key, (-_MOST_NUMBER, _MOST_NUMBER))
        if len(numbers) > _MOST_NUMBERS or (key in _BOUNDS and isinstance(value, list)):
            _unusable(name, key, value)
    for number in numbers:  # compared, not converted: a whole number may be larger than a float
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not (is_number and low <= number <= high):
            _unusable(name, key, number)


def _unusable(name: str, key: str, value: object) -> NoReturn:
    raise ModelError(
        f"the config.json of {name} scales the rotary embedding by {label(str(key))[:40]} = "
        f"{label(repr(value))[:40]}",
        hint="Take the config.json that came with the checkpoint.",
    )


def _refuse(name: str, what: str) -> NoReturn:
    raise ModelError(
        f"{name} has {what}, which the torch engine does not compute",
        hint="Use a plain model of this architecture.",
    )
