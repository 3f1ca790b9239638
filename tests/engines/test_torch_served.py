"""A checkpoint served by real nodes: the tokens that transformers itself generates."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from p2pnode.engine.checkpoint import Checkpoint
from p2pnode.engine.checkpoint_tree import hash_checkpoint
from p2pnode.engine.torch.hub import NO_LAYERS, missing_shards
from p2pnode.errors import UserError
from p2pnode.node.checkpoints import fetch_id, fetch_shards
from p2pnode.node.model_cache import find_installed, pull, remove
from p2pnode.node.models import resolve
from p2pnode.testing.processes import local_swarm
from tests.engine.small_checkpoint import write_checkpoint
from tests.engines.needs import require_references
from tests.engines.small_hub import SmallHub

require_references()

import torch  # noqa: E402  after the skip
import transformers  # noqa: E402

from tests.engines.served_checkpoints import save  # noqa: E402

CHAT = [{"role": "user", "content": "the weather in <|im_end|>\n?"}]
TOKENS = 12
pytestmark = pytest.mark.timeout(240)


def generated(model: Any, folder: Path) -> tuple[list[int], list[int]]:
    """Return a prompt's ids and those of the answer, by transformers alone."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    # What a person says never becomes control here, and does there: so it is told apart.
    ids = []
    for text, is_data in (
        ("<|im_start|>user\n", False),
        (CHAT[0]["content"], True),
        ("<|im_end|>\n<|im_start|>assistant\n", False),
    ):
        ids += words(text, add_special_tokens=False, split_special_tokens=is_data).input_ids
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False)
    return ids, out[0, len(ids) :].tolist()


