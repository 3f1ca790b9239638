"""The process that renders and tokenises prompts for one node.

A chat template is a foreign program, and a prompt may be megabytes of anything. Neither may hold up
a node that computes for others, and neither can be interrupted from another thread, so they run
here, within limits that the operating system keeps even if the node was killed:

- CPU time of a request: an interval timer ends the process, whatever runs in it (or a thread does,
  see :mod:`~p2pnode.node.cpu_limits`). How it ended tells which part of the work overran.
- Memory: so much beyond what the loaded tokenizer takes. Where the system does not say what that is
  (``/proc``), the node looks from outside.
- Life: the process ends when its standard input closes.

Frames both ways are a length (4 bytes, big-endian) and so many bytes: JSON, and after the JSON of a
prompt its ids, 4 bytes each in this machine's order.
"""

import json
import os
import signal
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from p2pnode.errors import LengthError, ModelError, UserError
from p2pnode.node.cpu_limits import CpuLimit, default_signals, limit_memory, spending
from p2pnode.node.stamp import Stamp
from p2pnode.text.history import Message, fit, room_for_prompt
from p2pnode.text.tokenizer import Tokenizer

LENGTH: Final = struct.Struct(">I")
MAX_REQUEST: Final = 16 << 20
"""Bytes: a line of the control socket has a quarter of it, and JSON may write it longer."""

RENDER_SECONDS: Final = 2.0
"""CPU time of the chat template in one request. Ordinary ones take a millisecond."""

ENCODE_SECONDS: Final = 5.0
"""CPU time of the tokenizer in one request: it does 2 MB/s, SentencePiece's 0.8, and a request
has 4 MB."""

MEMORY: Final = 512 << 20
"""Bytes beyond what the loaded tokenizer takes. The text of a request takes a tenth of it; only
megabytes without a word's end take more, since they cannot be cut."""

NO_TEMPLATE: Final = "no-template"

RENDERING: Final = CpuLimit(RENDER_SECONDS, "ITIMER_PROF", "SIGPROF", 113)
ENCODING: Final = CpuLimit(ENCODE_SECONDS, "ITIMER_VIRTUAL", "SIGVTALRM", 114)


def main() -> None:
    """Serve until standard input closes; the arguments are the model's file and its stamp.

    A third, ``no-template``, leaves the chat template alone until a prompt asks for it: it was seen
    not to end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the node's to handle
    default_signals((RENDERING, ENCODING))
    replies = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing else may write among the frames
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    path, stamp, alone = Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:] == [NO_TEMPLATE]
    try:
        if Stamp.of(path).numbers != stamp:
            raise changed(path)
        tokenizer = Tokenizer.from_model(path, clock=datetime.now)
    except UserError as error:
        _write(replies, _refusal(error))
        return
    bounded = limit_memory(MEMORY)
    with _Budget().rendering():
        stops = tokenizer.vocabulary.ends if alone else tokenizer.stop_ids
    _write(replies, {"stops": sorted(stops), "bounded": bounded})
    while (request := _read(0)) is not None:
        for frame in _answered(tokenizer, request):
            _write(replies, frame)


def changed(path: Path) -> ModelError:
    """Say that a file is no longer what the node reads from."""
    return ModelError(
        f"{path.name} changed since this node read it",
        hint="the node looks at it: ask again in ten seconds",
    )


def prepare(
    tokenizer: Tokenizer, request: dict[str, Any], budget: "_Budget"
) -> tuple[Sequence[int], int]:
    """Return a request's prompt as ids, and how many messages left the conversation for it.

    Where it is only to be counted, none does, and it may be longer than the context.

    Raises:
        UserError: It does not fit the context, or cannot be rendered.
    """
    context = int(request["context"])
    most = context * tokenizer.longest_token

    def encoded(text: str) -> Sequence[int]:
        size = len(str.__str__(text).encode("utf-8", "replace"))
        if size > most:  # more tokens than fit, so nobody counts them
            return range(-(-size // tokenizer.longest_token))
        with budget.encoding():
            return tokenizer.encode(text)

    def prompt_of(messages: Sequence[Message]) -> Sequence[int]:
        with budget.rendering():
            text = tokenizer.chat(
                messages,
                tools=request.get("tools"),
                documents=request.get("documents"),
                goes_on=bool(request.get("goes_on")),
            )
        return encoded(text)

    left = 0
    if "text" in request:
        ids = encoded(request["text"])
    elif request.get("only_count"):
        ids = prompt_of(request["messages"])
    else:
        room = room_for_prompt(context, int(request["max_tokens"]))
        ids, left = fit(request["messages"], room, prompt_of)
    if len(ids) >= context and not request.get("only_count"):
        raise _too_long(ids, str(request["name"]), context, left)
    return ids, left


def _too_long(ids: Sequence[int], name: str, context: int, left: int) -> LengthError:
    about = "at least " if isinstance(ids, range) else ""
    what = "the last message alone" if left else "the prompt"
    return LengthError(
        f"{what} has {about}{len(ids)} tokens, but the context of {name} ends at {context}",
        hint="shorten the prompt, or give it in parts",
    )


class _Budget:
    """What a request has left of CPU time; at its end the process dies."""

    def __init__(self) -> None:
        self._left = {limit: limit.seconds for limit in (RENDERING, ENCODING)}

    def rendering(self) -> AbstractContextManager[None]:
        return self._spend(RENDERING)

    def encoding(self) -> AbstractContextManager[None]:
        return self._spend(ENCODING)

    @contextmanager
    def _spend(self, limit: CpuLimit) -> Iterator[None]:
        with spending(limit, self._left[limit]) as rest:
            yield
        self._left[limit] = rest[0]


def _answered(tokenizer: Tokenizer, request: dict[str, Any]) -> Iterator[object]:
    budget = _Budget()
    try:
        ids, left = prepare(tokenizer, request, budget)
    except UserError as error:
        yield _refusal(error)
    except MemoryError as error:
        refused = UserError("the prompt takes too much memory", hint="shorten it")
        refused.__cause__ = error
        yield _refusal(refused)
    else:
        if request.get("only_count"):
            yield {"tokens": len(ids)}
            return
        yield {"left_out": left, "count": len(ids)}
        yield array("I", ids)


def _refusal(error: UserError) -> dict[str, object]:
    out_of_memory = isinstance(error.__cause__, MemoryError)
    return {
        "error": str(error),
        "hint": error.hint,
        "kind": error.kind,
        "spent": out_of_memory,  # what is left may be too little for the next: start anew
    }


def _read(source: int) -> dict[str, Any] | None:
    head = _exactly(source, LENGTH.size)
    if head is None:
        return None
    (size,) = LENGTH.unpack(head)
    body = _exactly(source, size) if size <= MAX_REQUEST else None
    if body is None:
        return None
    request: dict[str, Any] = json.loads(body)
    return request


def _exactly(source: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = os.read(source, size - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _write(target: int, frame: object) -> None:
    body = frame.tobytes() if isinstance(frame, array) else json.dumps(frame).encode()
    data = memoryview(LENGTH.pack(len(body)) + body)
    while data:
        data = data[os.write(target, data) :]
