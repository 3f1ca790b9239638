"""Compares what a ggml library computes with numpy, operation by operation.

A library whose interface is not the one we know computes nonsense or crashes: this is run in a
process of its own before a library is trusted.
"""

import ctypes
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.engine.ggml.binding import Device, Ggml
from p2pnode.engine.ggml.constants import (
    ROPE_NEOX,
    ROPE_NORMAL,
    STATUS_SUCCESS,
    DeviceType,
    Type,
)
from p2pnode.engine.ggml.functions import InitParams, TensorHead, ThreadpoolParams

Floats: TypeAlias = npt.NDArray[np.float32]

TYPES: Final = (Type.F32, Type.F16, Type.Q4_0, Type.Q4_1, Type.Q8_0, Type.Q4_K, Type.Q6_K)
"""Weight types whose products are compared; the others have a table in the same library."""

# The greatest |ours - numpy's| / |numpy's|, of the whole result's norms.
_EXACT: Final = 1e-5  # float32 sums in another order: 1e-7 was seen
_HALF: Final = 2e-3  # a factor rounded to 11 bits: 2e-4 was seen
_ANGLES: Final = 1e-4  # a power of the base, multiplied up in float32: 3e-6 was seen
_HALF_SUMS: Final = 1e-2  # attention may add up its values in 11 bits: 2e-3 was seen
_INT8: Final = 2e-2  # rows are rounded to 8 bits a block before a product: 5e-3 was seen
_FOUR_BITS: Final = 0.15  # a normal weight rounded to four bits a number: 0.08 was seen
_ON_A_GPU: Final = 2e-2  # some multiply in 11 bits whatever was asked for

_WIDTH: Final = 256  # numbers in a row: one block of the K types
_NODES: Final = 32
_TENSORS: Final = 64


@dataclass(frozen=True, slots=True)
class Comparison:
    """One operation's result beside numpy's.

    Attributes:
        name: The operation.
        error: Norm of the difference over the norm of numpy's result; NaN where there is one.
        tolerance: The greatest error that is right.
        result: The bytes that were computed; empty where nothing was.
        unsupported: The device does not have it; nothing was computed.
    """

    name: str
    error: float
    tolerance: float
    result: bytes = b""
    unsupported: bool = False

    @property
    def is_right(self) -> bool:
        return self.unsupported or self.error <= self.tolerance


def compare(ggml: Ggml, device: Device) -> Iterator[Comparison]:
    """Compute every operation once on ``device``."""
    backend = ggml.backend_dev_init(device.handle, None)
    if backend is None:
        yield Comparison("starting it", float("nan"), 0.0)
        return
    on_cpu = device.type == DeviceType.CPU
    if on_cpu:
        ggml.backend_set_n_threads(backend, 1)  # four that spin take a second on a busy machine
    try:
        for name, (build, tolerance) in _tests().items():
            allowed = tolerance if on_cpu else max(tolerance, _ON_A_GPU)
            yield _run(_Case(ggml), device.handle, backend, build, name, allowed)
        for kind in ggml.extra_buffer_types() if on_cpu else ():
            for weights in TYPES:
                name = f"{_rearranged(ggml, kind)} mul_mat {weights.name}"
                case = _Case(ggml, buffer_type=kind)
                compared = _run(case, device.handle, backend, _product(weights), name, _INT8)
                if not compared.unsupported:
                    yield compared
    finally:
        ggml.backend_free(backend)
    if on_cpu:
        yield Comparison("threadpool_params_init", _threadpool_error(ggml), 0.0)


def digest(comparisons: Iterable[Comparison]) -> str:
    """Return eight digits that are the same where the same bits were computed."""
    hashed = hashlib.sha256()
    for compared in comparisons:
        hashed.update(f"{compared.name} {len(compared.result)} ".encode() + compared.result)
    return hashed.hexdigest()[:8]


