"""One process that renders and tokenises a node's prompts, kept warm and replaced when it overruns.

What it does and within which limits is in :mod:`p2pnode.node.text_process`. It is started when
first needed: a node that only lends layers never has one.
"""

import json
import signal
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

import psutil
import trio

from p2pnode.errors import BusyError, LengthError, ModelError, UserError, error_of
from p2pnode.node.stamp import Stamp
from p2pnode.node.text_process import (
    ENCODE_SECONDS,
    ENCODING,
    LENGTH,
    MAX_REQUEST,
    MEMORY,
    NO_TEMPLATE,
    RENDER_SECONDS,
    RENDERING,
    changed,
)
from p2pnode.node.text_requests import Request, body_of, is_long, letters_that_stay
from p2pnode.text.detokenizer import Detokenizer
from p2pnode.text.own_tokens import OwnTokens
from p2pnode.text.stored_vocabulary import read_vocabulary
from p2pnode.text.tool_calls.formats import ToolFormat, format_of

WAITING: Final = 16
"""Requests that wait for the process at the most; each may take it seconds."""

PATIENCE: Final = 60.0
"""Seconds after which a process that does not answer is ended: its own limits are of CPU time, and
it may be stopped, or have to share a busy machine. A guess."""

_MOST_SAID: Final = 1 << 20  # bytes of a reply without its ids
_ID: Final = array("I").itemsize
_LAST_MOMENT: Final = 1.0  # seconds: a process that closed its end ends at once
_LOOK: Final = 0.25  # seconds between looks at memory that the process cannot bound itself
_RAW: Final = "continue plain text with --raw, or use another file of this model"

