"""A model's file is what was hashed, or it is said what became of it."""

import os
from pathlib import Path

import pytest

from p2pnode.engine import hash_tree as hashing
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.errors import ModelChangedError, ModelError
from p2pnode.node import model_file
from p2pnode.node.core import NodeCore
from p2pnode.node.model_file import MOST_REMEMBERED, ModelFile, hash_tree
from p2pnode.node.model_watch import ModelWatch
from p2pnode.testing.tiny_gguf import write_tiny_gguf


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read whole, in order."""
    read: list[str] = []

    def counted(file: GgufFile, progress: object = None, *, threads: int = 1) -> hashing.HashTree:
        read.append(file.path.name)
        return hashing.hash_file(file)

    monkeypatch.setattr(model_file, "hash_file", counted)
    return read


@pytest.mark.parametrize("key", ["merges", "token_type", "pre", "tokens", "model"])
def test_what_a_prompt_needs_is_looked_for_at_once(key: str, tmp_path: Path) -> None:
    path = tmp_path / "mute.gguf"
    write_tiny_gguf(path, edit=lambda writer: writer.kv_data[0].pop(f"tokenizer.ggml.{key}"))
    with pytest.raises(ModelError, match=r"mute\.gguf") as caught:
        ModelFile.open(path, tmp_path / "hashes")
    assert caught.value.hint


def test_a_tree_is_remembered_until_the_file_changes(
    tiny: Path, tmp_path: Path, hashed: list[str]
) -> None:
    notes = tmp_path / "hashes"
    first = ModelFile.open(tiny, notes)
    assert ModelFile.open(tiny, notes) == first
    assert hashed == ["tiny.gguf"]
    write_tiny_gguf(tiny, seed=1)
    assert ModelFile.open(tiny, notes).info.data_sig != first.info.data_sig
    assert len(hashed) == 2


@pytest.mark.parametrize(
    "note", ["", "not json", "[]", "{}", '{"stamp": 3}', "[" * 100_000, '{"stamp": null}']
)
def test_a_broken_note_costs_a_hash_and_no_more(
    note: str, tiny: Path, tmp_path: Path, hashed: list[str]
) -> None:
    notes = tmp_path / "hashes"
    tree = hash_tree(tiny, notes)
    (written,) = notes.iterdir()
    written.write_text(note)
    assert hash_tree(tiny, notes) == tree
    assert len(hashed) == 2


def test_a_note_that_lies_is_found_when_a_tensor_is_read(tiny: Path, tmp_path: Path) -> None:
    from p2pnode.engine.registry import load_engine

    notes = tmp_path / "hashes"
    hash_tree(tiny, notes)
    (written,) = notes.iterdir()
    body = written.read_text()
    at = body.index('"blk.0.attn_q.weight": "') + len('"blk.0.attn_q.weight": "')
    written.write_text(body[:at] + "00" * 32 + body[at + 64 :])
    tree = hash_tree(tiny, notes)
    with pytest.raises(ModelChangedError, match=r"blk\.0\.attn_q"):
        load_engine(tiny, range(1), tree=tree)


def test_a_place_that_cannot_be_written_only_costs_time(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "hashes").write_text("a file where the folder should be")
    assert ModelFile.open(tiny, tmp_path / "hashes").info.n_layers == 4


def test_notes_are_bounded(tiny: Path, tmp_path: Path) -> None:
    notes = tmp_path / "hashes"
    notes.mkdir()
    for number in range(MOST_REMEMBERED + 20):
        (notes / f"{number}.json").touch()
    hash_tree(tiny, notes)
    assert len([*notes.iterdir()]) == MOST_REMEMBERED


def test_a_file_that_changes_while_it_is_hashed_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(file: GgufFile, progress: object = None, *, threads: int = 1) -> hashing.HashTree:
        tree = hashing.hash_file(file)
        with tiny.open("ab") as writer:
            writer.write(b"more")
        return tree

    monkeypatch.setattr(model_file, "hash_file", slow)
    with pytest.raises(ModelError, match="changes while it is read"):
        ModelFile.open(tiny, tmp_path / "hashes")


class Watched:
    """A watch on a file, and what it told the core."""

    def __init__(self, path: Path, notes: Path) -> None:
        self.path = path
        self.told: list[str] = []
        self.watch = ModelWatch(ModelFile.open(path, notes), self._call)

    def _call(self, command: object) -> None:
        watched = self

        class Core:
            def model_changed(self, reason: str, now: float) -> None:
                watched.told.append(reason)

            def model_restored(self, now: float) -> None:
                watched.told.append("restored")

        assert callable(command)
        command(Core(), 0.0)

    def look(self) -> list[str]:
        """Look until a new stamp is an old one."""
        self.told.clear()
        self.watch.look()
        self.watch.look()
        return list(self.told)


def test_a_file_is_watched(tiny: Path, tmp_path: Path, hashed: list[str]) -> None:
    whole = tiny.read_bytes()
    watched = Watched(tiny, tmp_path / "hashes")
    assert watched.look() == []
    assert len(hashed) == 1

    os.utime(tiny, ns=(1, 1))  # touched, and the same
    assert watched.look() == watched.look() == []
    assert len(hashed) == 2

    copy = tmp_path / "copy"
    copy.write_bytes(whole)
    copy.replace(tiny)  # fetched anew, and the same
    assert watched.look() == []

    write_tiny_gguf(tiny, seed=1)
    (told,) = watched.look()
    assert told.startswith("the file changed: tiny.gguf holds another model")
    assert "restart the node" in told
    assert watched.look() == []  # said once

    tiny.write_bytes(whole)
    assert watched.look() == ["restored"]

    tiny.write_bytes(whole[:-500])
    (told,) = watched.look()
    assert "truncated" in told
    tiny.write_bytes(whole)
    assert watched.look() == ["restored"]

    tiny.unlink()
    (told,) = watched.look()
    assert "there is no file" in told
    tiny.mkdir()
    assert watched.look() == []
    tiny.rmdir()
    tiny.write_bytes(whole)
    assert watched.look() == ["restored"]


def test_a_file_that_is_being_written_is_not_read_in_vain(
    tiny: Path, tmp_path: Path, hashed: list[str]
) -> None:
    watched = Watched(tiny, tmp_path / "hashes")
    with tiny.open("ab") as writer:
        for _ in range(5):
            writer.write(b"more")
            writer.flush()
            watched.watch.look()
    assert len(hashed) == 1
    watched.watch.look()
    assert len(hashed) == 2


def test_the_commands_are_the_core_s() -> None:
    assert callable(NodeCore.model_changed)
    assert callable(NodeCore.model_restored)
