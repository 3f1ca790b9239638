"""An embedder so small that tests make one at once."""

from pathlib import Path

from p2pnode.node.embedder import Embedder
from tests.engine.bert.small_bert import SMALL, small_tensors, write_small_bert
from tests.text.test_word_pieces import definition

MOST = 8


def small_embedder(folder: Path) -> Embedder:
    path = folder / "small.embedder"
    write_small_bert(path, small_tensors(), definition())
    return Embedder.read(path, MOST, SMALL)
