"""The capability ad: what a peer offers, as gossip spreads it to all.

Version 2 is made of skippable fields (:mod:`p2pnode.wire.fields`) and has room for several models.
Version 1 is what nodes before it read and write, and refuse to be longer or other; while a swarm
has one of those, version 1 is what all say. Its mask of element types tells by bits that they pass
over which abilities its sender has, and that it reads version 2.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum, IntFlag
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.ad_v1 import MAX_AD_V1, SAID_V1, decode_v1_untrusted, encode_v1
from p2pnode.wire.dtypes import dtypes_of_mask
from p2pnode.wire.fields import (
    Field,
    decode_fields_untrusted,
    encode_fields,
    number_untrusted,
    pack_number,
    refuse_extra,
)

MAX_AD: Final = 512
"""The most bytes of an ad: a record may not carry more, and nodes of version 1 refuse one that
does. The largest record still fits one datagram beside a SWIM message."""

MAX_OFFERS: Final = 8
"""Models in an ad. A guess: about as many as fit."""
MAX_NUMERICS: Final = 64
"""Bytes of the name of an arithmetic."""
NEWEST: Final = 2


class AdState(IntEnum):
    """How far a peer is with its offer."""

    JOINING = 0
    """Loading weights; not to be asked yet."""
    SERVING = 1
    DRAINING = 2
    """Finishes what it has; not to be given more."""


class Ability(IntFlag):
    """What a peer can do beyond what every peer can; unknown bits are passed over."""

    SAMPLING = 1
    """Draws with min-p, penalties and log-probabilities."""
    SCHEMAS = 2
    """Holds an answer to a JSON schema."""
    KV_TRANSFER = 4
    """Hands KV caches on, and takes them."""
    MEANS = 8
    """Tells the mean of a prompt's hidden states."""


def numerics_hash32(name: str) -> int:
    """Return the 32 bits that name an arithmetic in an ad; 0 only for none.

    Whoever wants to claims the hash of another. It decides whom a plan prefers, and no more.
    """
    if not name:
        return 0
    return int.from_bytes(hashlib.sha256(b"numerics " + name.encode()).digest()[:4], "little") or 1


class _Number(NamedTuple):
    field: int
    bits: int


