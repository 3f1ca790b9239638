"""The ledger of trust: what peers did to our answers, kept longer than any one answer.

Every offence is an entry with its evidence. Distrust of a peer doubles with each offence and fades
with time, for each :class:`Kind` by itself: a machine that is switched off, one that is slow and
one that lies deserve different patience. While it is distrusted a peer is not planned, and for
some time after that it is dearer than it says.

Keys cost nothing, so distrust of a key alone stops nobody. Whoever has computed enough of our
tokens is *proven*; everyone else is a *stranger*. Strangers are believed at their word as long as
none of them fails us. Each failure by any stranger doubles the pause until the next trial, and a
trial that is stood halves it; a pause lasts some of our tokens at least, however much time passes.
In it a promise of a stranger is worth little, least of all of one that has computed nothing for us.
In a trial it counts for those only whom we have known for some time. Fresh keys then bring nothing.
The addresses that failures came from count as well. Friedman and Resnick ("The social cost of cheap
pseudonyms", 2001): where names are free, newcomers have to pay dues; here only after a newcomer has
cheated, and only as much as newcomers did lately.

An evidence machine: nothing that is noted here can be illegal, only of no more interest.
"""

import math
from collections import Counter
from collections.abc import Callable
from types import MappingProxyType

from p2pnode.sansio import Address, NodeId
from p2pnode.scheduler.offences import MEANINGS, Kind, Offence, Patience, TrustConfig
from p2pnode.scheduler.pages import FORGOTTEN, Entry, Level, Page
from p2pnode.scheduler.standing import Observed, Standing, places_of

__all__ = ["Entry", "Kind", "Ledger", "Observed", "Offence", "Patience", "Standing", "TrustConfig"]


