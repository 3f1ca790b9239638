"""One loaded ggml library: its C functions, its devices, and what decides the bits it computes."""

import atexit
import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from p2pnode.engine.ggml.constants import LOG_WARNING, DeviceType
from p2pnode.engine.ggml.functions import LETTERS, OF_THE_CPU, OPTIONAL, REQUIRED, TensorHead
from p2pnode.engine.ggml.providers import Provider
from p2pnode.errors import EngineError

LEAST_VERSION: Final = (0, 13)  # the oldest whose headers were compared, and that was run
TESTED_VERSION: Final = (0, 26)  # the newest that was run; a newer one must pass the self-test
_IMPLIED: Final = frozenset({"SSE3", "SSSE3", "AVX", "F16C", "FMA", "BMI2"})
"""Instructions that every build with AVX2 has as well."""

_LOG_LINES: Final = 20
_LOG_LINE_BYTES: Final = 500
_MOST_FEATURES: Final = 64
_MOST_BUFFER_TYPES: Final = 16

_callbacks: Final[list[object]] = []
_LOG_CALLBACK: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Device:
    """Something that computes.

    Attributes:
        handle: For ``backend_dev_init`` and the like.
        name: ``CPU``, ``CUDA0``, ``Vulkan1``.
        description: The hardware's own name.
        type: One of :class:`DeviceType`, or a number that we do not know.
        free: Bytes of memory that nobody has taken; 0 where unknown.
        total: Bytes of memory in all; 0 where unknown.
    """

    handle: int
    name: str
    description: str
    type: int
    free: int
    total: int


class Ggml:
    """The functions of one library, under their C names without ``ggml_``.

    ``ggml.mul_mat(ctx, a, b)`` is the C function itself: pointers are ints, null is None, strings
    are bytes; other Python threads run meanwhile. Functions of ``functions.OPTIONAL`` are None
    where the library lacks them.

    Attributes:
        provider: Where it came from.
        version: Such as ``0.26.0``.
        commit: Of the source it was built from; may be empty.
        variant: The CPU back end chosen for this CPU, such as ``haswell``; empty where the
            library has only one.
        warnings: The last lines that the library logged at the level of a warning or above.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Any]: ...

    def __init__(self, provider: Provider, *, gpus: bool = True) -> None:
        self.provider = provider
        if not provider.libraries:
            raise EngineError(
                f"There is no ggml library in {provider.name}",
                hint="Point P2PNODE_GGML_DIR at a folder that holds libggml-base and libggml.",
            )
        self.warnings: deque[str] = deque(maxlen=_LOG_LINES)
        self._libraries = [_open(path, provider) for path in provider.libraries]
        self._bind()
        self._log_to_warnings()
        self.version = self._word("version")
        self.commit = self._word("commit")
        _refuse_old(self.version, provider)
        self.variant = self._load_modules(gpus=gpus)
        self._bind_cpu()

    def devices(self) -> list[Device]:
        """Return everything that computes, in the library's order: GPUs before the CPU."""
        handles = [self.backend_dev_get(index) for index in range(self.backend_dev_count())]
        return [self._device(handle) for handle in handles]

    def cpu(self) -> int:
        """Return the handle of the CPU device."""
        handle: int | None = self.backend_dev_by_type(DeviceType.CPU)
        if handle is None:
            raise EngineError(
                f"ggml of {self.provider.name} has no back end for this CPU",
                hint=f"It logged: {self.warnings[-1]}" if self.warnings else "",
            )
        return handle

    def features(self) -> dict[str, str]:
        """Return which instructions and kernels the CPU back end was built with."""
        registry = self.backend_dev_backend_reg(self.cpu())
        pairs = self.backend_get_features(registry)
        if not pairs:
            return {}
        words = (ctypes.c_char_p * (2 * _MOST_FEATURES)).from_address(pairs)
        found = {}
        for index in range(0, 2 * _MOST_FEATURES, 2):
            name = words[index]
            if name is None:
                break
            found[_text(name)] = _text(words[index + 1])
        return found

    def extra_buffer_types(self) -> list[int]:
        """Return the CPU's buffer types that rearrange weights for faster products."""
        types = self.backend_dev_get_extra_bufts(self.cpu())
        if not types:
            return []
        found = []
        for value in (ctypes.c_void_p * _MOST_BUFFER_TYPES).from_address(types):
            if value is None:
                break
            found.append(value)
        return found

    def takes(self, device: int, operation: int, weights: int, buffer_type: int) -> bool:
        """Tell whether ``device`` can compute ``operation`` with ``weights`` in ``buffer_type``.

        ``weights`` must be a tensor that has no memory yet.
        """
        head = TensorHead.from_address(weights)
        buffer = self.backend_buft_alloc_buffer(buffer_type, 0)  # it takes no memory
        head.buffer = buffer
        try:
            return bool(self.backend_dev_supports_op(device, operation))
        finally:
            head.buffer = None
            self.backend_buffer_free(buffer)

    def numerics(self) -> str:
        """Return which kernels the CPU computes with: ``ggml 0.26.0/haswell``, or ``avx2``."""
        features = self.features()
        implied = _IMPLIED if "AVX2" in features else frozenset[str]()
        kind = self.variant or "+".join(
            name.lower() if value == "1" else f"{name.lower()}={value}"
            for name, value in features.items()
            if value != "0" and name not in implied
        )
        return f"ggml {self.version}/{kind}"

    def _device(self, handle: int) -> Device:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.backend_dev_memory(handle, ctypes.addressof(free), ctypes.addressof(total))
        return Device(
            handle,
            _text(self.backend_dev_name(handle)),
            _text(self.backend_dev_description(handle)),
            self.backend_dev_type(handle),
            free.value,
            total.value,
        )

    def _bind(self) -> None:
        missing = []
        for name, signature in {**REQUIRED, **OPTIONAL}.items():
            function = self._find(name, signature)
            if function is None and name in REQUIRED:
                missing.append(f"ggml_{name}")
            setattr(self, name, function)
        if missing:
            raise EngineError(
                f"{self.provider.name} lacks {', '.join(missing[:5])}",
                hint="Install a newer version of it, or another one.",
            )

    def _word(self, name: str) -> str:
        """Return what a function without arguments answers; empty where the library lacks it."""
        function = self._find(name, "s")
        return "" if function is None else _text(function())

    def _find(self, name: str, signature: str) -> Callable[..., Any] | None:
        for library in self._libraries:
            try:
                function = library[f"ggml_{name}"]
            except AttributeError:
                continue
            function.restype = LETTERS[signature[0]]
            function.argtypes = [LETTERS[letter] for letter in signature[1:]]
            bound: Callable[..., Any] = function
            return bound
        return None

    def _bind_cpu(self) -> None:
        registry = self.backend_dev_backend_reg(self.cpu())
        for name, signature in OF_THE_CPU.items():
            address = self.backend_reg_get_proc_address(registry, f"ggml_{name}".encode())
            if address is None:
                raise EngineError(f"The CPU back end of {self.provider.name} lacks ggml_{name}")
            types = [LETTERS[letter] for letter in signature]
            setattr(self, name, ctypes.CFUNCTYPE(*types)(address))

    def _load_modules(self, *, gpus: bool) -> str:
        """Load the back ends that the library finds at run time; return the CPU's variant."""
        if self.backend_dev_by_type(DeviceType.CPU) is not None:
            return ""  # they are linked in
        if gpus:
            for path in self.provider.gpu_modules:
                self.backend_load(str(path).encode())  # null where its driver is missing
        best = _best_variant(self.provider.cpu_modules)
        if best is None or self.backend_load(str(best).encode()) is None:
            raise EngineError(
                f"ggml of {self.provider.name} has no back end for this CPU",
                hint="Install another package that holds ggml, or point P2PNODE_GGML_DIR at one.",
            )
        return best.name.removeprefix("lib").removeprefix("ggml-cpu").split(".")[0].lstrip("-")

    def _log_to_warnings(self) -> None:
        def keep(level: int, line: bytes | None, _data: int | None) -> None:
            if level >= LOG_WARNING and line:
                text = line[:_LOG_LINE_BYTES].decode("utf-8", "replace").strip()
                if text:
                    self.warnings.append(text)

        self._log_callback = _LOG_CALLBACK(keep)
        # Also where this object is given up, because the library is too old, say: C still has it.
        _callbacks.append(self._log_callback)
        self.log_set(ctypes.cast(self._log_callback, ctypes.c_void_p), None)
        # A back end that logs while the process ends must find no Python to call. Null would make
        # it print; this function reads a clock's frequency, whatever its arguments.
        nothing: Any = self.time_init
        nothing = ctypes.cast(nothing, ctypes.c_void_p)
        atexit.register(self.log_set, nothing, None)


