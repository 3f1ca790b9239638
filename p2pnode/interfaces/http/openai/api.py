"""The paths of OpenAI's API."""

from asyncio import to_thread
from collections.abc import Callable
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from p2pnode.interfaces.http.answer_response import AnswerResponse, Writer
from p2pnode.interfaces.http.body import fields_of
from p2pnode.interfaces.http.disconnect import while_there
from p2pnode.interfaces.http.embedding import embedders
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.node_link import NodeLink, asked_of
from p2pnode.interfaces.http.openai import chat, completions
from p2pnode.interfaces.http.openai.embeddings import embedder_body, embeddings_body
from p2pnode.interfaces.http.openai.models import model_body
from p2pnode.interfaces.http.openai.responses import question as responses
from p2pnode.interfaces.http.openai.responses.writing import ResponseWriter

Body: TypeAlias = dict[str, Any]


class OpenAi:
    """Answers as OpenAI's API does."""

    def __init__(self, link: NodeLink) -> None:
        self._link = link

    def routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/responses", self._responses, methods=["POST"]),
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        listed = [model_body(model) for model in await self._link.models()]
        listed += [embedder_body(name) for name in await to_thread(embedders)]
        return JSONResponse({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name in await to_thread(embedders):
            return JSONResponse(embedder_body(name))
        return JSONResponse(model_body(await self._link.model_called(name)))

    async def _chat(self, request: Request) -> Response:
        return await self._answered(request, chat.questions_of, chat.ChatWriter)

    async def _completions(self, request: Request) -> Response:
        return await self._answered(request, completions.questions_of, completions.CompletionWriter)

    async def _responses(self, request: Request) -> Response:
        return await self._answered(
            request, lambda fields: [responses.question_of(fields)], ResponseWriter
        )

    async def _embeddings(self, request: Request) -> Response:
        fields = await fields_of(request)
        made = await while_there(request.receive, embeddings_body(self._link, fields))
        return JSONResponse(made)

    async def _answered(
        self,
        request: Request,
        questions_of: Callable[[Fields], list[Body]],
        writer_of: Callable[[Fields, Body], Writer],
    ) -> Response:
        fields = await fields_of(request)
        model = await self._link.model_called(fields.text("model"))
        questions = await fields.read_by(
            lambda asked: [asked_of(model, one) for one in questions_of(asked)]
        )
        is_stream = fields.flag("stream")
        if fields.has("stream_options") and not is_stream:
            raise ApiError(
                400,
                "stream_options goes with stream alone",
                code="invalid_value",
                param="stream_options",
            )
        return AnswerResponse(self._link, questions, writer_of(fields, model), is_stream=is_stream)
