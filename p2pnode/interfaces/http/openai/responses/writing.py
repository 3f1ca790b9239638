"""Responses, and the events that they come in."""

import time
from collections.abc import Sequence
from typing import Any, TypeAlias

from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.openai.responses.output import Output, call_item, text_item
from p2pnode.interfaces.http.openai.writing import OpenAiWriter
from p2pnode.interfaces.http.params import MAX_TOKENS, MOST_TOKENS
from p2pnode.interfaces.http.sse import server_sent

Body: TypeAlias = dict[str, Any]


class ResponseWriter(OpenAiWriter):
    """Writes one response: its output is items, and a stream tells of each as it grows."""

    def __init__(self, fields: Fields, model: Body) -> None:
        super().__init__("resp_", model)
        self._given = _given(fields)
        self._output = Output(self._sent)
        self._number = 0

    def opening(self) -> bytes:
        response = self._response("in_progress", [])
        return self._sent("response.created", response=response) + self._sent(
            "response.in_progress", response=response
        )

    def event(self, number: int, event: Body) -> bytes:
        if event["event"] not in ("token", "rest"):
            return b""
        told = event.get("logprobs")
        said = self._output.text(event["text"], told) if event["text"] or told else b""
        return said + b"".join(self._output.call(call) for call in event.get("tool_calls", ()))

    def closing(self, facts: Sequence[Body]) -> bytes:
        (told,) = facts
        said = self._output.close(_status(told))
        response = self._over(told, self._output.items)
        return said + self._sent(f"response.{response['status']}", response=response)

    def failure(self, error: ApiError) -> bytes:
        failed = {"code": "server_error", "message": error.message}
        response = {**self._response("failed", self._output.items), "error": failed}
        return self._sent("response.failed", response=response)

    def whole(self, facts: Sequence[Body]) -> object:
        (told,) = facts
        calls = [call_item(call, "completed") for call in told["tool_calls"]]
        logprobs = told.get("logprobs") or []
        said = [text_item(told["text"], logprobs, _status(told))]
        return self._over(told, [*(said if told["text"] or not calls else []), *calls])

    def _sent(self, kind: str, **more: object) -> bytes:
        self._number += 1
        return server_sent({"type": kind, "sequence_number": self._number - 1, **more}, kind)

    def _over(self, facts: Body, output: Sequence[Body]) -> Body:
        status, prompt, answer = _status(facts), facts["prompt_ids"], facts["token_ids"]
        why = {"reason": "max_output_tokens"} if status == "incomplete" else None
        usage = {
            "input_tokens": len(prompt),
            "input_tokens_details": {
                "cached_tokens": facts.get("reused", 0),
                "cache_write_tokens": 0,
            },
            "output_tokens": len(answer),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": len(prompt) + len(answer),
        }
        over = {"incomplete_details": why, "usage": usage, "completed_at": int(time.time())}
        return {**self._response(status, output), **over}

    def _response(self, status: str, output: Sequence[Body]) -> Body:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": list(output),
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "usage": None,
            **self._given,
        }


def _given(fields: Fields) -> Body:
    """Return the parameters that a response repeats."""
    return {
        "instructions": fields.value("instructions"),
        "max_output_tokens": fields.whole("max_output_tokens", 1, MOST_TOKENS, MAX_TOKENS),
        "metadata": fields.value("metadata") or {},
        "parallel_tool_calls": fields.flag("parallel_tool_calls", default=True),
        "temperature": fields.number("temperature", 0, 2, 1.0),
        "text": {"format": fields.inner("text").value("format") or {"type": "text"}},
        "tool_choice": fields.value("tool_choice") or "auto",
        "tools": fields.items("tools") or [],
        "top_p": fields.number("top_p", 0, 1, 1.0),
        "truncation": fields.choice("truncation", ("auto", "disabled"), "disabled"),
        "user": fields.text("user", "") or None,
    }


def _status(facts: Body) -> str:
    return "incomplete" if facts["finish"] == "length" else "completed"
