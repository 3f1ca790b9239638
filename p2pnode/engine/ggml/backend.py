"""One device of a ggml library, ready to compute, and the memory of its tensors."""

import ctypes
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from p2pnode.engine.ggml.binding import Device, Ggml
from p2pnode.engine.ggml.constants import STATUS_ALLOC_FAILED, STATUS_SUCCESS, DeviceType
from p2pnode.engine.ggml.functions import InitParams, ThreadpoolParams
from p2pnode.errors import CapacityError, DeviceLostError, EngineError

_SPIN: Final = 0
"""How long idle threads spin before they sleep: not at all, for a node idles most of the time."""


class Backend:
    """A device that computes; threads count on the CPU alone.

    Attributes:
        ggml: Its library.
        device: What it is.
        is_cpu: Whether it computes in this process's own memory.
        buffer_type: Where its tensors lie.
        spent: Hears the seconds of CPU that each graph takes of its caller's thread, if anybody.

    Raises:
        EngineError: The device cannot be used.
    """

    def __init__(self, ggml: Ggml, device: Device, threads: int = 1) -> None:
        self.ggml = ggml
        self.device = device
        self.is_cpu = device.type == DeviceType.CPU
        self.spent: Callable[[float], None] | None = None
        self._pool: int | None = None
        self._handle: int | None = ggml.backend_dev_init(device.handle, None)
        if self._handle is None:
            raise EngineError(f"{device.name} ({device.description}) cannot be used: {last(ggml)}")
        self.buffer_type: int = ggml.backend_dev_buffer_type(device.handle)
        if self.is_cpu:
            try:
                self.use_threads(threads)
            except BaseException:
                self.close()
                raise

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on, the caller's included."""
        ggml, before = self.ggml, self._pool
        params = ThreadpoolParams()
        ggml.threadpool_params_init(ctypes.addressof(params), count)
        params.poll = _SPIN
        pool: int | None = ggml.threadpool_new(ctypes.addressof(params))
        if pool is None:
            raise CapacityError(f"there is no memory for {count} threads")
        self._pool = pool
        ggml.backend_cpu_set_threadpool(self._handle, self._pool)
        ggml.backend_set_n_threads(self._handle, count)
        if before is not None:
            ggml.threadpool_free(before)

    def compute(self, graph: int) -> None:
        """Run a graph.

        Raises:
            CapacityError: The device has no memory for it.
            DeviceLostError: The device failed.
        """
        began = 0.0 if self.spent is None else time.thread_time()
        status = self.ggml.backend_graph_compute(self._handle, graph)
        if self.spent is not None:
            self.spent(time.thread_time() - began)
        if status == STATUS_ALLOC_FAILED:
            raise CapacityError(f"{self.device.name} has no memory for a step: {last(self.ggml)}")
        if status != STATUS_SUCCESS:
            word = self.ggml.status_to_string(status).decode("utf-8", "replace")
            raise DeviceLostError(f"{self.device.name} failed: {word}; {last(self.ggml)}")

    def close(self) -> None:
        """Give everything back; may be called again."""
        handle, self._handle = self._handle, None
        pool, self._pool = self._pool, None
        if handle is not None:
            self.ggml.backend_free(handle)
        if pool is not None:
            self.ggml.threadpool_free(pool)


