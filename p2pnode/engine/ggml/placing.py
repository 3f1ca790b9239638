"""Which device holds which layers: a GPU as many as fit, the CPU the others."""

import re
from collections.abc import Sequence
from typing import Final, TypeVar

from p2pnode.engine.ggml.binding import Device
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.probe import ProbedDevice
from p2pnode.errors import ConfigError, EngineError

SPARED: Final = 512 * 2**20
"""Bytes of a GPU's memory left for what lies between layers, for its driver and its screen."""

# What people call the back ends, and how ggml's devices begin.
_KINDS: Final = {
    "cuda": ("CUDA",),
    "rocm": ("ROCm", "HIP"),
    "vulkan": ("Vulkan",),
    "metal": ("Metal", "MTL"),
    "sycl": ("SYCL",),
}
_NAME: Final = re.compile(r"([a-z]+)(?::(\d{1,3}))?")
_GPUS: Final = frozenset({DeviceType.GPU, DeviceType.INTEGRATED_GPU})


DeviceT = TypeVar("DeviceT", Device, ProbedDevice)


def check_device_name(wanted: str) -> None:
    """Refuse what names no device on any machine.

    Raises:
        ConfigError: It is neither ``auto`` nor ``cpu`` nor a GPU's name.
    """
    match = _NAME.fullmatch(wanted)
    if wanted not in {"auto", "cpu"} and (match is None or match[1] not in _KINDS):
        raise ConfigError(
            f"there is no device {wanted!r}",
            hint=f"One of: auto, cpu, {', '.join(f'{kind}:0' for kind in _KINDS)}.",
        )


def choose_device(wanted: str, devices: Sequence[DeviceT]) -> DeviceT:
    """Return the device that a person asked for by ``auto``, ``cpu``, ``cuda:0`` or the like.

    Raises:
        ConfigError: That names no device.
        EngineError: There is no such device here.
    """
    cpu = next(one for one in devices if one.type == DeviceType.CPU)
    gpus = [one for one in devices if one.type in _GPUS]
    if wanted == "cpu":
        return cpu
    if wanted == "auto":  # a GPU in the processor shares its memory, and is no faster for sure
        return next((one for one in gpus if one.type == DeviceType.GPU), cpu)
    check_device_name(wanted)
    kind, _, number_text = wanted.partition(":")
    fitting = [one for one in gpus if one.name.startswith(_KINDS[kind])]
    number = int(number_text or 0)
    if number < len(fitting):
        return fitting[number]
    there = ", ".join(f"{one.name} ({one.description})" for one in gpus) or "no GPU"
    raise EngineError(
        f"there is no {wanted} here: the library finds {there}",
        hint="p2pnode doctor says which libraries there are and what each finds.",
    )


def share_out(
    layers: range,
    device: Device,
    cpu: Device,
    layer_bytes: Sequence[int],
    end_bytes: int,
) -> list[tuple[Device, range]]:
    """Give the last layers that fit to a device, and the others to the CPU.

    Args:
        layers: To hold.
        device: Which is to hold as many as it can.
        cpu: For the rest.
        layer_bytes: What each of ``layers`` takes on the device, KV cache included.
        end_bytes: What the head takes there, on top of the last layer.

    Returns:
        Devices and their runs, in order of the layers; none is empty.
    """
    if device.type == DeviceType.CPU:
        return [(cpu, layers)]
    room = device.free - SPARED - end_bytes if device.free else sum(layer_bytes)
    count = 0
    for size in reversed(layer_bytes):
        if size > room:
            break
        room -= size
        count += 1
    cut = layers.stop - count
    shares = [(cpu, range(layers.start, cut)), (device, range(cut, layers.stop))]
    return [(where, run) for where, run in shares if run]
