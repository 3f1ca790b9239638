"""What every engine promises, whatever it computes with."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.errors import EngineError, LocalProtocolError

Array: TypeAlias = npt.NDArray[Any]
"""Either int64 token ids [tokens] or float32 hidden states [tokens, d_model]."""

Floats: TypeAlias = npt.NDArray[np.float32]

SessionKey: TypeAlias = bytes
"""Opaque to the engine; two sessions with one key are one session."""

KvBlock: TypeAlias = npt.NDArray[Any]
"""Keys and values [layers, 2, positions, kv_heads * head_dim] in the type the engine stores."""

MOST_ROWS_TOGETHER: Final = 32
"""Rows of one session in a step with others: engines compute larger batches by other kernels."""

MOST_NUMERICS_BYTES: Final = 64
"""Of the name of an engine's arithmetic: an ad carries its hash, people read it in one line."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is, without its weights.

    Attributes:
        name: What people call it; a label, not an identity.
        arch: The architecture as its file names it, for example ``llama``.
        n_layers: Transformer blocks, at least 1.
        d_model: Width of a hidden state.
        n_heads: Query heads.
        n_kv_heads: Key and value heads; divides ``n_heads``.
        head_dim: Width of a head.
        context_length: The most positions a session may have.
        vocab_size: Token ids are below this.
        eos_ids: Tokens that end an answer.
        space_id: Name of the embedding space, derived from the file's content.
        data_sig: The root over the hashes of its tensors (:mod:`p2pnode.engine.hash_tree`), in hex:
            two models that compute differently differ here.
        space_hash32: Peers whose values differ must not exchange hidden states.
        kv_bytes_per_token_layer: What one position costs in one layer's KV cache at the most, in
            float32; what it does cost is the engine's to say.
        long_from: A session of more positions is computed otherwise from its first on, as LongRoPE
            has it; 0 where none is.
    """

    name: str
    arch: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    context_length: int
    vocab_size: int
    eos_ids: tuple[int, ...]
    space_id: str
    data_sig: str
    space_hash32: int
    kv_bytes_per_token_layer: int
    long_from: int = 0

    def is_long(self, positions: int) -> bool:
        """Whether a session of so many positions is one of those."""
        return 0 < self.long_from < positions


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a visit costs on this machine, measured warm.

    Attributes:
        decode_fixed_us: Microseconds of one token's visit that do not depend on the layers.
        decode_layer_us: Microseconds of one token in one layer.
        head_us: Microseconds of the final norm and head; 0 where they are not held.
        prefill_layer_ns: Nanoseconds of one prompt token in one layer, in a batch.
        rows4_layer_us: Microseconds of four tokens of one session in one layer; 0 for unknown.
        rows8_layer_us: The same of eight.
    """

    decode_fixed_us: int
    decode_layer_us: int
    head_us: int
    prefill_layer_ns: int
    rows4_layer_us: int = 0
    rows8_layer_us: int = 0


