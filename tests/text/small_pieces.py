"""A small vocabulary of SentencePiece's kind: enough to merge, to tie and to fall back to bytes."""

from typing import Any, Final

CONTROL: Final = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>")
_LETTERS: Final = "\u2581etaoinshrdlucmfwypvbgkqjxz.,!?'0123456789<>[]/_|\u00e9\u6f22"
_WORDS: Final = (
    *(
        "\u2581the",
        "\u2581world",
        "hello",
        "\u2581hello",
        "\u2581\u2581\u2581\u2581",
        "ing",
        "tion",
    ),
    *("aaaa", "abab", "ababab", "aab", "baa", "rst", "sta", "tar", "12", "23", "123", "<s", "s>"),
    *("INST", "/s", "\u2581a", "a\u2581", "'s", "'ll", "..", "...", "\u6f22\u6f22", "</", "_of_"),
    *("start", "end", "turn", "<0x0A", "0x"),
)

_USER_DEFINED: Final = ("  ", "\n\n", "<b>")


def _tokens() -> list[str]:
    found = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *_USER_DEFINED, *_LETTERS]
    for word in _WORDS:
        found += [word[:size] for size in range(2, len(word) + 1)]
        found.append(word[-2:])
    return list(dict.fromkeys(found))


TOKENS: Final = _tokens()
FIRST: Final = len(CONTROL)
KINDS: Final = [
    *([2] + [3] * (FIRST - 1)),
    *([6] * 256),
    *([4] * len(_USER_DEFINED)),
    *([1] * (len(TOKENS) - FIRST - 256 - len(_USER_DEFINED))),
]
# Of every four tokens in a row the scores are the same, so that the leftmost has to win.
SCORES: Final = [-float(token // 4) for token in range(len(TOKENS))]


def fields(**changed: Any) -> dict[str, Any]:
    """Return the fields of a ``Vocabulary``."""
    given = {
        "kind": "llama",
        "pre": "",
        "tokens": TOKENS,
        "kinds": KINDS,
        "scores": SCORES,
        "merges": (),
        "bos": 1,
        "eos": 2,
        "space_prefix": True,
    }
    return given | changed