class _Case:
    """A graph of one result, with its inputs' bytes; to be closed.

    Args:
        ggml: The library.
        buffer_type: Where weights lie; None where everything else does.
    """

    def __init__(self, ggml: Ggml, *, buffer_type: int | None = None) -> None:
        self.ggml = ggml
        self.buffer_type = buffer_type
        self.inputs: list[tuple[int, npt.NDArray[Any]]] = []
        self.stored: list[int] = []
        size = _TENSORS * ggml.tensor_overhead() + ggml.graph_overhead_custom(_NODES, False)
        self.ctx = ggml.init(InitParams(size, None, True))
        self._of_weights = ggml.init(InitParams(size, None, True))
        self._buffers: list[int] = []

    def close(self) -> None:
        for buffer in self._buffers:
            self.ggml.backend_buffer_free(buffer)
        self.ggml.free(self._of_weights)
        self.ggml.free(self.ctx)

    def allocate(self, backend: int) -> bool:
        """Give every tensor its memory, and the inputs their bytes; False where that fails."""
        ggml = self.ggml
        self._buffers = [ggml.backend_alloc_ctx_tensors(self.ctx, backend)]
        if self.stored:
            default = ggml.backend_dev_buffer_type(ggml.backend_get_device(backend))
            kind = self.buffer_type or default
            self._buffers += [ggml.backend_alloc_ctx_tensors_from_buft(self._of_weights, kind)]
        self._buffers = [buffer for buffer in self._buffers if buffer]
        if len(self._buffers) != 1 + bool(self.stored):
            return False
        if any(ggml.nbytes(tensor) != values.nbytes for tensor, values in self.inputs):
            return False
        for tensor, values in self.inputs:
            ggml.backend_tensor_set(tensor, values.ctypes.data, 0, values.nbytes)
        return True

    def weights(self, values: npt.NDArray[Any], type_: int, rows: int, width: int) -> int:
        """Return an input that may lie where its numbers are rearranged."""
        tensor: int = self.ggml.new_tensor_2d(self._of_weights, type_, width, rows)
        self.inputs.append((tensor, np.ascontiguousarray(values)))
        self.stored.append(tensor)
        return tensor

    def tensor(self, values: npt.NDArray[Any], type_: int, *shape: int) -> int:
        """Return an input; ``shape`` as numpy's is, its last the fastest."""
        make = getattr(self.ggml, f"new_tensor_{len(shape)}d")
        tensor: int = make(self.ctx, type_, *reversed(shape))
        self.inputs.append((tensor, np.ascontiguousarray(values)))
        return tensor

    def floats(self, values: Floats) -> int:
        return self.tensor(values, Type.F32, *values.shape)

    def halves(self, values: npt.NDArray[np.float16]) -> int:
        return self.tensor(values, Type.F16, *values.shape)

    def numbers(self, *values: int) -> int:
        return self.tensor(np.array(values, np.int32), Type.I32, len(values))


_Build: TypeAlias = Callable[[_Case], tuple[int, Floats]]


def _tests() -> Mapping[str, tuple[_Build, float]]:
    products = {f"mul_mat {kind.name}": (_product(kind), _of_type(kind)) for kind in TYPES}
    return products | {
        "rms_norm": (_rms_norm, _EXACT),
        "rope normal": (_rope(ROPE_NORMAL), _ANGLES),
        "rope neox": (_rope(ROPE_NEOX), _ANGLES),
        "soft_max_ext": (_soft_max, _EXACT),
        "flash_attn_ext": (_attention, _HALF_SUMS),
        "get_rows": (_get_rows, _EXACT),
        "set_rows": (_set_rows, _EXACT),
        "swiglu_split": (_swiglu, _HALF),
    }


def _of_type(kind: Type) -> float:
    return {Type.F32: _EXACT, Type.F16: _HALF}.get(kind, _INT8)


