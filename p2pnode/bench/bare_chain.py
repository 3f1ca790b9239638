"""A chain of engines joined by bare sockets: the most that any protocol could leave of a chain.

Hidden states go from process to process over blocking UDP sockets of this machine. Nothing is
sealed, coded or repaired, and a token's row, one datagram, is not acknowledged. So what such a
chain loses against one engine, sockets, wake-ups and cold caches take.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from p2pnode.errors import UserError

if TYPE_CHECKING:
    from p2pnode.engine.base import Engine, Floats

_HEAD: Final = struct.Struct("<QIIId")
"""A session's number, the position of its first row, how many rows a job has, the first one of
these that is in this datagram, and the seconds that engines have computed for it so far."""
_TOKEN: Final = struct.Struct("<QId")
"""A session's number, its next token, and the seconds that engines computed for it."""
_KEY: Final = struct.Struct("<Q")
_READY: Final = b"ready"
_SILENT: Final = "a stage of bare sockets does not answer"
_AGAIN: Final = "run it again on a calmer machine"
_MOST_BYTES: Final = 60_000
"""Of the rows in a datagram. A job of more takes several, and each waits until the one before was
received: together they may not fit the buffer of a stage that is busy."""
_CHUNK: Final = 64  # rows of a prompt that are one job, as in a chain of nodes
_LOOK_SECONDS: Final = 2  # between two looks whether the other processes are still there
_LOOKS: Final = 30


class BareChain:
    """The first stage, here; the others are processes that hand on to each other."""

    def __init__(
        self,
        engine: Engine,
        own: socket.socket,
        following: int,
        others: Sequence[multiprocessing.process.BaseProcess],
    ) -> None:
        self._engine = engine
        self._others = others
        self._ready = 0
        self._own = own
        self._following = following
        self._sessions = 0

    def answer(
        self, prompt_ids: Sequence[int], tokens: int
    ) -> tuple[list[int], list[float], list[float]]:
        """Return so many tokens, the seconds from each to the next, and a hop's seconds in each.

        A hop is a token's time less its engines' seconds, over the number of stages.

        Raises:
            UserError: A stage does not answer: it ended, or the machine lost a datagram.
        """
        import numpy as np

        self._sessions += 1
        self._await_ready()
        key = _KEY.pack(self._sessions)
        drawn, moments, computed = list[int](), list[float](), list[float]()
        ids, position = np.asarray(prompt_ids, np.int64), 0
        try:
            while len(drawn) < tokens:
                for first in range(0, len(ids), _CHUNK):
                    chunk = ids[first : first + _CHUNK]
                    began = time.perf_counter()
                    (rows,) = self._engine.forward(key, self._engine.layers, [chunk], position)
                    seconds = time.perf_counter() - began
                    _hand_on(self._own, self._following, self._sessions, position, rows, seconds)
                    position += len(chunk)
                    token, seconds = self._token()
                drawn.append(token)
                moments.append(time.perf_counter())
                computed.append(seconds)
                ids = np.array([token], np.int64)
        finally:
            self._engine.close(key)
        steps = [after - before for before, after in pairwise(moments)]
        ways = len(self._others) + 1
        hops = [(step - engines) / ways for step, engines in zip(steps, computed[1:], strict=True)]
        return drawn, steps, hops

    def _await_ready(self) -> None:
        """Wait until every other stage has loaded its layers, however long that takes."""
        while self._ready < len(self._others):
            data = self._heard()
            self._ready += data == _READY

    def _token(self) -> tuple[int, float]:
        for _ in range(_LOOKS):
            data = self._heard()
            if len(data) == _TOKEN.size:
                number, token, seconds = _TOKEN.unpack(data)
                if number == self._sessions:
                    return int(token), float(seconds)
        raise UserError(_SILENT, hint=_AGAIN)

    def _heard(self) -> bytes:
        """Return what came, or nothing where nothing came for a while."""
        try:
            return self._own.recv(_MOST_BYTES)
        except BlockingIOError:
            for other in self._others:
                if not other.is_alive():
                    raise UserError(
                        f"a stage of bare sockets ended with {other.exitcode}",
                        hint="see what it said above; holding the model takes memory twice here",
                    ) from None
            return b""


