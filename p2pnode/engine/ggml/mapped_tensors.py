"""A model's tensors where they are mapped, whichever of its files each lies in."""

from collections import defaultdict
from collections.abc import Iterable

from p2pnode.engine.ggml.mapping import MappedFile
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import TensorInfo


class MappedTensors:
    """Some tensors of a model in memory, read-only, until they are closed.

    Attributes:
        damage: Files of which bytes are no longer what was first seen; see :class:`MappedFile`.

    Raises:
        ModelError: A file is missing, unreadable, or ends before a tensor does.
        CapacityError: There is not enough memory for a copy, where one is needed.
    """

    def __init__(self, file: GgufFile, tensors: Iterable[TensorInfo]) -> None:
        wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for tensor in tensors:
            wanted[tensor.part].append((tensor.offset, tensor.size))
        self.damage: list[str] = []
        self._files: dict[int, MappedFile] = {}
        try:
            for part, places in wanted.items():
                self._files[part] = MappedFile(file.paths[part], places, damage=self.damage)
        except BaseException:
            self.close()
            raise

    @property
    def areas(self) -> list[tuple[int, int]]:
        """Every area's address and size: each tensor lies within one of them."""
        return [area for file in self._files.values() for area in file.areas]

    def address(self, tensor: TensorInfo) -> int:
        """Return where a tensor lies."""
        return self._files[tensor.part].address(tensor.offset, tensor.size)

    def view(self, tensor: TensorInfo) -> memoryview:
        """Return a tensor's bytes; void once this is closed."""
        return self._files[tensor.part].view(tensor.offset, tensor.size)

    def close(self) -> None:
        """Free the memory; may be called again."""
        for file in self._files.values():
            file.close()
