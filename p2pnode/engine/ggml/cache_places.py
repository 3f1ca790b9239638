"""Where the KV caches of a graph's sessions lie, so that other sessions take their places.

To build a graph of eight sessions takes as long as a fifth of what it computes, and who stands
beside whom changes from step to step. On the CPU a tensor is a description and an address: a graph
has descriptions of its own for the caches, and runs for whichever sessions their addresses name.
"""

import ctypes
from collections.abc import Sequence
from typing import Final

from p2pnode.engine.ggml.backend import Backend, Tensors
from p2pnode.engine.ggml.binding import Ggml
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.slot import GgmlSlot

_WORD: Final = 8  # bytes
_OBJECT_BYTES: Final = 64  # at the least, of what ggml keeps about a tensor beside it


class CachePlaces:
    """The caches of one graph's sessions.

    Attributes:
        tensors: For each session the keys and values of each layer, [kv_dim, cells].
    """

    def __init__(
        self,
        backend: Backend,
        inputs: Tensors,
        slots: Sequence[GgmlSlot],
        layers: range,
        kv_dim: int,
    ) -> None:
        """Describe the caches among a graph's ``inputs``, lying where those of ``slots`` do."""
        self._ggml = ggml = backend.ggml
        self._layers = layers
        self._made: list[list[int]] = []
        self._fields: list[list[list[ctypes.c_uint64]]] = []
        self._bound = [slot.version for slot in slots]
        self.tensors: list[dict[int, tuple[int, int]]] = []
        for slot in slots:
            made = [
                ggml.new_tensor_2d(inputs.context, Type.F16, kv_dim, slot.cells)
                for _ in range(2 * len(layers))
            ]
            places = slot.places(layers)
            size = ggml.nbytes(made[0])
            buffer = inputs.adopt(min(places), max(places) + size - min(places))
            for tensor, place in zip(made, places, strict=True):
                inputs.place(tensor, buffer, place)
            self._made.append(made)
            self.tensors.append(
                dict(zip(layers, zip(made[::2], made[1::2], strict=True), strict=True))
            )

    def find(self, graph: int) -> None:
        """Note which of a graph's nodes lie where the caches do: its views of them."""
        ggml = self._ggml
        offset = data_offset(ggml, self._made[0][0])
        if offset is None:
            raise AssertionError("asked for where addresses are not found")
        at: dict[int, list[ctypes.c_uint64]] = {}
        for made in self._made:
            fields = [[_field(tensor, offset)] for tensor in made]
            at |= {ggml.get_data(one): own for one, own in zip(made, fields, strict=True)}
            self._fields.append(fields)
        for number in range(ggml.graph_n_nodes(graph)):
            node = ggml.graph_node(graph, number)
            own = at.get(ggml.get_data(node))
            if own is not None:
                own.append(_field(node, offset))

    def bind(self, slots: Sequence[GgmlSlot]) -> None:
        """Let the graph compute for ``slots``; each has room for all that the graph looks at."""
        for number, slot in enumerate(slots):
            if self._bound[number] == slot.version:
                continue
            self._bound[number] = slot.version
            places = slot.places(self._layers)
            for fields, place in zip(self._fields[number], places, strict=True):
                for field in fields:
                    field.value = place


def data_offset(ggml: Ggml, tensor: int) -> int | None:
    """Return where in a tensor's description the address of its numbers is; None if unclear."""
    address = ggml.get_data(tensor)
    count = (ggml.tensor_overhead() - _OBJECT_BYTES) // _WORD
    words = (ctypes.c_uint64 * count).from_address(tensor)
    found = [number for number, word in enumerate(words) if word == address]
    return found[0] * _WORD if len(found) == 1 else None


def _field(tensor: int, offset: int) -> ctypes.c_uint64:
    return ctypes.c_uint64.from_address(tensor + offset)
