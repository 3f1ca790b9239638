"""Errors as Anthropic's API writes them."""

from typing import Any, Final, TypeAlias

from p2pnode.interfaces.http.errors import ApiError

Body: TypeAlias = dict[str, Any]

_OVERLOADED: Final = 529
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    421: "permission_error",
    429: "rate_limit_error",
    _OVERLOADED: "overloaded_error",
}


def status_of(error: ApiError) -> int:
    """Return the status: 529 is this API's own for a server that has too much to do."""
    return _OVERLOADED if error.code == "overloaded" else error.status


def error_body(error: ApiError) -> Body:
    """Return an error; of a parameter too many or too few, in the words that clients look for."""
    kind = _TYPES.get(status_of(error), "api_error")
    return {"type": "error", "error": {"type": kind, "message": _message(error)}}


def _message(error: ApiError) -> str:
    match error.code:
        case "unknown_parameter":
            return f"{error.param}: Extra inputs are not permitted"
        case "missing_parameter":
            return f"{error.param}: Field required"
        case _:
            return error.message
