"""Files of one's own in the cache, what is noted of models, and taking them away."""

import io
import json
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import pytest
from hypothesis import example, given, strategies as st

from p2pnode.engine.other_formats import foreign
from p2pnode.engine.registry import EngineOptions
from p2pnode.errors import ModelError, UserError
from p2pnode.node import model_cache, models
from p2pnode.node.entries import FOLDER, HASHES_FROM, Entry, read_entries, write_entry
from p2pnode.node.machine_memory import capacity_of
from p2pnode.node.model_facts import facts_of
from p2pnode.node.model_list import listed
from p2pnode.node.model_use import held, is_in_use
from p2pnode.testing.tiny_gguf import write_tiny_gguf


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of the person's own."""
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "own" / "mine.gguf"
    path.parent.mkdir()
    write_tiny_gguf(path)
    return path


def test_a_file_of_ones_own_is_linked_and_never_touched(own: Path) -> None:
    before = own.stat()
    assert model_cache.pull(str(own)) == own
    assert models.resolve("mine") == models.resolve("MINE") == own
    (one,) = model_cache.installed()
    assert (one.name, one.path, one.linked, one.problem) == ("mine", own, True, "")
    assert model_cache.pull(str(own)) == model_cache.pull("mine") == own  # again, and nothing new
    assert model_cache.remove("mine").linked
    assert own.stat() == before
    assert model_cache.installed() == []


def test_a_copy_is_the_caches_own(own: Path, tmp_path: Path) -> None:
    heard: list[float] = []
    path = model_cache.pull(str(own), heard.append, called="second", copy=True)
    assert path == tmp_path / "cache/models/second.gguf"
    assert path.read_bytes() == own.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o444
    assert heard[-1] == 1.0
    own.unlink()
    assert models.resolve("second") == path
    model_cache.remove("second")
    assert not path.exists()


def test_a_split_model_is_linked_and_copied_whole(own: Path, tmp_path: Path) -> None:
    write_tiny_gguf(own.parent / "big.gguf", split=20)
    first, last = sorted(own.parent.glob("big-*"))
    assert model_cache.pull(str(last)) == first
    assert [path.name for path in model_cache.installed()[0].paths] == [first.name, last.name]
    path = model_cache.pull(str(first), called="copy", copy=True)
    assert path.name == "copy-00001-of-00002.gguf"
    assert models.describe_model(path) == models.describe_model(first)
    last.unlink()
    with pytest.raises(ModelError, match="not there"):
        models.resolve("big")
    model_cache.remove("copy")
    assert [*(tmp_path / "cache/models").glob("*.gguf")] == []


def test_a_linked_file_that_changed_or_went_is_told(own: Path) -> None:
    model_cache.pull(str(own))
    with own.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError, match="changed since it was linked"):
        models.resolve("mine")
    own.unlink()
    assert "is not there; p2pnode models rm mine" in model_cache.installed()[0].problem


def test_what_cannot_be_run_is_not_linked(own: Path, tmp_path: Path) -> None:
    write_tiny_gguf(own.parent / "other.gguf", arch="mamba")
    with pytest.raises(ModelError, match="'mamba'"):
        model_cache.pull(str(own.parent / "other.gguf"))
    for name, begin in (
        ("model.bin", b"\x80\x02}q"),
        ("model.pt", b"PK\x03\x04"),
        ("disguised.gguf", b"PK\x03\x04checkpoint"),
        ("pickled.gguf", b"\x80\x04\x95"),
        ("archive.gguf", zipped("archive/data.pkl")),
        *((f"dict{p}.ckpt", pickle.dumps({"w": [1.0, 2.0]}, p)) for p in (0, 1, 2, 5)),
        *((f"list{p}.gguf", pickle.dumps(["w"], p)) for p in (0, 1)),
        *((f"ordered{p}.bin", pickle.dumps(OrderedDict(w=1), p)) for p in (0, 1)),
    ):
        (tmp_path / name).write_bytes(begin + bytes(100))
        for ask in (model_cache.pull, lambda path: facts_of(Path(path)), describe):
            with pytest.raises(ModelError, match="checkpoint of pickled Python") as caught:
                ask(str(tmp_path / name))
            assert name in str(caught.value)
            assert "GGUF" in caught.value.hint
    (tmp_path / "weights.gguf").write_bytes(struct.pack("<Q", 99) + b'{"x":' + bytes(100))
    with pytest.raises(ModelError, match="safetensors"):
        model_cache.pull(str(tmp_path / "weights.gguf"))
    for missing in ("none.gguf", "."):
        with pytest.raises(ModelError):
            model_cache.pull(str(tmp_path / missing))
    assert model_cache.installed() == []


