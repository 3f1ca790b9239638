"""What each element type takes, in bytes."""

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError
from p2pnode.wire.dtypes import REGISTRY, DType, payload_problem, payload_size

DENSE = [dtype for dtype in DType if dtype is not DType.COO]


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
