"""How one answer begins where earlier ones of this node were, and what it leaves for the next.

The batches that it has in common with an earlier answer are cut as they were there. What of that
each stage still holds, the stage says when it is opened; the chain feeds it the rest, as after a
repair.

Codings that are chosen by the batch and the link are not the same the next time, and a mean sums up
what its session computed: such answers neither reuse nor leave anything.
"""

from dataclasses import replace

from p2pnode.engine.base import ModelInfo
from p2pnode.inference.chain import Chain
from p2pnode.inference.cover import Cover
from p2pnode.inference.prefix_names import landmarks, named
from p2pnode.inference.prefixes import Prefixes, Record
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.session import Session
from p2pnode.scheduler.held import Held


class Begins:
    """The beginning of one answer."""

    def __init__(
        self,
        prefixes: Prefixes | None,
        request: GenerationRequest,
        model: ModelInfo,
        cover: Cover,
    ) -> None:
        is_apt = cover.is_uncoded and not request.sampling.mean
        self._prefixes = prefixes if is_apt else None
        is_long = model.is_long(request.positions)
        self._kind = bytes.fromhex(model.data_sig), cover.activations, is_long
        known = self._prefixes and self._prefixes.match(self._kind, request.prompt)
        self.ends = known.ends if known else ()
        self.holders = known.holders if known else ()

    def asked(self, request: GenerationRequest) -> GenerationRequest:
        """Return ``request`` with what a plan should know of its beginning."""
        if not self.ends:
            return request
        return replace(request, held=Held(self.holders, self.ends[-1], request.max_tokens))

    def ask(self, session: Session, chain: Chain) -> None:
        """Have the chain ask its legs what they hold."""
        if self._prefixes is None:
            return
        chain.scope = scope = self._prefixes.scope
        most = len(session.request.prompt) - 1
        if scope.is_shared:  # others may have left more
            common = landmarks(batch.end for batch in session.sent if batch.end <= most)
            chain.begun = sorted({*common, *self.ends[-1:]})
        elif self.ends:
            chain.begun = sorted({*landmarks(self.ends), self.ends[-1]})

    def opened(self, session: Session, chain: Chain) -> None:
        """All legs have said what they hold: cut anew what none does."""
        if not chain.is_fed and chain.begun:
            held = chain.reached.values()
            session.recut(max(held))
            session.reused = min(held)

    def over(self, session: Session, chain: Chain) -> list[int]:
        """Remember an answer that ended well; return the boundaries that stages are to name."""
        prefixes, proved = self._prefixes, session.proved
        if prefixes is None or not proved or chain.lost or chain.numerics.is_mixed:
            return []
        ends = tuple(batch.end for batch in session.sent if batch.end <= proved)
        ids = (*session.request.prompt, *session.tokens)[: ends[-1]]
        holders = tuple((leg.run.peer, leg.run.layers) for leg in chain.legs)
        prefixes.note(Record(*self._kind, ids, ends, holders))
        return named(ends)
