"""What two peers can do together: the Sync handshake.

What gossip tells all is :mod:`p2pnode.wire.ad`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.messages import SyncError

PROTOCOL = 1
"""The version of the wire format that this code implements."""
SPACE_MISMATCH = "SPACE_MISMATCH"
KEY_SHARED = "KEY_SHARED"
"""An error: another machine uses the key of whoever is told."""


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