def _run(
    case: _Case, device: int, backend: int, build: _Build, name: str, tolerance: float
) -> Comparison:
    ggml = case.ggml
    try:
        result, expected = build(case)
        graph = ggml.new_graph_custom(case.ctx, _NODES, False)
        ggml.build_forward_expand(graph, result)
        nodes = [ggml.graph_node(graph, index) for index in range(ggml.graph_n_nodes(graph))]
        if not all(_supports(case, device, node) for node in nodes):
            return Comparison(name, 0.0, tolerance, unsupported=True)
        if not case.allocate(backend):
            return Comparison(name, float("nan"), tolerance)
        if ggml.backend_graph_compute(backend, graph) != STATUS_SUCCESS:
            return Comparison(name, float("nan"), tolerance)
        found = _read(ggml, result, expected)
        if found is None:
            return Comparison(name, float("nan"), tolerance)
        return Comparison(name, _error(found, expected), tolerance, found.tobytes())
    finally:
        case.close()


def _supports(case: _Case, device: int, node: int) -> bool:
    if case.buffer_type is not None and case.stored:
        return case.ggml.takes(device, node, case.stored[0], case.buffer_type)
    return bool(case.ggml.backend_dev_supports_op(device, node))


def _read(ggml: Ggml, result: int, expected: Floats) -> Floats | None:
    """Return the result; None where it has another shape than numpy's."""
    shape = [1] * (4 - expected.ndim) + list(expected.shape)
    if list(TensorHead.from_address(result).ne) != shape[::-1]:
        return None
    found = np.empty_like(expected)
    if ggml.nbytes(result) != found.nbytes:
        return None
    ggml.backend_tensor_get(result, found.ctypes.data, 0, found.nbytes)
    return found


def _error(found: Floats, expected: Floats) -> float:
    difference = np.linalg.norm((found - expected).astype(np.float64).ravel())
    return float(difference / np.linalg.norm(expected.astype(np.float64).ravel()))


def _rearranged(ggml: Ggml, kind: int) -> str:
    name: bytes = ggml.backend_buft_name(kind)
    return name.decode("utf-8", "replace")


def _threadpool_error(ggml: Ggml) -> float:
    """Return 0 where the structure is laid out as we know it."""
    params = ThreadpoolParams()
    ggml.threadpool_params_init(ctypes.addressof(params), 3)
    known = params.n_threads == 3 and 0 <= params.poll <= 100 and not any(params.spare)
    return 0.0 if known and not params.paused else float("nan")


def _random(*shape: int) -> Floats:
    """Return numbers from -1 to 1: the same ones on every machine, others for more dimensions."""
    first = len(shape) << 32
    index = np.arange(first, first + math.prod(shape), dtype=np.uint64)
    mixed = index * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return ((mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - 1).reshape(shape)


def _product(kind: Type) -> _Build:
    from gguf import GGMLQuantizationType, dequantize  # a node that tests nothing starts without it

    def build(case: _Case) -> tuple[int, Floats]:
        weights = _random(16, _WIDTH)  # [out, in]
        rows = _random(3, 1, _WIDTH)[:, 0]  # [tokens, in]
        if kind == Type.F32:
            stored: npt.NDArray[Any] = weights
        elif kind == Type.F16:
            stored = weights.astype(np.float16)
        else:
            stored = np.zeros((16, case.ggml.row_size(kind, _WIDTH)), np.uint8)
            source, target = weights.ctypes.data, stored.ctypes.data
            case.ggml.quantize_chunk(kind, source, target, 0, 16, _WIDTH, None)
            original, weights = weights, dequantize(stored, GGMLQuantizationType(int(kind)))
            if np.linalg.norm(weights - original) > _FOUR_BITS * np.linalg.norm(original):
                weights = np.full_like(original, np.nan)
        a = case.weights(stored, kind, 16, _WIDTH)
        product = case.ggml.mul_mat(case.ctx, a, case.floats(rows))
        return product, rows @ weights.T  # [tokens, out]

    return build


def _rms_norm(case: _Case) -> tuple[int, Floats]:
    rows = _random(3, _WIDTH)
    expected = rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + 1e-5)
    return case.ggml.rms_norm(case.ctx, case.floats(rows), 1e-5), expected.astype(np.float32)