@pytest.mark.parametrize("name", ["llama-grouped", "qwen3"])
def test_two_nodes_answer_as_transformers_does(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    prompt, expected = generated(save(name, folder), folder)
    options = ("--model", str(folder), "--engine", "torch", "--no-mdns", "--device", "cpu")
    with local_swarm() as swarm:
        low = swarm.start("low", "--layers", "0:2", "--threads", "1", *options)
        low.wait_until_up()
        more = ("--threads", "1", "--peer", low.address)
        high = swarm.start("high", "--layers", "2:4", *more, *options)
        high.wait_until_up()
        swarm.wait_until_serving(limit=150)
        with low.client(timeout=60) as client:
            answer = client.call("generate", {"messages": CHAT, "max_tokens": TOKENS})
    assert answer["prompt_ids"] == prompt
    end = expected.index(2) if 2 in expected else len(expected)
    assert answer["token_ids"][:end] == expected[:end]


@pytest.mark.parametrize("engine", ["ggml", "numpy", "jax"])
def test_another_engine_does_not_read_it(engine: str, tmp_path: Path) -> None:
    save("llama-grouped", tmp_path / "model")
    with local_swarm() as swarm:
        node = swarm.start("one", "--model", str(tmp_path / "model"), "--engine", engine)
        with pytest.raises(UserError, match="is a checkpoint of safetensors") as caught:
            node.wait_until_up()
    assert "--engine torch" in str(caught.value)
    assert "Traceback" not in str(caught.value)


NAME = "hf:owner/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    made = SmallHub(tmp_path / "served")
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    yield made
    made.close()


def shards(hub: SmallHub, *layers: int) -> set[str]:
    """Return the shards of some layers, and of the embedding."""
    index = json.loads((hub.folder / "model.safetensors.index.json").read_text())
    starts = ("model.embed_tokens", *(f"model.layers.{one}." for one in layers))
    return {shard for name, shard in index["weight_map"].items() if name.startswith(starts)}


def fetched(hub: SmallHub) -> set[str]:
    return {name for name in hub.asked if name.endswith(".safetensors")}


UP = ("--model", NAME, "--no-mdns", "--device", "cpu", "--threads", "1")


def test_a_node_fetches_the_shards_of_its_layers_alone(hub: SmallHub) -> None:
    save("llama-grouped", hub.folder)
    with local_swarm() as swarm:
        node = swarm.start("low", "--layers", "0:2", *UP)
        node.wait_until_up()
        assert fetched(hub) == shards(hub, 0, 1) < {one.name for one in hub.folder.glob("*.s*")}
        deadline = time.monotonic() + 90
        while node.snapshot().state != "serving" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert node.snapshot().state == "serving", node.snapshot().log


def test_layers_that_are_chosen_later_are_fetched_then(hub: SmallHub) -> None:
    save("llama-grouped", hub.folder)
    with local_swarm() as swarm:
        node = swarm.start("auto", "--max-layers", "2", *UP)
        node.wait_until_up()
        deadline = time.monotonic() + 90
        while node.snapshot().state != "serving" and time.monotonic() < deadline:
            time.sleep(0.1)
        picture = node.snapshot()
        assert picture.state == "serving", (picture.reason, node.last_words())
        assert fetched(hub)
        assert fetched(hub) < {one.name for one in hub.folder.glob("*.safetensors")}
        with node.client(timeout=60) as client, pytest.raises(UserError):
            client.call("generate", {"messages": CHAT, "max_tokens": 2})  # no chain, but a prompt
        assert any("fetches the shards of layers" in line for line in picture.log), picture.log
        assert not any("changed" in line for line in node.snapshot().log)


def up(tmp_path: Path, *options: str) -> "subprocess.Popen[str]":
    state = ("--state", str(tmp_path / "state"), "--port", "0", "--listen", "127.0.0.1")
    command = [sys.executable, "-m", "p2pnode", "up", *UP, *state, *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("layers", ["0:2", "auto"])
def test_ctrl_c_ends_a_fetch_and_the_next_goes_on(
    layers: str, hub: SmallHub, tmp_path: Path
) -> None:
    """Before the node starts, and while it stands in the swarm."""
    save("llama-grouped", hub.folder)
    cut = max(shards(hub, 0, 1))
    hub.cuts[cut], hub.holds = 1000, Event()
    process = up(tmp_path, "--layers", layers)
    try:
        deadline = time.monotonic() + 60
        while cut not in hub.asked and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
        hub.holds.set()
    assert process.returncode == (130 if layers == "0:2" else 0)
    assert "Traceback" not in said
    assert cut in hub.asked
    hub.asked.clear()
    fetch_id(NAME, range(2), lambda _: None, lambda _: None)
    assert cut in hub.asked
    assert layers == "auto" or fetched(hub) < shards(hub, 0, 1)  # the first ones were here


def test_what_was_interrupted_goes_on_where_it_ended(hub: SmallHub, tmp_path: Path) -> None:
    """The library writes parts of 10 MB, and keeps them."""
    hub.folder.mkdir()
    write_checkpoint(hub.folder, vocab_size=500_000)
    heard: list[float] = []

    def interrupt(part: float) -> None:
        heard.append(part)
        if 0.5 < part < 1:  # the first 10 MB are written
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_id(NAME, range(2), interrupt, lambda _: None)
    assert not hub.from_where
    folder = fetch_id(NAME, range(2), heard.append, lambda _: None)
    assert [start > 5_000_000 for start in hub.from_where] == [True]
    assert heard[-1] == 1
    with Checkpoint(folder) as checkpoint:
        hash_checkpoint(checkpoint)  # and it is what the hub says


@pytest.mark.parametrize(
    ("engine", "said"),
    [("ggml", "hf:owner/tiny is a checkpoint of safetensors"), ("torch", "pickles run code")],
)
def test_what_cannot_be_served_is_one_line(
    engine: str, said: str, hub: SmallHub, tmp_path: Path
) -> None:
    hub.folder.mkdir()
    (hub.folder / "pytorch_model.bin").write_bytes(b"\x80")
    process = up(tmp_path, "--engine", engine)
    with process:
        _, words = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said in words
    assert "Traceback" not in words
    assert not hub.asked


def test_one_that_is_fetched_is_listed_and_removed(hub: SmallHub) -> None:
    save("llama-grouped", hub.folder, shard="1GB")
    path = fetch_id(NAME, NO_LAYERS, lambda _: None, lambda _: None)
    assert not fetched(hub)
    fetch_shards(path, range(1), lambda _: None, lambda _: None)
    assert fetched(hub) == {"model.safetensors"}
    asked = len(hub.asked)
    assert fetch_id(NAME, range(4), lambda _: None, lambda _: None) == path
    fetch_shards(path, range(4), lambda _: None, lambda _: None)
    assert len(hub.asked) == asked  # not even a question
    found = find_installed("owner--tiny")
    assert found is not None
    assert (found.path, found.source, found.problem) == (path, NAME, "")
    assert resolve("owner--tiny") == path
    remove("owner--tiny")
    assert not path.exists()


def test_another_commit_brings_its_own_shards(hub: SmallHub) -> None:
    save("llama-grouped", hub.folder)
    path = fetch_id(NAME, range(4), lambda _: None, lambda _: None)
    (path / "p2pnode-source.json").unlink()
    changed = min(shards(hub, 0))
    data = bytearray((hub.folder / changed).read_bytes())
    data[-1] ^= 1
    (hub.folder / changed).write_bytes(data)
    hub.asked.clear()
    fetch_id(NAME, range(4), lambda _: None, lambda _: None)
    assert fetched(hub) == {changed}
    assert (path / changed).read_bytes() == data


def test_a_fetch_that_is_cut_leaves_a_model_that_can_be_removed(hub: SmallHub) -> None:
    save("llama-grouped", hub.folder)

    def interrupt(part: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_id(NAME, range(2), interrupt, lambda _: None)
    found = find_installed("owner--tiny")
    assert found is not None
    remove("owner--tiny")
    assert not found.path.exists()


def test_pulled_by_its_name_it_is_whole_and_stays_a_checkpoint(hub: SmallHub) -> None:
    save("llama-grouped", hub.folder)
    path = fetch_id(NAME, range(1), lambda _: None, lambda _: None)
    assert pull("owner--tiny") == path
    assert fetched(hub) == {one.name for one in path.glob("*.safetensors")}
    assert not missing_shards(path, None)
    with pytest.raises(UserError, match="another model called owner--tiny"):
        pull(NAME, called="owner--tiny")


def test_two_nodes_do_not_fetch_into_one_folder_at_once(hub: SmallHub) -> None:
    save("llama-grouped", hub.folder)
    path, told = fetch_id(NAME, NO_LAYERS, lambda _: None, lambda _: None), list[str]()

    def meanwhile(part: float) -> None:
        if not others:
            more = (path, range(2), lambda _: None, told.append)
            others.append(Thread(target=fetch_shards, args=more))
            others[0].start()
            while not told:
                time.sleep(0.01)

    others: list[Thread] = []
    fetch_shards(path, range(2), meanwhile, lambda _: None)
    others[0].join()
    assert told == ["another process fetches this model: waiting for it to end"]
    assert len(hub.asked) == len(set(hub.asked))


def test_nothing_is_fetched_into_a_folder_of_ones_own(hub: SmallHub, tmp_path: Path) -> None:
    save("llama-grouped", hub.folder)
    path = fetch_id(NAME, range(1), lambda _: None, lambda _: None)
    own = path.rename(tmp_path / "own")
    before = sorted(own.iterdir())
    fetch_shards(own, range(4), lambda _: None, lambda _: None)
    assert sorted(own.iterdir()) == before
