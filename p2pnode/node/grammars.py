"""Schemas for the engine thread, compiled in a thread of their own.

Reading the vocabulary takes half a second, once for a node, and compiling a schema a few
milliseconds; a hundred for the worst that were found. A session's prompt is computed meanwhile.
What is not ready by its first token is waited for a moment, since other sessions wait as well.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from typing import Final, TypeVar

from p2pnode.engine.sampling.schema import Constraints, Matcher
from p2pnode.errors import DrawError, UserError
from p2pnode.node.model_file import ModelFile
from p2pnode.node.stamp import Stamp
from p2pnode.text.detokenizer import token_bytes
from p2pnode.text.stored_vocabulary import read_vocabulary

COMPILED: Final = 8
"""Compiled schemas that are kept, for sessions to come and for another try; as many may wait to be
compiled before anybody needs them."""

VOCABULARY_PATIENCE: Final = 10.0
"""Seconds that the engine thread waits for the vocabulary, once for a node."""

SCHEMA_PATIENCE: Final = 0.25
"""Seconds that it waits for a schema, once for a session. It goes on being compiled: whoever asks
again may find it done."""

SHARE_OF_WAITING: Final = 10
"""It waits for schemas one second in so many at the most: a member that begins one session after
another, each with a schema that is long to compile, costs others no more."""

_T = TypeVar("_T")


def can_follow_schemas() -> bool:
    """Whether the library for that is installed here."""
    return find_spec("llguidance") is not None


class ModelGrammars:
    """Compiles schemas for the vocabulary of a model's file.

    Attributes:
        model: The file, as it was read last.
    """

    def __init__(
        self,
        model: ModelFile | None,
        read: Callable[[], Constraints] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``read`` reads the vocabulary, by default off the model's file; ``clock`` is seconds."""
        self.model = model
        self._read = read or self._read_file
        self._threads: ThreadPoolExecutor | None = None
        self._vocabulary: Future[Constraints] | None = None
        self._compiled: OrderedDict[str, Future[Matcher]] = OrderedDict()
        self._lock = threading.Lock()
        self._clock = clock
        self._patience, self._since = (
            SCHEMA_PATIENCE,
            clock(),
        )  # what is left of it, and when it was

    def prepare(self, schema: str) -> None:
        """Begin to compile ``schema``, unless that was begun; returns at once.

        Where many wait already it is left to :meth:`matcher`: none that a session waits for gives
        way, and a member that begins one session after another makes no long queue.
        """
        with self._lock:
            if self._unfinished() < COMPILED:
                self._begun(schema)

    def matcher(self, schema: str) -> Matcher:
        """Return a schema's beginning.

        Raises:
            DrawError: It cannot be followed, or takes too long.
        """
        with self._lock:
            if schema not in self._compiled and self._unfinished() >= 2 * COMPILED:
                raise DrawError("too many schemas wait to be compiled")
            vocabulary, compiled = self._begun(schema)
        self._wait(vocabulary, VOCABULARY_PATIENCE, "the vocabulary takes too long to be read")
        began = self._clock()
        left = self._patience + (began - self._since) / SHARE_OF_WAITING
        left = min(left, SCHEMA_PATIENCE)
        try:
            return self._wait(compiled, left, "the schema takes too long to be compiled").copy()
        finally:
            self._since = self._clock()
            self._patience = max(0.0, left - (self._since - began))

    def _unfinished(self) -> int:
        return sum(not one.done() for one in self._compiled.values())

    def _begun(self, schema: str) -> "tuple[Future[Constraints], Future[Matcher]]":
        threads = self._threads
        if threads is None:
            # One: whatever takes long holds up other schemas, and nothing else.
            threads = self._threads = ThreadPoolExecutor(1, thread_name_prefix="schemas")
        vocabulary = self._vocabulary
        if vocabulary is None or (vocabulary.done() and vocabulary.exception() is not None):
            vocabulary = self._vocabulary = threads.submit(self._read)
            self._compiled.clear()
        compiled = self._compiled.pop(schema, None)
        if compiled is None:
            known = vocabulary
            compiled = threads.submit(lambda: known.result().matcher(schema))
        self._compiled[schema] = compiled
        ready = [old for old, one in self._compiled.items() if one.done() and old != schema]
        for old in ready[: max(0, len(self._compiled) - COMPILED)]:
            del self._compiled[old]
        return vocabulary, compiled

    @staticmethod
    def _wait(future: "Future[_T]", seconds: float, late: str) -> "_T":
        try:
            return future.result(seconds)
        except DrawError:
            raise
        except TimeoutError as error:
            raise DrawError(late) from error
        except UserError as error:
            raise DrawError(f"no schema can be followed here: {error}") from error

    def _read_file(self) -> Constraints:
        model = self.model
        if model is None:
            raise DrawError("this node has no model")
        if Stamp.of(model.path) != model.stamp:
            raise DrawError("the model's file was written to since it was read here")
        vocabulary = read_vocabulary(model.path)
        end = next((one for one in model.info.eos_ids), None)
        if end is None:
            raise DrawError("the model's file names no token that ends an answer")
        return Constraints(token_bytes(vocabulary), end)
