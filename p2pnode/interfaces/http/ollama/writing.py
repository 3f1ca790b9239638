"""Answers as Ollama's API writes them: an object, or a line for each piece."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.tool_arguments import arguments_of

Body: TypeAlias = dict[str, Any]

_NANOSECONDS = 1_000_000  # in a millisecond


class OllamaWriter:
    """Writes the answer to one request.

    Attributes:
        media_type: Of a stream.
        heartbeat: A piece with no words.
    """

    media_type = "application/x-ndjson"

    def __init__(self, name: str, *, is_chat: bool) -> None:
        """``name`` is the model's, as the client said it."""
        self._name = name
        self._is_chat = is_chat
        self.heartbeat = self._line("")

    def opening(self) -> bytes:
        return b""

    def event(self, number: int, event: Body) -> bytes:
        if event["event"] not in ("token", "rest"):
            return b""
        told, calls = event.get("logprobs"), event.get("tool_calls")
        more = {} if told is None else {"logprobs": [_logprob(told)]}
        said = self._line(event["text"], more=more) if event["text"] or more else b""
        return said + (self._line("", calls) if calls else b"")

    def closing(self, facts: Sequence[Body]) -> bytes:
        return _written(self._end("", [], facts[0]))

    def failure(self, error: ApiError) -> bytes:
        return _written(error_body(error))

    def whole(self, facts: Sequence[Body]) -> object:
        (told,) = facts
        body = self._end(told["text"], told["tool_calls"], told)
        if (logprobs := told.get("logprobs")) is not None:
            body["logprobs"] = [_logprob(one) for one in logprobs]
        return body

    def error(self, error: ApiError) -> object:
        return error_body(error)

    def status(self, error: ApiError) -> int:
        return error.status

    def loaded(self, reason: str) -> Body:
        """Return the answer to a request that says nothing, and wants the model to be there."""
        return {**self._body(""), "done": True, "done_reason": reason}

    def _line(
        self, text: str, calls: Sequence[Body] | None = None, more: Body | None = None
    ) -> bytes:
        return _written({**self._body(text, calls or ()), "done": False, **(more or {})})

    def _end(self, text: str, calls: Sequence[Body], facts: Body) -> Body:
        reason = "length" if facts["finish"] == "length" else "stop"
        return {**self._body(text, calls), "done": True, "done_reason": reason, **_times(facts)}

    def _body(self, text: str, calls: Sequence[Body] = ()) -> Body:
        head = {"model": self._name, "created_at": _now()}
        if not self._is_chat:
            return {**head, "response": text}
        message: Body = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
        return {**head, "message": message}


def error_body(error: ApiError) -> Body:
    return {"error": error.message}


def _written(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _call(call: Body) -> Body:
    function = {"index": call["index"], "name": call["name"], "arguments": arguments_of(call)}
    return {"function": function}


def _times(facts: Body) -> Body:
    """Return how long an answer took: clients divide the tokens by the time for them."""
    total, queued, first = facts["total_ms"], facts["queued_ms"], facts["first_token_ms"]
    return {
        "total_duration": _nanoseconds(total),
        "load_duration": _nanoseconds(queued),
        "prompt_eval_count": len(facts["prompt_ids"]),
        "prompt_eval_duration": _nanoseconds(first),
        "eval_count": len(facts["token_ids"]),
        "eval_duration": _nanoseconds(total - queued - first),
    }


def _nanoseconds(milliseconds: float) -> int:
    return max(1, round(milliseconds * _NANOSECONDS))


def _logprob(told: Body) -> Body:
    return {**_token(told), "top_logprobs": [_token(one) for one in told["top"]]}


def _token(told: Body) -> Body:
    return {"token": told["text"], "logprob": told["logprob"], "bytes": told["bytes"]}
