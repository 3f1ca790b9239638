"""The paths of Anthropic's API."""

from typing import Any, Final, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from p2pnode.interfaces.http.answer_response import AnswerResponse
from p2pnode.interfaces.http.anthropic.models import listed_body, model_body
from p2pnode.interfaces.http.anthropic.question import counted_question_of, question_of
from p2pnode.interfaces.http.anthropic.writing import MessageWriter
from p2pnode.interfaces.http.body import fields_of
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.node_link import NodeLink, asked_of

Body: TypeAlias = dict[str, Any]

VERSION: Final = "anthropic-version"
"""The header that all clients of this API send, and no others."""

_BETA: Final = "anthropic-beta"


class Anthropic:
    """Answers as Anthropic's API does."""

    def __init__(self, link: NodeLink) -> None:
        self._link = link

    def routes(self) -> list[Route]:
        return [
            Route("/v1/messages", self._messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        return JSONResponse(listed_body(await self._link.models()))

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(model_body(await self._link.model_called(name)))

    async def _messages(self, request: Request) -> Response:
        fields, model = await self._asked(request)
        is_beta = _BETA in request.headers
        question = await fields.read_by(
            lambda asked: asked_of(model, question_of(asked, is_beta=is_beta))
        )
        writer, is_stream = MessageWriter(model), fields.flag("stream")
        return AnswerResponse(self._link, [question], writer, is_stream=is_stream)

    async def _count(self, request: Request) -> Response:
        fields, model = await self._asked(request)
        is_beta = _BETA in request.headers
        question = await fields.read_by(
            lambda asked: asked_of(model, counted_question_of(asked, is_beta=is_beta))
        )
        told = await self._link.call("tokenise", question, seconds=None)
        return JSONResponse({"input_tokens": told["tokens"]})

    async def _asked(self, request: Request) -> tuple[Fields, Body]:
        if not request.headers.get(VERSION):
            raise ApiError(400, f"{VERSION}: header is required", code="missing_header")
        fields = await fields_of(request)
        model = await self._link.model_called(fields.text("model"))
        return fields, model