# The import path is the node's own, as multiprocessing does it: ``-m`` would look into the current
# directory first, where anything may lie.
_START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from p2pnode.node.text_process import main; main()"
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, ready to be computed.

    Attributes:
        ids: Its tokens.
        left_out: How many of the oldest messages left the conversation so that it fits.
        stop_ids: Tokens that end the answer.
    """

    ids: tuple[int, ...]
    left_out: int
    stop_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Words:
    """What of a vocabulary the node itself needs."""

    detokenizer: Detokenizer
    ends: frozenset[int]
    longest_token: int
    tool_format: ToolFormat | None


class TextWorker:
    """Turns prompts into tokens, and says how tokens are written.

    Args:
        model: The model's file, as the node read it just now.
        name: What the model is called in messages.
        context_length: Positions of a session.
        stamp: Returns the newest stamp under which the file is known to be the node's model; left
            out, it is the one of now.
    """

    def __init__(
        self,
        model: Path,
        name: str,
        context_length: int,
        stamp: Callable[[], Stamp] | None = None,
    ) -> None:
        self._model = model
        found = Stamp.of(model)
        self._stamp = stamp or (lambda: found)
        self._name = name
        self._context = context_length
        self._turn = trio.Lock()
        self._process: trio.Process | None = None  # one that awaits a request, or serves it
        self._words: _Words | None = None
        self._stop_ids: frozenset[int] | None = None  # None until a process said
        self._template_ends = True  # until it was seen not to
        self._most_memory = inf  # bytes: of a process that cannot bound its own
        self._own = OwnTokens()
        self.counters: Counter[str] = Counter()

    async def prompt(self, asked: Request) -> Prompt:
        """Render and tokenise: ``messages`` and what belongs to them, or ``text`` as it is.

        Raises:
            UserError: It cannot be done, does not fit the context, or took too long.
        """
        words = await self.words()
        size = letters_that_stay(asked)
        if size > self._context * words.longest_token:
            at_least = -(-size // words.longest_token)
            self.counters["prompts refused: longer than the context"] += 1
            raise LengthError(
                f"the prompt has {size} characters, so at least {at_least} tokens, but the context "
                f"of {self._name} ends at {self._context}",
                hint="shorten the prompt, or give it in parts",
            )
        request = {"context": self._context, "name": self._name, **asked}
        reply, cut = await self._exchange(request)
        ids = self._own.restored(cut, words.detokenizer, self._context)
        return Prompt(ids, int(reply["left_out"]), await self.stop_ids())

    def note_answer(self, prompt: Prompt, tokens: Sequence[int]) -> None:
        """Remember an answer, so that a prompt which quotes it has its tokens."""
        self._own.note(prompt.ids, tokens)

    async def count(self, asked: Request) -> int:
        """Render and tokenise what :meth:`prompt` takes, whole, and return how many tokens it has.

        Of a text that has more than a context full of its longest token, so many at least.

        Raises:
            UserError: It cannot be done, or took too long.
        """
        request = {"context": self._context, "name": self._name, **asked, "only_count": True}
        reply, _ = await self._exchange(request)
        return int(reply["tokens"])

    async def stop_ids(self) -> frozenset[int]:
        """Return the tokens that end an answer: the file's, and the template's end of a turn.

        While no process could say what the template writes, the file's alone.
        """
        words = await self.words()
        if self._stop_ids is None:
            try:
                await self._exchange(None)
            except ModelError:
                self.counters["end of a turn not known yet: the file's ends used"] += 1
        return words.ends if self._stop_ids is None else self._stop_ids

    async def detokenizer(self) -> Detokenizer:
        """Return what writes tokens; the first call reads it off the file."""
        return (await self.words()).detokenizer

    async def tool_format(self) -> ToolFormat | None:
        """Return how the model was taught to write calls of tools; None if it was not."""
        return (await self.words()).tool_format

    async def words(self) -> _Words:
        if self._words is None:
            self._words = await trio.to_thread.run_sync(self._read_words, abandon_on_cancel=True)
        return self._words

    def _read_words(self) -> _Words:
        if Stamp.of(self._model) != self._stamp():
            raise changed(self._model)
        read = read_vocabulary(self._model)
        return _Words(
            Detokenizer.of(read),
            frozenset(read.ends),
            read.longest_token,
            format_of(read.template),
        )

    async def close(self) -> None:
        await self._end()

    async def _exchange(self, request: Request | None) -> tuple[dict[str, Any], Sequence[int]]:
        """Ask the process, and end it if it does not answer or nobody waits any more.

        Without a request, see that there is one.
        """
        if self._turn.statistics().tasks_waiting >= WAITING:
            self.counters["prompts refused: too many at once"] += 1
            raise BusyError("too many prompts wait to be read here", hint="try again in a moment")
        async with self._turn:
            try:
                with trio.fail_after(PATIENCE):
                    process = await self._ready()
                    return ({}, ()) if request is None else await self._ask(process, request)
            except trio.TooSlowError as error:
                await self._end()
                what = f"tokenizer process did not answer within {PATIENCE:.0f} s"
                raise self._lost(what, "try again; this machine may be busy") from error
            except UserError:
                raise
            except (trio.BrokenResourceError, trio.ClosedResourceError, _EndedError) as error:
                raise self._overran(await self._end(patience=_LAST_MOMENT)) from error
            except BaseException:
                await self._end()
                raise

    async def _ready(self) -> trio.Process:
        if self._process is not None and self._process.poll() is None:
            return self._process
        await self._end()
        try:
            return await self._started()
        except UserError:  # it said why, and ended
            await self._end()
            raise

    async def _started(self) -> trio.Process:
        """Start a process; where the template does not end, another that leaves it alone."""
        try:
            return await self._start()
        except _EndedError as error:
            status = await self._end(patience=_LAST_MOMENT)
            if status != RENDERING.status or not self._template_ends:
                raise self._overran(status) from error
        self._template_ends = False  # --raw does not need it
        self.counters["end of a turn not found: the chat template overran"] += 1
        return await self._start()

    async def _start(self) -> trio.Process:
        command = [
            *(sys.executable, "-P", "-c", _START, json.dumps(sys.path)),
            *(str(self._model), json.dumps(self._stamp().numbers)),
            *(() if self._template_ends else (NO_TEMPLATE,)),
        ]
        try:
            self._process = process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is the node's to handle
            )
        except OSError as error:
            raise UserError(
                f"cannot start the process that makes prompts: {error.strerror or error}",
                hint="is memory short, or the number of processes or open files limited?",
            ) from error
        self.counters["text processes started"] += 1
        self._most_memory = inf
        ready = await self._reply(process)
        self._stop_ids = frozenset(ready["stops"])
        if not ready["bounded"]:
            self._most_memory = _memory_of(process) + MEMORY
        return process

    async def _ask(
        self, process: trio.Process, request: Request
    ) -> tuple[dict[str, Any], Sequence[int]]:
        if process.stdin is None:
            raise _EndedError
        long = is_long(request)
        body = await trio.to_thread.run_sync(body_of, request) if long else body_of(request)
        await process.stdin.send_all(LENGTH.pack(len(body)) + body)
        reply = await self._reply(process)
        ids = array("I")
        if "count" in reply:
            ids.frombytes(await self._frame(process, min(self._context, MAX_REQUEST) * _ID))
        return reply, ids

    async def _reply(self, process: trio.Process) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(await self._frame(process, _MOST_SAID))
        if "error" in reply:
            self.counters["prompts refused by the text process"] += 1
            if reply.get("spent"):
                await self._end()
            raise error_of(reply["kind"], reply["error"], reply["hint"])
        return reply

    async def _frame(self, process: trio.Process, most: int) -> bytes:
        (size,) = LENGTH.unpack(await self._exactly(process, LENGTH.size))
        if size > most:
            raise _EndedError
        return await self._exactly(process, size)

    async def _exactly(self, process: trio.Process, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            if not (piece := await self._piece(process, size - len(data))):
                raise _EndedError
            data += piece
        return bytes(data)

    async def _piece(self, process: trio.Process, most: int) -> bytes:
        """Return what the process writes next; end it where its memory outgrows its bound."""
        if process.stdout is None:
            return b""
        while self._most_memory < inf:
            with trio.move_on_after(_LOOK):
                return bytes(await process.stdout.receive_some(most))
            if _memory_of(process) > self._most_memory:
                try:
                    process.send_signal(signal.SIGABRT)
                except ValueError:  # Windows knows no signals: it is ended without one
                    process.kill()
                break
        return bytes(await process.stdout.receive_some(most))

    async def _end(self, *, patience: float = 0.0) -> int | None:
        """Kill and reap the process, if there is one; return what it ended with.

        One that ends by itself within ``patience`` seconds keeps its own status.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        with trio.CancelScope(shield=True):  # brief: nothing outlives SIGKILL for long
            with trio.move_on_after(patience):
                await process.wait()
            process.kill()
            status = await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
        return status

    def _overran(self, status: int | None) -> ModelError:
        if status == RENDERING.status:
            what = f"did not end within {RENDER_SECONDS:g} s of CPU time"
            return self._lost(f"chat template {what}", _RAW)
        if status == ENCODING.status:
            what = f"tokenizer took more than {ENCODE_SECONDS:g} s of CPU time for this prompt"
            return self._lost(what, "shorten the prompt")
        if status == -signal.SIGABRT:  # how the library's allocator ends, and who outgrew
            return self._lost(
                f"chat template or tokenizer needs more than {MEMORY >> 20} MiB for this prompt",
                f"shorten the prompt, or break its long lines; or {_RAW}",
            )
        how = f"signal {signal.Signals(-status).name}" if status and status < 0 else f"{status}"
        return self._lost(f"chat template or tokenizer ended its process ({how})", _RAW)

    def _lost(self, what: str, hint: str) -> ModelError:
        self.counters[f"text process lost: {what}"] += 1
        return ModelError(f"the model's {what}", hint=hint)


def _memory_of(process: trio.Process) -> int:
    """Return what a process takes, in bytes; 0 where it has ended."""
    try:
        return int(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:
        return 0


class _EndedError(Exception):
    """The process closed its end, or said what it never says."""
