"""The self-test takes a right library and refuses one that computes something else."""

from collections.abc import Callable
from typing import Any

import pytest

from p2pnode.engine.ggml import selftest
from p2pnode.engine.ggml.binding import Device, Ggml
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.selftest import TYPES, Comparison, compare, digest

INPUTS = "9c393ebfb679213ff0d05a3f98a67a3f0ed15ebf22f6203f"


def _cpu(ggml: Ggml) -> Device:
    return next(device for device in ggml.devices() if device.type == DeviceType.CPU)


def test_this_machines_library_computes_what_numpy_does(ggml: Ggml) -> None:
    results = list(compare(ggml, _cpu(ggml)))
    assert [result for result in results if not result.is_right] == []
    assert not any(result.unsupported for result in results)
    names = {result.name for result in results}
    assert {f"mul_mat {kind.name}" for kind in TYPES} < names
    assert len(names) == len(results) >= len(TYPES) + 9


def test_rearranged_weights_are_compared_too(ggml: Ggml) -> None:
    kinds = [ggml.backend_buft_name(kind).decode() for kind in ggml.extra_buffer_types()]
    names = [result.name for result in compare(ggml, _cpu(ggml))]
    if "CPU_REPACK" in kinds and ggml.features().get("AVX2") == "1":
        assert "CPU_REPACK mul_mat Q4_0" in names
    assert not any(name.startswith("CPU_REPACK mul_mat F") for name in names)


def test_the_digest_is_of_the_bits(ggml: Ggml, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(compare(ggml, _cpu(ggml)))
    assert digest(compare(ggml, _cpu(ggml))) == first
    real = ggml.rms_norm
    monkeypatch.setattr(ggml, "rms_norm", lambda ctx, a, _eps: real(ctx, a, 1.1e-5))
    results = list(compare(ggml, _cpu(ggml)))
    assert all(result.is_right for result in results)
    differs = digest(results) != first
    assert differs
    assert digest([]) != digest([Comparison("x", 0.0, 0.0)])


def test_the_inputs_are_the_same_everywhere() -> None:
    values = selftest._random(2, 3)
    assert values.tobytes().hex() == INPUTS
    assert -1 <= selftest._random(9999).min() < -0.99 < 0.99 < selftest._random(9999).max() < 1


# A library of another interface: an argument more or less, another order, another meaning.
CHANGES: dict[str, tuple[str, Callable[..., Any]]] = {
    "rms_norm": ("rms_norm", lambda real, ctx, a, _eps: real(ctx, a, 1.0)),
    "rope_ext": (
        "rope neox",
        lambda real, ctx, a, b, c, n, mode, *rest: real(ctx, a, b, c, n, 2 - mode, *rest),
    ),
    "soft_max_ext": (
        "soft_max_ext",
        lambda real, ctx, a, mask, scale, bias: real(ctx, a, mask, bias, scale),
    ),
    "flash_attn_ext": (
        "flash_attn_ext",
        lambda real, ctx, q, k, v, mask, *rest: real(ctx, q, v, k, mask, *rest),
    ),
    "swiglu_split": ("swiglu_split", lambda real, ctx, a, b: real(ctx, b, a)),
    "quantize_chunk": (
        "mul_mat Q6_K",
        lambda real, kind, source, target, start, rows, width, _m: real(
            kind, source, target, start, rows - 1, width, None
        ),
    ),
}


@pytest.mark.parametrize("function", CHANGES)
def test_another_interface_is_found_out(
    ggml: Ggml, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    operation, change = CHANGES[function]
    real = getattr(ggml, function)
    monkeypatch.setattr(ggml, function, lambda *arguments: change(real, *arguments))
    wrong = {result.name for result in compare(ggml, _cpu(ggml)) if not result.is_right}
    assert operation in wrong
    assert "get_rows" not in wrong


def test_a_result_that_is_no_number_is_wrong() -> None:
    assert not Comparison("x", float("nan"), 1.0).is_right
    assert Comparison("x", 0.1, 0.1).is_right
    assert Comparison("x", float("nan"), 0.0, unsupported=True).is_right