def zipped(name: str) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr(name, pickle.dumps({}, 2))
    return body.getvalue()


def describe(path: str) -> object:
    """Do what ``up`` does with a path."""
    return models.describe_model(models.resolve(path))


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.gguf", "model"])
@pytest.mark.parametrize(
    ("begin", "told"),
    [
        (b"tjgg\1\0\0\0", "before GGUF"),
        (b"(hello) world", "is not a GGUF file"),
        (b"c\0\0\0\0\0\0\0{\n\n}", "safetensors"),
    ],
)
def test_what_a_file_here_is_its_content_tells(
    name: str, begin: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(begin + bytes(100))
    for ask in (model_cache.pull, describe):
        with pytest.raises(ModelError, match=told):
            ask(f"{tmp_path / name}")


def test_a_model_may_be_called_what_it_likes(own: Path) -> None:
    path = own.rename(own.with_suffix(".bin"))
    assert model_cache.pull(str(path)) == path


@given(st.binary(max_size=80))
def test_whatever_a_file_begins_with_is_one_error(data: bytes) -> None:
    for begin in (b"", b"(", b"c", b"}", b"]", b")", b"\x80", b"(dp0\n", b"ca\nb\nq"):
        assert str(foreign(begin + data, "x"))


def test_names_in_the_cache_are_taken_once(own: Path, tmp_path: Path) -> None:
    model_cache.pull(str(own))
    other = tmp_path / "mine.gguf"
    write_tiny_gguf(other, seed=1)
    with pytest.raises(UserError, match="another model called mine") as caught:
        model_cache.pull(str(other))
    assert "--name" in caught.value.hint
    assert model_cache.pull(str(other), called="Mine-2") == other
    with pytest.raises(UserError, match="not a name"):
        model_cache.pull(str(other), called="a/b")


def test_a_model_in_use_is_not_removed(own: Path) -> None:
    path = model_cache.pull(str(own), called="used", copy=True)
    with held([path]), held([path]):
        assert is_in_use(path)
        assert model_cache.installed()[0].in_use
        with pytest.raises(UserError, match="in use by a node") as caught:
            model_cache.remove("used")
        assert "p2pnode stop" in caught.value.hint
    assert not is_in_use(path)
    model_cache.remove("used")
    assert not is_in_use(path)


def test_only_models_of_the_cache_are_removed(own: Path) -> None:
    with pytest.raises(UserError, match="a file of your own"):
        model_cache.remove(str(own))
    with pytest.raises(UserError, match="no model called 'gpt-9'"):
        model_cache.remove("gpt-9")
    assert own.exists()


def test_a_note_cannot_lead_out_of_the_cache(own: Path) -> None:
    folder = model_cache.models_dir()
    for files, linked in (
        (["../../own/mine.gguf"], False),
        ([str(own)], False),
        (["x.gguf"], True),
    ):
        entry = Entry("bad", tuple(files), (1,), ("",), "x", linked=linked)
        write_entry(folder, entry)
        assert read_entries(folder) == {}
    with pytest.raises(UserError, match="no model called"):
        model_cache.remove("bad")
    assert own.exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 90_000, '{"name": 3}', "\x00", "x" * 70_000]
)
def test_a_broken_note_is_none(own: Path, text: str) -> None:
    model_cache.pull(str(own))
    (note,) = (model_cache.models_dir() / FOLDER).iterdir()
    note.write_text(text)
    assert model_cache.installed() == []
    assert model_cache.pull(str(own)) == own
    assert json.loads(note.read_text())["name"] == "mine"