class Tensors:
    """Tensors that are described first and then given memory together, until it is closed.

    Attributes:
        context: What ggml's functions take as ``ctx``.
    """

    def __init__(self, backend: Backend, most: int, *, graph_nodes: int = 0) -> None:
        """Room for ``most`` tensors, and for a graph of ``graph_nodes`` of them."""
        ggml = backend.ggml
        size = most * ggml.tensor_overhead()
        if graph_nodes:
            size += ggml.graph_overhead_custom(graph_nodes, False)
        context: int | None = ggml.init(InitParams(size, None, True))
        if context is None:
            raise CapacityError("there is no memory to describe tensors in")
        self.context: int = context
        self._backend = backend
        self._buffers: list[int] = []

    def allocate(self, buffer_type: int | None = None) -> None:
        """Give memory to all that have none, on the device, or of another type of buffer.

        Raises:
            CapacityError: There is not enough.
        """
        ggml = self._backend.ggml
        kind = self._backend.buffer_type if buffer_type is None else buffer_type
        buffer = ggml.backend_alloc_ctx_tensors_from_buft(self.context, kind)
        if buffer is None:
            raise CapacityError(
                f"{self._backend.device.name} has not enough memory: {last(ggml)}",
                hint="Hold fewer layers, or offer less memory for KV caches.",
            )
        self._buffers.append(buffer)

    def adopt(self, address: int, size: int) -> int:
        """Return a buffer over memory that is there already; it stays its owner's."""
        buffer: int = self._backend.ggml.backend_cpu_buffer_from_ptr(address, size)
        self._buffers.append(buffer)
        return buffer

    def place(self, tensor: int, buffer: int, address: int) -> None:
        """Let a tensor lie at an address within an adopted buffer."""
        if self._backend.ggml.backend_tensor_alloc(buffer, tensor, address) != STATUS_SUCCESS:
            raise EngineError("a tensor does not fit where it was to lie")

    def close(self) -> None:
        """Give the memory back; may be called again."""
        ggml, buffers, self._buffers = self._backend.ggml, self._buffers, []
        for buffer in buffers:
            ggml.backend_buffer_free(buffer)
        if self.context:
            ggml.free(self.context)
            self.context = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def allocate_graph(backend: Backend, graph: int) -> int:
    """Give memory to what lies between a graph's inputs and outputs; return what holds it.

    Raises:
        CapacityError: There is not enough.
    """
    ggml = backend.ggml
    allocator: int = ggml.gallocr_new(backend.buffer_type)
    if not ggml.gallocr_alloc_graph(allocator, graph):
        ggml.gallocr_free(allocator)
        raise CapacityError(f"{backend.device.name} has no memory for a step: {last(ggml)}")
    return allocator


def write(ggml: Ggml, tensor: int, data: npt.NDArray[np.generic], offset: int = 0) -> None:
    """Copy a contiguous array into a tensor, from ``offset`` bytes on."""
    ggml.backend_tensor_set(tensor, data.ctypes.data, offset, data.nbytes)


def read(ggml: Ggml, tensor: int, data: npt.NDArray[np.generic], offset: int = 0) -> None:
    """Fill a contiguous array from a tensor, from ``offset`` bytes on."""
    ggml.backend_tensor_get(tensor, data.ctypes.data, offset, data.nbytes)


class Mirror:
    """An array of ours with what a tensor holds, or is to hold: on the CPU the very same memory.

    Asking numpy for an array's address takes 3 us, so that of an array that stays is asked once.

    Attributes:
        array: As large as the tensor; of no more use once the tensor's memory is given back.
    """

    def __init__(
        self, backend: Backend, tensor: int, shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> None:
        """``tensor`` has memory by now, which the CPU's is never moved from."""
        self._ggml = ggml = backend.ggml
        self._tensor = tensor
        self._is_same = backend.is_cpu
        self.array: npt.NDArray[Any] = np.zeros(shape, dtype)
        self._size = self.array.nbytes
        if self._is_same:
            held = (ctypes.c_uint8 * self._size).from_address(ggml.get_data(tensor))
            self.array = np.ctypeslib.as_array(held).view(dtype).reshape(shape)
            self.array[:] = 0
        self._address: int = self.array.ctypes.data

    def write(self) -> None:
        """Copy the array into the tensor."""
        if not self._is_same:
            self._ggml.backend_tensor_set(self._tensor, self._address, 0, self._size)

    def read(self) -> None:
        """Fill the array from the tensor."""
        if not self._is_same:
            self._ggml.backend_tensor_get(self._tensor, self._address, 0, self._size)


def last(ggml: Ggml) -> str:
    """Return the last that the library complained about."""
    return ggml.warnings[-1] if ggml.warnings else "it does not say why"
