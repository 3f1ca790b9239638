"""The weights that a device computes with: as the file stores them, mapped or rearranged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np

from p2pnode.engine.ggml.backend import Backend, Tensors, write
from p2pnode.engine.ggml.binding import Ggml
from p2pnode.engine.ggml.coded import AS_Q8_0, ROUNDED, coded, is_coded, put_as_q8_0
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.expand import (
    AFTER_SPLIT,
    Matrix,
    Scratch,
    StoredMatrix,
    bytes_at,
    expanded_from,
)
from p2pnode.engine.ggml.mapped_tensors import MappedTensors
from p2pnode.engine.ggml.second_forms import ENDS, second_bytes, second_types, split_bytes
from p2pnode.engine.ggml.split import Bytes, Split, split_blocks
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import TENSOR_TYPES, TensorInfo
from p2pnode.errors import CapacityError

_ALIGNMENT: Final = 32  # bytes; what the CPU's kernels may count on
_Q4_0: Final = TENSOR_TYPES[Type.Q4_0]
_Q8_0: Final = TENSOR_TYPES[Type.Q8_0]
_ROWS: Final = 512  # of the product that a kernel is asked about


class Weights:
    """Named tensors on one device, until they are closed.

    On the CPU a tensor lies where the file is mapped, or in a buffer of the library's own that
    rearranges it for faster products; elsewhere it is copied to the device.

    Attributes:
        bytes: Memory that they take, beside the pages of the mapped file.
        splits: Matrices in a second form, for long batches (:mod:`.split`).
        expanded: Least rows of a batch in which a matrix is expanded (:mod:`.expand`).
        matrices: What those are expanded from: as they lie, or a second form (:mod:`.coded`).
        scratch: What they are expanded into.
        uses_blas: Whether BLAS computes a part of long batches, in whichever of the model's layers.
        products: The tensors that rows are multiplied with, each with its type of buffer; None
            for the mapped file.
    """

    def __init__(
        self,
        backend: Backend,
        file: GgufFile,
        mapped: MappedTensors,
        names: Iterable[str],
        *,
        check: Callable[[TensorInfo, memoryview], None],
        done: Callable[[int], None] = lambda _: None,
        rearrange: bool = True,
        room: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """``check`` sees every tensor's bytes first; ``done`` hears how many were taken.

        ``room`` says of some how many numbers they need room for: more than the file has.

        Raises:
            ModelChangedError: A tensor is not what was hashed.
            CapacityError: The device has not enough memory.
        """
        self.bytes = 0
        self.splits: dict[str, Split] = {}
        self.expanded: dict[str, int] = {}
        self.matrices: dict[str, Matrix] = {}
        self.scratch = Scratch({})
        self.products: dict[str, int | None] = {}
        self._backend = backend
        self._ggml = backend.ggml
        self._room = room
        self._tensors: dict[str, int] = {}
        self._groups: list[Tensors] = []
        self._second = second_types(file.tensors.values()) if backend.is_cpu else frozenset[int]()
        kinds: dict[int | None, list[TensorInfo]] = {}
        types = backend.ggml.extra_buffer_types() if backend.is_cpu and rearrange else []
        self.uses_blas = any(self._goes_by_blas(info, types) for info in _layer_products(file))
        for name in names:
            info = file.tensors[name]
            view = mapped.view(info)
            check(info, view)
            kind = self._kind(info, mapped, types)
            kinds.setdefault(kind, []).append(info)
            if is_product(info):
                self.products[name] = kind
                self._expand(info, kind)
        try:
            for kind, infos in kinds.items():
                self._load(kind, infos, mapped, done)
            self._split(types, kinds.get(None, ()), mapped)
            self._describe_expanded([file.tensors[name] for name in self.expanded], mapped)
        except BaseException as error:
            self.close()
            if isinstance(error, MemoryError):  # numpy's, in the midst of unpacking
                raise CapacityError("There is not enough memory to unpack weights") from None
            raise

    def __getitem__(self, name: str) -> int:
        return self._tensors[name]

    @property
    def has_rounded(self) -> bool:
        """Whether some of the model's scales are rounded, to be held in Q8_0."""
        return bool(self._second & ROUNDED)

    def get(self, name: str) -> int | None:
        return self._tensors.get(name)

    def close(self) -> None:
        """Give the memory back; may be called again."""
        groups, self._groups = self._groups, []
        for group in groups:
            group.close()

    def _kind(self, info: TensorInfo, mapped: MappedTensors, types: Iterable[int]) -> int | None:
        """Return the type of buffer that a tensor goes to; None where it stays mapped."""
        if not self._backend.is_cpu or info.name in self._room:
            return self._backend.buffer_type
        held = self._held(info)
        for kind in types:
            if is_product(info) and multiplies_in(self._backend, kind, held):
                return kind
        is_aligned = held == info and mapped.address(info) % _ALIGNMENT == 0
        return None if is_aligned else self._backend.buffer_type

    def _held(self, info: TensorInfo) -> TensorInfo:
        """Describe a tensor as it is held: some as Q8_0, where memory is not short."""
        is_eight = info.type.code in AS_Q8_0 and self._has_second(info)
        return replace(info, type=_Q8_0) if is_eight else info

    def _is_coded(self, info: TensorInfo) -> bool:
        return is_coded(info.type.code) and self._has_second(info)

    def _has_second(self, info: TensorInfo) -> bool:
        return info.type.code in self._second and second_bytes(info) > 0

    def _expand(self, info: TensorInfo, kind: int | None) -> None:
        """Note from how many rows on a matrix is expanded, unless it is rearranged."""
        is_plain = kind in (None, self._backend.buffer_type)
        if self._backend.is_cpu and is_plain and len(info.shape) == 2:
            least = self._least_rows(info)
            if least is not None:
                self.expanded[info.name] = least

    def _least_rows(self, info: TensorInfo) -> int | None:
        code = self._held(info).type.code
        return expanded_from(self._ggml, code, is_coded=self._is_coded(info))

    def _goes_by_blas(self, info: TensorInfo, types: Sequence[int]) -> bool:
        """Whether any matrix like this is expanded or split, in whatever part of a model."""
        held = self._held(info)
        if not self._backend.is_cpu or any(multiplies_in(self._backend, t, held) for t in types):
            return False
        return self._least_rows(info) is not None or self._is_split(info, types)

    def _is_split(self, info: TensorInfo, types: Sequence[int]) -> bool:
        custom: Callable[..., object] | None = self._ggml.custom_4d
        if custom is None or not types or not split_bytes(info):
            return False
        return multiplies_in(self._backend, types[0], replace(info, type=_Q4_0))

    def _describe_expanded(self, infos: Iterable[TensorInfo], mapped: MappedTensors) -> None:
        """Note what matrices are expanded from, and make the second form of those that have one."""
        second = {info.name: info for info in infos if self._is_coded(info)}
        needed = sum(second_bytes(info) for info in second.values())
        room, at = _bytes_for(needed), 0  # at once: a large piece comes in pages of 2 MiB
        self.bytes += needed
        for name in self.expanded:
            info = second.get(name)
            if info is None:
                self.matrices[name] = StoredMatrix.of(self._ggml, self._tensors[name])
                continue
            size = second_bytes(info)
            self.matrices[name] = coded(info, mapped.view(info), room[at : at + size])
            at += size

    def _load(
        self,
        kind: int | None,
        infos: list[TensorInfo],
        mapped: MappedTensors,
        done: Callable[[int], None],
    ) -> None:
        ggml = self._ggml
        group = Tensors(self._backend, len(infos))
        self._groups.append(group)
        for info in infos:
            room = self._room.get(info.name)
            roomy = self._held(info) if room is None else replace(info, shape=(room,))
            self._tensors[info.name] = describe(ggml, group, roomy)
        if kind is not None:
            group.allocate(kind)
        buffers: dict[int, int] = {}
        for info in infos:
            tensor, address = self._tensors[info.name], mapped.address(info)
            held = self._held(info)
            if held != info:
                self._put_as_q8_0(tensor, info, mapped.view(info), kind)
            elif kind is not None:
                ggml.backend_tensor_set(tensor, address, 0, info.size)
                self.bytes += info.size
            else:
                group.place(tensor, _buffer_at(group, buffers, mapped, address), address)
            done(info.size)

    def _put_as_q8_0(
        self, tensor: int, info: TensorInfo, stored: memoryview, kind: int | None
    ) -> None:
        size = second_bytes(info)
        if kind == self._backend.buffer_type:
            put_as_q8_0(info, stored, bytes_at(self._ggml.get_data(tensor), size))
        else:
            room = _bytes_for(size)
            put_as_q8_0(info, stored, room)
            write(self._ggml, tensor, room)
        self.bytes += size

    def _split(
        self, types: Sequence[int], infos: Iterable[TensorInfo], mapped: MappedTensors
    ) -> None:
        """Make a second form of the Q4_1 matrices that no buffer takes as they are."""
        ggml = self._ggml
        fitting = [info for info in infos if self._is_split(info, types)]
        if not fitting:
            return
        group = Tensors(self._backend, len(fitting))
        self._groups.append(group)
        tensors = [describe(ggml, group, replace(info, type=_Q4_0)) for info in fitting]
        group.allocate(types[0])
        for info, tensor in zip(fitting, tensors, strict=True):
            stored = mapped.view(info)
            blocks, rest = split_blocks(stored, info.shape[-1])
            write(ggml, tensor, blocks)
            self.splits[info.name] = Split(tensor, rest)
            if info.name in self.expanded:
                self.expanded[info.name] = AFTER_SPLIT
            self.bytes += blocks.nbytes + rest.nbytes


