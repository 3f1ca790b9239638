"""One matrix of every type times rows: ggml's kernels, and expanded for BLAS, beside float32."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.blas import limit_blas_threads
from p2pnode.engine.ggml.backend import Backend, Tensors, write
from p2pnode.engine.ggml.binding import Device, Ggml, load
from p2pnode.engine.ggml.coded import AS_Q8_0, coded, is_coded, put_as_q8_0
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.expand import (
    Matrix,
    Scratch,
    StoredMatrix,
    expanded_from,
    expanded_product,
    to_float,
)
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.second_forms import second_bytes
from p2pnode.engine.gguf_header import TENSOR_TYPES, TensorInfo
from p2pnode.errors import UserError
from p2pnode.quantiles import quantile

KINDS: Final = tuple(kind for kind in Type if kind in TENSOR_TYPES and kind != Type.NVFP4)
ROWS: Final = (64, 128, 512)
OUT: Final = 2048
WIDTH: Final = 768  # whole blocks of every type
_NODES: Final = 8
_WARM: Final = 2


def measure(
    cache: Path | None,
    *,
    rounds: int,
    tell: Callable[[float], None],
    kinds: Sequence[Type] = KINDS,
) -> dict[str, Any]:
    """Multiply in turns; ratios of float32's CPU time by numpy over each way's, medians.

    Raises:
        UserError: No ggml library is here.
    """
    chosen = find_library(cache).chosen
    if chosen is None:
        raise UserError("no ggml library loads here", hint="p2pnode doctor says why")
    limit_blas_threads(1)
    ggml, rows = load(chosen.provider, gpus=False), []
    with closing(Backend(ggml, _cpu(ggml))) as backend:
        for number, kind in enumerate(kinds):
            rows.append(_row(backend, kind, rounds))
            tell((number + 1) / len(kinds))
    return {"library": chosen.provider.name, "numerics": ggml.numerics(), "rows": rows}


def _row(backend: Backend, kind: Type, rounds: int) -> dict[str, Any]:
    ggml, rng = backend.ggml, np.random.default_rng(0)
    values = rng.standard_normal((OUT, WIDTH)).astype(np.float32)
    stored, held = _stored(ggml, kind, values), kind
    info = TensorInfo("blk.0.weight", values.shape, TENSOR_TYPES[kind], 0)
    if kind in AS_Q8_0:  # as the engine holds it
        own_bytes, held = stored.data.cast("B"), Type.Q8_0
        stored = np.empty(second_bytes(info), np.uint8)
        put_as_q8_0(info, own_bytes, stored)
    with ExitStack() as stack:
        plain = stack.enter_context(Tensors(backend, 1))
        weight = ggml.new_tensor_2d(plain.context, held, WIDTH, OUT)
        plain.allocate()
        write(ggml, weight, stored)
        own, place = weight, _rearranging(backend, held)
        if place is not None:
            rearranged = stack.enter_context(Tensors(backend, 1))
            own = ggml.new_tensor_2d(rearranged.context, held, WIDTH, OUT)
            rearranged.allocate(place)
            write(ggml, own, stored)
        has_codes = is_coded(kind) and place is None
        row: dict[str, Any] = {"type": kind.name, "held": held.name, "coded": has_codes}
        row["rearranged"] = place is not None
        least = expanded_from(ggml, held, is_coded=has_codes)
        row["expanded_from"] = None if place is not None else least
        matrix: Matrix | None = None
        if has_codes:
            room = np.empty(second_bytes(info), np.uint8)
            matrix = coded(info, stored.data.cast("B"), room)
        elif kind == Type.F32 or to_float(ggml, held) is not None:
            matrix = StoredMatrix.of(ggml, weight)
        for count in ROWS:
            x = rng.standard_normal((count, WIDTH)).astype(np.float32)
            row[f"rows{count}"] = _ratios(backend, own, matrix, values, x, rounds)
    return row


def _ratios(
    backend: Backend, own: int, matrix: Matrix | None, values: Floats, x: Floats, rounds: int
) -> dict[str, float]:
    ggml, count = backend.ggml, len(x)
    out = np.empty((count, OUT), np.float32)
    with ExitStack() as stack:
        inputs = stack.enter_context(Tensors(backend, 1))
        given = ggml.new_tensor_2d(inputs.context, Type.F32, WIDTH, count)
        inputs.allocate()
        write(ggml, given, x)
        ways: dict[str, Callable[[], object]] = {"": lambda: np.matmul(x, values.T, out=out)}

        def graph(make: Callable[[int], int]) -> Callable[[], object]:
            between = stack.enter_context(Tensors(backend, _NODES, graph_nodes=_NODES))
            made = ggml.new_graph_custom(between.context, _NODES, False)
            ggml.build_forward_expand(made, make(between.context))
            between.allocate()
            return lambda: backend.compute(made)

        ways["own"] = graph(lambda context: int(ggml.mul_mat(context, own, given)))
        if (tiled := matrix) is not None:
            living: list[object] = []

            def expanded(context: int) -> int:
                made, operation = expanded_product(ggml, context, tiled, given, count, Scratch({}))
                living.append(operation)
                return made

            ways["expanded"] = graph(expanded)
        spent = {name: list(_times(way, 0)) for name, way in ways.items()}
        for _ in range(rounds + _WARM):
            for name, way in ways.items():
                spent[name] += _times(way, 1)
    medians = {name: quantile(times[_WARM:], 0.5) for name, times in spent.items()}
    return {name: round(medians[""] / each, 2) for name, each in medians.items() if name}


def _times(way: Callable[[], object], count: int) -> Iterator[float]:
    for _ in range(count):
        began = time.process_time()
        way()
        yield time.process_time() - began


def _stored(ggml: Ggml, kind: Type, matrix: Floats) -> npt.NDArray[Any]:
    if kind == Type.F32:
        return matrix
    stored = np.zeros((OUT, ggml.row_size(kind, WIDTH)), np.uint8)
    if kind.name.startswith("IQ"):  # tables of their quantiser take a minute
        stored[:] = np.random.default_rng(1).integers(0, 0x3C, stored.shape)
    else:
        source, target = matrix.ctypes.data, stored.ctypes.data
        ggml.quantize_chunk(kind, source, target, 0, OUT, WIDTH, None)
    return stored


def _rearranging(backend: Backend, kind: Type) -> int | None:
    ggml = backend.ggml
    for place in ggml.extra_buffer_types():
        with Tensors(backend, _NODES) as group:
            weight = ggml.new_tensor_2d(group.context, kind, WIDTH, OUT)
            x = ggml.new_tensor_2d(group.context, Type.F32, WIDTH, max(ROWS))
            product = ggml.mul_mat(group.context, weight, x)
            if ggml.takes(backend.device.handle, product, weight, place):
                return place
    return None


def _cpu(ggml: Ggml) -> Device:
    return next(one for one in ggml.devices() if one.handle == ggml.cpu())
