"""Who offers which layers, and who can be used for one session; for everyone else, why not."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from p2pnode.sansio import Address, NodeId
from p2pnode.wire.ad import Ability, AdState, CapabilityAd
from p2pnode.wire.rest import rest_words

NOTHING_MORE: Final = Ability(0)
"""What every peer can is enough."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one peer says it can do, and whether it is believed to be there.

    Attributes:
        peer: Its node id.
        ad: What it says.
        alive: Whether membership believes in it.
        trouble: Why it is not believed to be alive, e.g. ``suspect``, or serves nothing; may be
            empty.
        met: The moment when it was first heard of.
        address: Where its session is; None without one.
    """

    peer: NodeId
    ad: CapabilityAd
    alive: bool = True
    trouble: str = ""
    met: float = -math.inf
    address: Address | None = None

    @property
    def name(self) -> str:
        """The name its owner gave it; not unique."""
        return self.ad.name

    @property
    def space_hash32(self) -> int:
        return self.ad.space_hash32

    @property
    def n_layers(self) -> int:
        return self.ad.n_layers

    @property
    def layers(self) -> range:
        """The layers it holds, or is about to; empty if none."""
        return self.ad.layers

    @property
    def state(self) -> AdState:
        return self.ad.state

    @property
    def is_measured(self) -> bool:
        return self.ad.decode_fixed_us > 0 or self.ad.decode_layer_us > 0

    def holding(self, layers: range) -> "Offer":
        """Return the same with other layers."""
        ad = replace(self.ad, first_layer=layers.start, layer_count=len(layers))
        return replace(self, ad=ad)


KvBytes: TypeAlias = Callable[[int, int], int]
"""``needed(layers, kv)``: KV memory that a run of so many layers takes for a session, where a
position takes ``kv`` bytes in a layer; 0 for unknown, which is reckoned as the most."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a session asks of the peers that serve it.

    Attributes:
        space_hash32: The embedding space of its model.
        n_layers: Layers of that model.
        d_model: Width of its hidden states.
        kv_bytes_needed: Memory that a run of layers takes; grows with their number.
        exclude: Peers that may not be used, each with the reason: those that have just refused
            the session, or failed it.
        needs: What the holder of the last layer, which draws the tokens, must be able to.
    """

    space_hash32: int
    n_layers: int
    d_model: int
    kv_bytes_needed: KvBytes
    exclude: Mapping[NodeId, str]
    needs: Ability = NOTHING_MORE

    @property
    def last_layer(self) -> range:
        return range(self.n_layers - 1, self.n_layers)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that can serve.

    Attributes:
        offer: What it offers.
        label: Its name, made unique among those at hand.
        room: Most layers that its memory has room for.
    """

    offer: Offer
    label: str
    room: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A peer that cannot serve, and why.

    Attributes:
        peer: Its node id.
        label: Its name, made unique among those at hand.
        layers: What it holds, or is about to.
        same_space: Whether it is the right model, so that these layers could have helped.
        reason: A clause that goes on after its name: ``is still loading [10, 20)``.
        distrusted: Whether it is excluded for what it did, or because the session asks to avoid it.
        is_unable: Whether it lacks nothing but what the last layer needs; other layers it may run.
        rests: Whether it computes for nobody else for now, for its owner's sake.
    """

    peer: NodeId
    label: str
    layers: range
    same_space: bool
    reason: str
    distrusted: bool = False
    is_unable: bool = False
    rests: bool = False

    def __str__(self) -> str:
        return f"{self.label} {self.reason}"


def sift(
    offers: Iterable[Offer], demand: Demand
) -> tuple[tuple[Candidate, ...], tuple[Refusal, ...]]:
    """Tell the peers that can serve from those that cannot; both in order of their node ids.

    Who only cannot draw as is needed is a candidate for all layers but the last, and refused there.
    """
    in_order = sorted(offers, key=lambda offer: offer.peer)
    labels = label_peers(in_order)
    candidates: list[Candidate] = []
    refusals: list[Refusal] = []
    for offer in in_order:
        room = room_of(offer, demand.kv_bytes_needed)
        reason = _why_not(offer, demand, room)
        label = labels[offer.peer]
        if not reason and (lacking := _lacking(offer, demand)):
            cannot = f"holds the last layer, but cannot {lacking}"
            last = demand.last_layer
            refusals.append(Refusal(offer.peer, label, last, True, cannot, is_unable=True))
            rest = offer.holding(offer.layers[:-1])
            if rest.layers:
                candidates.append(Candidate(rest, label, room_of(rest, demand.kv_bytes_needed)))
        elif reason:
            same_space = offer.space_hash32 == demand.space_hash32
            distrusted = offer.peer in demand.exclude
            rests = bool(offer.ad.resting)
            refusals.append(
                Refusal(
                    offer.peer, label, offer.layers, same_space, reason, distrusted, rests=rests
                )
            )
        else:
            candidates.append(Candidate(offer, label, room))
    return tuple(candidates), tuple(refusals)


def words_for(abilities: Ability) -> str:
    """Return what whoever has these abilities can do, after ``can``."""
    return " and ".join(words for one, words in _WORDS.items() if one & abilities)


def room_of(offer: Offer, needed: KvBytes) -> int:
    """Return for how many of its layers an offer has memory."""
    held, free, kv = len(offer.layers), offer.ad.kv_free_bytes, offer.ad.kv_bytes_per_token_layer
    if not held or needed(held, kv) <= free:
        return held
    counts = range(1, held + 1)  # what is needed grows with the number of layers
    return bisect_right(counts, free, key=lambda count: needed(count, kv))


def label_peers(offers: Iterable[Offer]) -> dict[NodeId, str]:
    """Name every peer so that a person can tell them apart."""
    offers = list(offers)
    uses = Counter(offer.name for offer in offers)
    return {
        offer.peer: offer.name
        if offer.name and uses[offer.name] == 1
        else f"{offer.name or 'node'} ({offer.peer.hex()[:8]})"
        for offer in offers
    }


def interval(layers: range) -> str:
    """Write a run of layers as people do: ``[10, 20)``."""
    return f"[{layers.start}, {layers.stop})"


def runs_of(layers: Iterable[int]) -> tuple[range, ...]:
    """Join layers into their maximal runs, in order."""
    runs: list[range] = []
    for layer in sorted(set(layers)):
        if runs and runs[-1].stop == layer:
            runs[-1] = range(runs[-1].start, layer + 1)
        else:
            runs.append(range(layer, layer + 1))
    return tuple(runs)


def _why_not(offer: Offer, demand: Demand, room: int) -> str:
    """Return why the offer is of no use, or nothing if it is."""
    if offer.peer in demand.exclude:
        return demand.exclude[offer.peer]
    if not offer.alive:
        return f"is {offer.trouble or 'not believed to be alive'}"
    if not offer.layers:
        rest = f"rests: {rest_words(offer.ad.resting)}" if offer.ad.resting else ""
        return ": ".join(("holds no layers", *filter(None, (offer.trouble or rest,))))
    if offer.space_hash32 != demand.space_hash32:
        return "serves another model"
    if (offer.n_layers, offer.ad.d_model) != (demand.n_layers, demand.d_model):
        return f"says this model has {offer.n_layers} layers of width {offer.ad.d_model}"
    if offer.state is AdState.JOINING:
        return f"is still loading {interval(offer.layers)}"
    if offer.state is AdState.DRAINING:
        return f"rests: {rest_words(offer.ad.resting)}" if offer.ad.resting else "is leaving"
    if not room:
        return (
            f"has too little memory: {_mib(offer.ad.kv_free_bytes)} free,"
            f" one layer needs {_mib(demand.kv_bytes_needed(1, offer.ad.kv_bytes_per_token_layer))}"
        )
    return ""


_WORDS: Mapping[Ability, str] = {
    Ability.SAMPLING: "draw with penalties, min-p or log-probabilities",
    Ability.SCHEMAS: "follow a schema",
    Ability.MEANS: "tell the mean of hidden states",
}


def _lacking(offer: Offer, demand: Demand) -> str:
    """Return what the peer cannot that the last layer needs; empty where it has not got that."""
    if demand.n_layers - 1 not in offer.layers:
        return ""
    return words_for(demand.needs & ~Ability(offer.ad.abilities))


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
