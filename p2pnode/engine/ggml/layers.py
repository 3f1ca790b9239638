"""What one layer computes, as nodes of ggml's graph.

Shapes stand in ggml's order, the innermost first: a matrix of hidden states is [d_model, rows].
Layouts and operators are those of the architectures' GGUF files; the order of operations follows
the papers' (Touvron et al., "LLaMA", 2023, and its successors).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from p2pnode.engine.base import MOST_ROWS_TOGETHER
from p2pnode.engine.ggml.binding import Ggml
from p2pnode.engine.ggml.constants import ROPE_NEOX, ROPE_NORMAL, SORT_DESCENDING
from p2pnode.engine.ggml.expand import expanded_product
from p2pnode.engine.ggml.split import add_product
from p2pnode.engine.ggml.weights import Weights
from p2pnode.engine.model_config import ModelConfig, RopeKind
from p2pnode.engine.variations import ROPE_FACTORS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT

_LEAST_SUM: Final = 6.103515625e-5
"""Least sum of the chosen experts' shares that is divided by: the least normal float16."""

_FLOAT: Final = 4  # bytes


@dataclass(frozen=True, slots=True)
class PartInputs:
    """One session's rows in a graph.

    Attributes:
        first: Its first row.
        rows: How many.
        attended: Rows that attention is given: more than there are where that is faster, or where
            one row would be summed in another way.
        cells: Positions that they look at.
        index: I64 [rows]: where in the cache they are written.
        masks: F16 [cells, attended]: what each sees, by the layer's window.
        tensors: The cache's keys and values of each layer.
        is_long: Whether its rotary embedding takes the divisors for long sessions.
    """

    first: int
    rows: int
    attended: int
    cells: int
    index: int
    masks: Mapping[int, int]
    tensors: Mapping[int, tuple[int, int]]
    is_long: bool


