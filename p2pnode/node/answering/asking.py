"""The answers under way of a running node: a request goes to the core, its events to a stream."""

from p2pnode.engine.base import ModelInfo
from p2pnode.inference.events import GenerationEvent
from p2pnode.net.reactor import Reactor
from p2pnode.node.answering.question import Question, request_of
from p2pnode.node.answering.stream import AnswerStream
from p2pnode.node.core import NodeCore
from p2pnode.node.events import NodeEvent
from p2pnode.node.text_worker import Prompt


class Asking:
    """Starts answers, and hands each event of the core to the stream that waits for it."""

    def __init__(self, reactor: Reactor[NodeCore, NodeEvent]) -> None:
        self._reactor = reactor
        self._streams: dict[int, AnswerStream] = {}

    def ask(self, question: Question, prompt: Prompt, model: ModelInfo) -> AnswerStream:
        """Start an answer of ``model`` to a question whose words became ``prompt``.

        Raises:
            GenerationError: The prompt does not fit the model.
            UserError: A peer was named that several are called.
        """
        number = 0

        def cancel() -> None:
            self._reactor.call(lambda core, now: core.cancel(number, now))

        stream = AnswerStream(cancel, lambda: self._streams.pop(number, None))

        def start(core: NodeCore, now: float) -> None:
            nonlocal number
            request = request_of(question, prompt, model, core.planner.meant)
            stream.notes = request.notes
            number = core.generate(request, now)
            self._streams[number] = stream

        self._reactor.call(start)
        return stream

    def route(self, event: GenerationEvent, now: float) -> None:
        """Hand ``event`` to its stream; an answer whose reader stopped reading is cancelled."""
        stream = self._streams.get(event.generation)
        if stream is None:
            return
        stream.put(event, now)
        if stream.is_unread and self._streams.pop(event.generation, None) is not None:
            reason = "answer cancelled: its reader stopped reading"
            self._reactor.call(lambda core, now: core.counters.update([reason]))
