"""What each peer is worth to a plan: what it says, corrected by what the ledger of trust knows.

The price of a peer is the worse of its promise and of what was observed lately, times what it is
dearer for failing us. While strangers are not believed (see :mod:`~p2pnode.scheduler.trust`), one
costs at least some times the slowest peer there is reason to believe: the proven ones and ourselves
or, where there are none, those known from before the trouble began.
"""

from collections.abc import Iterable
from dataclasses import replace

from p2pnode.sansio import NodeId
from p2pnode.scheduler.cost import CostConfig, Price, price_offers
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.standing import FAILED, SLOW, Standing

_NOTICEABLE = 1.05  # slower by less than that is noise
_STRANGER = "a stranger, and strangers have failed us lately"
_NEWCOMER = "met since strangers began to fail us"
_UNTRIED = "met a moment ago, and others have served us"
_PLACE = "others at its address have failed us"


def price_in_trust(
    offers: Iterable[Offer], config: CostConfig, standing: Standing, us: NodeId | None
) -> dict[NodeId, Price]:
    """Price every offer; ``us`` is never a stranger."""
    offers = list(offers)
    prices = {
        peer: _observed(peer, price, standing)
        for peer, price in price_offers(offers, config).items()
    }
    strangers = [o for o in offers if o.peer != us and not standing.is_proven(o.peer)]
    _introduce(prices, offers, strangers, standing)
    if standing.dues > 1:
        _believe_less(prices, offers, strangers, standing)
    if standing.places:
        for offer in strangers:
            factor = standing.place_factor(offer.address)
            if factor > 1:
                prices[offer.peer] = prices[offer.peer].times(factor, _PLACE)
    for peer in standing.factors:
        if peer in prices:
            why = standing.troubles.get(peer, FAILED)
            prices[peer] = prices[peer].times(standing.factor(peer), why)
    return prices


def _observed(peer: NodeId, price: Price, standing: Standing) -> Price:
    layer_us = standing.layer_us(peer, price.layer_us)
    if layer_us == price.layer_us:
        return price
    slow = layer_us > _NOTICEABLE * price.layer_us
    return replace(price, layer_us=layer_us, why=SLOW if slow else "")


def _believe_less(
    prices: dict[NodeId, Price], offers: list[Offer], strangers: list[Offer], standing: Standing
) -> None:
    newcomers = {offer.peer for offer in strangers if offer.met >= standing.newcomers_since}
    unknown = newcomers if standing.trial else {offer.peer for offer in strangers}
    serving = [offer for offer in offers if offer.alive and offer.layers]
    believed = [offer for offer in serving if offer.peer not in unknown]
    if not believed:
        believed = [offer for offer in serving if offer.peer not in newcomers]
        unknown = newcomers
    slowest = _slowest([prices[offer.peer] for offer in believed])
    if slowest is None:
        return
    for offer in strangers:
        if offer.peer in unknown:
            dues = 1.0 if offer.peer in standing.tried else standing.dues
            prices[offer.peer] = prices[offer.peer].at_least(slowest.times(dues, ""), _STRANGER)
        if offer.peer in newcomers:
            prices[offer.peer] = prices[offer.peer].times(standing.dues, _NEWCOMER)


def _introduce(
    prices: dict[NodeId, Price], offers: list[Offer], strangers: list[Offer], standing: Standing
) -> None:
    """Let those just met cost more than those who served us, however fast they say they are."""
    usable = standing.tried - set(standing.excluded)
    tried = [o.peer for o in offers if o.alive and o.layers and o.peer in usable]
    slowest = _slowest([prices[peer] for peer in tried])
    if slowest is None:
        return
    floor = slowest.times(standing.entrance, "")
    for offer in strangers:
        if offer.met > standing.introduced_before:
            prices[offer.peer] = prices[offer.peer].at_least(floor, _UNTRIED)


def _slowest(prices: list[Price]) -> Price | None:
    if not prices:
        return None
    return Price(
        max(price.fixed_us for price in prices),
        max(price.layer_us for price in prices),
        max(price.head_us for price in prices),
        measured=True,
    )
