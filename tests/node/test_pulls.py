"""Pulling a model into the cache from a hub on loopback: named, noted, gone on with."""

import fcntl
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from p2pnode.errors import UserError
from p2pnode.node import catalogue, model_cache, models, pulling
from p2pnode.node.catalogue import HubFile, KnownModel
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from tests.node.local_hub import FILE, REPO, Hub, content, cutting, on, parts, pull, sha, tiny


def test_a_model_is_pulled_checked_and_used_by_its_name(hub: Hub, tmp_path: Path) -> None:
    heard: list[float] = []
    path = model_cache.pull(f"hf:{REPO}:{FILE}", heard.append)
    assert path == tmp_path / "cache/models/tiny-Q4_K_M.gguf"
    assert path.read_bytes() == content(hub)
    assert path.stat().st_mode & 0o777 == 0o444
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert parts(tmp_path) == []
    (one,) = model_cache.installed()
    assert (one.name, one.size, one.problem) == ("tiny-Q4_K_M", len(content(hub)), "")
    assert (one.hash_from, one.source) == ("hub", f"hf:{REPO}:{FILE}")
    for name in ("tiny-Q4_K_M", "TINY-q4_k_m"):
        assert models.resolve(name) == path
    asked = len(hub.asked)
    assert pull(f"hf:{REPO}:{FILE}") == pull("tiny-Q4_K_M") == path  # a second time does nothing
    assert len(hub.asked) == asked


def test_a_split_model_comes_with_all_its_parts(hub: Hub, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "big.gguf", n_layers=2, split=9)
    names = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.repos[REPO] = {f"Q4/{name}": (tmp_path / name).read_bytes() for name in names}
    hub.behaviours = [
        on("resolve", lambda one: one.send(200, one.hub.repos[REPO][f"Q4/{names[0]}"]))
    ]
    path = pull(f"hf:{REPO}:Q4/{names[1]}")
    assert path.name == "big-00001-of-00003.gguf"
    (one,) = model_cache.installed()
    assert [found.name for found in one.paths] == names
    assert one.size == sum((tmp_path / name).stat().st_size for name in names)
    whole = tmp_path / "whole.gguf"
    write_tiny_gguf(whole, n_layers=2)
    assert models.describe_model(path) == models.describe_model(whole)
    del hub.repos[REPO][f"Q4/{names[2]}"]
    with pytest.raises(UserError, match="lacks 1 of the 3 parts of big"):
        pull(f"hf:{REPO}:Q4/{names[1]}", called="again")


def test_an_interrupted_pull_goes_on_where_it_stopped(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = content(hub)
    hub.behaviours = [on("cdn", cutting(whole, 7000))]

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pulling, "Pull", partial(pulling.Pull, sleep=interrupted))
        with pytest.raises(KeyboardInterrupt):
            pull()
    assert parts(tmp_path) == ["Tiny.gguf", "Tiny.gguf.json"]
    assert model_cache.installed() == []
    left = model_cache.find_unfinished("TINY")
    assert left is not None
    assert (left.name, left.size) == ("Tiny", 7000)
    assert pull().read_bytes() == whole
    assert hub.asked_for("cdn")[-1]["Range"] == "bytes=7000-"
    assert parts(tmp_path) == []


def test_what_an_interrupted_pull_left_can_be_removed(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "cache/models"
    (folder / ".parts").mkdir(parents=True)
    (folder / ".parts" / "Tiny.gguf").write_bytes(b"GGUF")
    left = model_cache.find_unfinished("tiny")
    assert left is not None
    with (folder / ".tiny.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as a pull that runs
        with pytest.raises(UserError, match="another process fetches Tiny"):
            model_cache.remove_unfinished(left)
    model_cache.remove_unfinished(left)
    assert parts(tmp_path) == []


def test_a_known_model_of_a_hub_is_pulled_by_its_names(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownModel(
        name="tiny-2l",
        source=HubFile(REPO, FILE),
        file=FILE,
        size=100_000,
        licence="MIT",
        layers=2,
        kv_width=32,
        context=256,
        aliases=("tiny",),
    )
    monkeypatch.setitem(catalogue.KNOWN_MODELS, known.name, known)
    assert model_cache.is_missing("Tiny")
    path = pull("TINY")
    assert models.resolve("tiny:2l") == models.resolve("tiny") == path
    assert [one.name for one in model_cache.installed()] == ["tiny-2l"]
    assert not model_cache.is_missing("tiny")
    path.chmod(0o644)
    os.truncate(path, 1000)
    with pytest.raises(UserError, match="broken") as caught:
        models.resolve("tiny")
    assert "p2pnode models pull tiny-2l" in caught.value.hint
    assert pull("tiny").read_bytes() == content(hub)


def test_two_models_do_not_share_a_name(hub: Hub, tmp_path: Path) -> None:
    hub.repos["other/Tiny-GGUF"] = {FILE: tiny(tmp_path, 1)}
    pull()
    with pytest.raises(UserError, match="another model called Tiny already") as caught:
        pull("hf:other/Tiny-GGUF")
    assert "--name" in caught.value.hint
    path = pull("hf:other/Tiny-GGUF", called="second")
    assert path.name == "second.gguf"
    assert {one.name for one in model_cache.installed()} == {"Tiny", "second"}
    with pytest.raises(UserError, match="is the name of a known model"):
        pull("hf:other/Tiny-GGUF", called="qwen3")
    with pytest.raises(UserError, match="qwen3-4b keeps its name"):
        pull("qwen3", called="mine")
    with pytest.raises(UserError, match="--copy is for a file of this machine"):
        pull("hf:other/Tiny-GGUF", copy=True)


def test_an_address_is_fetched_with_the_hash_that_is_given(hub: Hub, slept: list[float]) -> None:
    url = f"{hub.url}/cdn/{sha(content(hub))}"
    path = pull(f"{url}#sha256={sha(content(hub)).upper()}", called="mine")
    assert path.read_bytes() == content(hub)
    assert model_cache.installed()[0].hash_from == "given"
    with pytest.raises(UserError, match="as you said"):
        pull(f"{url}#sha256={'0' * 64}", called="wrong")


def test_an_address_of_the_hub_is_a_file_of_the_hub(hub: Hub) -> None:
    pull(f"{hub.url}/{REPO}/resolve/main/{FILE}")
    assert model_cache.installed()[0].hash_from == "server"


def test_a_model_that_is_broken_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO][FILE] = content(hub)[:5000]
    with pytest.raises(UserError, match="truncated"):
        pull()
    assert parts(tmp_path) == []
    assert model_cache.installed() == []


def test_room_is_looked_for_before_anything_comes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"no space left in .*needs .* KB, 1 KB are free"):
        pull()
    assert hub.asked_for("resolve") == []
