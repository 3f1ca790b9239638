"""The tokens of one answer: what was asked, what was sent into the chain, what is wanted next.

Ignorant of peers. Whatever happens to the chain, a token that was accepted here stays as it is.

Invariants, in every phase: ``sent`` covers all positions below ``wanted`` without a gap, and its
batches never change once any was fed; ``wanted`` is the prompt's length plus that of ``tokens``,
and the inbox hands out no position below it; ``first_token_at`` is None exactly while ``tokens`` is
empty.
"""

import itertools
from collections.abc import Sequence

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.sampling.logprobs import Logprobs
from p2pnode.engine.sampling.past import Past
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import Batch, Inbox, token_batch, token_of, token_of_untrusted
from p2pnode.inference.logprob_slice import logprobs_untrusted
from p2pnode.inference.mean_slice import mean_untrusted
from p2pnode.inference.request import GenerationRequest
from p2pnode.wire.dtypes import DType

_TOKEN_WIDTH = 4


class Session:
    """One answer as its requester knows it.

    Attributes:
        key: Names it to the stages; 64 bits.
        tokens: The answer so far.
        codings: Mask of the codings that its states were sent in so far.
        sent: Every batch of tokens that goes into the first stage, oldest first.
        sent_at: When the newest of them left.
        inbox: What the last stage answers.
        beside: Slices that come with each token.
        reused: Positions that no stage had to compute.
        first_token_at: When the answer began.
        last_token_at: When its newest token came.
    """

    def __init__(
        self,
        request: GenerationRequest,
        model: ModelInfo,
        key: int,
        chunk: int,
        now: float,
        begun: Sequence[int] = (),
    ) -> None:
        """Cut the prompt into batches that end as ``begun`` says, and then of ``chunk`` tokens."""
        self.key = key
        self._chunk = chunk
        self.reused = 0
        self.request = request
        self.vocab_size = model.vocab_size
        self.tokens: list[int] = []
        self.codings = 0
        self.sent: list[Batch] = []
        self.sent_at = now
        self.d_model = model.d_model
        self.beside = int(request.sampling.logprobs is not None or request.sampling.mean)
        self.inbox = Inbox(
            _TOKEN_WIDTH, frozenset({int(DType.I8)}), request.positions + 1, self.beside
        )
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        for start, end in itertools.pairwise((0, *begun)):
            self.sent.append(token_batch(request.prompt[start:end], start))
        self._cut_rest()

    def recut(self, position: int) -> None:
        """Nothing was fed yet, and no stage holds anything beyond ``position``: cut that anew.

        A batch of one token costs a stage what one of many does.
        """
        self.sent = [batch for batch in self.sent if batch.end <= position]
        self._cut_rest()

    def _cut_rest(self) -> None:
        prompt, chunk = self.request.prompt, self._chunk
        for start in range(self.sent[-1].end if self.sent else 0, len(prompt), chunk):
            self.sent.append(token_batch(prompt[start : start + chunk], start))

    @property
    def proved(self) -> int:
        """Positions that every stage has shown, by a token, to have computed."""
        return self.wanted - 1 if self.tokens else 0

    @property
    def wanted(self) -> int:
        """Position of the next token to come."""
        return len(self.request.prompt) + len(self.tokens)

    @property
    def end(self) -> int:
        """Everything below this position has been sent, or is about to be."""
        return self.sent[-1].end

    @property
    def has_token(self) -> bool:
        """Whether the token that is wanted is here, and not only a part of it or a later one."""
        return self.inbox.has_batch

    @property
    def past(self) -> Past | None:
        """The tokens that the next draw depends on; None where it depends on none."""
        sampling, prompt = self.request.sampling, self.request.prompt
        if not sampling.needs_past:
            return None
        asked = min(len(prompt), max(0, sampling.looks_back - len(self.tokens)))
        return Past(len(prompt), self.wanted, (*prompt[len(prompt) - asked :], *self.tokens))

    def batches_from(self, position: int) -> list[Batch]:
        """Return what a first stage lacks that holds all below ``position``."""
        return [batch for batch in self.sent if batch.start >= position]

    def take_untrusted(self) -> Batch | None:
        """Return the batch with the token that is wanted, if it is here.

        Raises:
            RemoteProtocolError: No last stage may say this.
        """
        batch = self.inbox.take_batch()
        if batch is not None:
            token = token_of_untrusted(batch, self.beside)
            if token >= self.vocab_size:
                raise RemoteProtocolError(f"token {token} of {self.vocab_size}")
            self.logprobs_untrusted(batch)
            self.mean_untrusted(batch)
        return batch

    def logprobs_untrusted(self, batch: Batch) -> Logprobs | None:
        """Return how likely the token was; None where nobody asked.

        Raises:
            RemoteProtocolError: They are none, or others than were asked for.
        """
        asked = self.request.sampling.logprobs
        if asked is None:
            return None
        return logprobs_untrusted(batch.pieces[0][1], asked, self.vocab_size)

    def mean_untrusted(self, batch: Batch) -> bytes:
        """Return the mean of the hidden states, float32 [d_model]; empty where nobody asked.

        Raises:
            RemoteProtocolError: It is none.
        """
        if not self.request.sampling.mean:
            return b""
        return mean_untrusted(batch.pieces[0][1], self.d_model)

    def accept(self, batch: Batch, now: float) -> int:
        """Take the token that was wanted, out of :meth:`take_untrusted`; return it."""
        token = token_of(batch)
        self.tokens.append(token)
        self.codings |= batch.codings
        self.last_token_at = now
        self.first_token_at = now if self.first_token_at is None else self.first_token_at
        return token

    def follow(self, token: int, position: int, now: float) -> Batch:
        """Return the next batch to feed: the token just accepted, at its ``position``."""
        following = token_batch((token,), position)
        self.sent.append(following)
        self.sent_at = now
        return following

    @property
    def over(self) -> str:
        """Why it is complete; empty while it is not.

        ``eos``, ``length``, or ``stop`` where the schema that it follows is complete as well.
        """
        if self.tokens and self.tokens[-1] in self.request.stop:
            return "stop" if self.request.sampling.schema else "eos"
        return "length" if len(self.tokens) >= self.request.max_tokens else ""
