"""What an engine's library says of a device that is gone, and of a step that it cannot compute."""

import pytest

from p2pnode.errors import CapacityError, DeviceLostError, EngineError


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA error: device-side assert triggered", DeviceLostError),
        ("CUDA error: out of memory", CapacityError),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", EngineError),
    ],
)
def test_torch(said: str, kind: type[Exception]) -> None:
    pytest.importorskip("torch")
    from p2pnode.engine.torch.trouble import device_errors

    with pytest.raises(kind) as caught, device_errors("cpu", "compute"):
        raise RuntimeError(said)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS", DeviceLostError),
        ("RESOURCE_EXHAUSTED: no room", CapacityError),
        ("INVALID_ARGUMENT: a shape", EngineError),
    ],
)
def test_jax(said: str, kind: type[Exception]) -> None:
    jax = pytest.importorskip("jax")
    from p2pnode.engine.jax.runtime import device_errors

    with pytest.raises(kind) as caught, device_errors("for a step"):
        raise jax.errors.JaxRuntimeError(said)
    assert type(caught.value) is kind
