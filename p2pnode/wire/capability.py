"""What a peer can do: the Sync handshake between two, and the ad that gossip spreads to all."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, get_type_hints

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.dtypes import dtypes_of_mask
from p2pnode.wire.messages import SyncError

PROTOCOL = 1
"""The version of the wire format that this code implements."""
SPACE_MISMATCH = "SPACE_MISMATCH"
KEY_SHARED = "KEY_SHARED"
"""An error: another machine uses the key of whoever is told."""
MAX_AD = 320
"""The most bytes an ad may have, so that several fit beside a SWIM message in one datagram."""


def space_hash32(space_id: str, arch: str, data_sig: str) -> int:
    """Return the 32 bits that name an embedding space on the wire.

    Args:
        space_id: The model's name for its space.
        arch: The architecture, such as ``llama``.
        data_sig: Derived from the weights themselves, never typed by hand: two files that
            differ must differ here.
    """
    digest = hashlib.sha256(f"{space_id}:{arch}:{data_sig}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def space_mismatch(expected: int, got: int) -> SyncError:
    """Return the refusal that a frame of another embedding space is answered with."""
    return SyncError(
        SPACE_MISMATCH,
        f"this peer computes in space 0x{expected:08x}, the frame is of 0x{got:08x}",
        expected,
        got,
    )


@dataclass(frozen=True, slots=True)
class Capability:
    """What one side proposes, or the set both agreed on, as a Sync body.

    Attributes:
        d_model: Width of the hidden states; 0 without a model.
        embedding_space_id: The space's name, for people.
        space_hash32: The space itself; 0 for none.
        compress: Names of compressors, best first.
        crypto: Names of ciphers, best first.
        modality: Names of modalities; empty means that nothing was said, that is, text.
        critique: Whether Critique messages are understood.
        dtypes: Names of element types.
        agreed_proto: The highest protocol version spoken.
        v: Version of this message's form.
        extra: Keys of the body that this code does not know.
        extra_supports: The same inside ``supports``, where ``x-...`` keys live.

    Raises:
        LocalProtocolError: A number is out of range.
    """

    d_model: int
    embedding_space_id: str
    space_hash32: int
    compress: tuple[str, ...] = ("zstd",)
    crypto: tuple[str, ...] = ("xchacha20poly1305",)
    modality: tuple[str, ...] = ()
    critique: bool = True
    dtypes: tuple[str, ...] = ("f16", "i8", "q4", "sparse")
    agreed_proto: int = PROTOCOL
    v: int = 1
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
    extra_supports: Mapping[str, object] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for number in (self.d_model, self.space_hash32, self.agreed_proto, self.v):
            if not 0 <= number < 1 << 32:
                raise LocalProtocolError(f"{number} does not fit in 32 bits")

    def to_body(self) -> dict[str, object]:
        """Return the Sync body that says this."""
        body: dict[str, object] = {
            "method": "capability",
            "v": self.v,
            "agreed_proto": self.agreed_proto,
            "d_model": self.d_model,
            "embedding_space_id": self.embedding_space_id,
            "space_hash32": self.space_hash32,
            "compress": list(self.compress),
            "crypto": list(self.crypto),
        }
        if self.modality:
            body["modality"] = list(self.modality)
        supports = {"critique": self.critique, "dtype": list(self.dtypes)}
        return {**body, "supports": {**supports, **self.extra_supports}, **self.extra}

    @classmethod
    def from_body_untrusted(cls, body: Mapping[str, object]) -> "Capability":
        """Read a Sync body; a key that is missing counts as "none of that".

        Raises:
            RemoteProtocolError: It is no capability, or a value has the wrong type.
        """
        supports = body.get("supports", {})
        if body.get("method") != "capability" or not isinstance(supports, Mapping):
            raise RemoteProtocolError("a Sync body that is no capability")
        try:
            return cls(
                d_model=_number_untrusted(body, "d_model"),
                embedding_space_id=_text_untrusted(body, "embedding_space_id"),
                space_hash32=_number_untrusted(body, "space_hash32"),
                compress=_names_untrusted(body, "compress"),
                crypto=_names_untrusted(body, "crypto"),
                modality=_names_untrusted(body, "modality"),
                critique=supports.get("critique") is True,
                dtypes=_names_untrusted(supports, "dtype"),
                agreed_proto=_number_untrusted(body, "agreed_proto"),
                v=_number_untrusted(body, "v"),
                extra={key: value for key, value in body.items() if key not in _BODY_KEYS},
                extra_supports={
                    key: value for key, value in supports.items() if key not in _SUPPORTS_KEYS
                },
            )
        except LocalProtocolError as error:
            raise RemoteProtocolError(str(error)) from error


def negotiate(ours: Capability, theirs: Capability) -> Capability | SyncError:
    """Return what both sides can do, in our order of preference, or why they cannot talk.

    What one side alone proposes is left out, never refused; only another embedding space, or
    another width of one, is.
    """
    if ours.space_hash32 != theirs.space_hash32:
        return space_mismatch(ours.space_hash32, theirs.space_hash32)
    if ours.d_model != theirs.d_model:
        return SyncError(
            "D_MODEL_MISMATCH",
            f"one space, yet {ours.d_model} and {theirs.d_model} dimensions",
            ours.d_model,
            theirs.d_model,
        )
    return Capability(
        d_model=ours.d_model,
        embedding_space_id=ours.embedding_space_id,
        space_hash32=ours.space_hash32,
        compress=_shared(ours.compress, theirs.compress),
        crypto=_shared(ours.crypto, theirs.crypto),
        modality=_shared(ours.modality, theirs.modality),
        critique=ours.critique and theirs.critique,
        dtypes=_shared(ours.dtypes, theirs.dtypes),
        agreed_proto=min(ours.agreed_proto, theirs.agreed_proto),
        v=min(ours.v, theirs.v),
        extra=_equal_items(ours.extra, theirs.extra),
        extra_supports=_equal_items(ours.extra_supports, theirs.extra_supports),
    )


class AdState(IntEnum):
    """How far a peer is with its offer."""

    JOINING = 0
    """Loading weights; not to be asked yet."""
    SERVING = 1
    DRAINING = 2
    """Finishes what it has; not to be given more."""


class _Number(NamedTuple):
    """A number of an ad: its :mod:`struct` code, and the byte where it begins."""

    code: str
    at: int


class _Text(NamedTuple):
    """A text of an ad; texts follow the numbers, in the order of their declaration."""

    most_bytes: int


@dataclass(frozen=True, slots=True)
class CapabilityAd:
    """A peer's offer to run some layers of one model, as gossip carries it.

    Attributes:
        name: What its owner calls the machine; at most 32 bytes of UTF-8, printable.
        model: The model's name; at most 64 bytes, printable; empty without a model.
        space_hash32: The embedding space; 0 for no model. Peers whose hashes differ must not
            exchange hidden states.
        n_layers: Layers of the whole model.
        d_model: Width of its hidden states.
        first_layer: Index of the first layer held, from 0.
        layer_count: Number of consecutive layers held; 0 for none.
        state: How far it is.
        decode_fixed_us: Measured microseconds a decode step costs beside its layers.
        decode_layer_us: Microseconds a layer costs in a decode step.
        head_us: Microseconds of the final norm and the output head.
        prefill_layer_ns: Nanoseconds a prompt token costs a layer.
        kv_free_bytes: Free room for KV caches.
        kv_total_bytes: All the room for KV caches.
        device: What computes, such as ``cpu x2``; at most 48 bytes, printable.
        dtypes: The element types understood, as
            :func:`~p2pnode.wire.dtypes.dtype_mask` makes them.

    Raises:
        LocalProtocolError: A field is too wide, or breaks one of these bounds.
    """

    name: Annotated[str, _Text(32)]
    model: Annotated[str, _Text(64)]
    space_hash32: Annotated[int, _Number("I", at=2)]
    n_layers: Annotated[int, _Number("H", at=6)]
    d_model: Annotated[int, _Number("I", at=8)]
    first_layer: Annotated[int, _Number("H", at=12)]
    layer_count: Annotated[int, _Number("H", at=14)]
    state: Annotated[AdState, _Number("B", at=1)]
    decode_fixed_us: Annotated[int, _Number("I", at=16)]
    decode_layer_us: Annotated[int, _Number("I", at=20)]
    head_us: Annotated[int, _Number("I", at=24)]
    prefill_layer_ns: Annotated[int, _Number("I", at=28)]
    kv_free_bytes: Annotated[int, _Number("Q", at=32)]
    kv_total_bytes: Annotated[int, _Number("Q", at=40)]
    device: Annotated[str, _Text(48)]
    dtypes: Annotated[int, _Number("I", at=48)]

    def __post_init__(self) -> None:
        for name, limit in _TEXTS:
            _refuse_text(getattr(self, name), limit)
        if self.first_layer + self.layer_count > self.n_layers:
            raise LocalProtocolError(f"layers beyond the model's {self.n_layers}")
        if self.layer_count and not self.space_hash32:
            raise LocalProtocolError("layers of no model")
        if self.kv_free_bytes > self.kv_total_bytes:
            raise LocalProtocolError("more KV memory free than there is")
        try:
            self._pack()
        except struct.error as error:
            raise LocalProtocolError(f"a field is too wide for an ad: {error}") from error

    @property
    def layers(self) -> range:
        return range(self.first_layer, self.first_layer + self.layer_count)

    def understands(self, dtype: int) -> bool:
        return dtype in dtypes_of_mask(self.dtypes)

    def encode(self) -> bytes:
        """Return the ad's bytes, at most 199: fixed fields, then three texts with lengths."""
        texts = (getattr(self, name).encode() for name, _ in _TEXTS)
        return self._pack() + b"".join(bytes((len(raw),)) + raw for raw in texts)

    @classmethod
    def decode_untrusted(cls, data: bytes | memoryview) -> "CapabilityAd":
        """Parse bytes from the network.

        Raises:
            RemoteProtocolError: For any malformed input, and nothing else ever.
        """
        if len(data) > MAX_AD:
            raise RemoteProtocolError(f"an ad of {len(data)} bytes")
        try:
            version, *numbers = _AD.unpack_from(data)
            if version != _AD_VERSION:
                raise RemoteProtocolError(f"an ad of version {version}")
            said: dict[str, Any] = dict(zip(_NUMBERS, numbers, strict=True))
            texts = _texts_untrusted(bytes(data[_AD.size :]))
            said |= {name: text for (name, _), text in zip(_TEXTS, texts, strict=True)}
            return cls(**said | {"state": AdState(said["state"])})
        except (struct.error, ValueError, LocalProtocolError) as error:
            raise RemoteProtocolError(f"malformed capability ad: {error}") from error

    def _pack(self) -> bytes:
        return _AD.pack(_AD_VERSION, *_numbers_of(self))


