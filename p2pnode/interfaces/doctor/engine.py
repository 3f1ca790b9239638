"""What computes here: which engine, with which library, how fast, and what would make it faster."""

import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from p2pnode.engine.base import StageCost
from p2pnode.engine.cpu import cpu_name, usable_cores
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.finding import Search, find_library
from p2pnode.engine.ggml.probe import Candidate
from p2pnode.engine.ggml.providers import DIRECTORY_VARIABLE, remedy
from p2pnode.engine.registry import EngineOptions, engine_for, load_engine
from p2pnode.errors import ModelError
from p2pnode.installing import install_extra, pip_install
from p2pnode.interfaces.doctor.findings import Finding
from p2pnode.node.model_cache import cache_dir
from p2pnode.node.model_facts import ModelFacts, facts_of
from p2pnode.node.models import open_model, resolve

INSTALL: Final = pip_install("libggml-python")
FASTER: Final = pip_install("transcribe-cpp-native")
"""The package whose library chooses among builds for many CPUs."""

UNSET: Final = f"unset {DIRECTORY_VARIABLE}, or point it at a folder of llama.cpp's libraries"

_UNDISTURBED: Final = 0.8
"""The part of the time of measuring that an engine has a core where little else runs."""

_MEASURED: Final = 3  # layers that are loaded to measure; the others are taken to be alike
_WIDER: Final = ("amx_int8", "avx512f")  # instructions that only some libraries use
_GPUS: Final = {
    "an NVIDIA GPU": ("/dev/nvidia0", "nvidia-smi", "CUDA"),
    "an AMD GPU": ("/dev/kfd", "rocm-smi", "ROCm or Vulkan"),
    "a GPU": ("/dev/dri/renderD128", "", "Vulkan"),
}


@dataclass(frozen=True, slots=True)
class Speed:
    """What a whole model does here, reckoned from some of its layers.

    Attributes:
        decode: Tokens a second.
        prefill: Tokens of a prompt a second.
        bandwidth: Bytes of weights that are read a second while decoding.
    """

    decode: float
    prefill: float
    bandwidth: float


def check_engine(name: str) -> Iterator[Finding]:
    """Say what computes ``name``, how fast, and what would make it faster."""
    options = EngineOptions(cache=cache_dir())
    search = find_library(options.cache)
    yield from report_libraries(search)
    yield from report_gpus(_gpus_seen(), search, has_torch=find_spec("torch") is not None)
    if name == "none":
        return
    try:
        yield from _measured(resolve(name), options, search)
    except ModelError:  # said under "model" already
        return


def report_libraries(search: Search) -> Iterator[Finding]:
    """Say of each library whether it can be used, and which one is."""
    for one in search.candidates:
        if one is search.chosen:
            devices = ", ".join(_devices(one))
            lacks = f"; {one.reason}" if one.reason else ""
            yield Finding("library", "ok", f"{one.provider.name} is used: {devices}{lacks}")
        elif one.is_usable:
            yield Finding("library", "ok", f"{one.provider.name} would do, another goes before it")
        elif one.provider.is_named:
            what = f"{DIRECTORY_VARIABLE} names what cannot be used: {one.why_not}"
            yield Finding("library", "warn", what, UNSET)
        else:
            what = f"{one.provider.name} cannot be used: {one.reason}"
            yield Finding("library", "warn", what, f"another one: {INSTALL}, or {FASTER}")
    if search.chosen is None:
        what = "no ggml library can be used: numpy computes, at a third of the speed or less"
        yield Finding("library", "warn", what, remedy())


def report_gpus(
    seen: Sequence[tuple[str, str]], search: Search, *, has_torch: bool
) -> list[Finding]:
    """Say of a GPU that nothing here computes with what to install.

    Args:
        seen: Each GPU's kind and the back end that it takes.
        search: The libraries.
        has_torch: Whether torch is installed.
    """
    report = search.chosen.report if search.chosen is not None else None
    if not seen or (report is not None and report.has_gpu):
        return []
    kind, backend = seen[0]
    advice = f"point P2PNODE_GGML_DIR at a folder of a llama.cpp release with {backend}" + (
        "" if has_torch else f", or {install_extra('torch')}"
    )
    broken = [one.problem for one in report.devices if one.problem] if report else []
    because = f" ({broken[0]})" if broken else ""
    return [
        Finding(
            "gpu", "warn", f"there is {kind}, and nothing here computes with it{because}", advice
        )
    ]


