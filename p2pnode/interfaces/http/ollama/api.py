"""The paths of Ollama's API."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from p2pnode.interfaces.http.answer_response import AnswerResponse
from p2pnode.interfaces.http.body import fields_of
from p2pnode.interfaces.http.disconnect import while_there
from p2pnode.interfaces.http.embedding import vectors_of
from p2pnode.interfaces.http.errors import wrong
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.node_link import NodeLink, asked_of
from p2pnode.interfaces.http.ollama.models import listed_body, running_body, shown_body
from p2pnode.interfaces.http.ollama.question import chat_question_of, generate_question_of
from p2pnode.interfaces.http.ollama.writing import OllamaWriter
from p2pnode.net.control_lines import Rendered

Body: TypeAlias = dict[str, Any]

VERSION: Final = "0.12.0"
"""Of Ollama, whose API this is: clients ask, and some refuse to work with an older one."""


class Ollama:
    """Answers as Ollama's API does."""

    def __init__(self, link: NodeLink) -> None:
        self._link = link

    def routes(self) -> list[Route]:
        return [
            Route("/api/version", self._version),
            Route("/api/tags", self._tags),
            Route("/api/ps", self._running),
            Route("/api/show", self._show, methods=["POST"]),
            Route("/api/chat", self._chat, methods=["POST"]),
            Route("/api/generate", self._generate, methods=["POST"]),
            Route("/api/embed", self._embed, methods=["POST"]),
            Route("/api/embeddings", self._embeddings, methods=["POST"]),
        ]

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def _tags(self, request: Request) -> Response:
        return JSONResponse({"models": [listed_body(one) for one in await self._link.models()]})

    async def _running(self, request: Request) -> Response:
        return JSONResponse({"models": [running_body(one) for one in await self._link.models()]})

    async def _show(self, request: Request) -> Response:
        fields = await fields_of(request)
        name = fields.text("model", fields.text("name", ""))
        return JSONResponse(shown_body(await self._link.model_called(name)))

    async def _chat(self, request: Request) -> Response:
        return await self._answered(request, chat_question_of, is_chat=True)

    async def _generate(self, request: Request) -> Response:
        return await self._answered(request, generate_question_of, is_chat=False)

    async def _answered(
        self,
        request: Request,
        question_of: Callable[[Fields, Body], Body | None],
        *,
        is_chat: bool,
    ) -> Response:
        fields = await fields_of(request)
        name = fields.text("model")
        model = await self._link.model_called(name)
        writer, is_stream = OllamaWriter(name, is_chat=is_chat), fields.flag("stream", default=True)
        question = await fields.read_by(lambda asked: _asked(question_of(asked, model), model))
        if question is None:
            leaves = fields.value("keep_alive") in (0, "0", "0s")
            return JSONResponse(writer.loaded("unload" if leaves else "load"))
        return AnswerResponse(self._link, [question], writer, is_stream=is_stream)

    async def _embed(self, request: Request) -> Response:
        fields = await fields_of(request)
        name, texts = fields.text("model"), fields.texts("input")
        asked = vectors_of(self._link, name, texts, dimensions=_dimensions(fields))
        made = await while_there(request.receive, asked)
        if any(made.truncated) and not fields.flag("truncate", default=True):
            raise wrong("input", "input has a text that is longer than the model reads")
        return JSONResponse(
            {
                "model": name,
                "embeddings": made.vectors,
                "total_duration": made.nanoseconds,
                "load_duration": 1,
                "prompt_eval_count": made.tokens,
            }
        )

    async def _embeddings(self, request: Request) -> Response:
        """Answer as before ``/api/embed``: one text, one vector."""
        fields = await fields_of(request)
        name, text = fields.text("model"), fields.text("prompt", "")
        if not text:
            return JSONResponse({"embedding": []})
        made = await while_there(request.receive, vectors_of(self._link, name, [text]))
        return JSONResponse({"embedding": made.vectors[0]})


def _asked(question: Body | None, model: Body) -> Rendered | None:
    return None if question is None else asked_of(model, question)


def _dimensions(fields: Fields) -> int | None:
    return fields.whole("dimensions", 1, 2**20, None)
