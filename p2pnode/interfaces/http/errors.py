"""What a request could not have, in terms that each API's own form of errors is made of."""

from typing import Final

from p2pnode.errors import UserError

RETRY_AFTER: Final = 2
"""Seconds until whoever was refused for want of room should ask again. A guess."""

_STATUS: Final = {
    "request": (400, "invalid_request_error", "invalid_request"),
    "length": (400, "invalid_request_error", "context_length_exceeded"),
    "name": (404, "invalid_request_error", "model_not_found"),
    "model": (400, "invalid_request_error", "model_unusable"),
    "busy": (503, "server_error", "overloaded"),
    "generation": (503, "server_error", "swarm_unavailable"),
    "gone": (503, "server_error", "node_unavailable"),
}


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: Of HTTP.
        message: For people; says what to do.
        type: As OpenAI's API has it.
        code: What programs tell it by.
        param: The parameter at fault, or None.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        type: str = "invalid_request_error",  # noqa: A002 -- as the APIs call it
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param

    @property
    def headers(self) -> dict[str, str]:
        if self.status in (429, 503):
            return {"retry-after": f"{RETRY_AFTER}"}
        return {"www-authenticate": "Bearer"} if self.status == 401 else {}


def of_user_error(error: UserError) -> ApiError:
    """Return the error of HTTP that says what the node said."""
    status, kind, code = _STATUS.get(error.kind, _STATUS["request"])
    hint = f" ({error.hint})" if error.hint else ""
    return ApiError(status, f"{error}{hint}", type=kind, code=code)


def wrong(param: str, message: str) -> ApiError:
    """Return the error for a parameter that is not what it may be."""
    return ApiError(400, message, code="invalid_value", param=param)
