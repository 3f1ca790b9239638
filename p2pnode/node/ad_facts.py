"""What the picture of a peer takes from its ad."""

from typing import TypedDict

from p2pnode.node.peer_snapshot import OfferView
from p2pnode.wire.ad import NEWEST, CapabilityAd, ModelOffer


class AdFacts(TypedDict):
    """Fields of a :class:`~p2pnode.node.peer_snapshot.PeerView` that its ad tells."""

    model: str
    space_hash32: int
    layers: tuple[int, int]
    decode_us: int
    kv_free_bytes: int
    device: str
    numerics: str
    kv_bytes_per_token_layer: int
    is_older: bool
    software: str
    offers: tuple[OfferView, ...]


def facts_of(ad: CapabilityAd | None) -> AdFacts:
    """Return what faces show of an ad; of none, nothing."""
    if ad is None:
        return AdFacts(
            model="",
            space_hash32=0,
            layers=(0, 0),
            decode_us=0,
            kv_free_bytes=0,
            device="",
            numerics="",
            kv_bytes_per_token_layer=0,
            is_older=False,
            software="",
            offers=(),
        )
    return AdFacts(
        model=ad.model,
        space_hash32=ad.space_hash32,
        layers=(ad.layers.start, ad.layers.stop) if ad.layers else (0, 0),
        decode_us=ad.decode_fixed_us + ad.decode_layer_us * ad.layer_count,
        kv_free_bytes=ad.kv_free_bytes,
        device=ad.device,
        numerics=ad.numerics_name,
        kv_bytes_per_token_layer=ad.kv_bytes_per_token_layer,
        is_older=ad.reads < NEWEST,
        software=ad.software,
        offers=tuple(_offer(one) for one in (ad, *ad.others) if one.space_hash32),
    )


def _offer(one: ModelOffer) -> OfferView:
    return OfferView(
        model=one.model,
        space_hash32=one.space_hash32,
        n_layers=one.n_layers,
        layers=(one.layers.start, one.layers.stop) if one.layers else (0, 0),
        decode_us=one.decode_fixed_us + one.decode_layer_us * one.layer_count,
    )
