"""Loads the layers that a node is to hold: fetches what is missing of a checkpoint, then loads.

A fetch may take an hour, and loading a second or many, while the engine thread computes for
others: so both run beside it. Loads run one after the other, for each takes memory, and fetches as
they come. Which layers a node holds may be decided after it has joined: then only the small files
of its checkpoint are here.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from p2pnode.engine.base import Engine
from p2pnode.net.jobs import Failed, Finished, outcome_of
from p2pnode.net.priority import let_others_first
from p2pnode.net.reactor import Reactor
from p2pnode.node.checkpoints import fetch_shards
from p2pnode.node.core import NodeCore
from p2pnode.node.engine_jobs import EngineJobs, tell_failed
from p2pnode.node.events import LoadRequested, NodeEvent
from p2pnode.node.model_file import ModelFile
from p2pnode.node.model_watch import ModelWatch
from p2pnode.node.stamp import Stamp

T = TypeVar("T")

_PAUSE: Final = 10.0  # seconds between two words about a fetch

BESIDE_OTHERS: Final = 10
"""Steps of the nice value for a thread that loads while another model computes: more than the
engine thread has, for whoever waits for a token waits longer by what this takes of a core."""


class ModelLoads:
    """One node's; used in the loop alone.

    Args:
        reactor: Runs the fetches and the loads.
        engine: Loads, and takes what was loaded.
    """

    def __init__(self, reactor: Reactor[NodeCore, NodeEvent], engine: EngineJobs) -> None:
        self._reactor = reactor
        self._engine = engine
        self._watches: dict[int, ModelWatch] = {}
        self._waiting: deque[LoadRequested] = deque()
        self._is_loading = False

    def add(self, watch: ModelWatch) -> None:
        """Load of the file that is watched so; it does not look while files come."""
        self._watches[watch.file.info.space_hash32] = watch

    def remove(self, space: int) -> None:
        """Load nothing of a model any more."""
        self._watches.pop(space, None)

    def begin(self, asked: LoadRequested) -> None:
        """Load layers, once what is missing is here, then ask for them again."""
        watch = self._watches.get(asked.space)
        if watch is None or not self._is_wanted(asked):
            return
        if watch.file.may_lack_shards:
            self._fetch(asked, watch)
        else:
            self._load_in_turn(asked)

    def _fetch(self, asked: LoadRequested, watch: ModelWatch) -> None:
        known, watch.is_paused = watch.file, True

        def done(core: NodeCore, outcome: Finished[ModelFile] | Failed, now: float) -> None:
            watch.is_paused = False
            if isinstance(outcome, Finished):
                watch.take(outcome.value)
                self._load_in_turn(asked)
            else:
                tell_failed(core, asked, outcome.error, now)

        noting = self._noting(asked)
        self._reactor.offload(lambda: _fetched(known, asked.layers, noting, self._tell), done)

    def _load_in_turn(self, asked: LoadRequested) -> None:
        self._waiting.append(asked)
        if not self._is_loading:
            self._load_next()

    def _load_next(self) -> None:
        self._is_loading = False
        while self._waiting and not self._is_loading:
            asked = self._waiting.popleft()
            watch = self._watches.get(asked.space)
            if watch is not None and self._is_wanted(asked):
                self._is_loading = True
                self._load(asked, watch.file)

    def _load(self, asked: LoadRequested, file: ModelFile) -> None:
        is_beside, load, layers = self._engine.is_busy, self._engine.load, asked.layers

        def loaded() -> Engine:
            return _aside(lambda: load(file, layers)) if is_beside else load(file, layers)

        def done(core: NodeCore, outcome: Finished[Engine] | Failed, now: float) -> None:
            if isinstance(outcome, Finished):
                self._engine.arrive(asked.space, layers, outcome.value)
                core.events.append(asked)
            else:
                tell_failed(core, asked, outcome.error, now)
            self._load_next()

        self._reactor.offload(loaded, done)

    def _is_wanted(self, asked: LoadRequested) -> bool:
        return self._reactor.call(lambda core, now: core.is_loading(asked.space, asked.layers))

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


def _aside(task: Callable[[], T]) -> T:
    """Run a task in a thread that lets others first, and ends with it: a nice value only rises."""
    outcomes: list[Finished[T] | Failed] = []

    def run() -> None:
        let_others_first(BESIDE_OTHERS)
        outcomes.append(outcome_of(task))

    thread = threading.Thread(target=run, name="load", daemon=True)
    thread.start()
    thread.join()
    return outcomes[0].unwrap()


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
