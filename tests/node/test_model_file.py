"""A model's file is what was hashed, or it is said what became of it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from p2pnode.engine import hash_tree as hashing, stored_model
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.errors import ModelChangedError, ModelError
from p2pnode.node.core import NodeCore
from p2pnode.node.model_file import MOST_REMEMBERED, ModelFile, hash_tree
from p2pnode.node.model_watch import ModelWatch
from p2pnode.testing.swarm import Swarm
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from tests.node.bundles import only

T = TypeVar("T")


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

    monkeypatch.setattr(stored_model, "hash_file", counted)
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

    monkeypatch.setattr(stored_model, "hash_file", slow)
    with pytest.raises(ModelError, match="changes while it is read"):
        ModelFile.open(tiny, tmp_path / "hashes")


RESTORED = "the model file is again the one that was hashed"


class Watched:
    """A watch on a file, and the node that it tells."""

    def __init__(self, path: Path, notes: Path) -> None:
        self.swarm = Swarm(1)
        self.node = self.swarm.add("b", range(6))
        assert self.swarm.network.run_until(self.swarm.is_ready, 60)
        self.told: list[ModelFile] = []
        file = ModelFile.open(path, notes)
        info = replace(file.info, space_hash32=only(self.node).space)
        self.watch = ModelWatch(replace(file, info=info), self._call, self.told.append)

    def _call(self, command: Callable[[NodeCore, float], T]) -> T:
        found: list[T] = []
        self.swarm.call("b", lambda core, now: found.append(command(core, now)))
        return found[0]

    def look(self) -> list[str]:
        """Look until a new stamp is an old one; return what the node says of it."""
        self.node.log.clear()
        trio.run(self.watch.look)
        trio.run(self.watch.look)
        return [line for line in self.node.log if "file" in line]


def test_a_file_is_watched(tiny: Path, tmp_path: Path, hashed: list[str]) -> None:
    whole = tiny.read_bytes()
    watched = Watched(tiny, tmp_path / "hashes")
    assert watched.look() == []
    assert len(hashed) == 1

    os.utime(tiny, ns=(1, 1))  # touched, and the same
    assert watched.look() == []
    assert watched.look() == []
    assert len(hashed) == 2
    assert watched.told == [watched.watch.file]

    copy = tmp_path / "copy"
    copy.write_bytes(whole)
    copy.replace(tiny)  # fetched anew, and the same
    assert watched.look() == []

    write_tiny_gguf(tiny, seed=1)
    (told,) = watched.look()
    assert "the file changed: tiny.gguf holds another model" in told
    assert "restart the node" in told
    assert watched.look() == []  # said once

    tiny.write_bytes(whole)
    assert watched.look() == [RESTORED]

    tiny.write_bytes(whole[:-500])
    (told,) = watched.look()
    assert "truncated" in told
    tiny.write_bytes(whole)
    assert watched.look() == [RESTORED]

    tiny.unlink()
    (told,) = watched.look()
    assert "there is no file" in told
    tiny.mkdir()
    assert watched.look() == []
    tiny.rmdir()
    tiny.write_bytes(whole)
    assert watched.look() == [RESTORED]


def test_a_file_that_is_being_written_is_not_read_in_vain(
    tiny: Path, tmp_path: Path, hashed: list[str]
) -> None:
    watched = Watched(tiny, tmp_path / "hashes")
    with tiny.open("ab") as writer:
        for _ in range(5):
            writer.write(b"more")
            writer.flush()
            trio.run(watched.watch.look)
    assert len(hashed) == 1
    trio.run(watched.watch.look)
    assert len(hashed) == 2


def test_another_template_is_another_file(tiny: Path, tmp_path: Path) -> None:
    """It is no part of the root, and a process that makes prompts would read it anew."""
    watched = Watched(tiny, tmp_path / "hashes")
    before = watched.watch.file
    write_tiny_gguf(tiny, template="{{ messages[0].content }} and more")
    (told,) = watched.look()
    assert "another vocabulary or chat template" in told
    assert watched.watch.file == before


def test_a_tensor_that_rotted_under_an_old_stamp_is_looked_for_once(
    tiny: Path, tmp_path: Path, hashed: list[str]
) -> None:
    watched = Watched(tiny, tmp_path / "hashes")

    def load_in_vain() -> None:
        space = only(watched.node).space
        watched.swarm.call("b", lambda core, now: core.model_changed(space, "a tensor is not", now))

    load_in_vain()
    assert watched.look() == [RESTORED]  # it was read, and is right
    assert watched.swarm.network.run_until(watched.swarm.is_ready, 60)
    load_in_vain()
    assert watched.look() == []
    assert watched.look() == []  # it was read already
    assert only(watched.node).is_lost
    assert len(hashed) == 2
    os.utime(tiny, ns=(1, 1))
    assert watched.look() == [RESTORED]


def test_every_part_of_a_split_model_is_watched(tmp_path: Path, hashed: list[str]) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf", split=20)
    first, last = sorted(tmp_path.glob("tiny-*.gguf"))
    watched = Watched(first, tmp_path / "hashes")
    again, info = ModelFile.open(last, tmp_path / "hashes").info, watched.watch.file.info
    assert replace(again, space_hash32=info.space_hash32) == info
    assert len(hashed) == 1  # remembered, whichever part it is opened by
    assert watched.look() == []
    whole = last.read_bytes()

    last.write_bytes(whole[:-500])
    (told,) = watched.look()
    assert f"{last.name} is truncated" in told
    last.write_bytes(whole)
    assert watched.look() == [RESTORED]

    last.unlink()
    (told,) = watched.look()
    assert "part 2 of 2 of tiny is missing" in told
    last.write_bytes(whole)
    assert watched.look() == [RESTORED]

    with GgufFile(last) as file:
        at = min(one.offset for one in file.tensors.values() if one.part == 1)
    last.write_bytes(whole[:at] + bytes(4) + whole[at + 4 :])
    (told,) = watched.look()
    assert "another model" in told