def report_speed(
    what: str,
    speed: Speed,
    facts: ModelFacts,
    limits: Sequence[tuple[str, str]],
    *,
    on_core: float = 1.0,
) -> Iterator[Finding]:
    """Say how fast a model is here, and what limits it.

    ``on_core`` is the part of the time of measuring that the engine had a core.
    """
    known = (
        f"{what}: about {speed.decode:.1f} tokens/s, prompts {speed.prefill:.0f} tokens/s, "
        f"all {facts.layers} layers here"
    )
    if on_core >= _UNDISTURBED:
        yield Finding("speed", "ok", known)
    else:
        busy = f"{known}; other programs had its core {1 - on_core:.0%} of the time"
        yield Finding("speed", "warn", busy, "end what keeps this machine busy, and ask again")
    read = (
        f"a token reads {facts.weights / 1e6:.0f} MB of weights, {speed.bandwidth / 1e9:.1f} GB/s"
    )
    if not limits:
        yield Finding("limit", "ok", f"{read}: memory and cores set the pace")
    for why, advice in limits:
        yield Finding("limit", "warn", f"{read}; {why}", advice)


def limits_of(engine: str, chosen: Candidate | None, cpu: str, cores: int) -> list[tuple[str, str]]:
    """Return what holds this machine back that somebody could change, each with what to do.

    Args:
        engine: That computes.
        chosen: Its library.
        cpu: What the CPU says of itself.
        cores: That may be used.
    """
    found = []
    flags = set(cpu.lower().replace('"', " ").split())
    if engine == "numpy":
        found.append(("numpy computes in float32: no ggml library", INSTALL))
    if "sse2" in flags and "avx2" not in flags:
        found.append(("this CPU has no AVX2", "let it hold few layers"))
    numerics = chosen.report.numerics if chosen is not None and chosen.report is not None else ""
    wider = next((flag for flag in _WIDER if flag in flags), "")
    if wider and engine == "ggml" and "avx2" in numerics:
        found.append((f"this CPU has {wider.upper()}, its library uses AVX2 alone", FASTER))
    if cores == 1:
        found.append(("there is one core for everything", "let it hold few layers"))
    return found


def speed_of(cost: StageCost, facts: ModelFacts) -> Speed:
    """Reckon a whole model's speed from what its last layers cost."""
    layers = len(facts.layer_bytes)
    token = max(1, cost.decode_fixed_us + cost.decode_layer_us * layers + cost.head_us)
    prefill = max(1, cost.prefill_layer_ns * layers)
    return Speed(1e6 / token, 1e9 / prefill, 1e6 * facts.weights / token)


def _measured(path: Path, options: EngineOptions, search: Search) -> Iterator[Finding]:
    """Load the last layers and the head, and measure them."""
    facts, known = facts_of(path), open_model(path)
    name, count = engine_for(path, options), known.info.n_layers
    layers = range(max(0, count - _MEASURED), count)
    engine = load_engine(path, layers, options, kv_budget_bytes=1 << 28, tree=known.tree)
    try:
        began, had = time.perf_counter(), time.thread_time()
        speed = speed_of(engine.measure(), facts)
        on_core = (time.thread_time() - had) / (time.perf_counter() - began)
        what = f"{name}, {engine.device}, as {engine.numerics}"
    finally:
        engine.shut()
    chosen = search.chosen if name == "ggml" else None
    limits = limits_of(name, chosen, cpu_name(), usable_cores())
    yield from report_speed(
        what, speed, facts, limits, on_core=on_core if engine.device.startswith("cpu") else 1.0
    )


def _devices(candidate: Candidate) -> list[str]:
    if candidate.report is None:
        return []
    return [
        f"{device.name} ({device.description})"
        + (f", {device.free / 1e9:.1f} GB free" if device.free and _is_gpu(device.type) else "")
        + (f", not used: {device.problem}" if device.problem else "")
        for device in candidate.report.devices
        if device.type != DeviceType.ACCELERATOR
    ]


def _is_gpu(kind: int) -> bool:
    return kind in {DeviceType.GPU, DeviceType.INTEGRATED_GPU}


def _gpus_seen() -> list[tuple[str, str]]:
    """Return the GPUs that the system knows of, and the back end that each takes."""
    if sys.platform == "darwin":
        return [("Apple's GPU", "Metal")] if platform.machine() == "arm64" else []
    return [
        (kind, backend)
        for kind, (device, tool, backend) in _GPUS.items()
        if Path(device).exists() or (tool and shutil.which(tool))
    ]
