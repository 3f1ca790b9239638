"""The items of a response's output, as they are written and told of."""

import secrets
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from p2pnode.interfaces.http.openai.writing import logprob_body

Body: TypeAlias = dict[str, Any]


class Sent(Protocol):
    """Writes an event of a stream; numbers it."""

    def __call__(self, kind: str, **more: object) -> bytes: ...


class Output:
    """Grows by text and calls; one item is open at a time, and only one of text stays open.

    Attributes:
        items: Those that are over.
    """

    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        self._id = ""  # of the open item; empty for none
        self._text: list[str] = []
        self._logprobs: list[Body] = []
        self.items: list[Body] = []

    def text(self, text: str, logprobs: Body | None) -> bytes:
        """Go on with the text."""
        said = b"" if self._id else self._open()
        told = [] if logprobs is None else [logprobs]
        self._text.append(text)
        self._logprobs += told
        bodies = [logprob_body(one) for one in told]
        return said + self._of_part("response.output_text.delta", delta=text, logprobs=bodies)

    def call(self, call: Body) -> bytes:
        """Say a whole call, after whatever text came before."""
        closed = self.close("completed") if self._id else b""
        done = call_item(call, "completed")
        begun = {**done, "arguments": "", "status": "in_progress"}
        place = {"item_id": done["id"], "output_index": len(self.items)}
        arguments = call["arguments"]
        return (
            closed
            + self._of_item("response.output_item.added", begun)
            + self._sent("response.function_call_arguments.delta", **place, delta=arguments)
            + self._sent(
                "response.function_call_arguments.done",
                **place,
                name=call["name"],
                arguments=arguments,
            )
            + self._end(done)
        )

    def close(self, status: str) -> bytes:
        """End the text; where nothing at all was said, say an empty one."""
        if not self._id and self.items:
            return b""
        said = b"" if self._id else self._open()
        text = "".join(self._text)
        item = text_item(text, self._logprobs, status, name=self._id)
        (part,) = item["content"]
        done = {"text": text, "logprobs": part["logprobs"]}
        said += self._of_part("response.output_text.done", **done)
        said += self._of_part("response.content_part.done", part=part)
        self._id, self._text, self._logprobs = "", [], []
        return said + self._end(item)

    def _open(self) -> bytes:
        item = text_item("", [], "in_progress")
        (part,) = item["content"]
        self._id = item["id"]
        added = self._of_item("response.output_item.added", {**item, "content": []})
        return added + self._of_part("response.content_part.added", part=part)

    def _end(self, item: Body) -> bytes:
        said = self._of_item("response.output_item.done", item)
        self.items.append(item)
        return said

    def _of_item(self, kind: str, item: Body) -> bytes:
        return self._sent(kind, output_index=len(self.items), item=item)

    def _of_part(self, kind: str, **more: object) -> bytes:
        place = {"item_id": self._id, "output_index": len(self.items), "content_index": 0}
        return self._sent(kind, **place, **more)


def text_item(text: str, logprobs: Sequence[Body], status: str, *, name: str = "") -> Body:
    """Return a message of one text; ``name`` is its id, if it has one already."""
    part = {
        "type": "output_text",
        "text": text,
        "annotations": [],
        "logprobs": [logprob_body(one) for one in logprobs],
    }
    return {
        "id": name or f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part],
    }


def call_item(call: Body, status: str) -> Body:
    """Return a call of a function, with ids of its own."""
    return {
        "id": f"fc_{secrets.token_hex(12)}",
        "type": "function_call",
        "call_id": f"call_{secrets.token_hex(12)}",
        "name": call["name"],
        "arguments": call["arguments"],
        "status": status,
    }
