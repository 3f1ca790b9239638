"""What each element type takes, in bytes."""

import struct
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, strategies as st

from p2pnode import CORES
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire import dtypes
from p2pnode.wire.agreement import unagreed_dtypes, usable_dtypes
from p2pnode.wire.capability import Capability, negotiate
from p2pnode.wire.dtypes import (
    REGISTRY,
    DType,
    DTypeInfo,
    dtype_codes,
    dtype_label,
    dtype_mask,
    dtypes_of_mask,
    payload_problem,
    payload_size,
    register_dtype,
)
from p2pnode.wire.frame_json import explain_frame, frame_to_json, json_to_frame
from p2pnode.wire.states import decode_states_untrusted
from p2pnode.wire.tensor import slices_to_tensor_untrusted
from p2pnode.wire.vframe import Frame, MessageType, Slice, decode_frame_untrusted, encode_frame

DENSE = [dtype for dtype in DType if dtype not in {DType.COO, DType.CENTRED}]


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (DType.F16, 18),
        (DType.I8, 9),
        (DType.Q4, 5),
        (DType.F32, 36),
        (DType.BF16, 18),
        (DType.Q2, 3),
    ],
)
def test_nine_elements(dtype: DType, size: int) -> None:
    assert payload_size(dtype, (3, 3)) == size


@pytest.mark.parametrize("dtype", [DType.COO, 0x28, 0])
def test_a_shape_alone_does_not_size_what_is_sparse_or_unknown(dtype: int) -> None:
    with pytest.raises(LocalProtocolError):
        payload_size(dtype, (1,))


def test_centred_states_take_less_than_half_precision_would() -> None:
    assert payload_problem(DType.CENTRED, (2, 9), 35) is None
    assert "8 to 36" in str(payload_problem(DType.CENTRED, (2, 9), 36))
    assert "8 to 36" in str(payload_problem(DType.CENTRED, (2, 9), 8))
    assert "3 dims" in str(payload_problem(DType.CENTRED, (2, 9, 1), 20))
    assert payload_problem(DType.CENTRED, (2**32 - 1, 2**32 - 1), 9) is None


def test_sparse_values_are_whole_and_no_more_than_the_shape_holds() -> None:
    assert payload_problem(DType.COO, (2, 2), 8) is None
    assert "half-precision" in str(payload_problem(DType.COO, (2, 2), 3))
    assert "more than" in str(payload_problem(DType.COO, (2, 2), 10))


@given(st.sampled_from(DENSE), st.lists(st.integers(0, 2**32 - 1), max_size=255).map(tuple))
def test_one_size_and_no_other_is_right(dtype: DType, shape: tuple[int, ...]) -> None:
    size = payload_size(dtype, shape)
    assert payload_problem(dtype, shape, size) is None
    problem = payload_problem(dtype, shape, 0 if size else 1)
    assert problem is not None
    assert len(problem) < 120


def test_every_type_is_in_the_registry_under_its_own_name_and_bit() -> None:
    assert set(REGISTRY) == set(DType)
    assert len({info.name for info in REGISTRY.values()}) == len(DType)
    assert len({info.mask_bit for info in REGISTRY.values()}) == len(DType)
    assert [dtype_label(code) for code in REGISTRY] == [dtype.name for dtype in DType]
    assert dtype_codes(["q2", "f16", "later"]) == {DType.Q2, DType.F16}


# An extension of a program's own: runs of equal bytes, as (count, value) pairs

RUNS = 0xE7


def runs_problem(shape: tuple[int, ...], size: int) -> str | None:
    return None if size % 2 == 0 and shape else f"{size} bytes are no pairs"


@pytest.fixture
def runs() -> Iterator[DTypeInfo]:
    yield register_dtype(
        RUNS, "x-runs", bits=8, mask_bit=20, auxiliary=("the palette",), rule=runs_problem
    )
    del dtypes._INFOS[RUNS]  # for the tests that come after; no program can


def runs_frame() -> Frame:
    palette = Slice(DType.I8, (2,), b"ab")
    return Frame(MessageType.THINK, 1, 2, 3, slices=(Slice(RUNS, (9,), b"\x05a\x04b"), palette))


