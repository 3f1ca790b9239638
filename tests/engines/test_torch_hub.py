"""Checkpoints by id, from a small hub of our own on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pnode.engine.checkpoint import INDEX, SINGLE, Checkpoint
from p2pnode.engine.checkpoint_tree import hash_checkpoint
from p2pnode.engine.torch.hub import fetch_checkpoint
from p2pnode.errors import ModelChangedError, ModelError, UsageError
from tests.engine.small_checkpoint import write_checkpoint, write_sharded
from tests.engine.test_checkpoint_text_part import write_shards
from tests.engines.needs import require_references
from tests.engines.small_hub import COMMIT, SmallHub

require_references()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    (tmp_path / "served").mkdir()
    made = SmallHub(tmp_path / "served")
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    yield made
    made.close()


def root_of(folder: Path) -> str:
    with Checkpoint(folder) as checkpoint:
        return hash_checkpoint(checkpoint).root


def test_a_stage_fetches_the_shards_of_its_layers(hub: SmallHub, tmp_path: Path) -> None:
    write_sharded(hub.folder)
    folder, heard = tmp_path / "fetched", list[float]()
    fetch_checkpoint("hf:owner/tiny", folder, range(1, 2), progress=heard.append)
    assert sorted(hub.asked) == ["a.safetensors", "b.safetensors", "config.json", INDEX]
    assert heard[-1] == 1
    hub.asked.clear()
    other = tmp_path / "other"  # b has layer 0 and the ends, a has layer 1
    fetch_checkpoint("hf:owner/tiny@main", other, range(1))
    assert sorted(hub.asked) == ["b.safetensors", "config.json", INDEX]
    assert root_of(other) == root_of(folder) == root_of(hub.folder)
    hub.asked.clear()
    fetch_checkpoint("hf:owner/tiny", other)
    assert hub.asked == ["a.safetensors"]  # the rest is there


def test_no_shard_of_pictures_is_fetched_for_a_stage(hub: SmallHub, tmp_path: Path) -> None:
    write_shards(hub.folder)
    folder = tmp_path / "fetched"
    fetch_checkpoint("hf:owner/tiny", folder, range(1, 7))
    weights = {name for name in hub.asked if name.endswith(".safetensors")}
    assert weights == {"ends.safetensors", *(f"layer-{n}.safetensors" for n in range(1, 7))}
    assert root_of(folder) == root_of(hub.folder)


def test_what_comes_later_is_of_the_same_commit(hub: SmallHub, tmp_path: Path) -> None:
    write_sharded(hub.folder)
    fetch_checkpoint("hf:owner/tiny@branch", tmp_path / "fetched", range(1))
    fetch_checkpoint("hf:owner/tiny@branch", tmp_path / "fetched", range(2))
    assert hub.revisions == ["branch", COMMIT]


def test_a_checkpoint_in_one_file_is_fetched_whole(hub: SmallHub, tmp_path: Path) -> None:
    write_checkpoint(hub.folder)
    fetch_checkpoint("hf:owner/tiny", tmp_path / "fetched", range(1))
    assert sorted(hub.asked) == ["config.json", SINGLE]
    assert root_of(tmp_path / "fetched") == root_of(hub.folder)


def test_other_bytes_than_the_hub_says_are_refused(hub: SmallHub, tmp_path: Path) -> None:
    write_checkpoint(hub.folder)
    data = bytearray((hub.folder / SINGLE).read_bytes())
    data[-1] ^= 1
    hub.lies[SINGLE] = bytes(data)
    fetch_checkpoint("hf:owner/tiny", tmp_path / "fetched")
    with pytest.raises(ModelChangedError, match="is not what the hub says"):
        root_of(tmp_path / "fetched")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "x.pt"])
def test_pickles_are_not_even_fetched(hub: SmallHub, name: str, tmp_path: Path) -> None:
    (hub.folder / name).write_bytes(b"\x80")
    with pytest.raises(ModelError, match="pickles run code"):
        fetch_checkpoint("hf:owner/tiny", tmp_path / "fetched")
    assert not hub.asked


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, "RepoNotFound", "the hub has no owner/tiny"),
        (404, "RepoNotFound", "the hub has no owner/tiny"),
        (403, "GatedRepo", "accepted its licence"),
        (404, "RevisionNotFound", "has no such revision"),
        (418, "", "cannot be fetched now"),
    ],
)
def test_a_refusal_is_explained(
    hub: SmallHub, status: int, error: str, said: str, tmp_path: Path
) -> None:
    hub.status, hub.error = status, error
    with pytest.raises(ModelError, match=said) as caught:
        fetch_checkpoint("hf:owner/tiny", tmp_path / "fetched")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["owner/tiny", "hf:tiny", "hf:../x", "hf:a/b/c", "hf:a/..", "hf:a/b@"]
)
def test_what_is_no_id_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no id of a model"):
        fetch_checkpoint(name, tmp_path)
