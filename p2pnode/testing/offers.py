"""Offers of made-up peers, for tests and measurements of plans."""

from dataclasses import fields, replace
from typing import Any

from p2pnode.sansio import NodeId
from p2pnode.scheduler.directory import Offer
from p2pnode.wire.ad import AdState, CapabilityAd

SPACE = 0xFEED
N_LAYERS = 30
D_MODEL = 576
_OF_OFFER = frozenset(each.name for each in fields(Offer)) - {"peer", "ad"}


def peer_id(number: int) -> NodeId:
    """Return the node id of a made-up peer; ids are in order of their numbers."""
    return NodeId(number.to_bytes(2, "big") * 16)


def an_offer(number: int, start: int, stop: int, **changes: Any) -> Offer:
    """Return the offer of peer ``number``, which serves [start, stop).

    Args:
        number: Names the peer.
        start: Its first layer.
        stop: One past its last.
        changes: Fields of the offer or of its ad.
    """
    ad = CapabilityAd(
        name=f"peer{number}",
        model="m",
        space_hash32=SPACE,
        n_layers=max(N_LAYERS, stop),
        d_model=D_MODEL,
        first_layer=start,
        layer_count=stop - start,
        state=AdState.SERVING,
        decode_fixed_us=300,
        decode_layer_us=600,
        head_us=2_000,
        prefill_layer_ns=80_000,
        kv_free_bytes=1 << 30,
        kv_total_bytes=1 << 30,
        device="cpu",
        dtypes=0,
    )
    return changed(Offer(peer_id(number), ad), **changes)


def changed(offer: Offer, **changes: Any) -> Offer:
    """Return ``offer`` with other values for some fields of it or of its ad."""
    of_ad = {name: value for name, value in changes.items() if name not in _OF_OFFER}
    ad = replace(offer.ad, **of_ad) if of_ad else offer.ad
    return replace(offer, ad=ad, **{name: changes[name] for name in changes if name in _OF_OFFER})
