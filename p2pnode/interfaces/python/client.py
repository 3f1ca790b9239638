"""A client of the node that runs on this machine, for programs without an event loop.

It imports no trio, speaks to the node's control socket, and computes nothing itself.
"""

import os
import threading
import weakref
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from p2pnode.errors import UserError
from p2pnode.interfaces.python.events import Answer, Embeddings, Event
from p2pnode.interfaces.python.missing import no_embeddings
from p2pnode.interfaces.python.outcome import Outcome
from p2pnode.interfaces.python.parsing import answer_of, embeddings_of, event_of
from p2pnode.interfaces.python.question import (
    ChatOptions,
    Message,
    Params,
    PromptOptions,
    chat_params,
    prompt_params,
)
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_lines import find_control_path
from p2pnode.node.peer_snapshot import PeerView
from p2pnode.node.places import state_directory
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.node.snapshot_json import from_json

_FACTS = 10.0  # seconds within which a node says what it knows already
_LEAVING = 30.0  # seconds: a drain (10), a farewell (1), and a machine that is busy


class Client:
    """Asks the node that runs on this machine.

    It holds no connection: each call, and each answer, has one of its own. So it may be made before
    the node runs, outlives the node's restarts, and any number of threads may share it. An answer
    is for one thread at a time, but any may close it.

    Attributes:
        state: The state directory of the node that it asks.
    """

    def __init__(self, state: str | os.PathLike[str] | None = None) -> None:
        """``state`` is the node's state directory; None for ``$P2PNODE_HOME`` or the usual place.

        Raises:
            UserError: There is no home directory to look in.
        """
        self.state = state_directory(None if state is None else Path(state), os.environ)
        self._answers: weakref.WeakSet[RunningAnswer] = weakref.WeakSet()
        self._lock = threading.Lock()

    # Asking

    def generate(
        self, prompt: str | Sequence[int], **options: Unpack[PromptOptions]
    ) -> "RunningAnswer":
        """Ask for an answer to ``prompt``, words or token ids; it begins with its first event.

        Raises:
            TypeError: There is no such option.
            UserError: No node runs.
        """
        return self._ask(prompt_params(prompt, options))

    def chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> "RunningAnswer":
        """Ask for the next message of a chat; raises as :meth:`generate`."""
        return self._ask(chat_params(messages, options))

    def embed(self, texts: Sequence[str], model: str | None = None) -> Embeddings:
        """Return a vector for each text; ``model`` names what makes them, None for the node's.

        Raises:
            UserError: No node runs, or it cannot do this.
        """
        asked = {"texts": list(texts)} | ({} if model is None else {"model": model})
        with self._connect(None) as connection, no_embeddings():
            return embeddings_of(connection.call("embed", asked))

    # The node and its swarm

    def snapshot(self) -> NodeSnapshot:
        """Return the picture of this moment.

        Raises:
            UserError: No node runs, or it does not answer.
        """
        return from_json(self._call("snapshot"))

    def peers(self) -> tuple[PeerView, ...]:
        """Return every other node known; raises as :meth:`snapshot`."""
        return self.snapshot().peers

    def invite(self) -> str:
        """Return a code that lets whoever has it into the swarm; raises as :meth:`snapshot`."""
        return str(self._call("invite")["code"])

    def connect(self, address: str) -> tuple[str, ...]:
        """Have the node call ``HOST:PORT`` until somebody of the swarm answers there.

        Returns:
            The addresses that it calls.

        Raises:
            UserError: No node runs, or this is no address.
        """
        return tuple(map(str, self._call("connect", {"address": address})["calling"]))

    def stop(self, *, at_once: bool = False) -> None:
        """Have the node leave the swarm, and wait for its end.

        ``at_once``: without waiting for the answers that it computes for others.

        Raises:
            UserError: No node runs, or it has not ended in 30 s.
        """
        with self._connect(_FACTS) as connection:
            connection.call("stop", {"at_once": at_once})
            if not connection.wait_until_closed(_LEAVING):
                raise UserError(f"the node of {self.state} has not ended yet")

    def close(self) -> None:
        """Cancel every answer of this client that is not over."""
        with self._lock:
            answers = list(self._answers)
        for answer in answers:
            answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, params: Params) -> "RunningAnswer":
        answer = RunningAnswer(self._connect(None), params)
        with self._lock:
            self._answers.add(answer)
        return answer

    def _call(self, method: str, params: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 -- JSON
        with self._connect(_FACTS) as connection:
            return connection.call(method, params)

    def _connect(self, timeout: float | None) -> ControlClient:
        try:
            return ControlClient(find_control_path(self.state), timeout=timeout)
        except UserError as error:
            raise UserError(
                f"no node runs on {self.state}", hint=f"start one: p2pnode up --state {self.state}"
            ) from error


class RunningAnswer(Outcome):
    """An answer as it comes: an iterator of its events, with its :attr:`result` at the end.

    To close it, to leave its block or to drop it cancels what is still under way.
    """

    def __init__(self, connection: ControlClient, params: Params) -> None:
        self._connection = connection
        self._told: Generator[dict[str, Any], None, object] = connection.stream("generate", params)
        self._is_closed = False

    def read(self) -> Answer:
        """Read to the end, and return what came of it; raises as :meth:`__next__`."""
        for _ in self:
            pass
        return self.result

    def close(self) -> None:
        """Cancel it, unless it is over; whoever waits for its next event gets a UserError."""
        self._is_closed = True
        self._connection.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Return the next event.

        Raises:
            UserError: What was asked cannot be, the answer failed (a GenerationError), too many
                wait (a BusyError), the node ended, or this was closed.
        """
        if self._result is not None:
            raise StopIteration
        try:
            return self._next()
        except StopIteration:
            self._connection.close()
            raise
        except BaseException as error:
            self._connection.close()
            if self._is_closed and isinstance(error, UserError):
                raise UserError("the answer was closed before its end") from error
            raise

    def _next(self) -> Event:
        while True:
            try:
                event = event_of(next(self._told))
            except StopIteration as end:
                if self._result is None and end.value is None:
                    raise UserError("the answer has failed already") from None
                self._result = answer_of(end.value)
                raise
            if event is not None:
                return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._connection.close()