NUMBERS = st.floats() | st.integers() | st.sampled_from([-1, 10**30, True])
TEXTS = st.text() | st.sampled_from(["\0", "\ud800", "a\0.gguf", "\ud800.gguf", "/a\0", "/\ud800"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
SOUND: dict[str, object] = {
    "name": "mine",
    "files": ["/a.gguf"],
    "sizes": [1],
    "sha256": [],
    "source": "/a.gguf",
    "hash_from": "none",
    "linked": True,
    "licence": "",
}


@given(
    st.fixed_dictionaries(
        {
            "files": st.just(SOUND["files"]) | ANYTHING | st.lists(TEXTS, min_size=1, max_size=1),
            "sizes": st.just(SOUND["sizes"]) | ANYTHING | st.lists(NUMBERS, min_size=1, max_size=1),
            "sha256": st.just([]) | ANYTHING | st.lists(TEXTS, min_size=1, max_size=1),
            **{key: st.just(SOUND[key]) | ANYTHING for key in ("source", "hash_from", "licence")},
            "name": st.just("mine") | ANYTHING,
            "linked": st.booleans() | ANYTHING,
        }
    )
    | ANYTHING
)
@example(SOUND | {"sizes": [math.inf]})
@example(SOUND | {"files": ["a\0.gguf"], "linked": False})
@example(SOUND | {"files": ["/\ud800"]})
@example(SOUND | {"hash_from": "me"})
def test_whatever_a_note_says_is_taken_or_none(body: object) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / FOLDER).mkdir()
        (folder / FOLDER / "mine.json").write_text(json.dumps(body))
        noted = read_entries(folder)
        assert all(one.hash_from in HASHES_FROM for one in noted.values())
        assert len(listed(folder)) == len(noted)


def test_a_sound_note_is_read_and_one_in_the_name_of_a_known_model_is_not(own: Path) -> None:
    folder = model_cache.models_dir()
    for name, source, count in (("mine", "x", 1), ("qwen3-4b", "qwen3-4b", 2), ("qwen3", "x", 2)):
        write_entry(folder, Entry(name, ("a.gguf",), (1,), ("",), source))
        assert len(read_entries(folder)) == count


def test_a_pipe_in_the_place_of_a_note_is_not_read(own: Path) -> None:
    model_cache.pull(str(own))
    os.mkfifo(model_cache.models_dir() / FOLDER / "pipe.json")
    assert [one.name for one in model_cache.installed()] == ["mine"]


def test_facts_of_a_header(own: Path) -> None:
    facts = facts_of(own)
    assert (facts.architecture, facts.layers, facts.d_model, facts.context) == ("llama", 4, 64, 256)
    assert (facts.vocabulary, facts.pre_tokenizer, facts.tokens) == ("gpt2", "smollm", 261)
    assert facts.has_template
    assert facts.problem == ""
    assert len(facts.layer_bytes) == 4
    assert facts.weights == sum(facts.quantisation.values())
    assert facts.weights == sum(tensor.n_bytes for tensor in gguf.GGUFReader(own).tensors)
    assert facts.kv_bytes_per_token == 4 * 2 * 2 * 16 * 2  # layers, K and V, heads, width, f16
    assert facts.memory == facts.weights + 256 * facts.kv_bytes_per_token
    assert facts.memory_as_floats > facts.memory


def test_a_listing_and_a_start_do_not_read_the_vocabulary(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = facts_of(own)
    monkeypatch.setattr("p2pnode.node.gguf_facts.check_words", lambda _: pytest.fail("it is read"))
    assert facts_of(own, with_words=False) == known
    assert capacity_of(own, EngineOptions("numpy"), 0).layers == 4


def test_how_many_machines_a_model_takes(own: Path) -> None:
    facts = facts_of(own)
    spare = 256 << 20
    assert facts.peers_needed(spare + facts.memory) == 1
    assert facts.peers_needed(spare + facts.memory - 1) == 2
    layer = max(facts.layer_bytes) + facts.kv_bytes // 4
    assert facts.peers_needed(spare + max(layer, facts.other_bytes)) in (3, 4, 5)
    assert facts.peers_needed(spare + layer - 1) is None
    assert facts.peers_needed(0) is None


def test_facts_of_what_cannot_be_run_say_why(own: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_tiny_gguf(path, arch="mamba")
    facts = facts_of(path)
    assert "'mamba'" in facts.problem
    assert facts.layers == 4
    write_tiny_gguf(path, edit=lambda writer: writer.kv_data[0].pop("llama.block_count"))
    facts = facts_of(path)
    assert facts.layers is None
    assert facts.kv_bytes_per_token is None
    assert "llama.block_count" in facts.problem
