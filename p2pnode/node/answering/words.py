"""The words of an answer: its tokens spelled as they come, up to a stop string."""

from collections.abc import Iterable, Sequence

from p2pnode.inference.events import TokenProduced
from p2pnode.node.answering.calls import Calls, call_body
from p2pnode.node.answering.logprobs import logprobs_body
from p2pnode.node.text_worker import Prompt
from p2pnode.text.detokenizer import Detokenizer
from p2pnode.text.stops import StopStrings
from p2pnode.text.tool_calls.pieces import Piece, Text, ToolCall


class Words:
    """Turns the tokens of one answer into what may be shown of it.

    Stop strings are looked for in what is shown, not in the calls of tools, nor across one.

    Attributes:
        logprobs: How likely each token was, in order, where that is known.
        calls: The calls of tools so far, as JSON has them.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        prompt: Prompt,
        stop: Sequence[str],
        calls: Calls | None = None,
    ) -> None:
        """``calls`` finds the calls of tools; None where there are none to be found."""
        self._detokenizer = detokenizer
        self._ends = prompt.stop_ids
        self._decoder = detokenizer.decoder(
            after=next(reversed(prompt.ids), None),
            marks=calls.marks if calls else frozenset(),
        )
        self._calls = calls
        self._stops = StopStrings(stop)
        self._shown: list[str] = []
        self.logprobs: list[object] = []
        self.calls: list[dict[str, object]] = []

    @property
    def text(self) -> str:
        """What was shown so far."""
        return "".join(self._shown)

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the answer, or None."""
        return self._stops.matched

    def take(self, event: TokenProduced) -> dict[str, object]:
        """Return what a token says: its words, calls that it completes, and how likely it was."""
        # The token that ends an answer is none of its words, even where it has a spelling.
        words = "" if event.token in self._ends else self._decoder.push(event.token)
        body = self._told(self._calls.push(words) if self._calls else (Text(words),))
        if event.logprobs is not None:
            told = logprobs_body(event.token, event.logprobs, self._detokenizer)
            self.logprobs.append(told)
            body["logprobs"] = told
        return body

    def finish(self) -> dict[str, object]:
        """Return what was held back, for a call or a stop string that did not come after all."""
        body = self._told(self._calls.finish() if self._calls else ())
        rest = self._stops.finish()
        self._shown.append(rest)
        body["text"] = f"{body['text']}{rest}"
        return body if body["text"] or "tool_calls" in body else {}

    def _told(self, pieces: Iterable[Piece]) -> dict[str, object]:
        shown, calls = "", list[dict[str, object]]()
        for piece in pieces:
            match piece:
                case Text(text):
                    shown += self._stops.push(text)
                case ToolCall():
                    shown += self._stops.interrupt()
                    if not self.stopped_by:
                        calls.append(call_body(len(self.calls) + len(calls), piece))
        self._shown.append(shown)
        self.calls += calls
        return {"text": shown, "tool_calls": calls} if calls else {"text": shown}
