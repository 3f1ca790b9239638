"""Checkpoints' tokenizer files, made of our own vocabularies by the library that others use."""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer as Library, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from p2pnode.engine.word_files import WordFiles
from p2pnode.text.checkpoint_vocabulary import checkpoint_vocabulary
from p2pnode.text.specials import BYTE, STEERING, USER_DEFINED
from p2pnode.text.tokenizer import Tokenizer
from p2pnode.text.vocabulary import BYTE_LEVEL, Vocabulary

SPACE = "\u2581"


def library_of(known: Vocabulary) -> Library:
    """Return what a model's maker would publish of a vocabulary."""
    ids = {text: token for token, text in enumerate(known.tokens)}
    if known.kind == BYTE_LEVEL:
        pairs = [(left, right) for left, _, right in (one.partition(" ") for one in known.merges)]
        made = Library(BPE(ids, pairs))
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
        )
    else:
        made = Library(BPE(ids, _pairs(known), byte_fallback=True, fuse_unk=True))
        steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
        if known.space_prefix:
            steps.insert(0, normalizers.Prepend(SPACE))
        made.normalizer = normalizers.Sequence(steps)
    for kinds, is_special in (({USER_DEFINED}, False), (STEERING, True)):
        made.add_tokens(
            [
                AddedToken(text, normalized=False, special=is_special)
                for text, kind in zip(known.tokens, known.kinds, strict=True)
                if kind in kinds
            ]
        )
    if known.add_bos and known.bos is not None:
        bos = known.tokens[known.bos]
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, known.bos)]
        )
    return made


def _pairs(known: Vocabulary) -> list[tuple[str, str]]:
    """Return merges as transformers makes them of SentencePiece's scores."""
    ids = {
        text: token
        for token, text in enumerate(known.tokens)
        if known.kinds[token] not in STEERING | {BYTE}
    }
    best = sorted(ids, key=lambda text: -known.scores[ids[text]])
    found: list[tuple[str, str]] = []
    for text in best:
        splits = [(text[:at], text[at:]) for at in range(1, len(text))]
        here = [pair for pair in splits if pair[0] in ids and pair[1] in ids]
        found += sorted(here, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return found


def word_files(
    body: Mapping[str, Any] | str,
    known: Vocabulary | None = None,
    *,
    template: str = "",
    rows: int = 0,
    **config: object,
) -> WordFiles:
    """Return a checkpoint's files; ``known`` names its beginning and end."""
    text = body if isinstance(body, str) else json.dumps(body)
    said: dict[str, object] = {}
    if known is not None:
        said = {"bos_token": known.text(known.bos) or None, "eos_token": known.text(known.eos)}
    return WordFiles(
        "tiny",
        text.encode("utf-8", "surrogatepass"),
        json.dumps(said | config).encode(),
        template.encode(),
        rows or (len(known.tokens) if known is not None else 0),
        None,
        () if known is None else known.ends,
    )


def tokenizer(files: WordFiles) -> Tokenizer:
    read = checkpoint_vocabulary(files)
    return Tokenizer(**{name: getattr(read, name) for name in Vocabulary.__dataclass_fields__})
