"""``/v1/chat/completions``."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.openai.messages import messages_of
from p2pnode.interfaces.http.openai.params import (
    DRAWN,
    EXTENSIONS,
    HARMLESS,
    MOST_CHOICES,
    MOST_TOP,
    length_params,
    sampling_params,
    several,
)
from p2pnode.interfaces.http.openai.writing import (
    DONE,
    OpenAiWriter,
    finish_of,
    logprob_body,
    usage,
)
from p2pnode.interfaces.http.params import format_params, within_past
from p2pnode.interfaces.http.sse import server_sent

Body: TypeAlias = dict[str, Any]

_KNOWN: Final = (
    DRAWN
    | EXTENSIONS
    | HARMLESS
    | {"messages", "model", "n", "stream", "stream_options", "response_format", "logit_bias"}
    | {"max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "tools", "tool_choice"}
    | {"modalities", "audio", "prediction", "functions", "function_call", "web_search_options"}
)


def questions_of(fields: Fields) -> list[Body]:
    """Return what is to be asked of the node: the same ``n`` times.

    Raises:
        ApiError: A parameter is wrong, unknown, or cannot be met; names it.
    """
    fields.refuse_unknown(_KNOWN)
    for name in ("audio", "web_search_options"):
        fields.refuse(name, "this model writes text, from what it was told")
    for name in ("functions", "function_call"):
        fields.refuse(name, "use tools and tool_choice")
    if fields.texts("modalities") not in ([], ["text"]):
        fields.refuse("modalities", "this model writes text")
    messages = messages_of(fields.items("messages", is_needed=True) or [])
    top = fields.whole("top_logprobs", 0, MOST_TOP, 0)
    params = {
        "messages": messages,
        **sampling_params(fields),
        **length_params(fields, "max_completion_tokens", "max_tokens"),
        **format_params(fields.value("response_format"), "response_format"),
        "logprobs": top if fields.flag("logprobs") else None,
        "tools": fields.items("tools"),
        "tool_choice": fields.value("tool_choice"),
    }
    count = fields.whole("n", 1, MOST_CHOICES, 1) or 1
    return several(within_past(params), count)


class ChatWriter(OpenAiWriter):
    """Writes chat completions, and their chunks."""

    def __init__(self, fields: Fields, model: Body) -> None:
        super().__init__("chatcmpl-", model)
        self._has_usage = fields.inner("stream_options").flag("include_usage")
        self._count = fields.whole("n", 1, MOST_CHOICES, 1) or 1

    def opening(self) -> bytes:
        return b"".join(
            self._chunk(number, {"role": "assistant", "content": "", "refusal": None})
            for number in range(self._count)
        )

    def event(self, number: int, event: Body) -> bytes:
        if event["event"] not in ("token", "rest"):
            return b""
        told = event.get("logprobs")
        logprobs = None if told is None else {"content": [logprob_body(told)], "refusal": None}
        said = b""
        if event["text"] or logprobs:
            said = self._chunk(number, {"content": event["text"]}, logprobs=logprobs)
        for call in event.get("tool_calls", ()):
            delta = {"tool_calls": [{"index": call["index"], **call_body(call)}]}
            said += self._chunk(number, delta)
        return said

    def closing(self, facts: Sequence[Body]) -> bytes:
        ends = [self._chunk(at, {}, finish=finish_of(one)) for at, one in enumerate(facts)]
        last = server_sent({**self._head(), "choices": [], "usage": usage(facts)})
        return b"".join([*ends, last if self._has_usage else b"", DONE])

    def whole(self, facts: Sequence[Body]) -> object:
        choices = [
            {
                "index": number,
                "message": _message(one),
                "logprobs": _logprobs(one),
                "finish_reason": finish_of(one),
            }
            for number, one in enumerate(facts)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": usage(facts)}

    def _chunk(
        self,
        number: int,
        delta: Mapping[str, Any],
        *,
        logprobs: Body | None = None,
        finish: str | None = None,
    ) -> bytes:
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        more = {"usage": None} if self._has_usage else {}
        return server_sent({**self._head(), "choices": [choice], **more})

    def _head(self, kind: str = "chat.completion.chunk") -> Body:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def call_body(call: Body) -> Body:
    """Return a call of a tool, with an id of its own."""
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call["name"], "arguments": call["arguments"]},
    }


def _message(facts: Body) -> Body:
    calls = [call_body(call) for call in facts["tool_calls"]]
    text = facts["text"]
    if not calls:
        return {"role": "assistant", "content": text, "refusal": None}
    return {"role": "assistant", "content": text or None, "refusal": None, "tool_calls": calls}


def _logprobs(facts: Body) -> Body | None:
    told = facts.get("logprobs")
    if told is None:
        return None
    return {"content": [logprob_body(one) for one in told], "refusal": None}
