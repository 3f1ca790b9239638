"""What OpenAI's answers have in common."""

import secrets
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.sse import server_sent

Body: TypeAlias = dict[str, Any]

DONE = server_sent("[DONE]")


class OpenAiWriter:
    """Names an answer, and says errors.

    Attributes:
        media_type: Of a stream.
        heartbeat: A comment, which clients pass over.
    """

    media_type = "text/event-stream"
    heartbeat = b": waiting\n\n"

    def __init__(self, prefix: str, model: Body) -> None:
        self.id = f"{prefix}{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.model = model["name"]
        self.fingerprint = f"fp_{model['space_hash32']:08x}"

    def failure(self, error: ApiError) -> bytes:
        return server_sent(self.error(error))

    def error(self, error: ApiError) -> object:
        return error_body(error)

    def status(self, error: ApiError) -> int:
        return error.status


def error_body(error: ApiError) -> Body:
    """Return an error as OpenAI writes it."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def usage(facts: Sequence[Body]) -> Body:
    """Return what the answers to one prompt took, in tokens."""
    prompt = len(facts[0]["prompt_ids"]) if facts else 0
    cached = facts[0].get("reused", 0) if facts else 0
    completion = sum(len(one["token_ids"]) for one in facts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def finish_of(facts: Body) -> str:
    if facts["tool_calls"]:
        return "tool_calls"
    return "length" if facts["finish"] == "length" else "stop"


def logprob_body(told: Body) -> Body:
    """Return how likely a token was, as chat completions have it."""
    return {**_token(told), "top_logprobs": [_token(one) for one in told["top"]]}


def _token(told: Body) -> Body:
    return {"token": told["text"], "logprob": told["logprob"], "bytes": told["bytes"]}