@dataclass(frozen=True, slots=True)
class KvSizes:
    """What sizes an engine makes KV caches in: one has room for at least what was asked for.

    Attributes:
        block: Positions; each cache has whole blocks of so many.
        doubles: Whether it has one block, or two, four and so on.
        most: Positions of the largest there is; 0 for no bound.
    """

    block: int = 1
    doubles: bool = False
    most: int = 0

    def rounded(self, positions: int) -> int:
        """Return what a cache for so many positions takes memory for."""
        blocks = -(-positions // self.block)
        if self.doubles and blocks:
            blocks = 1 << (blocks - 1).bit_length()
        size = blocks * self.block
        return min(size, self.most) if 0 < self.most >= positions else size


EXACT: Final = KvSizes()


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """What an engine says of itself once its layers are loaded.

    Attributes:
        numerics: Names the arithmetic; see :attr:`Engine.numerics`.
        device: What computes, for people, for example ``cpu x2`` or ``cuda:0 RTX 3060``.
        cost: What a visit costs.
        kv_bytes_per_token_layer: What one position costs in one layer's KV cache.
        weight_bytes: Memory that the weights take, beside a mapped file's pages.
        kv_sizes: What sizes KV caches come in.
    """

    numerics: str
    device: str
    cost: StageCost
    kv_bytes_per_token_layer: int
    weight_bytes: int = 0
    kv_sizes: KvSizes = EXACT


@dataclass(frozen=True, slots=True, eq=False)
class SessionRows:
    """Rows of one session that are computed beside others'.

    Attributes:
        session: Whose KV cache to read and extend.
        rows: int64 [tokens] ids or float32 [tokens, d_model] hidden states.
        start: Position of the first row; the length of the session's KV cache.
    """

    session: SessionKey
    rows: Array
    start: int


class Engine(Protocol):
    """A run of a model's layers, and the KV caches of the sessions that use it.

    A KV cache belongs to (session, first layer) and keeps its layers until it is closed: others
    from that first one on are refused as not held. Not thread-safe: one thread at a time. Every
    sentence here is a test in ``tests/engine/conformance``, which every engine passes.
    """

    @property
    def info(self) -> ModelInfo: ...

    @property
    def layers(self) -> range:
        """All the layers held."""

    @property
    def numerics(self) -> str:
        """Names the arithmetic: engine, version, kernel variant, type of the KV cache.

        Two engines of one name compute the same bits from the same batches, and may take over each
        other's KV caches. Printable, at most 64 bytes; ``ggml 0.26.0/sapphirerapids/kv-f16``.
        """

    @property
    def device(self) -> str:
        """What computes, for people: ``cpu x2``."""

    @property
    def kv_bytes_per_token_layer(self) -> int:
        """What one position costs in one layer's KV cache, in bytes."""

    @property
    def kv_sizes(self) -> KvSizes:
        """What sizes KV caches come in: the budget counts what they take, not what was asked."""

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights take, in bytes, beside the pages of a mapped file."""

    def forward(
        self, session: SessionKey, layers: range, batches: Sequence[Array], start: int
    ) -> list[Floats]:
        """Run consecutive batches of one session through ``layers``.

        Each batch is computed exactly as if it were a call of its own, bit for bit; an engine may
        go layer by layer rather than batch by batch, so that a layer's weights stay in the cache:
        a replay after a failover repeats the batching first used, and is still fast.

        Args:
            session: Whose KV cache to read and extend.
            layers: Which of the held layers to run.
            batches: int64 [tokens] ids (only where ``layers`` starts at 0) or float32
                [tokens, d_model] hidden states; at least one, none empty.
            start: Position of the first row; must be the length of the session's KV cache.

        Returns:
            float32 [tokens, d_model] for each batch.

        Raises:
            LocalProtocolError: Layers that are not held, a wrong shape, type, id or ``start``.
                Nothing changed.
            CapacityError: The KV budget or the context is full. Nothing changed.
            DeviceLostError: The device failed or is gone, for every session.
            EngineError: The step failed otherwise. The session is of no more use.
        """

    def forward_many(self, layers: range, parts: Sequence[SessionRows]) -> list[Floats]:
        """Run rows of several sessions through ``layers`` together.

        No session's results depend on who computes beside it, bit for bit, while each part has at
        most :data:`MOST_ROWS_TOGETHER` rows.

        Args:
            layers: As for :meth:`forward`.
            parts: At most one for a session.

        Returns:
            float32 [tokens, d_model] for each part.

        Raises:
            LocalProtocolError: As :meth:`forward`, or a session twice, or too many rows.
            CapacityError: As :meth:`forward`; no session changed.
            EngineError: As :meth:`forward`, for all of them.
        """

    def length(self, session: SessionKey, first_layer: int) -> int:
        """Return how many positions the session has cached from this first layer on; 0 if none."""

    def truncate(self, session: SessionKey, length: int) -> None:
        """Forget the session's positions from ``length`` on, in all its caches.

        What follows is computed as if they had never been. A cache that is shorter stays.

        Raises:
            LocalProtocolError: ``length`` is negative.
        """

    def logits(self, hidden: Floats) -> Floats:
        """Turn hidden states [n, d_model] after the last layer into logits [n, vocab].

        Each row is computed as if alone.

        Raises:
            LocalProtocolError: The last layer is not held, or a wrong shape or type.
        """

    def normed(self, hidden: Floats) -> Floats:
        """Apply the last norm to hidden states [n, d_model] after the last layer: [n, d_model].

        That is what the head reads. Each row is computed as if alone.

        Raises:
            LocalProtocolError: As :meth:`logits`.
        """

    def reserve(self, session: SessionKey, layers: range, tokens: int) -> None:
        """Set aside KV memory for ``tokens`` positions in all.

        Raises:
            LocalProtocolError: Layers that are not held.
            CapacityError: There is not enough; nothing was reserved.
        """

    def export_kv(self, session: SessionKey, layers: range, positions: range) -> KvBlock:
        """Copy cached keys and values out, as they are stored.

        Raises:
            LocalProtocolError: The cache has no such layers or positions.
        """

    def import_kv(self, session: SessionKey, layers: range, start: int, block: KvBlock) -> None:
        """Append keys and values that an engine of the same numerics exported.

        Args:
            session: Whose cache to extend; made where there is none.
            layers: The session's layers, all of them.
            start: Position of the first; must be the length of the session's KV cache.
            block: What :meth:`export_kv` returned.

        Raises:
            LocalProtocolError: Layers that are not held, a wrong ``start``, shape or type, or
                numbers that are not finite.
            CapacityError: As :meth:`forward`. Nothing changed.
        """

    def rename(self, session: SessionKey, other: SessionKey) -> None:
        """Call a session by another name from now on; one that is not open has nothing to rename.

        Raises:
            LocalProtocolError: There is a session of that name.
        """

    def fork(
        self,
        session: SessionKey,
        other: SessionKey,
        layers: range,
        length: int,
        positions: int,
    ) -> None:
        """Begin a session with what another has cached; that one stays as it is.

        Args:
            session: Whose cache to copy.
            other: The new session.
            layers: Those of the cache, all of them.
            length: How many of its positions to copy.
            positions: What to set aside for the new one in all, at least ``length``.

        Raises:
            LocalProtocolError: There is a session of that name in these layers, or the cache has no
                such layers or positions.
            CapacityError: As :meth:`forward`. Nothing changed.
        """

    def close(self, session: SessionKey) -> None:
        """Free the session's memory; closing what is not open is harmless."""

    def kv_bytes(self) -> int:
        """Return how much KV memory the sessions hold."""

    def measure(self) -> StageCost:
        """Run a short warm calibration, under half a second on a small model."""

    def measuring(self) -> Iterator[StageCost | None]:
        """Do what :meth:`measure` does in steps, between which the engine may compute.

        Yields:
            None after each step, and at last the cost.
        """

    def settle(self) -> None:
        """Be the calling thread's, which computes with it from now on; another may have loaded it.

        Threads of the engine's own are begun anew, since they have their maker's priority.
        """

    def shut(self) -> None:
        """Free everything; the engine is of no more use."""


def profile(engine: Engine, cost: StageCost | None = None) -> EngineProfile:
    """Say what an engine is, which costs what was measured, or is now."""
    return EngineProfile(
        numerics=engine.numerics,
        device=engine.device,
        cost=cost or engine.measure(),
        kv_bytes_per_token_layer=engine.kv_bytes_per_token_layer,
        weight_bytes=engine.weight_bytes,
        kv_sizes=engine.kv_sizes,
    )


def check_together(parts: Sequence[SessionRows]) -> None:
    """Refuse what :meth:`Engine.forward_many` cannot compute, whoever is asked."""
    if not parts or len({part.session for part in parts}) != len(parts):
        raise LocalProtocolError("a step has at least one session, and each once")
    if any(part.rows.shape[:1] > (MOST_ROWS_TOGETHER,) for part in parts):
        raise LocalProtocolError(f"a session has more than {MOST_ROWS_TOGETHER} rows in a step")


def short_numerics(name: str) -> str:
    """Cut a name of arithmetic to what it may have, so that two that differ still do.

    Raises:
        EngineError: It is not printable.
    """
    if not name.isprintable():
        raise EngineError(f"the library names its arithmetic {name!r}")
    data = name.encode()
    if len(data) <= MOST_NUMERICS_BYTES:
        return name
    mark = f"~{zlib.crc32(data):08x}"
    return data[: MOST_NUMERICS_BYTES - len(mark)].decode("utf-8", "ignore") + mark
