"""The vocabulary of a checkpoint: its tokenizer.json, and the small files beside it.

Nothing of these files is run, nor given to a library before it is checked. What they say becomes
the same :class:`~p2pnode.text.vocabulary.Vocabulary` that a GGUF gives, so that control tokens,
hostile templates and schemas are treated alike.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from p2pnode.engine.safetensors_file import parse_json
from p2pnode.engine.word_files import TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, WordFiles
from p2pnode.errors import ModelError
from p2pnode.terminal import label
from p2pnode.text.checkpoint_cuts import begins_with, byte_level_cut, pieces_prefix
from p2pnode.text.specials import CONTROL, UNKNOWN_KIND, UNUSED, USER_DEFINED
from p2pnode.text.vocabulary import BYTE_LEVEL, SENTENCE_PIECES, Vocabulary

MOST_TOKENS: Final = 1 << 21
"""Of a vocabulary; the largest that are published have 262,208."""

_MOST_BRACKETS: Final = 4_000_000
_MOST_VALUES: Final = 12_000_000
"""Gemma's tokenizer.json has 580,000 brackets and 1.5 million commas. Each may cost 100 bytes."""

_NORMAL: Final = 1
_NEVER: Final = float("-inf")
_FIT: Final = "Fetch the checkpoint again, or use a GGUF of this model."


def checkpoint_vocabulary(files: WordFiles) -> Vocabulary:
    """Read a vocabulary.

    Raises:
        ModelError: It is missing, broken, or of a kind that is not known.
    """
    body = _object(files.tokenizer, TOKENIZER)
    config = _object(files.config or b"{}", TOKENIZER_CONFIG)
    if not 0 < files.vocab_size <= MOST_TOKENS:
        raise ModelError(f"a vocabulary of {files.vocab_size} tokens is more than is read")
    model = _model(body)
    added = _added(body)
    ids = _ids(model, added, files.vocab_size)
    tokens = _tokens(ids, files.vocab_size)
    bos, eos = (_special(config, key, ids) for key in ("bos_token", "eos_token"))
    if bos is None and files.bos is not None and files.bos < len(tokens):
        bos = files.bos
    ends = {*files.ends, *(() if eos is None else (eos,))}
    return Vocabulary(
        tokens=tokens,
        kinds=_kinds(ids, added, model, len(tokens)),
        template=_template(files, config),
        bos=bos,
        eos=eos,
        ends=tuple(sorted(end for end in ends if end < len(tokens))),
        add_bos=_adds_bos(body, config, "" if bos is None else tokens[bos]),
        stripping=_stripping(added, ids),
        **(_of_pieces(body, ids, len(tokens)) if _is_of_pieces(model) else _of_bytes(body)),
    )


def _object(data: bytes, name: str) -> Mapping[str, Any]:
    """Parse a file of JSON, of which the whole was counted first: small texts can hold much."""
    if not data:
        raise ModelError(
            f"the checkpoint has no {name}, so no text can be cut into its tokens",
            hint="Fetch it, and put it beside config.json; a tokenizer.model alone is not read.",
        )
    brackets, values = data.count(b"[") + data.count(b"{"), data.count(b",")
    if brackets > _MOST_BRACKETS or values > _MOST_VALUES:
        raise ModelError(f"the {name} holds more than is read: {brackets} lists, {values} values")
    body = parse_json(data, name)
    if not isinstance(body, dict):
        raise ModelError(f"the {name} is no object", hint=_FIT)
    return body


