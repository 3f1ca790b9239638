"""The tokens before a draw, as far as it depends on them."""

from dataclasses import replace
from typing import Self

from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import DrawError
from p2pnode.values import value


@value
class Past:
    """The tokens that stand right before position ``end``.

    Attributes:
        begins: Position of the answer's first token: what stands before is of the prompt.
        end: The position that follows the last of ``tokens``.
        tokens: Token ids; as many as somebody asks for, at most ``end``.
    """

    begins: int
    end: int
    tokens: tuple[int, ...]

    @property
    def answer(self) -> tuple[int, ...]:
        """Those that belong to the answer."""
        return self.tokens[max(0, len(self.tokens) - max(0, self.end - self.begins)) :]

    def then(self, token: int) -> Self:
        """Return what it is once ``token`` was drawn."""
        return replace(self, end=self.end + 1, tokens=(*self.tokens, token))

    def at(self, position: int) -> Self:
        """Return what stands before ``position``.

        Raises:
            DrawError: A token before it is not known.
        """
        if position > self.end:
            raise DrawError(f"the token of position {self.end} was never drawn nor told")
        kept = len(self.tokens) - (self.end - position)
        return replace(self, end=position, tokens=self.tokens[: max(0, kept)])

    def suffices(self, sampling: Sampling) -> bool:
        """Whether it has all tokens that a draw at ``end`` depends on."""
        needed = max(self.end - self.begins, min(sampling.looks_back, self.end))
        return len(self.tokens) >= needed