def test_a_registered_type_is_written_and_read(runs: DTypeInfo) -> None:
    frame = runs_frame()
    assert decode_frame_untrusted(encode_frame(frame)) == frame
    entry = frame_to_json(encode_frame(frame))
    assert json_to_frame(entry) == encode_frame(frame)
    with pytest.raises(LocalProtocolError, match="no pairs"):
        Slice(RUNS, (9,), b"\x05a\x04")
    with pytest.raises(LocalProtocolError, match="x-runs"):
        payload_size(RUNS, (9,))
    assert runs == replace(REGISTRY[RUNS])


@pytest.mark.usefixtures("runs")
def test_a_registered_type_is_explained_by_name() -> None:
    words = {field.name: field.value for field in explain_frame(encode_frame(runs_frame()))}
    assert words["slice[0].dtype"] == "X-RUNS"
    assert words["frame"] == "well-formed"


@pytest.mark.usefixtures("runs")
def test_a_registered_type_is_used_only_where_both_advertised_it() -> None:
    ours = Capability(8, "s", 3, dtypes=("x-runs", "f16"))
    both, base = {RUNS, int(DType.F16)}, {int(DType.F16)}
    for theirs, allowed in ((ours, both), (replace(ours, dtypes=("f16",)), base)):
        agreed = negotiate(ours, theirs)
        assert isinstance(agreed, Capability)
        assert usable_dtypes(agreed) == allowed
        assert unagreed_dtypes(runs_frame(), agreed) == {RUNS} - allowed
    mask = dtype_mask([RUNS, DType.F16])
    assert mask == 1 << 20 | 1
    assert dtypes_of_mask(mask) == {RUNS, DType.F16}


def test_a_type_not_registered_is_refused() -> None:
    size = Slice(DType.F16, (1,), b"\0\0")
    data = bytearray(encode_frame(Frame(MessageType.THINK, 1, 2, 3, slices=(size,))))
    data[33] = RUNS
    problem = next(field for field in explain_frame(bytes(data)) if field.name == "slice[0].dtype")
    assert (problem.value, problem.problem) == ("0xe7", "unknown dtype")
    with pytest.raises(LocalProtocolError, match="unknown dtype 0xe7"):
        Slice(RUNS, (1,), b"\0\0")
    frame = with_crc(bytes(data[:-4]))
    with pytest.raises(RemoteProtocolError, match="unknown dtype 0xe7"):
        decode_frame_untrusted(frame)
    assert unagreed_dtypes(Frame(MessageType.THINK, 1, 2, 3), Capability(8, "s", 3)) == set()


@pytest.mark.parametrize(
    "change",
    [
        {"code": RUNS},
        {"code": DType.F32},
        {"code": DType.F16},
        {"code": 0x1F},
        {"code": 0x28},
        {"code": 0x100},
        {"code": -1},
        {"name": "x-runs"},
        {"name": "f16"},
        {"name": "X"},
        {"name": ""},
        {"name": "\x1b[2J"},
        {"name": "a" * 33},
        {"bits": 0},
        {"bits": 2000},
        {"mask_bit": 20},
        {"mask_bit": 0},
        {"mask_bit": 24},
        {"mask_bit": -1},
    ],
)
@pytest.mark.usefixtures("runs")
def test_nothing_is_registered_over(change: dict[str, Any]) -> None:
    before = dict(REGISTRY)
    wanted: dict[str, Any] = {"code": 0xE8, "name": "x-other", "bits": 8, "mask_bit": 19, **change}
    with pytest.raises(LocalProtocolError):
        register_dtype(wanted.pop("code"), wanted.pop("name"), **wanted)
    assert dict(REGISTRY) == before


def test_the_registry_is_read_only() -> None:
    with pytest.raises(TypeError):
        REGISTRY[RUNS] = REGISTRY[DType.F16]  # type: ignore[index]
    if CORES.is_compiled:
        return  # the type checker alone holds a compiled dataclass frozen
    with pytest.raises(FrozenInstanceError):
        REGISTRY[DType.F16].bits = 8  # type: ignore[misc]


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", crc32(data))


@pytest.mark.usefixtures("runs")
def test_a_registered_type_is_never_taken_for_numbers() -> None:
    """Who registered it reads it; no coding of the package guesses at its bytes."""
    for slices in (runs_frame().slices, runs_frame().slices[:1]):
        with pytest.raises(RemoteProtocolError):
            slices_to_tensor_untrusted(slices)
        with pytest.raises(RemoteProtocolError):
            decode_states_untrusted(slices)
    with pytest.raises(RemoteProtocolError, match="X-RUNS is no tensor"):
        slices_to_tensor_untrusted(runs_frame().slices[:1])
