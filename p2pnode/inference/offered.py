"""What a node offers of each model, as its stages go by it."""

from p2pnode.engine.base import EXACT, KvSizes, ModelInfo
from p2pnode.inference.memory import stage_bytes
from p2pnode.inference.messages import Open
from p2pnode.values import value


@value
class Offered:
    """Layers of one model that a node runs.

    Attributes:
        model: What it is.
        layers: Those held now; empty for none.
        kv_per_token_layer: Bytes of the engine's KV cache; None for float32.
        kv_sizes: What sizes it comes in.
    """

    model: ModelInfo
    layers: range
    kv_per_token_layer: int | None = None
    kv_sizes: KvSizes = EXACT

    def bytes_of(self, order: Open) -> int:
        """Return the memory that ``order`` asks for."""
        per, sizes, count = self.kv_per_token_layer, self.kv_sizes, len(order.layers)
        return stage_bytes(self.model, count, order.positions, order.out_dtype, per, sizes)
