"""Fetches the shards of layers that a node is to load, before the engine thread is asked to.

Which layers a node holds may be decided after it has joined: then only the small files of its
checkpoint are here. A fetch may take an hour, and the engine thread computes for others meanwhile:
so it runs in trio's pool, and what is asked for again afterwards finds its shards here.
"""

import time
from collections.abc import Callable
from typing import Final

import trio

from p2pnode.errors import ModelChangedError
from p2pnode.net.jobs import Failed, Finished
from p2pnode.net.reactor import Reactor
from p2pnode.node.checkpoints import fetch_shards
from p2pnode.node.core import NodeCore
from p2pnode.node.engine_jobs import EngineJobs, reason_of
from p2pnode.node.events import LoadRequested, NodeEvent
from p2pnode.node.model_file import ModelFile
from p2pnode.node.model_watch import ModelWatch
from p2pnode.node.stamp import Stamp

_PAUSE: Final = 10.0  # seconds between two words about a fetch


class ShardFetches:
    """One node's; used in the loop alone.

    Args:
        reactor: Runs the fetches.
        engine: Is told of which layers all is here.
        watch: Does not look while files come.
    """

    def __init__(
        self, reactor: Reactor[NodeCore, NodeEvent], engine: EngineJobs, watch: ModelWatch
    ) -> None:
        self._reactor = reactor
        self._engine = engine
        self._watch = watch

    def begin(self, asked: LoadRequested) -> None:
        """Fetch what is missing, then ask for the layers again."""
        known, self._watch.is_paused = self._watch.file, True

        def done(core: NodeCore, outcome: Finished[ModelFile] | Failed, now: float) -> None:
            self._watch.is_paused = False
            if isinstance(outcome, Finished):
                self._watch.take(outcome.value)
                self._engine.ready(asked.layers)
                core.events.append(asked)
            elif isinstance(outcome.error, ModelChangedError):
                core.model_changed(
                    asked.space, f"the file changed: {reason_of(outcome.error)}", now
                )
            else:
                core.load_failed(asked.space, asked.layers, reason_of(outcome.error), now)

        noting = self._noting(asked)
        self._reactor.offload(lambda: _fetched(known, asked.layers, noting, self._tell), done)

    def _noting(self, asked: LoadRequested) -> Callable[[float], None]:
        """Return what says every few seconds how much has come; called in the fetch's thread.

        Where nobody runs the loop any more, it ends the fetch.
        """
        due, what = time.monotonic(), f"[{asked.layers.start}, {asked.layers.stop})"

        def heard(part: float) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + _PAUSE
                self._tell(f"fetches the shards of layers {what}: {100 * part:.0f} %")

        return heard

    def _tell(self, line: str) -> None:
        """Say something; in the fetch's thread."""
        trio.from_thread.run_sync(self._reactor.call, lambda core, now: core.say(line))


def _fetched(
    known: ModelFile,
    layers: range,
    heard: Callable[[float], None],
    tell: Callable[[str], None],
) -> ModelFile:
    """Return the model with all the shards of ``layers``, hashed; others may fetch them too."""
    fetch_shards(known.path, layers, heard, tell)
    stamp = Stamp.of(known.path)
    return known if stamp == known.stamp else known.read_again(stamp)
