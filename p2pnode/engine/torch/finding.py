"""Whether torch is here, which device and type of numbers it computes with, and what it says."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from p2pnode.engine.device_name import DEVICE_NAME
from p2pnode.errors import EngineError, UsageError
from p2pnode.installing import install_extra

PACKAGES: Final = ("torch", "transformers")
DTYPES: Final = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
DEVICES: Final = ("auto", "cuda", "mps", "cpu")

_BY_DEVICE: Final = {"cuda": "bf16", "mps": "f16", "cpu": "f32"}
_NO_PACKING: Final = ("NVIDIA ", "GeForce ", "Tesla ", "AMD ", "Radeon ")


@dataclass(frozen=True, slots=True)
class Place:
    """Where and in which numbers to compute.

    Attributes:
        device: As torch names it: ``cuda:0``.
        dtype: One of :data:`DTYPES`.
        name: What computes, for people: ``cuda:0 H200``.
        numerics: Names the arithmetic: versions, kernels, type of the numbers.
    """

    device: str
    dtype: str
    name: str
    numerics: str

    @property
    def is_cpu(self) -> bool:
        return self.device == "cpu"


def require_torch(say: Callable[[str], None] | None = None) -> ModuleType:
    """Return the module; ``say`` hears, in words, that its import takes seconds.

    Raises:
        EngineError: A package is missing, or does not load.
    """
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise EngineError(
                f"the torch engine needs the package {name}, which is not here",
                hint=install_extra("torch"),
            )
    if say is not None:
        say("loading torch, which takes some seconds")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before cuBLAS is set up
    try:
        import torch
        import transformers
    except (ImportError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[:1]
        raise EngineError(
            f"torch does not load: {''.join(first)[:200]}", hint=install_extra("torch")
        ) from error
    transformers.logging.set_verbosity_error()  # its advice is for those who write models
    _be_deterministic(torch)
    loaded: ModuleType = torch
    return loaded


def check_device_name(wanted: str) -> None:
    """Refuse what names no device of torch on any machine; torch itself need not be here.

    Raises:
        UsageError: It is none.
    """
    match = DEVICE_NAME.fullmatch(wanted)
    if match is None or match[1] not in DEVICES or (match[1] == "auto" and match[2]):
        raise UsageError(
            f"the torch engine knows no device {wanted[:40]!r}",
            hint=f"One of: {', '.join(DEVICES)}, or cuda:N for the GPU of this number.",
        )


def find_place(device: str, dtype: str, threads: int | None = None) -> Place:
    """Return where to compute; ``auto`` takes a GPU where there is one, and what suits it.

    Args:
        device: One of :data:`DEVICES`, or one of several GPUs: ``cuda:1``.
        dtype: One of :data:`DTYPES`, or ``auto``: bf16 on CUDA, f16 on Apple's, f32 on the CPU.
        threads: Of the CPU; None leaves torch's choice.

    Raises:
        UsageError: That names no device of torch, or no type.
        EngineError: There is no such device here.
    """
    torch = require_torch()
    check_device_name(device)
    kind, _, number = device.partition(":")
    here = _devices(torch)
    if kind == "auto" and not number:
        kind = here[0]
    if kind not in here or (kind == "cuda" and int(number or 0) >= torch.cuda.device_count()):
        raise EngineError(
            f"torch finds no device {device[:40]!r} here", hint=f"It finds: {', '.join(here)}."
        )
    chosen = _BY_DEVICE[kind] if dtype == "auto" else dtype
    if chosen not in DTYPES:
        raise UsageError(
            f"the torch engine computes in no type {dtype[:40]!r}",
            hint=f"One of: {', '.join(DTYPES)}.",
        )
    if threads is not None:
        torch.set_num_threads(threads)
    full = f"cuda:{int(number or 0)}" if kind == "cuda" else kind
    return _place(torch, kind, full, chosen)


def free_on(device: str) -> int:
    """Return the bytes that are free on a GPU with memory of its own; 0 for any other device.

    Raises:
        EngineError: As :func:`find_place`.
    """
    place = find_place(device, "auto")
    if not place.device.startswith("cuda"):
        return 0
    free: int = require_torch().cuda.mem_get_info(place.device)[0]
    return free


def _devices(torch: ModuleType) -> list[str]:
    found = ["cuda"] if torch.cuda.is_available() else []
    found += ["mps"] if torch.backends.mps.is_available() else []
    return [*found, "cpu"]


def _place(torch: ModuleType, kind: str, device: str, dtype: str) -> Place:
    import transformers

    threads = torch.get_num_threads()
    match kind:
        case "cuda":
            card = torch.cuda.get_device_name(int(device.partition(":")[2]))
            for word in _NO_PACKING:
                card = card.replace(word, "")
            name, kernels = f"{device} {card}", f"cuda {card}"
        case "mps":
            name = kernels = "mps"
        case _:
            name, kernels = f"cpu x{threads}", f"cpu {_cpu_kernels(torch)} x{threads}"
    versions = f"torch {torch.__version__} tf{transformers.__version__}"
    return Place(device, dtype, name, f"{versions}/{kernels}/{dtype}/sdpa")


def _cpu_kernels(torch: ModuleType) -> str:
    """Name what the libraries beneath choose kernels by."""
    parts = [str(torch.backends.cpu.get_cpu_capability()).lower()]
    for name, question in (
        ("bf16", "_is_avx512_bf16_supported"),
        ("amx", "_is_amx_tile_supported"),
    ):
        ask = getattr(torch.cpu, question, None)
        if ask is not None and ask():
            parts.append(name)
    return "+".join(parts)


def _be_deterministic(torch: ModuleType) -> None:
    """Let the same call give the same bits, in this whole process."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # what is read was written
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False  # which kernel is taken would be a matter of timing
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.enable_cudnn_sdp(False)  # its kernels are chosen while it runs
