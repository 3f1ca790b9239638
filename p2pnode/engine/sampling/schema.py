"""Answers that follow a JSON schema: which tokens may come next, by the ``llguidance`` library.

The library compiles a schema to a grammar over bytes and walks the vocabulary with it. Whoever asks
chooses the schema, so everything is bounded: its text (:mod:`.schema_text`), what compiling it may
take, and what each step may. All bounds are counted in the library's own units of work, not in
seconds: a step that one stage can do every other can do as well.
"""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from p2pnode.engine.sampling.draw import Ids
from p2pnode.errors import DrawError, UserError
from p2pnode.installing import pip_install

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits

MOST_GRAMMAR: Final = 50_000
"""Symbols of a compiled grammar; a tenth of the library's default. 500 properties take 10,000."""
MOST_COMPILING: Final = 250_000
"""Fuel for the expressions of a schema: some 5 ms, and a hundred for the worst ones tried."""
MOST_LEXING: Final = 200_000
"""Fuel for expressions in one step: some 15 ms."""
MOST_ITEMS: Final = 50_000
"""Items of the parser in one step: some 3 ms."""
MOST_STATES: Final = 10_000
"""States of expressions that a session may come to, of half a KB to 2 KB each."""
_WHERE: Final = re.compile(r"^at \d+\(\d+\): failed to compile JSON schema: ")
_REASON: Final = 200  # letters of what the library says


class Constraints:
    """One model's vocabulary, ready to be walked; 20 MB for 49,152 tokens.

    Args:
        tokens: The bytes of each token, by id; none for those that no text is made of.
        end: Some token without bytes; stands for the end of an answer.

    Raises:
        DrawError: The library is not here, or cannot use the vocabulary.
    """

    def __init__(self, tokens: Sequence[bytes], end: int) -> None:
        try:
            from llguidance import LLTokenizer, TokenizerWrapper
        except ImportError as error:
            raise DrawError(
                "llguidance is not installed, which schemas need", hint=pip_install("llguidance")
            ) from error
        self._size = len(tokens)
        self._end = end
        wrapped = TokenizerWrapper(_Words(tokens, end))
        try:
            self._tokenizer = LLTokenizer(wrapped, n_vocab=len(tokens), eos_token=end)
        except ValueError as error:
            raise DrawError(f"the vocabulary cannot be used with schemas: {error}") from error

    def prepare(self, schema: str) -> None:
        """A schema will be wanted; it is compiled when it is."""

    def matcher(self, schema: str) -> "Matcher":
        """Compile ``schema``.

        Raises:
            DrawError: It cannot be followed, or takes too much.
        """
        from llguidance import LLMatcher

        made = LLMatcher(self._tokenizer, _grammar(schema), log_level=0, limits=_limits())
        if made.is_error():
            raise DrawError(f"the schema cannot be followed: {_first_line(made.get_error())}")
        return Matcher(made, self._size, self._end)


class Matcher:
    """What one answer may go on with."""

    def __init__(self, matcher: "LLMatcher", size: int, end: int) -> None:
        self._matcher = matcher
        self._size = size
        self._end = end

    def copy(self) -> "Matcher":
        """Return one that goes on by itself."""
        return Matcher(self._matcher.deep_copy(), self._size, self._end)

    def take(self, tokens: Sequence[int]) -> None:
        """Go on by ``tokens``.

        Raises:
            DrawError: They do not follow the schema, or it takes too much to see.
        """
        if tokens and not self._matcher.consume_tokens(list(tokens)):
            raise self._failure("the answer so far does not follow the schema")

    def allowed(self, ends: Sequence[int]) -> Ids:
        """Return what may come next, ascending: tokens, and ``ends`` only where it may be over.

        Raises:
            DrawError: Nothing may, or it takes too much to see.
        """
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise self._failure("the schema cannot be followed any further")
        bits = np.unpackbits(packed, count=self._size, bitorder="little")  # [vocab]
        bits[self._end] = 0
        # One that ends an answer may have a spelling: within a text it would end that half-way.
        bits[[end for end in ends if end < self._size]] = self._matcher.is_accepting()
        ids = np.flatnonzero(bits)
        if not len(ids):
            raise DrawError("the schema allows no token here")
        return ids

    def _failure(self, what: str) -> DrawError:
        return DrawError(f"{what}: {_first_line(self._matcher.get_error())}")


def check_schema(schema: str) -> None:
    """Compile a schema without a vocabulary, to see that it can be.

    Raises:
        UserError: It cannot be followed, or the library is not here.
    """
    try:
        from llguidance import LLMatcher
    except ImportError as error:
        raise UserError(
            "llguidance is not installed, which schemas need", hint=pip_install("llguidance")
        ) from error
    problem = LLMatcher.validate_grammar(_grammar(schema), limits=_limits())
    if problem and not problem.startswith("WARNING"):
        raise UserError(
            f"the schema cannot be followed: {_first_line(problem)}",
            hint="correct it, or ask for less in it",
        )


class _Words:
    """A vocabulary as the library wants it."""

    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], end: int) -> None:
        self.tokens = tokens
        self.eos_token_id = end
        self.special_token_ids = [end]

    def __call__(self, text: str | bytes) -> list[int]:
        """Cut text into tokens; never wanted, since nothing is forced."""
        del text
        return []


def _grammar(schema: str) -> str:
    """Return the grammar of ``schema``.

    Without forced bytes: those are cut into tokens by the library, and what may come next would
    depend on how, rather than on the answer alone.
    """
    text = json.dumps(json.loads(schema))
    return f'%llguidance {{"no_forcing": true}}\nstart: %json {text}'


def _limits() -> "LLParserLimits":
    from llguidance import LLParserLimits

    return LLParserLimits(
        max_grammar_size=MOST_GRAMMAR,
        initial_lexer_fuel=MOST_COMPILING,
        step_lexer_fuel=MOST_LEXING,
        step_max_items=MOST_ITEMS,
        max_lexer_states=MOST_STATES,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def _first_line(problem: str) -> str:
    line = _WHERE.sub("", problem.strip().partition("\n")[0])
    return "".join(letter for letter in line[:_REASON] if letter.isprintable())
