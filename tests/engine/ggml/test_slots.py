"""On a GPU a session's cache takes whole blocks, and the budget counts them."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode.engine.base import EXACT, KvSizes
from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.load import load_ggml
from p2pnode.engine.ggml.probe import Candidate
from p2pnode.engine.ggml.slot import CELLS, GgmlSlot
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.errors import CapacityError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

RUN = range(2)


def test_what_a_gpu_holds_is_what_is_counted(library: Candidate, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, n_layers=2, context_length=1024)
    with GgufFile(path) as file:
        tree = hash_file(file)
    engine = load_ggml(library, path, RUN, tree, kv_budget_bytes=1 << 24)
    assert engine.kv_sizes == EXACT  # a CPU takes memory as it is written to
    position = len(RUN) * engine.kv_bytes_per_token_layer
    shares = [replace(share, backend=copy.copy(share.backend)) for share in engine._shares]
    for share in shares:
        share.backend.is_cpu = False
    gpu = GgmlEngine(
        engine.info, engine._config, shares, embedding=None, head=None,
        kv_budget_bytes=3 * CELLS * position, numerics="x", threads=1,
        damage=(), close=lambda: None,
    )  # fmt: skip
    assert gpu.kv_sizes == KvSizes(CELLS)
    for key, positions, cells in ((b"s", 10, 256), (b"t", 257, 512)):
        gpu.reserve(key, RUN, positions)
        slot = gpu._slots.slot(key, RUN, 1)
        assert isinstance(slot, GgmlSlot)
        assert slot.cells == cells == gpu.kv_sizes.rounded(positions)
    assert gpu.kv_bytes() == 3 * CELLS * position
    with pytest.raises(CapacityError, match="no memory"):
        gpu.reserve(b"u", RUN, 1)
    gpu.shut()
    engine.shut()