class _Text(NamedTuple):
    field: int
    most_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOffer:
    """Some layers of one model.

    Attributes:
        space_hash32: The embedding space; 0 for no model. Peers whose hashes differ must not
            exchange hidden states.
        model: The model's name; at most 64 bytes, printable; empty without a model.
        n_layers: Layers of the whole model.
        d_model: Width of its hidden states.
        first_layer: Index of the first layer held, from 0.
        layer_count: Number of consecutive layers held; 0 for none.
        state: How far the peer is.
        decode_fixed_us: Measured microseconds a decode step costs beside its layers.
        decode_layer_us: Microseconds a layer costs in a decode step.
        head_us: Microseconds of the final norm and the output head.
        prefill_layer_ns: Nanoseconds a prompt token costs a layer.
        rows4_layer_us: Microseconds four tokens of one session cost a layer; 0 for unknown.
        rows8_layer_us: The same of eight.
        numerics: The arithmetic, as :func:`numerics_hash32` makes it; 0 for unknown.
        kv_bytes_per_token_layer: What a position costs in one layer's KV cache; 0 for unknown.
        demand: How much the peer asks of the model, as a level of
            :class:`p2pnode.scheduler.demand.Demand`; 0 for nothing.
        load: Sessions that it decodes for.
        offer_extra: Fields that this code does not know.

    Raises:
        LocalProtocolError: A field is too wide, or breaks one of these bounds.
    """

    space_hash32: Annotated[int, _Number(1, 32)]
    model: Annotated[str, _Text(2, 64)]
    n_layers: Annotated[int, _Number(3, 16)]
    d_model: Annotated[int, _Number(4, 32)]
    first_layer: Annotated[int, _Number(5, 16)]
    layer_count: Annotated[int, _Number(6, 16)]
    state: Annotated[AdState, _Number(7, 8)]
    decode_fixed_us: Annotated[int, _Number(8, 32)]
    decode_layer_us: Annotated[int, _Number(9, 32)]
    head_us: Annotated[int, _Number(10, 32)]
    prefill_layer_ns: Annotated[int, _Number(11, 32)]
    rows4_layer_us: Annotated[int, _Number(12, 32)] = 0
    rows8_layer_us: Annotated[int, _Number(13, 32)] = 0
    numerics: Annotated[int, _Number(14, 32)] = 0
    kv_bytes_per_token_layer: Annotated[int, _Number(15, 32)] = 0
    demand: Annotated[int, _Number(16, 8)] = 0
    load: Annotated[int, _Number(17, 8)] = 0
    offer_extra: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        _refuse_wide(self, _OFFER)
        if self.first_layer + self.layer_count > self.n_layers:
            raise LocalProtocolError(f"layers beyond the model's {self.n_layers}")
        if self.layer_count and not self.space_hash32:
            raise LocalProtocolError("layers of no model")
        refuse_extra(self.offer_extra, _OFFER_FIELDS)

    @property
    def layers(self) -> range:
        return range(self.first_layer, self.first_layer + self.layer_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityAd(ModelOffer):
    """A peer, and its offer to run some layers of a model, or of several.

    Attributes:
        name: What its owner calls the machine; at most 32 bytes of UTF-8, printable.
        device: What computes, such as ``cpu x2``; at most 48 bytes, printable.
        dtypes: The element types understood, as
            :func:`~p2pnode.wire.dtypes.dtype_mask` makes them.
        abilities: Bits of :class:`Ability`.
        kv_total_bytes: All the room for KV caches, of all models together.
        kv_free_bytes: What of it is free.
        numerics_names: For people, the names whose hashes the offers have as ``numerics``; at most
            64 bytes each, printable. Any may be missing.
        software: The version of p2pnode that it runs, for people; empty if it does not say. At most
            24 bytes, printable.
        others: Offers of further models, 7 at most; no space is offered twice.
        resting: Why it computes for nobody else now, as a :class:`~p2pnode.wire.rest.RestCause` or
            a number that this code does not know; 0 while it does not rest. Its offers are
            DRAINING then, which is all that older readers know of it.
        reads: The newest version of an ad that the peer reads.
        extra: Fields that this code does not know.

    Raises:
        LocalProtocolError: A field is too wide, or breaks one of these bounds.
    """

    name: Annotated[str, _Text(1, 32)]
    device: Annotated[str, _Text(2, 48)]
    dtypes: Annotated[int, _Number(3, 32)]
    abilities: Annotated[int, _Number(4, 32)] = 0
    kv_total_bytes: Annotated[int, _Number(5, 64)]
    kv_free_bytes: Annotated[int, _Number(6, 64)]
    numerics_names: tuple[str, ...] = ()
    software: Annotated[str, _Text(10, 24)] = ""
    others: tuple[ModelOffer, ...] = ()
    resting: Annotated[int, _Number(9, 8)] = 0
    reads: int = NEWEST
    extra: tuple[Field, ...] = ()
    _names: Mapping[int, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ModelOffer.__post_init__(self)
        _refuse_wide(self, _PEER)
        if self.kv_free_bytes > self.kv_total_bytes:
            raise LocalProtocolError("more KV memory free than there is")
        if len(self.others) >= MAX_OFFERS or len(self.numerics_names) > MAX_OFFERS:
            raise LocalProtocolError(f"more than {MAX_OFFERS} offers, or names of numerics")
        for name in self.numerics_names:
            _refuse_text(name, MAX_NUMERICS)
        if not all(self.numerics_names):
            raise LocalProtocolError("an arithmetic without a name")
        spaces = [offer.space_hash32 for offer in (self, *self.others)]
        if len(set(spaces)) < len(spaces) or (self.others and 0 in spaces):
            raise LocalProtocolError("a space is offered twice, or an offer of no model")
        refuse_extra(self.extra, _PEER_FIELDS)
        names = {numerics_hash32(name): name for name in self.numerics_names}
        object.__setattr__(self, "_names", names)

    @property
    def numerics_name(self) -> str:
        """What the arithmetic is called, its hash in hex where that is unknown; empty for none."""
        if not self.numerics:
            return ""
        return self._names.get(self.numerics) or f"0x{self.numerics:08x}"

    @property
    def spaces(self) -> tuple[int, ...]:
        """Every space that is offered, the first offer's first."""
        return (self.space_hash32, *(offer.space_hash32 for offer in self.others))

    def understands(self, dtype: int) -> bool:
        return dtype in dtypes_of_mask(self.dtypes)

    def of_space(self, space: int) -> "CapabilityAd":
        """Return the same with the offer of this space first; as it is where there is none."""
        for number, offer in enumerate(self.others):
            if offer.space_hash32 == space:
                rest = self.others[:number] + self.others[number + 1 :]
                said = {name: getattr(offer, name) for name in _OFFER_NAMES}
                return replace(self, **said, others=(self.first_offer, *rest))
        return self

    @property
    def first_offer(self) -> ModelOffer:
        """The first offer alone."""
        return ModelOffer(**{name: getattr(self, name) for name in _OFFER_NAMES})

    def encode(self, version: int = NEWEST) -> bytes:
        """Return the ad's bytes. Version 1 leaves out what it has no place for.

        Raises:
            LocalProtocolError: It takes more than :data:`MAX_AD`.
        """
        if version == 1:
            return encode_v1({name: getattr(self, name) for name in SAID_V1})
        peer = [
            *_packed(self, _PEER),
            *((_NUMERICS_NAME, name.encode()) for name in self.numerics_names),
            *((_OFFER_FIELD, _encode_offer(offer)) for offer in (self, *self.others)),
            *self.extra,
        ]
        data = bytes((2,)) + encode_fields(peer)
        if len(data) > MAX_AD:
            raise LocalProtocolError(f"an ad of {len(data)} bytes")
        return data

    @classmethod
    def decode_untrusted(cls, data: bytes | memoryview) -> "CapabilityAd":
        """Parse bytes from the network, of either version.

        Raises:
            RemoteProtocolError: For any malformed input, and nothing else ever.
        """
        version = data[0] if data else 0
        if not 0 < len(data) <= (MAX_AD if version == 2 else MAX_AD_V1):
            raise RemoteProtocolError(f"an ad of {len(data)} bytes")
        try:
            if version == 1:
                return cls(**_read_v1_untrusted(bytes(data)))
            if version == 2:
                return cls(**_decode_v2_untrusted(bytes(data[1:])))
        except (ValueError, LocalProtocolError) as error:
            raise RemoteProtocolError(f"malformed capability ad: {error}") from error
        raise RemoteProtocolError(f"an ad of version {version}")


_Form = dict[str, _Number | _Text]


def _form_of(declared: type) -> _Form:
    hints = get_type_hints(declared, include_extras=True)
    return {
        name: hints[name].__metadata__[0]
        for name in declared.__annotations__
        if hasattr(hints[name], "__metadata__")
    }


_OFFER = _form_of(ModelOffer)
_PEER = _form_of(CapabilityAd)
_OFFER_NAMES = tuple(each.name for each in fields(ModelOffer))
_NUMERICS_NAME, _OFFER_FIELD = 7, 8
_REPEATED = frozenset({_NUMERICS_NAME, _OFFER_FIELD})
_OFFER_FIELDS = frozenset(form.field for form in _OFFER.values())
_PEER_FIELDS = _REPEATED | {form.field for form in _PEER.values()}


def _packed(said: ModelOffer, form: _Form) -> list[Field]:
    return [
        (
            of.field,
            getattr(said, name).encode()
            if isinstance(of, _Text)
            else pack_number(getattr(said, name)),
        )
        for name, of in form.items()
    ]


def _encode_offer(offer: ModelOffer) -> bytes:
    return encode_fields([*_packed(offer, _OFFER), *offer.offer_extra])


def _decode_v2_untrusted(data: bytes) -> dict[str, Any]:
    found = decode_fields_untrusted(data, _REPEATED)
    offers = [_offer_untrusted(value) for number, value in found if number == _OFFER_FIELD]
    first, *others = offers or [_offer_untrusted(b"")]
    return {
        **_read_untrusted(found, _PEER),
        **first,
        "numerics_names": tuple(
            value.decode() for number, value in found if number == _NUMERICS_NAME
        ),
        "others": tuple(ModelOffer(**offer) for offer in others),
        "extra": tuple(one for one in found if one[0] not in _PEER_FIELDS),
    }


def _offer_untrusted(data: bytes) -> dict[str, Any]:
    found = decode_fields_untrusted(data)
    said = _read_untrusted(found, _OFFER)
    extra = tuple(one for one in found if one[0] not in _OFFER_FIELDS)
    return said | {"state": AdState(said["state"]), "offer_extra": extra}


def _read_untrusted(found: list[Field], form: _Form) -> dict[str, Any]:
    values = dict(found)
    return {
        name: values.get(of.field, b"").decode()  # UnicodeDecodeError is a ValueError
        if isinstance(of, _Text)
        else number_untrusted(values.get(of.field, b""), of.bits)
        for name, of in form.items()
    }


def _read_v1_untrusted(data: bytes) -> dict[str, Any]:
    said = decode_v1_untrusted(data)
    return said | {
        "state": AdState(said["state"]),
        "reads": NEWEST if said["reads"] > 1 else 1,
    }


def _refuse_wide(said: ModelOffer, form: _Form) -> None:
    for name, of in form.items():
        value = getattr(said, name)
        if isinstance(of, _Text):
            _refuse_text(value, of.most_bytes)
        elif not 0 <= value < 1 << of.bits:
            raise LocalProtocolError(f"{name} is too wide for an ad: {value}")


def _refuse_text(text: str, limit: int) -> None:
    # Faces print these: a control character would let a peer write on our terminals.
    if not text.isprintable() or len(text.encode()) > limit:
        raise LocalProtocolError(f"not printable, or longer than {limit} bytes: {text!r}")