_lock = threading.Lock()
_loaded: list[Ggml] = []


def load(provider: Provider, *, gpus: bool = True) -> Ggml:
    """Load ``provider``'s library into this process, once; ``gpus`` counts the first time.

    Two copies of ggml in one process can take each other's functions for their own.

    Raises:
        EngineError: It cannot be loaded, is too old, lacks a function or a back end for this CPU,
            or another one was loaded before.
    """
    with _lock:
        if not _loaded:
            _loaded.append(Ggml(provider, gpus=gpus))
        (ggml,) = _loaded
    if ggml.provider.libraries != provider.libraries:
        raise EngineError(
            f"This process already computes with ggml of {ggml.provider.name}, "
            f"not of {provider.name}"
        )
    return ggml


def _open(path: Path, provider: Provider) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(
            f"{path.name} of {provider.name} cannot be loaded: {error}",
            hint="Install another package that holds ggml, or point P2PNODE_GGML_DIR at one.",
        ) from None


def _best_variant(paths: Iterable[Path]) -> Path | None:
    """Return the CPU back end that rates itself highest on this CPU; 0 means that it cannot run."""
    best, best_score = None, 0
    for path in paths:
        try:
            score = ctypes.CDLL(str(path))["ggml_backend_score"]
        except (OSError, AttributeError):
            continue
        score.restype, score.argtypes = ctypes.c_int, []
        value = score()
        if value > best_score:
            best, best_score = path, value
    return best


def _refuse_old(version: str, provider: Provider) -> None:
    if parse_version(version) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise EngineError(
            f"{provider.name} holds ggml {version}; p2pnode needs {least} or newer",
            hint="Install a newer version of it.",
        )


def parse_version(version: str) -> tuple[int, int]:
    """Return major and minor of ``0.26.0`` or ``0.26.0-dev``; (0, 0) of what is neither."""
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return (0, 0)
    return int(parts[0]), int(parts[1])


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
