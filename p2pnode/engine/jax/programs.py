"""The compiled programs: a bounded number of them, whatever is asked of an engine.

XLA compiles for fixed sizes. Rows are padded to one of :data:`ROWS`, and a cache is looked at as
far as one of a few lengths (:func:`kv_lengths`), each the double of the one before: a layer has
one program for each pair, and all layers share it. Because every layer is a call of its own, and
each of the very same program, a split of the layers computes what the whole does, bit for bit.
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias

import jax
import jax.numpy as jnp

from p2pnode.engine.base import KvSizes
from p2pnode.engine.jax.llama import Head, Layer, Shape, run_head, run_layer
from p2pnode.engine.jax.runtime import DTYPES, Device, JaxArray, device_errors

ROWS: Final = (1, 8, 32, 64, 128)
"""Rows of a call; more are cut into calls of the last. Decoding, speculation, steps of several
sessions, a chain's chunk, and a replay meet these."""

FIRST_LENGTH: Final = 256
"""Positions of the shortest cache; all lengths are multiples of it, and no call has more rows."""

_KV_DTYPES: Final = {"f32": "float32", "bf16": "float16"}
"""What keys and values are kept in. Float16 beside bfloat16: numpy knows it, so it travels."""

Program: TypeAlias = Callable[..., Any]


def padded_rows(count: int) -> int:
    """Return the size that ``count`` rows, at most the last of :data:`ROWS`, are padded to."""
    return ROWS[bisect_left(ROWS, count)]


@lru_cache
def kv_lengths(context: int) -> tuple[int, ...]:
    """Return the lengths that a cache may have, shortest first, up to what holds the context."""
    longest = -(-context // FIRST_LENGTH) * FIRST_LENGTH
    doubled = itertools.takewhile(
        lambda length: length < longest, (FIRST_LENGTH << n for n in range(32))
    )
    return (*doubled, longest)


def kv_sizes(context: int) -> KvSizes:
    """Return :func:`kv_lengths` as a rule."""
    return KvSizes(FIRST_LENGTH, doubles=True, most=kv_lengths(context)[-1])


def kv_dtype(dtype: str) -> str:
    """Return numpy's name of what keys and values are kept in."""
    return _KV_DTYPES[dtype]


class Programs:
    """Compiles the layer and the head of a shape for a device, each size once.

    Args:
        shape: The model's.
        context: Positions of the longest session.
        dtype: One of :data:`~p2pnode.engine.jax.runtime.DTYPES`.
        device: What computes.
    """

    def __init__(self, shape: Shape, context: int, dtype: str, device: Device) -> None:
        self._shape = shape
        self._lengths = kv_lengths(context)
        self._weights = jnp.dtype(DTYPES[dtype])
        self._kv = jnp.dtype(kv_dtype(dtype))
        self._sharding = jax.sharding.SingleDeviceSharding(device)
        # A GPU's fastest kernel is found by timing, so one day another: that must not change bits.
        self._options = {"xla_gpu_autotune_level": 0} if device.platform == "gpu" else None
        self._compiled: dict[tuple[int, int], Program] = {}

    def __len__(self) -> int:
        """Return how many were compiled; never more than :attr:`most`."""
        return len(self._compiled)

    @property
    def most(self) -> int:
        """How many there can be: one for each number of rows and length, and the head."""
        return len(ROWS) * len(self._lengths) + 1

    def layer(self, rows: int, segments: int) -> Program:
        """Return :func:`~p2pnode.engine.jax.llama.run_layer` for so many rows and segments.

        Raises:
            CapacityError: There is no memory to compile it.
            EngineError: It cannot be compiled.
        """
        found = self._compiled.get((rows, segments))
        return found or self._keep((rows, segments), self._compile_layer)

    def head(self) -> Program:
        """Return :func:`~p2pnode.engine.jax.llama.run_head` for one row; as :meth:`layer`."""
        return self._compiled.get((0, 0)) or self._keep((0, 0), self._compile_head)

    def _keep(self, key: tuple[int, int], compile_it: Callable[..., Program]) -> Program:
        with device_errors("to compile a layer"):
            program = self._compiled[key] = compile_it(*key)
        return program

    def _compile_layer(self, rows: int, segments: int) -> Program:
        shape, lengths = self._shape, (0, *self._lengths)
        of_kv = (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_dim
        cache = [
            self._array((shape.n_kv_heads, end - start, shape.head_dim), self._kv)
            for start, end in itertools.pairwise(lengths[: segments + 1])
        ]
        layer = Layer(
            attn_norm=self._array((shape.d_model,)),
            qkv=self._array((of_kv, shape.d_model), self._weights),
            output=self._array((shape.d_model, shape.n_heads * shape.head_dim), self._weights),
            ffn_norm=self._array((shape.d_model,)),
            gate_up=self._array((2 * shape.d_ff, shape.d_model), self._weights),
            down=self._array((shape.d_model, shape.d_ff), self._weights),
        )
        return self._compile(
            partial(run_layer, shape),
            (1, 2),
            layer,
            cache,
            cache,
            self._array((rows, shape.d_model)),
            self._array((2, rows, shape.head_dim // 2)),
            self._array((2,), jnp.int32),
        )

    def _compile_head(self, *_: int) -> Program:
        shape = self._shape
        head = Head(
            norm=self._array((shape.d_model,)),
            weight=self._array((shape.vocab_size, shape.d_model), self._weights),
        )
        return self._compile(partial(run_head, shape), (), head, self._array((1, shape.d_model)))

    def _compile(self, run: Program, donated: tuple[int, ...], *arguments: Any) -> Program:
        lowered = jax.jit(run, donate_argnums=donated).lower(*arguments)
        program: Program = lowered.compile(compiler_options=self._options)
        return program

    def _array(self, shape: tuple[int, ...], dtype: object = jnp.float32) -> JaxArray:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self._sharding)


@lru_cache(maxsize=8)
def programs_of(shape: Shape, context: int, dtype: str, device: Device) -> Programs:
    """Return the programs of a shape: one set of them, however many engines there are."""
    return Programs(shape, context, dtype, device)
