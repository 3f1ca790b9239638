"""``/v1/completions``: a text gone on with."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from p2pnode.interfaces.http.errors import wrong
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.openai.params import (
    DRAWN,
    EXTENSIONS,
    HARMLESS,
    MOST_CHOICES,
    length_params,
    sampling_params,
    several,
)
from p2pnode.interfaces.http.openai.writing import DONE, OpenAiWriter, finish_of, usage
from p2pnode.interfaces.http.params import format_params, within_past
from p2pnode.interfaces.http.sse import server_sent

Body: TypeAlias = dict[str, Any]

_MOST_LOGPROBS: Final = 5
_KNOWN: Final = (
    DRAWN
    | EXTENSIONS
    | HARMLESS
    | {"prompt", "model", "n", "stream", "stream_options", "logit_bias", "max_tokens"}
    | {"logprobs", "echo", "suffix", "best_of", "response_format"}
)


def questions_of(fields: Fields) -> list[Body]:
    """Return what is to be asked of the node: each prompt ``n`` times.

    Raises:
        ApiError: A parameter is wrong, unknown, or cannot be met; names it.
    """
    fields.refuse_unknown(_KNOWN)
    fields.refuse("suffix", "this model goes on, and fills no gap")
    count = fields.whole("n", 1, MOST_CHOICES, 1) or 1
    if (fields.whole("best_of", 1, MOST_CHOICES, count) or count) > count:
        raise wrong("best_of", "best_of must be n: answers are not chosen among")
    params = {
        **sampling_params(fields),
        **length_params(fields, "max_tokens"),
        **format_params(fields.value("response_format"), "response_format"),
        "logprobs": fields.whole("logprobs", 0, _MOST_LOGPROBS, None),
    }
    prompts = _prompts(fields)
    if len(prompts) * count > MOST_CHOICES:
        raise wrong("prompt", f"prompts times n must be {MOST_CHOICES} at the most")
    return [
        question
        for prompt in prompts
        for question in several(within_past({**params, **prompt}), count)
    ]


class CompletionWriter(OpenAiWriter):
    """Writes completions; a chunk of a stream is one with less in it."""

    def __init__(self, fields: Fields, model: Body) -> None:
        super().__init__("cmpl-", model)
        self._has_usage = fields.inner("stream_options").flag("include_usage")
        self._count = fields.whole("n", 1, MOST_CHOICES, 1) or 1
        self._echoed = self._echo(fields)
        self._has_echoed: set[int] = set()

    def opening(self) -> bytes:
        return b""

    def event(self, number: int, event: Body) -> bytes:
        if event["event"] not in ("token", "rest"):
            return b""
        told = event.get("logprobs")
        text = self._echo_of(number) + event["text"]
        if not text and told is None:
            return b""
        return self._chunk(number, text, None if told is None else _logprobs([told]))

    def closing(self, facts: Sequence[Body]) -> bytes:
        ends = [self._chunk(at, "", None, finish_of(one)) for at, one in enumerate(facts)]
        last = server_sent({**self._head(), "choices": [], "usage": self._usage(facts)})
        return b"".join([*ends, last if self._has_usage else b"", DONE])

    def whole(self, facts: Sequence[Body]) -> object:
        choices = [
            _choice(
                number,
                self._echo_of(number) + one["text"],
                _logprobs(one["logprobs"]) if "logprobs" in one else None,
                finish_of(one),
            )
            for number, one in enumerate(facts)
        ]
        return {**self._head(), "choices": choices, "usage": self._usage(facts)}

    def _usage(self, facts: Sequence[Body]) -> Body:
        """Return what the answers took, each prompt counted once."""
        counted = usage(facts)
        each = facts[:: self._count]
        prompt = sum(len(one["prompt_ids"]) for one in each)
        total = prompt + counted["completion_tokens"]
        details = {"cached_tokens": sum(one.get("reused", 0) for one in each)}
        whole = {"prompt_tokens": prompt, "total_tokens": total, "prompt_tokens_details": details}
        return {**counted, **whole}

    def _chunk(
        self, number: int, text: str, logprobs: Body | None, finish: str | None = None
    ) -> bytes:
        choices = [_choice(number, text, logprobs, finish)]
        more = {"usage": None} if self._has_usage else {}
        return server_sent({**self._head(), "choices": choices, **more})

    def _head(self) -> Body:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _echo(self, fields: Fields) -> list[str]:
        if not fields.flag("echo"):
            return []
        texts = [prompt.get("prompt") for prompt in _prompts(fields)]
        if not all(isinstance(text, str) for text in texts):
            raise wrong("echo", "echo needs prompts that are text")
        if fields.has("logprobs"):
            raise wrong("echo", "echo and logprobs do not go together here")
        return [str(text) for text in texts]

    def _echo_of(self, number: int) -> str:
        """Return what an answer begins with, the first time that it is asked."""
        if not self._echoed or number in self._has_echoed:
            return ""
        self._has_echoed.add(number)
        return self._echoed[number // self._count]


def _prompts(fields: Fields) -> list[Body]:
    """Return the prompts: a text or tokens, or a list of either."""
    given = fields.value("prompt")
    if isinstance(given, str):
        return [{"prompt": given, "raw": True}]
    if not isinstance(given, list) or not given:
        raise wrong("prompt", "prompt must be a string, or a list of strings or of token ids")
    if all(type(one) is int for one in given):
        return [{"prompt_ids": given}]
    prompts: list[Body] = []
    for number, one in enumerate(given[: MOST_CHOICES + 1]):
        if isinstance(one, str):
            prompts.append({"prompt": one, "raw": True})
        elif isinstance(one, list) and one and all(type(token) is int for token in one):
            prompts.append({"prompt_ids": one})
        else:
            raise wrong(f"prompt[{number}]", f"prompt[{number}] is neither text nor token ids")
    return prompts


def _choice(number: int, text: str, logprobs: Body | None, finish: str | None) -> Body:
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(told: Sequence[Body]) -> Body:
    """Return how likely tokens were, as completions have it: in columns."""
    return {
        "tokens": [one["text"] for one in told],
        "token_logprobs": [one["logprob"] for one in told],
        "top_logprobs": [{top["text"]: top["logprob"] for top in one["top"]} for one in told],
    }