def _bytes_for(size: int) -> Bytes:
    """Return so many bytes of memory.

    Raises:
        CapacityError: There are not so many.
    """
    try:
        return np.empty(size, np.uint8)
    except MemoryError:
        raise CapacityError(f"There are no {size / 2**20:.0f} MiB of memory for weights") from None


def _buffer_at(group: Tensors, buffers: dict[int, int], mapped: MappedTensors, address: int) -> int:
    """Return a buffer over the area that an address lies in."""
    for start, size in mapped.areas:
        if start <= address < start + size:
            if start not in buffers:
                buffers[start] = group.adopt(start, size)
            return buffers[start]
    raise AssertionError("the address lies in no area")


def describe(ggml: Ggml, group: Tensors, info: TensorInfo) -> int:
    """Describe a file's tensor to ggml, without memory."""
    sizes = [*reversed(info.shape), 1, 1, 1][:4]
    tensor: int = ggml.new_tensor_4d(group.context, info.type.code, *sizes)
    ggml.set_name(tensor, info.name.encode()[:63])
    return tensor


def _layer_products(file: GgufFile) -> Iterable[TensorInfo]:
    """Return one of each kind of matrix that a model's layers multiply with, from its header."""
    return {
        (info.type.code, info.shape): info
        for info in file.tensors.values()
        if is_product(info) and len(info.shape) == 2 and info.name not in ENDS
    }.values()


def is_product(info: TensorInfo) -> bool:
    """Whether a tensor is multiplied with, and not a norm, a bias or the embedding."""
    return len(info.shape) >= 2 and info.name != "token_embd.weight"


def multiplies_in(backend: Backend, kind: int, info: TensorInfo) -> bool:
    """Whether the device multiplies with such a tensor in a buffer of this type."""
    ggml = backend.ggml
    with Tensors(backend, 8) as group:
        weight = describe(ggml, group, info)
        width = info.shape[-1]
        if len(info.shape) == 2:
            x = ggml.new_tensor_2d(group.context, Type.F32, width, _ROWS)
            product = ggml.mul_mat(group.context, weight, x)
        else:
            x = ggml.new_tensor_3d(group.context, Type.F32, width, 1, _ROWS)
            ids = ggml.new_tensor_2d(group.context, Type.I32, 1, _ROWS)
            product = ggml.mul_mat_id(group.context, weight, x, ids)
        return ggml.takes(backend.device.handle, product, weight, kind)
