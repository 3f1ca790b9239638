"""How the tokenizer.json of a checkpoint cuts text, recognised among the ways that are known.

A pattern out of a foreign file is never run, since it may take for ever: it is compared with those
of :mod:`p2pnode.text.pre_tokenizers`, and what is not among them is refused by name.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from p2pnode.errors import ModelError
from p2pnode.terminal import label
from p2pnode.text.pre_tokenizers import GPT_2, OTHER_SPELLINGS, PRE_TOKENIZERS
from p2pnode.text.sentence_pieces import SPACE

_MOST_STEPS: Final = 16
_PLAIN: Final = {"String": " "}
_OTHER_CHECKPOINT: Final = "Use a GGUF of this model, or a checkpoint of a family that is known."


@dataclass(frozen=True, slots=True)
class SpacePrefix:
    """Whether and where a space is put before text: as the fields of a vocabulary are called."""

    space_prefix: bool = False
    prefix_once: bool = False
    prefix_spared: bool = False


def byte_level_cut(body: Mapping[str, Any]) -> str:
    """Return the name of the pre-tokenizer that byte-level BPE is used with.

    Raises:
        ModelError: It is none that is known.
    """
    composed = False
    for step in _steps(body, "normalizer", "normalizers"):
        if step.get("type") != "NFC":
            raise _refusal("normalises text", step)
        composed = True
    *before, last = [*_steps(body, "pre_tokenizer", "pretokenizers")] or [{}]
    if last.get("type") != "ByteLevel":
        raise _refusal("cuts text", last)
    if last.get("add_prefix_space"):
        raise _refusal("puts a space before text", last)
    patterns = [_pattern(step, alone=len(before) == 1) for step in before]
    if last.get("use_regex", True):
        patterns.append(GPT_2)
    known = tuple(OTHER_SPELLINGS.get(one, one) for one in patterns)
    words_whole = bool(body["model"].get("ignore_merges"))
    for name, one in PRE_TOKENIZERS.items():
        if (one.patterns, one.composed, one.words_whole) == (known, composed, words_whole):
            return name
    how = "; ".join(label(one)[:80] for one in patterns)
    how += ", composed" * composed + ", words whole" * words_whole
    raise ModelError(
        f"the model cuts its text in a way this node does not know ({how})",
        hint=f"Known pre-tokenizers: {', '.join(PRE_TOKENIZERS)}.",
    )


def pieces_prefix(body: Mapping[str, Any]) -> SpacePrefix:
    """Return where a space is put before text that is cut into pieces.

    Raises:
        ModelError: The text is changed or cut in a way that is not known.
    """
    found, has_spaces = SpacePrefix(), False
    for step in _steps(body, "normalizer", "normalizers"):
        match step:
            case {"type": "Prepend", "prepend": prepended} if prepended == SPACE and not has_spaces:
                found = SpacePrefix(space_prefix=True)
            case {"type": "Replace", "pattern": pattern, "content": content} if (
                pattern == _PLAIN and content == SPACE
            ):
                has_spaces = True
            case _:
                raise _refusal("normalises text", step)
    for step in _steps(body, "pre_tokenizer", "pretokenizers"):
        match step:
            case {"type": "Metaspace", "replacement": sign, "split": False} if (
                sign == SPACE and not found.space_prefix
            ):
                found, has_spaces = _of_metaspace(step), True
            case {"type": "Split", "pattern": pattern} if pattern == _PLAIN and has_spaces:
                pass  # there are none left
            case _:
                raise _refusal("cuts text", step)
    if not has_spaces:
        raise ModelError(
            "the model's tokenizer.json does not say what becomes of spaces",
            hint=_OTHER_CHECKPOINT,
        )
    return found


def begins_with(body: Mapping[str, Any], bos: str) -> bool:
    """Whether a text begins with the token spelled ``bos``, as tokenizer.json has it."""
    for step in _steps(body, "post_processor", "processors"):
        match step:
            case {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": str(first)}}, *_],
            }:
                return first == bos
    return False


def _of_metaspace(step: Mapping[str, Any]) -> SpacePrefix:
    match step.get("prepend_scheme", "always"):
        case "always":
            return SpacePrefix(space_prefix=True, prefix_spared=True)
        case "first":
            return SpacePrefix(space_prefix=True, prefix_once=True, prefix_spared=True)
        case "never":
            return SpacePrefix()
    raise _refusal("puts spaces before text", step)


def _pattern(step: Mapping[str, Any], *, alone: bool) -> str:
    """Return the pattern at which a step cuts, at both ends of every match."""
    match step:
        case {"type": "Digits"}:
            return r"\p{N}" if step.get("individual_digits") else r"\p{N}+"
        case {"type": "Split", "pattern": {"Regex": str(pattern)}}:
            how = step.get("behavior"), bool(step.get("invert"))
            # To drop what lies between matches is the same where everything matches, as it does
            # with each of ours that stands alone.
            if how == ("Isolated", False) or (alone and how == ("Removed", True)):
                return pattern
    raise _refusal("cuts text", step)


def _steps(body: Mapping[str, Any], key: str, many: str) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a part of the file, one behind the other.

    Raises:
        ModelError: They are none.
    """
    yield from _flat([body.get(key)], key, many, _MOST_STEPS)


def _flat(found: Iterable[Any], key: str, many: str, depth: int) -> Iterator[Mapping[str, Any]]:
    for number, step in enumerate(found):
        if step is None:
            continue
        if not isinstance(step, dict) or number >= _MOST_STEPS or depth < 1:
            raise ModelError(f"the model's tokenizer.json has a {key} of an unknown form")
        inner = step.get(many)
        if step.get("type") == "Sequence" and isinstance(inner, list):
            yield from _flat(inner, key, many, depth - _MOST_STEPS // 4)
        else:
            yield step


def _refusal(does: str, step: Mapping[str, Any]) -> ModelError:
    said = ", ".join(f"{key} {value!r}" for key, value in step.items() if key != "type")
    kind = label(str(step.get("type", "nothing")))[:40]
    return ModelError(
        f"the model {does} in a way this node does not know ({kind}: {label(said)[:100]})",
        hint=f"{_OTHER_CHECKPOINT} Known pre-tokenizers: {', '.join(PRE_TOKENIZERS)}.",
    )
