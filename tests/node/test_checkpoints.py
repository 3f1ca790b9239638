"""A checkpoint of safetensors is a model like any other: opened, watched, listed, described."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pnode.engine.registry import EngineOptions, check_engine, engine_for
from p2pnode.engine.stored_checkpoint import StoredCheckpoint
from p2pnode.engine.stored_model import open_stored
from p2pnode.errors import EngineError, ModelChangedError, ModelError, UserError
from p2pnode.installing import install_extra
from p2pnode.interfaces.cli.node_options import UpOptions
from p2pnode.interfaces.cli.settings import settings_of
from p2pnode.node import model_cache, models
from p2pnode.node.machine_memory import Memory, capacity_of
from p2pnode.node.model_facts import facts_of
from p2pnode.node.model_file import ModelFile
from p2pnode.node.stamp import Stamp
from p2pnode.node.text_worker import TextWorker
from tests.engine.published_configs import PUBLISHED, small
from tests.engine.small_checkpoint import write_checkpoint, write_published, write_sharded
from tests.text.test_checkpoint_vocabulary import BYTES
from tests.text.tokenizer_files import library_of

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    write_checkpoint(folder, vocab_size=300)
    write_words(folder)
    return folder


def write_words(folder: Path, **changed: Any) -> None:
    (folder / "tokenizer.json").write_text(library_of(BYTES).to_str())
    config = {"bos_token": None, "eos_token": "<|endoftext|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | changed))
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 5000]}')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "mine")


def test_it_is_opened_and_remembered(folder: Path, tmp_path: Path) -> None:
    heard: list[float] = []
    first = ModelFile.open(folder, tmp_path / "hashes", heard.append)
    assert heard[-1] == 1
    heard.clear()
    assert ModelFile.open(folder, tmp_path / "hashes", heard.append) == first
    assert not heard
    assert (first.info.name, first.info.n_layers, first.info.vocab_size) == ("mine", 2, 300)
    assert first.info.eos_ids == (1, 2, 99)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_another_model_in_its_place_is_noticed(file: str, folder: Path, tmp_path: Path) -> None:
    known = ModelFile.open(folder, tmp_path / "hashes")
    data = (folder / file).read_bytes()
    changed = data.replace(b'"rms_norm_eps": 1e-05', b'"rms_norm_eps": 2e-05')
    (folder / file).write_bytes(data[:-1] + b"\1" if changed == data else changed)
    stamp = Stamp.of(folder)
    assert stamp != known.stamp
    with pytest.raises(ModelChangedError, match="holds another model"):
        known.read_again(stamp)
    (folder / file).write_bytes(data)
    assert known.read_again(Stamp.of(folder)).tree == known.tree


def test_other_words_are_noticed(folder: Path, tmp_path: Path) -> None:
    known = ModelFile.open(folder, tmp_path / "hashes")
    (folder / "chat_template.jinja").write_text("{{ 'other' }}")
    with pytest.raises(ModelChangedError, match="chat template"):
        known.read_again(Stamp.of(folder))


def test_prompts_are_made_of_its_words(folder: Path) -> None:
    async def ask() -> tuple[tuple[int, ...], frozenset[int]]:
        worker = TextWorker(folder, "mine", 64)
        try:
            messages = [{"role": "user", "content": "th<|im_start|>"}]
            made = await worker.prompt({"messages": messages, "max_tokens": 4})
            return made.ids, made.stop_ids
        finally:
            await worker.close()

    ids, stops = trio.run(ask)
    assert ids[:2] == (1, 258)
    assert 1 not in ids[1:]
    assert stops >= {0, 1, 2}


@pytest.mark.parametrize("engine", ["ggml", "numpy", "jax"])
def test_one_engine_computes_it(engine: str, folder: Path) -> None:
    assert engine_for(folder) == engine_for(folder, EngineOptions("torch")) == "torch"
    for ask in (check_engine, engine_for):
        with pytest.raises(ModelError, match=f"safetensors, which the {engine} engine") as caught:
            ask(folder, EngineOptions(engine))
        assert "--engine torch" in caught.value.hint


def test_its_facts_are_known_without_loading_it(folder: Path) -> None:
    facts = facts_of(folder)
    assert (facts.architecture, facts.layers, facts.tokens) == ("llama", 2, 300)
    assert (facts.vocabulary, facts.pre_tokenizer, facts.has_template) == ("gpt2", "smollm", True)
    assert set(facts.quantisation) == {"F32"}
    assert facts.weights == 4 * facts.numbers
    assert not facts.problem
    there = Memory(free=1 << 40, total=1 << 40)
    assert capacity_of(folder, EngineOptions("torch", "cpu"), 0, memory=there).layers == 2


def test_the_text_part_of_a_model_with_pictures_is_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "seeing"
    folder.mkdir()
    config = small(PUBLISHED["gemma-3-4b-it"])
    config["text_config"] |= {"vocab_size": 300}
    write_published(folder, config)
    write_words(folder)
    facts = facts_of(folder)
    assert (facts.architecture, facts.layers, facts.tokens) == ("gemma3_text", 7, 300)
    assert not facts.problem
    with open_stored(folder) as model:
        assert isinstance(model, StoredCheckpoint)
        stored = sum(tensor.size for _, tensor in model.checkpoint.tensors.values())
    assert facts.weights == stored == 2 * facts.numbers  # none of the pictures'
    opened = ModelFile.open(folder, tmp_path / "hashes")
    assert (opened.info.arch, opened.info.n_layers, opened.info.eos_ids[:2]) == (
        "gemma3",
        7,
        (1, 106),
    )
    assert opened.read_again(Stamp.of(folder)).tree == opened.tree


def test_shards_that_are_not_here_are_reckoned(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    whole = facts_of(tmp_path)
    (tmp_path / "a.safetensors").unlink()
    assert facts_of(tmp_path).layer_bytes == whole.layer_bytes
    assert "tokenizer.json" in facts_of(tmp_path).problem


def test_a_folder_is_linked_under_a_name(folder: Path) -> None:
    with pytest.raises(UserError, match="--copy is for a file"):
        model_cache.pull(str(folder), copy=True)
    assert model_cache.pull(str(folder)) == folder
    assert models.resolve("mine") == folder
    found = model_cache.find_installed("mine")
    assert found is not None
    assert (found.linked, found.problem, found.path) == (True, "", folder)
    assert found.size == sum(path.stat().st_size for path in models.files_of(folder))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="changed since it was linked"):
        models.resolve("mine")
    model_cache.remove("mine")
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "no usable JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is no object"),
        (lambda folder: (folder / "generation_config.json").write_text("{"), "no usable JSON"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{% for"), "chat template"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "pickles run code",
        ),
    ],
)
def test_what_is_broken_is_one_line(write: Any, what: str, folder: Path, tmp_path: Path) -> None:
    write(folder)
    with pytest.raises(ModelError, match=what) as caught:
        ModelFile.open(folder, tmp_path / "hashes")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=what):
        model_cache.pull(str(folder))


def test_a_folder_without_a_model_says_what_is_meant(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a directory") as caught:
        models.resolve(str(tmp_path))
    assert "config.json" in caught.value.hint


def test_the_seam_reads_either(folder: Path) -> None:
    with open_stored(folder) as model:
        assert {path.name for path in model.paths} >= {"config.json", "model.safetensors"}
        assert model.config().n_layers == 2


def test_a_checkpoint_of_a_hub_is_refused_before_it_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = UpOptions(
        state=tmp_path, model=("hf:owner/repo",), layers="auto", max_layers=None, listen="::",
        port=0, peer=(), name="one", kv_memory=16, mdns=False,
    )  # fmt: skip
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="hf:owner/repo is a checkpoint of safetensors"):
        settings_of(replace(given, engine="numpy"))
    monkeypatch.setattr("p2pnode.engine.registry.find_spec", lambda _: None)
    with pytest.raises(EngineError, match="torch is not installed") as caught:
        settings_of(given)
    assert install_extra("torch") in caught.value.hint
    assert not [*tmp_path.glob("cache/models/*")]
