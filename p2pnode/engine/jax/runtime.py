"""JAX on this machine: whether it is there, its devices, its name, and its errors in our words."""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final, TypeAlias

from p2pnode.engine.base import short_numerics
from p2pnode.engine.cpu import cpu_name
from p2pnode.engine.device_name import DEVICE_NAME
from p2pnode.errors import CapacityError, DeviceLostError, EngineError, UsageError
from p2pnode.installing import install_extra

JaxArray: TypeAlias = Any
"""An array on a device; JAX is not there when types are checked."""

Device: TypeAlias = Any

Module: TypeAlias = Any

DTYPES: Final = {"f32": "float32", "bf16": "bfloat16"}
"""What weights are multiplied as."""

_PLATFORMS: Final = ("cpu", "cuda", "rocm", "tpu", "metal")


def require_jax() -> Module:
    """Import JAX and return it.

    Raises:
        EngineError: It is not installed, or cannot be imported.
    """
    # Left alone, JAX takes three quarters of a GPU's memory at once, whatever it needs.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        return import_module("jax")
    except ModuleNotFoundError as error:
        if error.name not in {"jax", "jaxlib"}:
            raise EngineError(
                f"jax cannot be imported: {_line(error)}", hint=install_extra("jax")
            ) from error
        raise EngineError(f"the jax engine needs {error.name}", hint=install_extra("jax")) from None
    except Exception as error:  # jax's own check of jaxlib's version raises RuntimeError
        raise EngineError(
            f"jax cannot be imported: {_line(error)}", hint=install_extra("jax")
        ) from error


def check_device_name(wanted: str) -> None:
    """Refuse what names no device of JAX on any machine; JAX itself need not be here.

    Raises:
        UsageError: It is none.
    """
    match = DEVICE_NAME.fullmatch(wanted)
    if wanted != "auto" and (match is None or match[1] not in _PLATFORMS):
        raise UsageError(
            f"the jax engine knows no device {wanted[:40]!r}",
            hint=f"One of: auto, {', '.join(_PLATFORMS)}, with :N for the device of this number.",
        )


def choose_device(wanted: str) -> Device:
    """Return the device of a name: ``auto``, ``cpu``, or ``cuda``, ``tpu``, ``metal`` with ``:N``.

    Raises:
        UsageError: That names no device of JAX.
        EngineError: JAX has no such device here.
    """
    jax = require_jax()
    check_device_name(wanted)
    platform, _, number = wanted.partition(":")
    name = {"auto": None, "metal": "METAL"}.get(platform, platform)
    try:
        devices = jax.local_devices(backend=name)
    except Exception as error:  # of several types, from plug-ins too
        devices, why = [], _line(error)
    else:
        why = f"it has {len(devices)} of that kind"
    at = int(number or 0)
    if at >= len(devices):
        raise EngineError(
            f"jax has no device {wanted} here: {why}",
            hint="Leave --device out, or install the jax of this device, such as 'jax[cuda12]'.",
        )
    return devices[at]


def free_on(device: str) -> int:
    """Return the bytes that are free on a GPU; 0 on the CPU, and where it does not say.

    Raises:
        EngineError: JAX has no such device here.
    """
    chosen = choose_device(device)
    said = None if chosen.platform == "cpu" else chosen.memory_stats()
    if not said or "bytes_limit" not in said:
        return 0
    return max(0, int(said["bytes_limit"]) - int(said.get("bytes_in_use", 0)))


def name_of_device(device: Device) -> str:
    """Say what computes, for people: ``cpu x2``, ``cuda:0 NVIDIA H100``."""
    if device.platform == "cpu":
        return f"cpu x{_threads()}"
    return f"{_platform(device)}:{device.local_hardware_id or 0} {device.device_kind}"


def name_of_numerics(device: Device, dtype: str) -> str:
    """Name the arithmetic: ``jax 0.10.2/cpu x2 1f3a90c2/f32``.

    XLA compiles for the very CPU that it finds, and shares a product out among as many threads as
    there are cores: both are named, the CPU by a checksum of what it says of itself and of the
    flags that XLA is given.
    """
    ours, theirs = version("jax"), version("jaxlib")
    release = ours if ours == theirs else f"{ours}+{theirs}"
    flags = os.environ.get("XLA_FLAGS", "")
    if device.platform == "cpu":
        kind = f"cpu x{_threads()} {zlib.crc32(f'{cpu_name()}{flags}'.encode()):08x}"
    else:
        kind = f"{device.device_kind}{f' {zlib.crc32(flags.encode()):08x}' if flags else ''}"
    plain = "".join(letter for letter in kind if letter.isprintable())
    return short_numerics(f"jax {release}/{plain}/{dtype}")


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Turn JAX's errors into ours, in one line.

    Raises:
        CapacityError: The device is out of memory.
        DeviceLostError: The device failed.
        EngineError: What was asked of it did.
    """
    jax = require_jax()
    try:
        yield
    except MemoryError:
        raise CapacityError(f"there is no memory {what}", hint=_LESS) from None
    except jax.errors.JaxRuntimeError as error:
        line = _line(error)
        if "RESOURCE_EXHAUSTED" in line or "out of memory" in line.lower():
            raise CapacityError(f"there is no memory {what}: {line}", hint=_LESS) from None
        is_lost = any(word in line for word in ("UNAVAILABLE", "INTERNAL", "ABORTED", "DATA_LOSS"))
        kind = DeviceLostError if is_lost else EngineError
        raise kind(f"jax failed {what}: {line}") from None


_LESS: Final = "Hold fewer layers, or offer less memory for KV caches."


def _platform(device: Device) -> str:
    platform = str(device.platform)
    return {"gpu": "cuda"}.get(platform, platform.lower())


def _threads() -> int:
    """Return how many threads XLA's client for CPUs takes: of ``NPROC``, else all it may use."""
    said = os.environ.get("NPROC", "")
    if said.isdecimal() and int(said):
        return int(said)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _line(error: BaseException) -> str:
    """Return the first line of what an error says, cut to what a person reads."""
    text = str(error).strip() or type(error).__name__
    return "".join(c for c in text.splitlines()[0] if c.isprintable())[:200]
