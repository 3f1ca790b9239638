"""Which API a request is for, as far as its path and headers tell, and how that one says errors."""

from typing import Any, TypeAlias

from starlette.datastructures import Headers

from p2pnode.interfaces.http.anthropic import errors as anthropic
from p2pnode.interfaces.http.anthropic.api import VERSION
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.ollama import writing as ollama
from p2pnode.interfaces.http.openai import writing as openai

Body: TypeAlias = dict[str, Any]


def is_anthropic(path: str, headers: Headers) -> bool:
    """Return whether a client of Anthropic's asks; OpenAI's has some of the same paths."""
    return VERSION in headers or path.startswith("/v1/messages")


def told(error: ApiError, path: str, headers: Headers) -> tuple[int, Body]:
    """Return the status and the body of an error, in the form that whoever asked can read."""
    if path.startswith("/api/"):
        return error.status, ollama.error_body(error)
    if is_anthropic(path, headers):
        return anthropic.status_of(error), anthropic.error_body(error)
    return error.status, openai.error_body(error)
