"""What each engine takes of memory for a model, told before anything of it is loaded."""

from typing import Final

from p2pnode.engine.registry import DEFAULT_OPTIONS, EngineOptions

_FLOAT32: Final = 4  # bytes; numpy and jax multiply in it
_HALF: Final = 2


def bytes_per_weight(engine: str, options: EngineOptions = DEFAULT_OPTIONS) -> int:
    """Return the bytes that an engine holds each weight in; 0 for as many as the file does.

    Args:
        engine: One that runs: ``ggml``, ``numpy``, ``torch`` or ``jax``.
        options: Which device is to compute; torch is asked what it computes in there.

    Raises:
        EngineError: torch is not here, or has no such device.
    """
    if engine == "ggml":
        return 0
    if engine == "torch" and options.device != "cpu":
        from p2pnode.engine.torch.finding import find_place

        return _FLOAT32 if find_place(options.device, "auto").dtype == "f32" else _HALF
    return _FLOAT32


def gpu_memory(engine: str, options: EngineOptions = DEFAULT_OPTIONS) -> int:
    """Return the bytes that are free on the GPU that would compute; 0 for none of its own.

    Raises:
        ConfigError: There is no such device anywhere.
        EngineError: The engine or the device is not here, or the device is not to be used.
    """
    if engine == "numpy" or options.device == "cpu":
        return 0
    if engine == "torch":
        from p2pnode.engine.torch.finding import free_on

        return free_on(options.device)
    if engine == "jax":
        from p2pnode.engine.jax.runtime import free_on as free_for_jax

        return free_for_jax(options.device)
    from p2pnode.engine.ggml.constants import DeviceType
    from p2pnode.engine.ggml.finding import find_library
    from p2pnode.engine.ggml.placing import choose_device

    chosen = find_library(options.cache).chosen
    if chosen is None or chosen.report is None:
        return 0
    device = choose_device(options.device, chosen.report.devices)
    return device.free if device.type == DeviceType.GPU else 0