@contextmanager
def bare_chain(
    path: Path, engine: str, threads: int, cuts: Sequence[int], knobs: Sequence[Path] = ()
) -> Iterator[BareChain]:
    """Yield a chain whose stages hold the layers between ``cuts``, ready to compute.

    Args:
        path: The model.
        engine: Its name.
        threads: Of each stage.
        cuts: The first layer of each stage, and how many layers there are.
        knobs: For each stage, what it is told to do in place of its arithmetic, if anything.
    """
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        sockets = [stack.enter_context(_bound()) for _ in cuts[1:]]
        ports = [one.getsockname()[1] for one in sockets]
        stages: list[multiprocessing.process.BaseProcess] = []
        for at in range(1, len(sockets)):
            layers = range(cuts[at], cuts[at + 1])
            following = ports[(at + 1) % len(ports)]
            told = knobs[at] if knobs else None
            args = (path, engine, threads, layers, sockets[at], following, ports[0], told)
            stage = spawn.Process(target=_stage, args=(*args, os.getpid()), daemon=True)
            stage.start()
            stack.callback(_end, stage)
            stages.append(stage)
        first = _load(path, engine, threads, range(cuts[0], cuts[1]), knobs[0] if knobs else None)
        stack.callback(first.shut)
        yield BareChain(first, sockets[0], ports[1 % len(ports)], stages)


def _end(stage: multiprocessing.process.BaseProcess) -> None:
    stage.terminate()
    stage.join()


def _stage(
    path: Path,
    name: str,
    threads: int,
    layers: range,
    own: socket.socket,
    following: int,
    first: int,
    knobs: Path | None,
    parent: int,
) -> None:
    """Compute what comes, hand it on, or draw the token with the last layer; until terminated."""
    from p2pnode.engine.blas import limit_blas_threads
    from p2pnode.engine.sampling.draw import sample
    from p2pnode.engine.sampling.options import Sampling
    from p2pnode.node.huge_pages import use_huge_pages

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    limit_blas_threads(threads)
    engine = _load(path, name, threads, layers, knobs)
    use_huge_pages()  # as a node does
    own.sendto(_READY, ("127.0.0.1", first))
    is_last = layers.stop == engine.info.n_layers
    greedy, held = Sampling(), 0
    while True:
        try:
            session, position, rows, seconds = _receive(own, engine.info.d_model)
        except BlockingIOError:
            if os.getppid() != parent:
                return
            continue
        if session != held:
            engine.close(_KEY.pack(held))
            held = session
        began = time.perf_counter()
        (states,) = engine.forward(_KEY.pack(session), layers, [rows], position)
        if is_last:
            token = sample(engine.logits(states[-1:])[0], greedy, position + len(rows))
            seconds += time.perf_counter() - began
            own.sendto(_TOKEN.pack(session, token, seconds), ("127.0.0.1", following))
        else:
            seconds += time.perf_counter() - began
            _hand_on(own, following, session, position, states, seconds)


def _load(path: Path, name: str, threads: int, layers: range, knobs: Path | None) -> Engine:
    from p2pnode.bench.hop.knobs import Knobs
    from p2pnode.bench.hop.stand_in import StandIn, as_engine
    from p2pnode.engine.registry import EngineOptions, load_engine
    from p2pnode.node.model_cache import cache_dir
    from p2pnode.node.models import open_model

    options = EngineOptions(name, threads=threads, cache=cache_dir())
    engine = load_engine(path, layers, options, tree=open_model(path).tree)
    return engine if knobs is None else as_engine(StandIn(engine, Knobs(knobs)))


def _bound() -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    # Not Python's own timeout, with which each recv() would ask poll() first.
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _LOOK_SECONDS, 0))
    return one


def _hand_on(
    own: socket.socket, port: int, session: int, position: int, rows: Floats, seconds: float
) -> None:
    """Send rows [rows, d_model] in as many datagrams as it takes.

    Raises:
        UserError: The receiver of one that another follows does not say that it has it.
    """
    most = max(1, _MOST_BYTES // (4 * rows.shape[1]))
    for first in range(0, len(rows), most):
        if first:
            _await_taken(own)
        head = _HEAD.pack(session, position, len(rows), first, seconds)
        own.sendto(head + rows[first : first + most].tobytes(), ("127.0.0.1", port))


def _await_taken(own: socket.socket) -> None:
    try:
        own.recv(1)
    except BlockingIOError:
        raise UserError(_SILENT, hint=_AGAIN) from None


def _receive(own: socket.socket, width: int) -> tuple[int, int, Floats, float]:
    """Return a job's session, its first row's position, its rows [rows, d_model], and the seconds.

    The seconds are those that engines have computed for it so far.
    """
    import numpy as np

    pieces: list[Floats] = []
    while True:
        data, source = own.recvfrom(65_535)
        session, position, count, first, seconds = _HEAD.unpack_from(data)
        if first == 0:
            pieces.clear()
        pieces.append(np.frombuffer(data, np.float32, offset=_HEAD.size).reshape(-1, width))
        if sum(map(len, pieces)) >= count:
            rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            return session, position, rows, seconds
        own.sendto(b"", source)
