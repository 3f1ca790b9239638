"""How a person wants tokens drawn."""

import math
from dataclasses import dataclass, fields, replace

from p2pnode.engine.sampling.schema_text import check_schema_text
from p2pnode.errors import ConfigError

MOST_TOP_LOGPROBS = 20
"""As OpenAI's API has it."""

MOST_PAST = 8192
"""Tokens that a draw may depend on, of prompt and answer: they must fit one control message, at 4
characters each (:mod:`p2pnode.inference.messages`)."""

MOST_ENDS = 32
"""Of one model: those of its file, and the template's end of a turn."""

MOST_TOP_K = 2**31 - 1
"""Stages read no more; no vocabulary has as many tokens."""

_PLAIN = ("temperature", "top_k", "top_p", "seed")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn from the logits; the order is in :mod:`.draw`.

    Attributes:
        temperature: 0 takes the likeliest token; 1 draws from the model's own distribution.
        top_k: Draw among the k likeliest only; 0 means all.
        top_p: Draw among the fewest likeliest that together reach this probability.
        seed: The same seed draws the same token at the same position, wherever it runs.
        min_p: Draw among those at least so likely, as a share of the likeliest's probability.
        repetition_penalty: Logits of tokens among the last ``penalty_last_n`` of prompt and answer
            are divided by this where positive, else multiplied (Keskar et al., "CTRL", 2019,
            section 4.1). 1 changes nothing, more discourages.
        presence_penalty: Taken off the logit of each token that the answer has (OpenAI).
        frequency_penalty: Taken off it once more for each time that the answer has it (OpenAI).
        penalty_last_n: How far back ``repetition_penalty`` looks; 64 is llama.cpp's.
        logprobs: Tell how likely each token was, and the likeliest: so many, 0 to 20. None tells
            nothing.
        schema: A JSON schema that the answer follows; "" for none.
        ends: Tokens that may end an answer that follows a schema, once it is complete.
        mean: Draw nothing: tell the mean of the hidden states of all tokens, after the last norm.

    Raises:
        ConfigError: A value is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    logprobs: int | None = None
    schema: str = ""
    ends: tuple[int, ...] = ()
    mean: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 100):
            raise ConfigError(f"temperature must be between 0 and 100, not {self.temperature}")
        if not 0 <= self.top_k <= MOST_TOP_K:
            raise ConfigError(f"top-k must be 0 (all) to {MOST_TOP_K}, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"the seed must be between 0 and 2**64 - 1, not {self.seed}")
        if not 0 <= self.min_p <= 1:
            raise ConfigError(f"min-p must be between 0 and 1, not {self.min_p}")
        if not 0.1 <= self.repetition_penalty <= 10:
            raise ConfigError(
                f"the repetition penalty must be between 0.1 and 10, not {self.repetition_penalty}"
            )
        for name in ("presence", "frequency"):
            penalty = getattr(self, f"{name}_penalty")
            if not -2 <= penalty <= 2:
                raise ConfigError(f"the {name} penalty must be between -2 and 2, not {penalty}")
        if not 1 <= self.penalty_last_n <= MOST_PAST:
            raise ConfigError(
                f"penalty-last-n must be between 1 and {MOST_PAST}, not {self.penalty_last_n}"
            )

        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_TOP_LOGPROBS:
            raise ConfigError(
                f"logprobs of 0 to {MOST_TOP_LOGPROBS} tokens can be had, not of {self.logprobs}"
            )

        if self.schema:
            check_schema_text(self.schema)
        if self.mean and replace(self, mean=False) != Sampling():
            raise ConfigError("where the mean of hidden states is asked for, nothing is drawn")
        if len(self.ends) > MOST_ENDS:
            raise ConfigError(f"{len(self.ends)} tokens end an answer; {MOST_ENDS} are the most")

    @property
    def is_plain(self) -> bool:
        """Whether it asks for nothing that stages did not know at first."""
        return all(
            getattr(self, field.name) == field.default
            for field in fields(self)
            if field.name not in _PLAIN
        )

    @property
    def looks_back(self) -> int:
        """How many of the last tokens of the prompt a draw depends on."""
        return self.penalty_last_n if self.repetition_penalty != 1 else 0

    @property
    def needs_past(self) -> bool:
        """Whether a draw depends on the tokens before it."""
        penalties = (self.presence_penalty, self.frequency_penalty, self.repetition_penalty - 1)
        return any(penalties) or bool(self.schema)
