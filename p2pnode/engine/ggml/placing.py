"""Which device holds which layers: a GPU as many as fit, the CPU the others."""

import logging
import re
from collections.abc import Sequence
from typing import Final

from p2pnode.engine.ggml.binding import Device
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.probe import ProbedDevice, Report
from p2pnode.errors import EngineError, UsageError

logger = logging.getLogger(__name__)

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
_NAME: Final = re.compile(r"([a-z]+)(?::([0-9]{1,3}))?")
_GPUS: Final = frozenset({DeviceType.GPU, DeviceType.INTEGRATED_GPU})


def check_device_name(wanted: str) -> None:
    """Refuse what names no device on any machine.

    Raises:
        UsageError: It is neither ``auto`` nor ``cpu`` nor a GPU's name.
    """
    match = _NAME.fullmatch(wanted)
    if wanted not in {"auto", "cpu"} and (match is None or match[1] not in _KINDS):
        raise UsageError(
            f"there is no device {wanted[:40]!r}",
            hint=f"One of: auto, cpu, {', '.join(f'{kind}:0' for kind in _KINDS)}; "
            "with --engine jax cuda:0, tpu:0 or metal:0, with --engine torch cuda:0 or mps.",
        )


def choose_device(wanted: str, devices: Sequence[ProbedDevice]) -> ProbedDevice:
    """Return the device that a person asked for by ``auto``, ``cpu``, ``cuda:0`` or the like.

    Args:
        wanted: What was asked for.
        devices: All that a library has, as it was tried: a GPU with a problem is not taken.

    Raises:
        UsageError: That names no device.
        EngineError: There is no such device here, or it is not to be used.
    """
    cpu = next(one for one in devices if one.type == DeviceType.CPU)
    gpus = [one for one in devices if one.type in _GPUS]
    if wanted == "cpu":
        return cpu
    if wanted == "auto":  # a GPU in the processor shares its memory, and is no faster for sure
        own = [one for one in gpus if one.type == DeviceType.GPU]
        return next((one for one in own if not one.problem), cpu)
    check_device_name(wanted)
    kind, _, number_text = wanted.partition(":")
    fitting = [one for one in gpus if one.name.startswith(_KINDS[kind])]
    if not number_text:  # any of that kind
        fitting.sort(key=lambda one: bool(one.problem))
    number = int(number_text or 0)
    if number >= len(fitting):
        there = ", ".join(f"{one.name} ({one.description})" for one in gpus) or "no GPU"
        raise EngineError(
            f"there is no {wanted} here: the library finds {there}",
            hint="p2pnode doctor says which libraries there are and what each finds.",
        )
    chosen = fitting[number]
    if chosen.problem:
        raise EngineError(
            f"{wanted} ({chosen.description}) cannot be used: {chosen.problem}",
            hint="Leave --device out, or update its driver or the library.",
        )
    return chosen


def loaded_device(wanted: str, report: Report, devices: Sequence[Device]) -> Device:
    """Return the device to compute with, of those that a library has now that it is loaded.

    Args:
        wanted: As for :func:`choose_device`.
        report: What trying the library gave.
        devices: What it has in this process; a GPU that was not tried is not taken.

    Raises:
        UsageError: As :func:`choose_device`.
        EngineError: As :func:`choose_device`, or what was tried is not there any more.
    """
    chosen = choose_device(wanted, report.devices)
    if wanted == "auto":
        for one in report.devices:
            if one.type == DeviceType.GPU and one.problem:
                logger.warning("%s (%s) is not used: %s", one.name, one.description, one.problem)
    if chosen.type != DeviceType.CPU:
        for device in devices:
            if (device.name, device.description) == (chosen.name, chosen.description):
                return device
        gone = f"{chosen.name} ({chosen.description}) was there when the library was tried"
        if wanted != "auto":
            raise EngineError(
                f"{gone}, and is not now", hint="Leave --device out: the CPU computes."
            )
        logger.warning("%s, and is not now: the CPU computes", gone)
    return next(device for device in devices if device.type == DeviceType.CPU)


def share_out(
    layers: range,
    device: Device,
    cpu: Device,
    layer_bytes: Sequence[int],
    end_bytes: int,
    most: int | None = None,
) -> list[tuple[Device, range]]:
    """Give the last layers that fit to a device, and the others to the CPU.

    Args:
        layers: To hold.
        device: Which is to hold as many as it can.
        cpu: For the rest.
        layer_bytes: What each of ``layers`` takes on the device, KV cache included.
        end_bytes: What the head takes there, on top of the last layer.
        most: The most bytes to take of the device; None for all that is free.

    Returns:
        Devices and their runs, in order of the layers; none is empty.
    """
    if device.type == DeviceType.CPU:
        return [(cpu, layers)]
    room = device.free - SPARED - end_bytes if device.free else sum(layer_bytes)
    if most is not None:
        room = min(room, most - end_bytes)
    count = 0
    for size in reversed(layer_bytes):
        if size > room:
            break
        room -= size
        count += 1
    cut = layers.stop - count
    shares = [(cpu, range(layers.start, cut)), (device, range(cut, layers.stop))]
    return [(where, run) for where, run in shares if run]