class LayerBuilder:
    """Adds layers to one graph.

    Args:
        ggml: The library.
        context: Where the nodes are described.
        graph: What they are added to.
        config: The model.
        weights: Of the layers.
        parts: The sessions whose rows these are, in their order.
        positions: I32 [rows].
        unstable: Tensors whose products depend on how many rows stand together: they are
            multiplied for one session at a time.

    Attributes:
        operations: What must live as long as the graph.
    """

    def __init__(
        self,
        ggml: Ggml,
        context: int,
        graph: int,
        config: ModelConfig,
        weights: Weights,
        parts: Sequence[PartInputs],
        positions: int,
        unstable: frozenset[str],
    ) -> None:
        self._ggml = ggml
        self._context = context
        self._graph = graph
        self._config = config
        self._weights = weights
        self._parts = parts
        self._positions = positions
        self._unstable = unstable
        self._rows = sum(part.rows for part in parts)
        self._is_long = len(parts) == 1 and self._rows > MOST_ROWS_TOGETHER
        self.operations: list[object] = []

    def layer(self, index: int, x: int) -> int:
        """Add one layer to x [d_model, rows]; return [d_model, rows]."""
        ggml, context, of = self._ggml, self._context, self._config.architecture
        attended = self._attention(index, self._norm(x, f"blk.{index}.attn_norm.weight"))
        if of.has_post_norms:
            attended = self._norm(attended, f"blk.{index}.post_attention_norm.weight")
        x = ggml.add(context, attended, x)
        normed = self._norm(x, f"blk.{index}.ffn_norm.weight")
        fed = self._experts(index, normed) if of.has_experts else self._feed_forward(index, normed)
        if of.has_post_norms:
            fed = self._norm(fed, f"blk.{index}.post_ffw_norm.weight")
        out: int = ggml.add(context, fed, x)
        return out

    # Attention

    def _attention(self, index: int, x: int) -> int:
        """Write the cache and attend: [d_model, rows]."""
        config, of, prefix = self._config, self._config.architecture, f"blk.{index}"
        ggml, context, head_dim = self._ggml, self._context, config.head_dim
        kv_dim = config.n_kv_heads * head_dim
        queries, keys, values = self._projections(index, x)
        if of.has_qk_norm:
            queries = self._norm(queries, f"{prefix}.attn_q_norm.weight")
            keys = self._norm(keys, f"{prefix}.attn_k_norm.weight")
        queries, keys = self._turn(index, queries), self._turn(index, keys)
        keys = ggml.reshape_2d(context, keys, kv_dim, self._rows)  # [kv_dim, rows]
        mixed: list[int] = []
        for part in self._parts:
            self._store(part, index, keys, values)
            mixed.append(self._attend(part, index, queries))  # [heads * head_dim, rows of it]
        return self._product(f"{prefix}.attn_output.weight", self._join(mixed))

    def _projections(self, index: int, x: int) -> tuple[int, int, int]:
        """Return queries [head_dim, heads, rows], keys likewise, and values [kv_dim, rows]."""
        config, prefix = self._config, f"blk.{index}"
        ggml, context, rows = self._ggml, self._context, self._rows
        heads, kv_heads, head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        if config.architecture.is_fused:
            qkv = self._linear(f"{prefix}.attn_qkv", x)  # [(heads + 2 kv_heads) * head_dim, rows]
            q_dim, kv_dim = heads * head_dim, kv_heads * head_dim
            step, head = (q_dim + 2 * kv_dim) * _FLOAT, head_dim * _FLOAT
            queries, keys = (
                ggml.view_3d(context, qkv, head_dim, count, rows, head, step, at * _FLOAT)
                for count, at in ((heads, 0), (kv_heads, q_dim))
            )
            values = ggml.view_2d(context, qkv, kv_dim, rows, step, (q_dim + kv_dim) * _FLOAT)
            return queries, keys, ggml.cont(context, values)
        queries = self._linear(f"{prefix}.attn_q", x)
        keys = self._linear(f"{prefix}.attn_k", x)
        return (
            ggml.reshape_3d(context, queries, head_dim, heads, rows),
            ggml.reshape_3d(context, keys, head_dim, kv_heads, rows),
            self._linear(f"{prefix}.attn_v", x),
        )

    def _turn(self, index: int, heads: int) -> int:
        """Apply the rotary embedding to [head_dim, heads, rows]."""
        config, rope = self._config, self._config.rope
        mode = ROPE_NEOX if config.architecture.turns_halves else ROPE_NORMAL
        is_yarn = rope.kind is RopeKind.YARN
        turned: int = self._ggml.rope_ext(
            self._context,
            heads,
            self._positions,
            self._divisors(),
            config.turned,
            mode,
            rope.original_context or config.context_length,
            config.rope_base_of(index),
            1.0 / config.rope_factor_of(index),
            1.0 if is_yarn else 0.0,
            rope.attn_factor,
            rope.beta_fast,
            rope.beta_slow,
        )
        return turned

    def _divisors(self) -> int | None:
        """Return the tensor that the frequencies are divided by, if the model has one."""
        long = self._weights.get(ROPE_FACTORS_LONG)
        if long is None:
            return self._weights.get(ROPE_FACTORS)
        return long if self._parts[0].is_long else self._weights.get(ROPE_FACTORS_SHORT)

    def _store(self, part: PartInputs, index: int, keys: int, values: int) -> None:
        """Add nodes that write a session's keys and values [kv_dim, rows] into its cache."""
        ggml, context = self._ggml, self._context
        kv_dim = self._config.n_kv_heads * self._config.head_dim
        step = kv_dim * _FLOAT
        for cache, new in zip(part.tensors[index], (keys, values), strict=True):
            rows = new
            if len(self._parts) > 1:
                rows = ggml.view_2d(context, new, kv_dim, part.rows, step, part.first * step)
            written = ggml.set_rows(context, cache, rows, part.index)
            ggml.build_forward_expand(self._graph, written)  # before attention reads it

    def _attend(self, part: PartInputs, index: int, queries: int) -> int:
        """Return [heads * head_dim, rows] of one session.

        One row is attended as several: the query heads that share a KV head become its rows. With
        a single row, ggml shares long caches out among its threads, and the sum would depend on
        how many there are.
        """
        config, ggml, context = self._config, self._ggml, self._context
        heads, kv_heads, head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        step = heads * head_dim * _FLOAT
        own = queries  # [head_dim, heads, rows]
        if len(self._parts) > 1:
            start, head = part.first * step, head_dim * _FLOAT
            own = ggml.view_3d(context, queries, head_dim, heads, part.rows, head, step, start)
        row_bytes = kv_heads * head_dim * 2  # float16
        past = [
            ggml.view_3d(context, cache, head_dim, part.cells, kv_heads, row_bytes, head_dim * 2, 0)
            for cache in part.tensors[index]
        ]  # keys and values [head_dim, cells, kv_heads]
        group = heads // kv_heads
        if part.rows > 1:
            rows = ggml.permute(context, own, 0, 2, 1, 3)  # [head_dim, rows, heads]
            if lacking := max(0, part.attended - part.rows):
                rows = ggml.pad(context, ggml.cont(context, rows), 0, lacking, 0, 0)
        elif group > 1:
            own = ggml.cont(context, own) if config.architecture.is_fused else own
            rows = ggml.reshape_3d(context, own, head_dim, group, kv_heads)
        else:
            single = ggml.permute(context, own, 0, 2, 1, 3)  # [head_dim, 1, heads]
            rows = ggml.repeat_4d(context, single, head_dim, 2, heads, 1)
        mask = part.masks[config.window_of(index)]
        mixed = ggml.flash_attn_ext(
            context, rows, *past, mask, config.score_scale, 0.0, 0.0
        )  # [head_dim, heads or kv_heads, rows]
        if part.rows == 1 and group > 1:
            mixed = ggml.cont(context, ggml.permute(context, mixed, 0, 2, 1, 3))
        elif part.attended > part.rows:  # those of the rows that are ours come first
            mixed = ggml.view_3d(
                context, mixed, head_dim, heads, part.rows, head_dim * _FLOAT, step, 0
            )
        joined: int = ggml.reshape_2d(context, mixed, heads * head_dim, part.rows)
        return joined

    # Feed-forward network

    def _feed_forward(self, index: int, x: int) -> int:
        ggml, context, of = self._ggml, self._context, self._config.architecture
        prefix = f"blk.{index}"
        up = self._product(f"{prefix}.ffn_up.weight", x)  # [d_ff, rows]
        if of.is_fused:
            hidden = ggml.swiglu(context, up)  # the gate is its first half
        else:
            gate = self._product(f"{prefix}.ffn_gate.weight", x)
            hidden = (ggml.geglu_split if of.is_gelu else ggml.swiglu_split)(context, gate, up)
        return self._product(f"{prefix}.ffn_down.weight", hidden)

    def _experts(self, index: int, x: int) -> int:
        """Ask the likeliest experts of each row, and weigh what they say: [d_model, rows]."""
        parts = [self._experts_of(index, own) for own in self._split(f"blk.{index}.ffn_", x)]
        return self._join(parts)

    def _experts_of(self, index: int, x: int) -> int:
        config, ggml, context = self._config, self._ggml, self._context
        weights, prefix = self._weights, f"blk.{index}"
        rows = ggml.nelements(x) // config.d_model
        count, used, d_model = config.n_experts, config.n_experts_used, config.d_model
        scores = ggml.mul_mat(context, weights[f"{prefix}.ffn_gate_inp.weight"], x)
        shares = ggml.soft_max(context, scores)  # [experts, rows]
        order = ggml.argsort(context, shares, SORT_DESCENDING)  # I32 [experts, rows]
        chosen = ggml.view_2d(context, order, used, rows, count * 4, 0)  # [used, rows]
        share = ggml.get_rows(context, ggml.reshape_3d(context, shares, 1, count, rows), chosen)
        share = ggml.reshape_2d(context, share, used, rows)
        total = ggml.clamp(context, ggml.sum_rows(context, share), _LEAST_SUM, float("inf"))
        share = ggml.reshape_3d(context, ggml.div(context, share, total), 1, used, rows)
        x = ggml.reshape_3d(context, x, d_model, 1, rows)
        gate, up = (
            ggml.mul_mat_id(context, weights[f"{prefix}.ffn_{name}_exps.weight"], x, chosen)
            for name in ("gate", "up")
        )  # [d_ff, used, rows]
        hidden = ggml.swiglu_split(context, gate, up)
        down = weights[f"{prefix}.ffn_down_exps.weight"]
        said = ggml.mul_mat_id(context, down, hidden, chosen)  # [d_model, used, rows]
        said = ggml.mul(context, said, share)
        step, row = d_model * _FLOAT, used * d_model * _FLOAT
        total = ggml.view_2d(context, said, d_model, rows, row, 0)
        for number in range(1, used):
            one = ggml.view_2d(context, said, d_model, rows, row, number * step)
            total = ggml.add(context, total, one)
        out: int = total if used > 1 else ggml.cont(context, total)
        return out

    # What all are made of

    def _norm(self, x: int, name: str) -> int:
        ggml, context = self._ggml, self._context
        normed = ggml.rms_norm(context, x, self._config.norm_eps)
        scaled: int = ggml.mul(context, normed, self._weights[name])
        return scaled

    def _linear(self, name: str, x: int) -> int:
        """Multiply with a weight, and add its bias if it has one."""
        product, bias = self._product(f"{name}.weight", x), self._weights.get(f"{name}.bias")
        return product if bias is None else int(self._ggml.add(self._context, product, bias))

    def _product(self, name: str, x: int) -> int:
        """Return the weight [in, out] times x [in, rows]: [out, rows]."""
        least = self._weights.expanded.get(name)
        if least is not None and len(self._parts) == 1 and self._rows >= least:
            product, operation = expanded_product(
                self._ggml,
                self._context,
                self._weights.matrices[name],
                x,
                self._rows,
                self._weights.scratch,
            )
            self.operations.append(operation)
            return product
        split = self._weights.splits.get(name)
        if split is not None and self._is_long:
            product, operation = add_product(self._ggml, self._context, split, x, self._rows)
            self.operations.append(operation)
            return product
        weight = self._weights[name]
        parts = [self._ggml.mul_mat(self._context, weight, own) for own in self._split(name, x)]
        return self._join(parts)

    def _split(self, name: str, x: int) -> list[int]:
        """Return x [width, rows] whole, or cut by session where the rows may not stand together."""
        if len(self._parts) == 1 or not any(one.startswith(name) for one in self._unstable):
            return [x]
        ggml, context = self._ggml, self._context
        width = ggml.nelements(x) // self._rows
        step = width * _FLOAT
        return [
            ggml.view_2d(context, x, width, part.rows, step, part.first * step)
            for part in self._parts
        ]

    def _join(self, parts: list[int]) -> int:
        """Put [width, rows] of all sessions beside each other."""
        joined = parts[0]
        for part in parts[1:]:
            joined = self._ggml.concat(self._context, joined, part, 1)
        return joined
