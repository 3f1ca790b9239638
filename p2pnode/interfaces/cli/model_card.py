"""What ``p2pnode models show`` says of a model."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from p2pnode.errors import ModelError, UserError
from p2pnode.node import model_cache, models
from p2pnode.node.catalogue import USUAL_CONTEXT, known_model
from p2pnode.node.disk import size_in_words
from p2pnode.node.free_memory import free_memory
from p2pnode.node.model_facts import ModelFacts, facts_of
from p2pnode.text.stored_vocabulary import UNTESTED, is_untested


def card_of(model: str, progress: Callable[[float], None]) -> dict[str, Any]:
    """Return all that is known of a model that is here; it is hashed once for its root.

    Raises:
        ModelError: It is not here, or no model.
    """
    path = models.find(model)
    facts = facts_of(path)
    found = model_cache.find_installed(model)
    known = known_model(model)
    held, per_weight, free = held_here(path, facts)
    root, space = _identity(path, facts, progress)
    return {
        "name": found.name if found else model,
        "installed": found is not None,
        "path": str(path),
        "files": [str(one) for one in (found.paths if found else models.files_of(path))],
        "size": sum(one.stat().st_size for one in models.files_of(path)),
        "source": (known.origin if known else found.source if found else "") or None,
        "hash_from": found.hash_from if found else "none",
        "linked": bool(found and found.linked),
        "in_use": bool(found and found.in_use),
        "aliases": list(known.aliases) if known else [],
        "remark": (known.remark if known else "") or None,
        "title": facts.title or None,
        "architecture": facts.architecture or None,
        "licence": (known.licence if known else facts.licence) or None,
        "layers": facts.layers,
        "d_model": facts.d_model,
        "context": facts.context,
        "vocabulary": facts.vocabulary or None,
        "pre_tokenizer": facts.pre_tokenizer or None,
        "pre_tokenizer_checked_against": facts.checked_against,
        "tokens": facts.tokens,
        "chat_template": facts.has_template,
        "quantisation": facts.quantisation,
        "layer_bytes": list(facts.layer_bytes),
        "other_bytes": facts.other_bytes,
        "kv_bytes_per_token": facts.kv_bytes_per_token,
        "memory": facts.memory,
        "memory_as_floats": facts.memory_as_floats,
        "free_memory": free,
        "layers_that_fit": held.layers_that_fit(free, per_weight),
        "peers_needed": held.peers_needed(free, per_weight),
        "root": root,
        "space": space,
        "problem": facts.problem or None,
        "hint": facts.hint or None,
    }


def held_here(path: Path, facts: ModelFacts) -> tuple[ModelFacts, int, int]:
    """Return a model's facts, the bytes of each weight and those free for it where it is loaded.

    As stored and in the main memory, where nothing here runs it.
    """
    from p2pnode.node.machine_memory import free_here, gpu_here, per_weight_here

    try:
        return facts.beside(gpu_here(path)), per_weight_here(path), free_here(path)
    except UserError:
        return facts, 0, free_memory()


def _identity(
    path: Path, facts: ModelFacts, progress: Callable[[float], None]
) -> tuple[str, str | None]:
    """Return the root, and the space where the model can be run at all."""
    if facts.problem:
        return models.root_of(path), None
    try:
        info = models.open_model(path, progress).info
    except ModelError:
        return models.root_of(path), None
    return info.data_sig, f"{info.space_hash32:08x}"


def lines_of(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a person reads of a card, or of a catalogue entry that is not here."""
    for label, value in _rows(card):
        if value:
            yield f"{label + ':':<15} {value}"


def _rows(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", card["name"]
    yield "also", ", ".join(card["aliases"])
    yield "remark", card["remark"] or ""
    yield "licence", card["licence"] or ""
    yield "from", card["source"] or ""
    if "architecture" not in card:
        yield "size", f"{'' if card['verified'] else 'about '}{size_in_words(card['size'])}"
        yield "layers", str(card["layers"])
        yield "context", f"{card['context']} tokens"
        usual = min(card["context"], USUAL_CONTEXT)
        yield "memory", f"{size_in_words(card['memory'])} with {usual} tokens of context"
        yield "hash", "" if card["verified"] else "from the hub, not verified here"
        yield "here", _whereabouts(card)
        return
    yield "file", "\n                ".join(card["files"])
    yield "size", size_in_words(card["size"])
    is_own = card["linked"] or not card["installed"]
    yield "hash", "not checked" if card["hash_from"] == "none" and not is_own else ""
    yield "model", card["title"] or ""
    yield "architecture", card["architecture"] or "not said"
    yield "layers", f"{card['layers']}, of width {card['d_model']}"
    yield "context", f"{card['context']} tokens"
    yield "vocabulary", _vocabulary(card)
    yield "quantisation", _mix(card["quantisation"])
    yield "a layer", _layers(card["layer_bytes"])
    yield "root", card["root"]
    yield "space", card["space"] or ""
    usual = f"{size_in_words(card['memory'])} with {USUAL_CONTEXT} tokens of context"
    yield "memory", f"{usual}; {size_in_words(card['memory_as_floats'])} as float32"
    yield "this machine", _fit(card)
    yield "cannot be run", card["problem"] or ""
    yield "what to do", (card["hint"] or "") if card["problem"] else ""


def _whereabouts(card: Mapping[str, Any]) -> str:
    if not card["installed"]:
        return f"no: p2pnode models pull {card['name']}"
    return f"{card['path']}{f' ({problem})' if (problem := card['problem']) else ''}"


def _vocabulary(card: Mapping[str, Any]) -> str:
    """Say what is known of it; why nothing is, the last lines of the card say."""
    if card["tokens"] is None:
        return "none that can be read"
    parts = [f"{card['tokens']} tokens", card["vocabulary"] or "of a kind that is not said"]
    if card["pre_tokenizer"]:
        parts.append(f"pre-tokenizer {card['pre_tokenizer']}")
    if is_untested(card["vocabulary"] or "", card["pre_tokenizer"] or ""):
        parts[-1] += f" ({UNTESTED})"
    return ", ".join(parts if card["chat_template"] else [*parts, "no chat template"])


def _mix(mix: Mapping[str, int]) -> str:
    total = max(1, sum(mix.values()))
    return ", ".join(f"{name} {100 * size / total:.0f} %" for name, size in mix.items())


def _layers(sizes: list[int]) -> str:
    if not sizes:
        return ""
    least, most = size_in_words(min(sizes)), size_in_words(max(sizes))
    return least if least == most else f"{least} to {most}"


def _fit(card: Mapping[str, Any]) -> str:
    free = f"{size_in_words(max(1, card['free_memory']))} of memory free"
    return f"{free}: {fit(card['layers_that_fit'], card['layers'], card['peers_needed'])}"


def fit(layers: int, of: int | None, peers: int | None) -> str:
    """Say how much of a model a machine holds, and how many such machines it takes."""
    if peers == 1:
        return "the whole model fits"
    if peers is None:
        return "too little for any peer's share of it"
    return f"{layers} of {of} layers fit; it takes {peers} such peers"