def _rope(mode: int) -> _Build:
    def build(case: _Case) -> tuple[int, Floats]:
        heads, positions, base = _random(3, 2, 64), (0, 5, 700), 10_000.0  # [tokens, heads, dim]
        angles = np.outer(positions, base ** -(np.arange(32) / 32))[:, None]  # [tokens, 1, dim/2]
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = (
            (heads[..., 0::2], heads[..., 1::2])
            if mode == ROPE_NORMAL
            else (heads[..., :32], heads[..., 32:])
        )
        turned = first * cos - second * sin, first * sin + second * cos
        if mode == ROPE_NORMAL:
            expected = np.stack(turned, axis=-1).reshape(heads.shape)
        else:
            expected = np.concatenate(turned, axis=-1)
        rotated = case.ggml.rope_ext(
            case.ctx, case.floats(heads), case.numbers(*positions), None,
            64, mode, 0, base, 1.0, 0.0, 1.0, 32.0, 1.0,
        )  # fmt: skip
        return rotated, expected.astype(np.float32)

    return build


def _causal(tokens: int, cells: int) -> npt.NDArray[np.float16]:
    """Return a mask [tokens, cells]: token t sees the cells up to its own, the last ones theirs."""
    seen = np.arange(cells)[None] <= np.arange(tokens)[:, None] + cells - tokens - 40
    return np.where(seen, 0.0, -np.inf).astype(np.float16)


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def _soft_max(case: _Case) -> tuple[int, Floats]:
    scores, mask = _random(2, 3, _WIDTH), _causal(3, _WIDTH)  # [heads, tokens, cells]
    result = case.ggml.soft_max_ext(case.ctx, case.floats(scores), case.halves(mask), 0.125, 0.0)
    return result, _softmax(scores * np.float32(0.125) + mask)


def _attention(case: _Case) -> tuple[int, Floats]:
    queries = _random(4, 3, 64)  # [heads, tokens, dim]
    keys = _random(2, _WIDTH, 64).astype(np.float16)  # [kv heads, cells, dim]
    values = _random(2, 1, _WIDTH, 64)[:, 0].astype(np.float16)
    mask = _causal(3, _WIDTH)
    each = np.repeat(keys, 2, axis=0).astype(np.float32)  # [heads, cells, dim]
    shares = _softmax(queries @ each.transpose(0, 2, 1) * np.float32(0.125) + mask)
    expected = (shares @ np.repeat(values, 2, axis=0).astype(np.float32)).transpose(1, 0, 2)
    result = case.ggml.flash_attn_ext(
        case.ctx, case.floats(queries), case.halves(keys), case.halves(values),
        case.halves(mask), 0.125, 0.0, 0.0,
    )  # fmt: skip
    return result, np.ascontiguousarray(expected)  # [tokens, heads, dim]


def _get_rows(case: _Case) -> tuple[int, Floats]:
    table = _random(5, _WIDTH)
    return case.ggml.get_rows(case.ctx, case.floats(table), case.numbers(4, 0, 4)), table[[4, 0, 4]]


def _set_rows(case: _Case) -> tuple[int, Floats]:
    table, rows = _random(5, _WIDTH), _random(1, 2, _WIDTH)[0]
    places = case.tensor(np.array([3, 1], np.int64), Type.I64, 2)
    expected = table.copy()
    expected[[3, 1]] = rows
    return case.ggml.set_rows(case.ctx, case.floats(table), case.floats(rows), places), expected


def _swiglu(case: _Case) -> tuple[int, Floats]:
    gate, up = _random(3, _WIDTH), _random(1, 3, _WIDTH)[0]
    expected = gate / (1 + np.exp(-gate)) * up
    return case.ggml.swiglu_split(case.ctx, case.floats(gate), case.floats(up)), expected