def _model(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part with tokens and merges, if text can be cut by it as it is here.

    Raises:
        ModelError: It is of another kind.
    """
    model = body.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE":
        raise ModelError(
            f"the model has a tokenizer of the unknown kind {label(str(kind))[:40]!r}",
            hint="Known kinds: BPE, of bytes or with byte_fallback.",
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ModelError(
                f"the model's tokenizer has {key} = {label(str(model[key]))[:40]}, which nobody "
                "here computes",
                hint="Use a GGUF of this model.",
            )
    return model


def _added(body: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the tokens that are found by their spelling, by that."""
    found: dict[str, Mapping[str, Any]] = {}
    said = body.get("added_tokens") or []
    listed: list[Any] = said if isinstance(said, list) else [None]
    for one in listed:
        text = one.get("content") if isinstance(one, dict) and "id" in one else None
        if not isinstance(text, str) or not text or text in found:
            raise ModelError(
                f"the {TOKENIZER} has a broken added token: {label(repr(one)[:200])[:80]}",
                hint=_FIT,
            )
        found[text] = one
    return found


def _ids(
    model: Mapping[str, Any], added: Mapping[str, Mapping[str, Any]], rows: int
) -> dict[str, int]:
    """Return the id of each token; those beyond the embedding's rows can be no input and go."""
    vocab = model.get("vocab")
    if not isinstance(vocab, dict):
        raise ModelError(f"the {TOKENIZER} has no vocabulary", hint=_FIT)
    ids: dict[str, int] = {}
    for text, token in [*vocab.items(), *((text, one["id"]) for text, one in added.items())]:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < MOST_TOKENS:
            raise ModelError(f"{label(text)[:60]!r} is token {token!r}"[:160], hint=_FIT)
        if ids.get(text, token) != token:
            raise ModelError(
                f"{label(text)[:60]!r} is token {ids[text]}, and {token} as well", hint=_FIT
            )
        if token < rows:
            ids[text] = token
    return ids


def _tokens(ids: Mapping[str, int], rows: int) -> list[str]:
    """Return each token's text, by id: as many as the embedding has rows.

    Rows that no token has are named as converters to GGUF name them, so that one that is drawn is
    treated as it is there.
    """
    tokens: list[str | None] = [None] * rows
    for text, token in ids.items():
        if (other := tokens[token]) is not None:
            raise ModelError(
                f"token {token} is both {label(other)[:60]!r} and {label(text)[:60]!r}", hint=_FIT
            )
        tokens[token] = text
    try:
        "".join(ids).encode()
    except UnicodeEncodeError:
        raise ModelError(f"the {TOKENIZER} has a token that is no text", hint=_FIT) from None
    return [_pad(token) if text is None else text for token, text in enumerate(tokens)]


def _pad(token: int) -> str:
    return f"[PAD{token}]"


def _kinds(
    ids: Mapping[str, int],
    added: Mapping[str, Mapping[str, Any]],
    model: Mapping[str, Any],
    count: int,
) -> list[int]:
    kinds = [UNUSED] * count
    for token in ids.values():
        kinds[token] = _NORMAL
    unknown = model.get("unk_token")
    if isinstance(unknown, str) and unknown in ids:
        kinds[ids[unknown]] = UNKNOWN_KIND
    for text, one in added.items():
        if text in ids:
            kinds[ids[text]] = CONTROL if one.get("special") is True else USER_DEFINED
    return kinds


def _is_of_pieces(model: Mapping[str, Any]) -> bool:
    return model.get("byte_fallback") is True


def _of_bytes(body: Mapping[str, Any]) -> dict[str, Any]:
    merges = [f"{left} {right}" for left, right in _merges(body["model"])]
    return {"kind": BYTE_LEVEL, "merges": merges, "pre": byte_level_cut(body)}


def _of_pieces(body: Mapping[str, Any], ids: Mapping[str, int], count: int) -> dict[str, Any]:
    if body["model"].get("ignore_merges"):
        raise ModelError(
            "the model takes words of pieces whole, which nobody here computes",
            hint="Use a GGUF of this model.",
        )
    prefix = pieces_prefix(body)
    return {
        "kind": SENTENCE_PIECES,
        "merges": (),
        "pre": "",
        "scores": _scores(body["model"], ids, count),
        "space_prefix": prefix.space_prefix,
        "prefix_once": prefix.prefix_once,
        "prefix_spared": prefix.prefix_spared,
    }


def _scores(model: Mapping[str, Any], ids: Mapping[str, int], count: int) -> Sequence[float]:
    """Return how good each token is to merge: the earlier its first merge, the better.

    A token that no merge makes is never made: minus infinity.
    """
    scores = array("d", [_NEVER]) * count
    for rank, (left, right) in enumerate(_merges(model)):
        token = ids.get(left + right)
        if token is None or left not in ids or right not in ids:
            raise ModelError(
                f"the {TOKENIZER} merges {label(left)[:40]!r} and {label(right)[:40]!r}, and has "
                "not all three tokens of that",
                hint=_FIT,
            )
        if scores[token] == _NEVER:
            scores[token] = -float(rank)
    return scores


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the pairs to merge, best first; they are written in two ways."""
    merges = model.get("merges")
    for one in merges if isinstance(merges, list) else [None]:  # half a million: no patterns here
        pair = one.split(" ") if isinstance(one, str) else one
        if not isinstance(pair, list) or len(pair) != 2 or not all(pair):
            raise _no_merge(one)
        left, right = pair
        if not isinstance(left, str) or not isinstance(right, str):
            raise _no_merge(one)
        yield left, right


def _no_merge(said: object) -> ModelError:
    return ModelError(
        f"the {TOKENIZER} has a merge of no two tokens: {label(repr(said)[:200])[:80]}", hint=_FIT
    )


def _stripping(added: Mapping[str, Mapping[str, Any]], ids: Mapping[str, int]) -> frozenset[int]:
    """Return the tokens that take the white space behind them with them.

    Raises:
        ModelError: One takes what stands before it, or counts as a word alone.
    """
    for text, one in added.items():
        for key in ("lstrip", "single_word"):
            if one.get(key):
                raise ModelError(
                    f"the token {label(text)[:60]!r} has {key}, which nobody here computes",
                    hint="Use a GGUF of this model.",
                )
    return frozenset(ids[text] for text, one in added.items() if one.get("rstrip") and text in ids)


def _special(config: Mapping[str, Any], key: str, ids: Mapping[str, int]) -> int | None:
    said = config.get(key)
    text = said.get("content") if isinstance(said, dict) else said
    return ids.get(text) if isinstance(text, str) else None


def _adds_bos(body: Mapping[str, Any], config: Mapping[str, Any], bos: str) -> bool:
    said = config.get("add_bos_token")
    return bool(bos) and (said if isinstance(said, bool) else begins_with(body, bos))


def _template(files: WordFiles, config: Mapping[str, Any]) -> str:
    """Return the chat template: of the file of its own, or the one for every purpose."""
    if files.template:
        try:
            return files.template.decode()
        except UnicodeDecodeError:
            raise ModelError(f"the {TEMPLATE} is no text in UTF-8", hint=_FIT) from None
    said = config.get("chat_template")
    if isinstance(said, list):
        named = [one for one in said if isinstance(one, dict) and one.get("name") == "default"]
        said = named[0].get("template") if named else None
    said = "" if said is None else said
    try:
        if isinstance(said, str):
            said.encode()
            return said
    except UnicodeEncodeError:
        pass
    raise ModelError(f"the chat template of {TOKENIZER_CONFIG} is no text", hint=_FIT)