class Ledger:
    """Keeps the accounts of one node. It knows no peers but those that served it."""

    def __init__(
        self,
        config: TrustConfig | None = None,
        address_of: Callable[[NodeId], Address | None] = lambda _: None,
    ) -> None:
        """``address_of`` tells where a peer's session is."""
        self._config = config or TrustConfig()
        self._address_of = address_of
        self._pages: dict[NodeId, Page] = {}
        self._strangers = Level()
        self._trouble_since = math.inf
        self._trial_from = -math.inf
        self._trial_after = 0  # tokens
        self._credited_at = -math.inf
        self._first_served = math.inf
        self._places: dict[str, Level] = {}
        self.counters: Counter[str] = Counter()

    def note(
        self,
        peer: NodeId,
        offence: Offence,
        evidence: str,
        now: float,
        *,
        share: float = 1.0,
        address: Address | None = None,
    ) -> None:
        """Enter an offence.

        Args:
            peer: Who is to blame.
            offence: For what.
            evidence: What was seen, for people: "no token for 3.0 s".
            now: The moment.
            share: Of the blame, above 0 and at most 1: less than 1 where others may be to blame.
            address: Where its session was; None to look it up.
        """
        meaning = MEANINGS[offence]
        amount = meaning.weight * min(max(share, 0.0), 1.0)
        if amount <= 0:
            return
        page = self._page(peer, now)
        was_proven = page.is_proven(self._config)
        page.enter(offence, meaning, amount, evidence, now, self._config)
        self.counters[f"{meaning.kind.name.lower()}: {offence.name.lower()}"] += 1
        if not was_proven:
            self._stranger_failed(amount, address or self._address_of(peer), now)
        self._make_room(peer, now)

    def served(self, peer: NodeId, tokens: int, now: float) -> None:
        """Note that ``peer`` has computed its part of ``tokens`` more tokens of ours."""
        page = self._page(peer, now)
        was_proven = page.is_proven(self._config)
        page.tokens = min(self._config.most_tokens, page.tokens + max(0, tokens))
        if page.tokens:
            self._first_served = min(self._first_served, now)
        if now > self._credited_at:  # all peers of an answer are credited with the same tokens
            self._credited_at = now
            self._trial_after = max(0, self._trial_after - max(0, tokens))
        if page.is_proven(self._config) and not was_proven:
            self.counters["stranger proven"] += 1
            self._trial_passed(now)
        self._make_room(peer, now)

    def observed(self, peer: NodeId, layer_us: float, now: float) -> None:
        """Note that a token took ``peer`` so long, in microseconds a layer."""
        if not (math.isfinite(layer_us) and layer_us >= 0):
            return
        page = self._page(peer, now)
        page.observe(layer_us, now, self._config)
        self._make_room(peer, now)

    def took_at_most(self, peer: NodeId, layer_us: float, now: float) -> None:
        """Note that a token took ``peer`` no longer than this, in microseconds a layer.

        What is measured takes the place of an older estimate that was worse.
        """
        page = self._pages.get(peer)
        if page is not None and math.isfinite(layer_us) and layer_us >= 0:
            page.bound(layer_us, now, self._config)

    def returned(self, peer: NodeId, now: float) -> None:
        """Note that ``peer`` answers again: one that was away once is tried again at once.

        One that keeps going away is not: that it comes back each time is the fault.
        """
        page = self._pages.get(peer)
        if page is None:
            return
        mark = page.marks.get(Kind.DEAD)
        if mark is not None and mark.level.at(now, self._config.dead.half_life) <= 1.0:
            mark.until = now

    def standing(self, now: float) -> Standing:
        """Return what all this means at ``now``; it does not change any more."""
        config = self._config
        excluded, hopeless = dict[NodeId, str](), dict[NodeId, str]()
        factors, observed = dict[NodeId, float](), dict[NodeId, Observed]()
        troubles = dict[NodeId, str]()
        proven, tried = set[NodeId](), set[NodeId]()
        for peer, page in self._pages.items():
            reason = page.reason(now)
            if reason:
                excluded[peer] = reason
                if page.is_hopeless(now, config):
                    hopeless[peer] = reason
            factor = page.factor(now, config)
            if factor > 1.0:
                factors[peer], troubles[peer] = factor, page.trouble(now, config)
            if page.tokens:
                tried.add(peer)
            if page.is_proven(config):
                proven.add(peer)
            seen = page.speed(now, config)
            if seen is not None:
                observed[peer] = seen
        trial = self._is_trial(now)
        level = self._strangers.at(now, config.trial.half_life)
        return Standing(
            excluded=MappingProxyType(excluded),
            factors=MappingProxyType(factors),
            troubles=MappingProxyType(troubles),
            proven=frozenset(proven),
            tried=frozenset(tried),
            trial=trial,
            dues=1.0 if level < FORGOTTEN else config.pessimism * math.exp2(min(level, 20.0)),
            introduced_before=max(now - config.introduction, self._first_served),
            entrance=config.pessimism,
            newcomers_since=self._newcomers_since(level, now, trial=trial),
            places=MappingProxyType(self._dear_places(now)),
            observed=MappingProxyType(observed),
            hopeless=MappingProxyType(hopeless),
        )

    def entries(self, now: float) -> tuple[Entry, ...]:
        """Return every page that says something, the most distrusted first."""
        pages = [(peer, page) for peer, page in self._pages.items() if page.says_something]
        pages.sort(key=lambda pair: (-pair[1].distrust(now, self._config), pair[0]))
        return tuple(page.entry(peer, now, self._config) for peer, page in pages)

    @property
    def pause_until(self) -> float:
        """The earliest moment at which strangers are believed at their word again."""
        return self._trial_from

    @property
    def pause_tokens(self) -> int:
        """How many more of our tokens are computed before."""
        return self._trial_after

    @property
    def size(self) -> int:
        """How many peers have a page. No ``len``: an empty ledger is one nevertheless."""
        return len(self._pages)

    def _page(self, peer: NodeId, now: float) -> Page:
        page = self._pages.get(peer)
        if page is None:
            page = self._pages[peer] = Page(now)
        page.touched = now
        return page

    def _stranger_failed(self, amount: float, address: Address | None, now: float) -> None:
        """A stranger has let us down: the next one is believed later."""
        patience = self._config.trial
        if self._strangers.at(now, patience.half_life) < FORGOTTEN:
            self._trouble_since = now
        level = self._strangers.add(amount, now, patience.half_life)
        self._trial_from = max(self._trial_from, now + patience.avoided_for(level))
        self._trial_after = self._config.trial_tokens
        self.counters["failed by a stranger"] += 1
        if address is None:
            return
        for place in places_of(address):
            mark = self._places.pop(place, None) or Level()
            self._places[place] = mark  # the newest last
            mark.add(amount, now, self._config.place.half_life)
        while len(self._places) > self._config.max_places:
            del self._places[next(iter(self._places))]

    def _trial_passed(self, now: float) -> None:
        """A stranger has stood its trial: half the next pause is enough.

        Whoever is proven during a pause was not taken at its word, and speaks for no stranger.
        """
        if self._is_trial(now):
            self._strangers.add(-1.0, now, self._config.trial.half_life)

    def _is_trial(self, now: float) -> bool:
        if now < self._trial_from:
            return False
        level = self._strangers.at(now, self._config.trial.half_life)
        return not self._trial_after or level < FORGOTTEN

    def _newcomers_since(self, level: float, now: float, *, trial: bool) -> float:
        if level < FORGOTTEN:
            return math.inf
        if not trial:
            return self._trouble_since
        # Whoever was there before the trouble is known enough, however young the swarm.
        return max(self._trouble_since, now - self._config.acquaintance)

    def _dear_places(self, now: float) -> dict[str, float]:
        patience = self._config.place
        dear: dict[str, float] = {}
        for place, level in self._places.items():
            held = level.at(now, patience.half_life)
            if level.since + patience.avoided_for(held) > now:
                dear[place] = math.exp2(min(held, 20.0))
        return dear

    def _make_room(self, newest: NodeId, now: float) -> None:
        """Forget whoever there is least to lose by; a stranger never displaces a proven peer."""
        config = self._config
        if len(self._pages) <= min(config.max_proven, config.max_strangers):
            return
        for proven, most in ((True, config.max_proven), (False, config.max_strangers)):
            some = [peer for peer, page in self._pages.items() if page.is_proven(config) is proven]
            if len(some) > most:
                del self._pages[min(some, key=lambda peer: self._worth(peer, newest, now))]
                self.counters["page forgotten for want of room"] += 1

    def _worth(self, peer: NodeId, newest: NodeId, now: float) -> tuple[bool, float, float]:
        page = self._pages[peer]
        return peer == newest, page.distrust(now, self._config), page.touched
