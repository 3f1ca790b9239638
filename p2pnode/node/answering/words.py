"""The words of an answer: its tokens spelled as they come, up to a stop string."""

from collections.abc import Sequence

from p2pnode.inference.events import TokenProduced
from p2pnode.node.answering.logprobs import logprobs_body
from p2pnode.node.text_worker import Prompt
from p2pnode.text.detokenizer import Detokenizer
from p2pnode.text.stops import StopStrings


class Words:
    """Turns the tokens of one answer into what may be shown of it.

    Attributes:
        logprobs: How likely each token was, in order, where that is known.
    """

    def __init__(self, detokenizer: Detokenizer, prompt: Prompt, stop: Sequence[str]) -> None:
        self._detokenizer = detokenizer
        self._ends = prompt.stop_ids
        self._decoder = detokenizer.decoder(after=next(reversed(prompt.ids), None))
        self._stops = StopStrings(stop)
        self._shown: list[str] = []
        self.logprobs: list[object] = []

    @property
    def text(self) -> str:
        """What was shown so far."""
        return "".join(self._shown)

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the answer, or None."""
        return self._stops.matched

    def take(self, event: TokenProduced) -> dict[str, object]:
        """Return what a token says: its words, and how likely it was if that is known."""
        # The token that ends an answer is none of its words, even where it has a spelling.
        words = "" if event.token in self._ends else self._decoder.push(event.token)
        shown = self._stops.push(words)
        self._shown.append(shown)
        if event.logprobs is None:
            return {"text": shown}
        told = logprobs_body(event.token, event.logprobs, self._detokenizer)
        self.logprobs.append(told)
        return {"text": shown, "logprobs": told}

    def finish(self) -> str:
        """Return what was held back for a stop string that did not come."""
        rest = self._stops.finish()
        self._shown.append(rest)
        return rest