_AD_VERSION = 1
_WIRE_FORM = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(CapabilityAd, include_extras=True).items()
}
_TEXTS = tuple((name, of.most_bytes) for name, of in _WIRE_FORM.items() if isinstance(of, _Text))
_ON_WIRE = sorted(
    (of.at, name, of.code) for name, of in _WIRE_FORM.items() if isinstance(of, _Number)
)
_NUMBERS = tuple(name for _, name, _ in _ON_WIRE)
_AD = struct.Struct("<B" + "".join(code for _, _, code in _ON_WIRE))
_numbers_of = attrgetter(*_NUMBERS)


def _texts_untrusted(data: bytes) -> list[str]:
    texts, at = [], 0
    for _ in _TEXTS:
        if at >= len(data) or at + 1 + data[at] > len(data):
            raise RemoteProtocolError("an ad that ends inside a text")
        stop = at + 1 + data[at]
        texts.append(data[at + 1 : stop].decode())  # UnicodeDecodeError is a ValueError
        at = stop
    if at != len(data):
        raise RemoteProtocolError("an ad with bytes after its end")
    return texts


def _refuse_text(text: str, limit: int) -> None:
    # Faces print these: a control character would let a peer write on our terminals.
    if not text.isprintable() or len(text.encode()) > limit:
        raise LocalProtocolError(f"not printable, or longer than {limit} bytes: {text!r}")


def _number_untrusted(body: Mapping[str, object], key: str) -> int:
    value = body.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RemoteProtocolError(f"{key} is no integer")
    return value


def _text_untrusted(body: Mapping[str, object], key: str) -> str:
    value = body.get(key, "")
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise RemoteProtocolError(f"{key} is no short text")
    return value


def _names_untrusted(body: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = body.get(key, [])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > _MAX_NAMES:
        raise RemoteProtocolError(f"{key} is no short list")
    if not all(isinstance(name, str) and len(name) <= _MAX_NAME for name in names):
        raise RemoteProtocolError(f"{key} lists something else than short names")
    return tuple(names)


def _shared(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in ours if name in theirs)


def _equal_items(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in ours.items() if key in theirs and theirs[key] == value}


_MAX_NAMES = 64  # both are guesses; real lists have five names of ten letters
_MAX_NAME = 128
_SUPPORTS_KEYS = frozenset({"critique", "dtype"})
_BODY_KEYS = frozenset(
    {
        "method",
        "v",
        "agreed_proto",
        "d_model",
        "embedding_space_id",
        "space_hash32",
        "compress",
        "crypto",
        "modality",
        "supports",
    }
)
