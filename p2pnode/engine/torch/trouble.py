"""What torch's errors mean: no memory, or a device that failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from p2pnode.errors import CapacityError, DeviceLostError, EngineError

_LOST: Final = ("cuda error", "hip error", "cublas_status", "cudnn_status", "mps backend")
_NO_MEMORY: Final = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def device_errors(device: str, doing: str) -> Iterator[None]:
    """Turn what torch raises into one line.

    Args:
        device: As torch names it.
        doing: What could not be done: ``load layer 3``.

    Raises:
        CapacityError: There was no memory; what was cached in the allocator is given back.
        DeviceLostError: The device failed or is gone.
        EngineError: It failed otherwise.
    """
    try:
        yield
    except MemoryError as error:
        raise _capacity(device, doing) from error
    except RuntimeError as error:  # torch.OutOfMemoryError and torch.AcceleratorError among them
        said = " ".join(str(error).split())
        if any(words in said.lower() for words in _NO_MEMORY):
            raise _capacity(device, doing) from error
        kind = DeviceLostError if _is_lost(error) else EngineError
        raise kind(
            f"{device} cannot {doing}: {said[:200]}",
            hint="Start again; if it stays so, use another device: --device cpu.",
        ) from error


def _is_lost(error: RuntimeError) -> bool:
    """Whether nothing on the device can be computed any more, and not this step alone."""
    said = str(error).lower()
    return isinstance(error, torch.AcceleratorError) or any(words in said for words in _LOST)


def give_back(device: str) -> None:
    """Give the allocator's spare memory back to the device."""
    try:
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif device == "mps":
            torch.mps.empty_cache()
    except RuntimeError:
        return  # a device that is gone has nothing to give


def _capacity(device: str, doing: str) -> CapacityError:
    give_back(device)
    return CapacityError(
        f"{device} has not enough memory to {doing}",
        hint="Hold fewer layers, compute in bf16, or wait for another session to end.",
    )
