"""Who broke one answer, how often, and what follows: for the ledger, for the plan, for the end.

An evidence machine: every loss, refusal, stall and lie is entered once, with what was seen.
Invariants: ``repairs`` only grows, and bounds the epochs of an answer; whoever is in ``times`` is
not used for this answer while others exist, and of those, whoever failed it least goes first. What
a peer computes again after it failed twice without a token between is no progress.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.cover import Leg
from p2pnode.inference.messages import OVERFLOW, Failed
from p2pnode.inference.request import TrustBook
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import StageRun
from p2pnode.scheduler.offences import MEANINGS, Offence
from p2pnode.scheduler.standing import Standing

_TOKENS_A_REPAIR = 64
_MOST_NAMED = 6
_MOST_NEWS = 2  # one failure may be the way's, or a restart; a guess
_MOST_EXCUSED = 32  # peers that each allow one repair more; keys are free, so there is an end


class Faults:
    """The faults of one answer.

    Attributes:
        repairs: How often the chain had to be mended.
        times: How often each peer broke it.
    """

    def __init__(self, config: InferenceConfig, trust: TrustBook, node_id: NodeId) -> None:
        self._config = config
        self._trust = trust
        self._node_id = node_id
        self._said: dict[NodeId, tuple[str, str]] = {}
        self._half: Counter[NodeId] = Counter()
        self._excused: set[NodeId] = set()
        self._held: dict[int, tuple[int, float]] = {}
        self._since_token: Counter[NodeId] = Counter()
        self._overflows: Counter[range] = Counter()  # of our own layers
        self.repairs = 0
        self.times: Counter[NodeId] = Counter()

    def blame(
        self, run: StageRun, offence: Offence, evidence: str, now: float, *, share: float = 1.0
    ) -> None:
        """``run`` broke the answer; ``evidence`` is what was seen.

        ``share`` of it is news to the ledger: none where another answer has told of it.
        """
        self.release(run, _clause(offence, evidence))
        self._note(run.peer, offence, evidence, now, share)

    def release(self, run: StageRun, clause: str) -> None:
        """``run`` is not used for this answer any more; ``clause`` goes on after its name."""
        self.times[run.peer] += 1
        self._since_token[run.peer] += 1
        self._said[run.peer] = (run.name, clause)

    def failed(self, legs: tuple[Leg, ...], word: Failed, now: float) -> set[int]:
        """A leg cannot go on, or says that a neighbour of it cannot; return who goes.

        That is a word against another's. A stage sees two things of its neighbours: that what the
        one before sent is no use, and that the one after is silent. Whoever says it too often goes
        as well; and of ourselves we know better. A lie is entered only on a word that is worth more
        than the accused: one word of a stranger would keep an honest peer out for minutes.
        """
        culprit, reason = word.culprit, word.reason
        at = next(index for index, leg in enumerate(legs) if leg.number == word.leg)
        run = legs[at].run
        if culprit == run.peer:
            if word.code == OVERFLOW and culprit == self._node_id:
                self._overflows[run.layers] += 1
            self.blame(run, Offence.FAILED, reason, now)
            return _legs_of(legs, culprit)
        if culprit == self._node_id:
            self.blame(run, Offence.FAILED, f"it accuses us: {reason}", now)
            return {word.leg}
        if any(leg.run.peer == culprit for leg in legs[at + 1 : at + 2]):
            offence, patience, accused = Offence.ACCUSED, 3, legs[at + 1].run
        elif any(leg.run.peer == culprit for leg in legs[:at][-1:]):
            accused = legs[at - 1].run
            offence, patience = self._of_input(accused.peer, run.peer, now), 1
        else:
            return set()
        self.blame(accused, offence, f"{run.name} says: {reason}", now)
        lost = _legs_of(legs, culprit)
        said = f"it accused {accused.name}: {reason}"
        if self.share_blame(run, Offence.ACCUSED, said, now, patience=patience):
            lost.add(word.leg)
        return lost

    def excuses(self, peer: NodeId) -> bool:
        """Whether what ``peer`` says to excuse itself is believed: once an answer."""
        is_first = peer not in self._excused
        self._excused.add(peer)
        return is_first

    def share_blame(
        self, run: StageRun, offence: Offence, evidence: str, now: float, *, patience: int = 1
    ) -> bool:
        """``run`` may be to blame as well; True where that was so more than ``patience`` times."""
        self._half[run.peer] += 1
        self._note(run.peer, offence, evidence, now, 0.5)
        if self._half[run.peer] <= patience or run.peer == self._node_id:
            return False
        self.release(run, _clause(offence, evidence))
        return True

    def starved(self, laggard: Leg, before: Leg, evidence: str, now: float) -> set[int]:
        """``laggard`` says that it got nothing of what ``before`` says it sent; return who goes.

        One word against another's, and both are noted. The laggard goes first, unless its word is
        worth more: else a stranger who only claims to have computed keeps an honest peer out.
        """
        proven = self._trust.standing(now).is_proven

        def is_known(leg: Leg) -> bool:
            return leg.run.peer == self._node_id or proven(leg.run.peer)

        name = laggard.run.name
        if is_known(laggard) and not is_known(before):
            self.blame(before.run, Offence.STALLED, f"{name} got nothing of it: {evidence}", now)
            is_other = self.share_blame(laggard.run, Offence.STALLED, evidence, now)
            return {before.number, laggard.number} if is_other else {before.number}
        self.blame(laggard.run, Offence.STALLED, evidence, now)
        is_other = self.share_blame(
            before.run, Offence.STALLED, f"{name} after it got nothing", now
        )
        return {before.number, laggard.number} if is_other else {laggard.number}

    def holds_up(self, leg: int, computed: int, ample: float, asked: float, now: float) -> bool:
        """``leg`` has all its input, and has ``computed`` so far; whether it had ample time.

        Counted from when this was first seen, so that no other stage that is lost buys it time,
        until it was ``asked``: an answer that came late, or was read late because this node stood
        still, says nothing of now.
        """
        was_at, by = self._held.get(leg, (-1, 0.0))
        if was_at != computed:
            self._held[leg] = computed, now + ample
            return False
        return asked >= by

    def slow(
        self, run: StageRun, evidence: str, layer_us: float, now: float, answers: int = 1
    ) -> None:
        """``run`` is slower than it said; so many ``answers`` of ours may all notice it now."""
        self._note(run.peer, Offence.SLOWER_THAN_PROMISED, evidence, now, 1 / max(1, answers))
        self.observed(run.peer, layer_us, now)

    def observed(self, peer: NodeId, layer_us: float, now: float) -> None:
        """``peer`` took so many microseconds a token and layer: worse than it said."""
        if peer != self._node_id:
            self._trust.observed(peer, layer_us, now)

    def took_at_most(self, runs: tuple[StageRun, ...], trip_us: float, now: float) -> None:
        """Tokens took these peers, all they ran together, at most ``trip_us`` microseconds each."""
        layers = Counter[NodeId]()
        for run in runs:
            layers[run.peer] += len(run.layers)
        for peer in sorted(set(layers) - {self._node_id}):
            self._trust.took_at_most(peer, trip_us / layers[peer], now)

    def served(self, runs: tuple[StageRun, ...], tokens: int, now: float) -> None:
        """These peers computed so many more tokens."""
        if tokens > 0:
            for peer in sorted({run.peer for run in runs} - {self._node_id}):
                self._trust.served(peer, tokens, now)

    def token_came(self) -> None:
        """The chain, once mended, brought a token: what is replayed from now on is another."""
        self._since_token.clear()

    def is_news(self, peer: NodeId) -> bool:
        """Whether what ``peer`` computes is progress, or a replay once more that leads nowhere."""
        return self._since_token[peer] < _MOST_NEWS

    def beyond_repair(self, tokens: int) -> str:
        """Return why the answer is not worth another repair; empty while it is."""
        if any(times > 1 for times in self._overflows.values()):
            return "our own engine overflows each time, so it takes another engine or model file"
        excused = min(len(self.times), _MOST_EXCUSED)
        most = self._config.max_repairs + excused + tokens // _TOKENS_A_REPAIR
        return f"mended {self.repairs - 1} times, broken again" if self.repairs > most else ""

    def standings(self, now: float, *, last_resort: bool) -> tuple[Standing, ...]:
        """Return whom to plan with, the best choice first.

        First without anybody who failed this answer or is distrusted; as a last resort with those
        who failed it once, then twice, and so on: better a peer that failed us than none. From
        twice on with each alone before: a liar has the one blamed that nobody can do without, and
        must not come back with it where others can do his part.
        """
        known = self._trust.standing(now)
        standings = [_without(known, {peer: self._why(peer) for peer in self.times})]
        if last_resort:
            forgiving = known.last_resort()
            for most in sorted({0, *self.times.values()}):
                for one in self._at_fault(most) if most > 1 else ():
                    others = {peer: self._why(peer) for peer in self.times if peer != one}
                    standings.append(_without(forgiving, others))
                worse = {peer: self._why(peer) for peer, n in self.times.items() if n > most}
                standings.append(_without(forgiving, worse))
        return tuple(standings)

    def standing_without(self, peer: NodeId, why: str, now: float) -> Standing:
        """Return whom to plan with, but for those who failed this answer, and ``peer``."""
        return _without(self.standings(now, last_resort=False)[0], {peer: why})

    @property
    def summary(self) -> str:
        """Who broke the answer how often, the worst first."""
        worst = sorted(self.times.items(), key=lambda pair: (-pair[1], pair[0]))
        said = [
            f"{self._said[peer][0]} {self._said[peer][1]}" + (f" ({n} times)" if n > 1 else "")
            for peer, n in worst[:_MOST_NAMED]
        ]
        if len(worst) > _MOST_NAMED:
            said.append(f"and {len(worst) - _MOST_NAMED} more")
        return "; ".join(said)

    def _of_input(self, accused: NodeId, accuser: NodeId, now: float) -> Offence:
        """Return what ``accused`` did if ``accuser`` says that its numbers are no use."""
        if accuser == self._node_id:
            return Offence.NOT_FINITE
        proven = self._trust.standing(now).is_proven
        surely = proven(accuser) and not proven(accused)
        return Offence.NOT_FINITE if surely else Offence.DISPUTED

    def _at_fault(self, times: int) -> list[NodeId]:
        """Return who broke the answer just so often, a few at the most."""
        return sorted(peer for peer, n in self.times.items() if n == times)[:_MOST_NAMED]

    def _why(self, peer: NodeId) -> str:
        return f"broke this answer: it {self._said[peer][1]}"

    def _note(
        self, peer: NodeId, offence: Offence, evidence: str, now: float, share: float
    ) -> None:
        if share > 0 and peer != self._node_id:  # of ourselves we know better
            self._trust.note(peer, offence, evidence, now, share=share)


def _legs_of(legs: tuple[Leg, ...], peer: NodeId) -> set[int]:
    return {leg.number for leg in legs if leg.run.peer == peer}


def _clause(offence: Offence, evidence: str) -> str:
    return f"{MEANINGS[offence].clause}: {evidence}"


def _without(standing: Standing, peers: Mapping[NodeId, str]) -> Standing:
    return replace(standing, excluded={**standing.excluded, **peers})
