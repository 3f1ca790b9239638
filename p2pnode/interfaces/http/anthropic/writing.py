"""Answers as Anthropic's API writes them: messages of blocks, and the events they come in."""

import secrets
from collections.abc import Sequence
from typing import Any, TypeAlias

from p2pnode.interfaces.http.anthropic.errors import error_body, status_of
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.sse import server_sent
from p2pnode.interfaces.http.tool_arguments import arguments_of

Body: TypeAlias = dict[str, Any]

_PING = {"type": "ping"}


class MessageWriter:
    """Writes one message. Its blocks are numbered, and one is open at a time.

    Attributes:
        media_type: Of a stream.
        heartbeat: A ping, which clients pass over.
    """

    media_type = "text/event-stream"
    heartbeat = server_sent(_PING, "ping")

    def __init__(self, model: Body) -> None:
        self._id = f"msg_{secrets.token_hex(12)}"
        self._model = model["name"]
        self._has_begun = False
        self._blocks = 0
        self._has_text = False  # the last block is one of text, and open

    def opening(self) -> bytes:
        """Return nothing: what begins a message says how long the prompt is."""
        return b""

    def event(self, number: int, event: Body) -> bytes:
        match event["event"]:
            case "plan":
                return self._begin(event.get("prompt_tokens", 0), event.get("reused", 0))
            case "token" | "rest":
                said = self._text(event["text"]) if event["text"] else b""
                return said + b"".join(self._call(call) for call in event.get("tool_calls", ()))
            case _:
                return b""

    def closing(self, facts: Sequence[Body]) -> bytes:
        (told,) = facts
        begun = self._begin(len(told["prompt_ids"]), told.get("reused", 0))
        last = {
            "type": "message_delta",
            "delta": _end(told),
            "usage": _usage_of(told),
        }
        return begun + self._close() + _sent(last) + _sent({"type": "message_stop"})

    def failure(self, error: ApiError) -> bytes:
        return _sent(error_body(error))

    def whole(self, facts: Sequence[Body]) -> object:
        (told,) = facts
        content: list[Body] = [{"type": "text", "text": told["text"]}] if told["text"] else []
        content += [_called(call, arguments_of(call)) for call in told["tool_calls"]]
        return {**self._message(), "content": content, **_end(told), "usage": _usage_of(told)}

    def error(self, error: ApiError) -> object:
        return error_body(error)

    def status(self, error: ApiError) -> int:
        return status_of(error)

    def _begin(self, prompt: int, reused: int = 0) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        # One token is what the original counts at the start of an answer.
        message = {**self._message(), "usage": _usage(prompt, reused, 1)}
        return _sent({"type": "message_start", "message": message})

    def _text(self, text: str) -> bytes:
        said = self._begin(0)
        if not self._has_text:
            said += self._open({"type": "text", "text": ""})
            said += self.heartbeat if self._blocks == 1 else b""
            self._has_text = True
        return said + self._delta({"type": "text_delta", "text": text})

    def _call(self, call: Body) -> bytes:
        said = self._begin(0) + self._open(_called(call, {}))
        said += self._delta({"type": "input_json_delta", "partial_json": call["arguments"]})
        return said + self._stop()

    def _open(self, block: Body) -> bytes:
        closed = self._close()
        self._blocks += 1
        start = {"type": "content_block_start", "index": self._blocks - 1, "content_block": block}
        return closed + _sent(start)

    def _close(self) -> bytes:
        if not self._has_text:
            return b""
        self._has_text = False
        return self._stop()

    def _stop(self) -> bytes:
        return _sent({"type": "content_block_stop", "index": self._blocks - 1})

    def _delta(self, delta: Body) -> bytes:
        index = self._blocks - 1
        return _sent({"type": "content_block_delta", "index": index, "delta": delta})

    def _message(self) -> Body:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }


def _sent(data: Body) -> bytes:
    return server_sent(data, data["type"])


def _called(call: Body, given: Body) -> Body:
    name = f"toolu_{secrets.token_hex(12)}"
    return {"type": "tool_use", "id": name, "name": call["name"], "input": given}


def _end(facts: Body) -> Body:
    """Return why an answer ended."""
    if facts["tool_calls"]:
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if facts["stopped_by"] is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": facts["stopped_by"]}
    reason = "max_tokens" if facts["finish"] == "length" else "end_turn"
    return {"stop_reason": reason, "stop_sequence": None}


def _usage_of(facts: Body) -> Body:
    return _usage(len(facts["prompt_ids"]), facts.get("reused", 0), len(facts["token_ids"]))


def _usage(prompt: int, reused: int, answer: int) -> Body:
    """Return what it took; the original's input tokens are those that no cache held."""
    return {
        "input_tokens": prompt - reused,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reused,
        "output_tokens": answer,
    }
