"""Answers asked for at once, each over a connection of its own, and when their tokens came."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from typing import Any

from p2pnode.errors import UserError
from p2pnode.net.control_client import ControlClient
from p2pnode.testing.processes import NodeProcess

Params = dict[str, Any]

_GLANCE = 0.005
_PATIENCE = 30.0  # seconds until all have a token, or until nobody holds memory for them


class Session:
    """One answer, as whoever asked for it hears it; moments are seconds of the monotonic clock.

    Attributes:
        asked_at: When it was asked for.
        came: When each token came.
        token_ids: The tokens, once it is over.
        prompt_ids: What was asked, once it is over.
        text: The words, once it is over.
        reused: Positions of the prompt that no stage had to compute, once it is over.
    """

    def __init__(self, client: ControlClient, params: Params) -> None:
        self.asked_at = 0.0
        self.came: list[float] = []
        self.token_ids: list[int] = []
        self.prompt_ids: list[int] = []
        self.text = ""
        self.reused = 0
        self._client = client
        self._params = params

    def run(self) -> None:
        """Ask, and hear it to its end.

        Raises:
            UserError: It failed, or its connection was closed.
        """
        self.asked_at = time.monotonic()
        facts = self._client.call("generate", self._params, self._hear)
        self.token_ids, self.prompt_ids = facts["token_ids"], facts["prompt_ids"]
        self.text, self.reused = facts["text"], facts["reused"]

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.came[0] - self.asked_at

    @property
    def steps(self) -> list[float]:
        """Seconds from each token to the next."""
        return [after - before for before, after in itertools.pairwise(self.came)]

    def _hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "token":
            self.came.append(time.monotonic())


def answers(nodes: Sequence[NodeProcess], questions: Sequence[Params]) -> list[Session]:
    """Ask all questions at once, the nodes in turn, and hear every answer to its end.

    Raises:
        UserError: An answer failed.
    """
    with _under_way(nodes, questions) as (sessions, endings):
        for ending in as_completed(endings):
            ending.result()
        return sessions


def answer(node: NodeProcess, question: Params) -> Session:
    """Ask one question, and hear its answer to the end."""
    return answers([node], [question])[0]


@contextmanager
def crowd(
    nodes: Sequence[NodeProcess], questions: Sequence[Params], stages: Sequence[NodeProcess]
) -> Iterator[list[Session]]:
    """Have all questions under way, each with a token or more; hang up on them in the end.

    It is left once no stage holds memory for them any more.

    Raises:
        UserError: An answer failed, or was over before the crowd was left.
    """
    with _under_way(nodes, questions) as (sessions, endings):
        began = time.monotonic()
        while not all(session.came for session in sessions):
            _check(endings)
            if time.monotonic() - began > _PATIENCE:
                raise UserError(f"not every session had a token after {_PATIENCE:.0f} s")
            time.sleep(_GLANCE)
        yield sessions
        _check(endings)
    _wait_until_free(stages)


@contextmanager
def _under_way(
    nodes: Sequence[NodeProcess], questions: Sequence[Params]
) -> Iterator[tuple[list[Session], list[Future[None]]]]:
    """Ask; whatever ends this hangs up first, so that no thread waits for a token any more."""
    with ThreadPoolExecutor(len(questions)) as pool, ExitStack() as clients:
        sessions = [
            Session(clients.enter_context(node.client(timeout=None)), question)
            for node, question in zip(itertools.cycle(nodes), questions, strict=False)
        ]
        yield sessions, [pool.submit(session.run) for session in sessions]


def _check(endings: Sequence[Future[None]]) -> None:
    for ending in endings:
        if ending.done():
            ending.result()
            raise UserError(
                "an answer was over before all was measured beside it",
                hint="take a model with a longer context",
            )


def _wait_until_free(nodes: Sequence[NodeProcess]) -> None:
    began = time.monotonic()
    while any(node.snapshot().stages for node in nodes):
        if time.monotonic() - began > _PATIENCE:
            raise UserError(f"memory was held for more than {_PATIENCE:.0f} s")
        time.sleep(_GLANCE)
