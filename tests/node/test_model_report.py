"""What faces in other processes are told of a model."""

from pathlib import Path

from p2pnode.node.model_file import ModelFile
from p2pnode.node.model_report import model_report
from p2pnode.testing.tiny_gguf import write_tiny_gguf


def test_its_size_is_that_of_its_file_as_other_faces_say(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    assert model_report(ModelFile.open(path, tmp_path / "hashes"))["bytes"] == path.stat().st_size
