"""Memory within the limits of groups of processes; psutil says that the machine has 64 GiB."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from p2pnode.engine.registry import EngineOptions
from p2pnode.node import free_memory as module
from p2pnode.node.free_memory import free_memory, total_memory
from p2pnode.node.machine_memory import capacity_of
from p2pnode.testing.tiny_gguf import write_tiny_gguf

GIB = 2**30
UNLIMITED = 9223372036854771712  # as version 1 says it


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    machine = SimpleNamespace(total=64 * GIB, available=32 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(module, "_CGROUP", tmp_path / "mounted")
    monkeypatch.setattr(module, "_OWN", tmp_path / "own")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "own").write_text("0::/\n")
    return tmp_path / "mounted"


def group(folder: Path, *, stat: dict[str, int] | None = None, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")
    if stat is not None:
        (folder / "memory.stat").write_text("".join(f"{key} {stat[key]}\n" for key in stat))


def test_without_groups_the_machine_is_what_there_is() -> None:
    assert (free_memory(), total_memory()) == (32 * GIB, 64 * GIB)


def test_pages_of_files_count_as_free(root: Path) -> None:
    group(root, max=4 * GIB, current=int(3.97 * GIB))
    assert free_memory() < GIB // 10
    for stat in (
        {"anon": GIB, "file": 3 * GIB, "inactive_file": int(3.6 * GIB)},
        {"inactive_file": 2 * GIB, "active_file": int(1.6 * GIB)},
        {"inactive_file": 2 * GIB, "active_file": GIB, "slab_reclaimable": int(0.6 * GIB)},
    ):
        group(root, stat=stat)
        assert free_memory() == pytest.approx(3.63 * GIB, abs=3)
    assert total_memory() == 4 * GIB


def test_shared_memory_counts_as_used(root: Path) -> None:
    stat = {"file": 3 * GIB, "shmem": 3 * GIB, "inactive_anon": 3 * GIB, "slab_unreclaimable": 9}
    group(root, max=4 * GIB, current=3 * GIB, stat=stat)
    assert free_memory() == GIB


def test_layers_fit_beside_a_full_page_cache(root: Path, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", n_layers=4)
    stat = {"inactive_file": int(3.6 * GIB)}
    group(root, max=4 * GIB, current=int(3.97 * GIB), stat=stat)
    fits = capacity_of(tmp_path / "m.gguf", EngineOptions("numpy"), 2**26)
    assert fits.layers == 4


def test_more_than_the_machine_has_is_not_free(root: Path) -> None:
    group(root, max=100 * GIB, current=90 * GIB, stat={"inactive_file": 95 * GIB})
    assert (free_memory(), total_memory()) == (32 * GIB, 64 * GIB)


def test_the_least_limit_on_the_way_up_holds(root: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/user.slice/a.service\n")
    group(root / "user.slice/a.service", max="max", current=GIB, high="max")
    assert free_memory() == 32 * GIB
    group(root / "user.slice", max=8 * GIB, current=6 * GIB, stat={"active_file": GIB})
    assert (free_memory(), total_memory()) == (3 * GIB, 8 * GIB)
    group(root / "user.slice/a.service", max=5 * GIB, current=GIB)
    assert (free_memory(), total_memory()) == (3 * GIB, 5 * GIB)
    group(root / "user.slice/a.service", high=2 * GIB)
    assert (free_memory(), total_memory()) == (GIB, 2 * GIB)
    group(root / "other", max=1, current=1)
    assert free_memory() == GIB


@pytest.mark.parametrize("path", ["/kubepods/pod7/inner", "/../inner", "/inner"])
def test_a_path_that_begins_outside_the_container(root: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "own").write_text(f"0::{path}\n")
    group(root, max=8 * GIB, current=GIB)
    assert free_memory() == 7 * GIB
    group(root / "inner", max=GIB, current=0)
    assert free_memory() == GIB


def test_version_1_counts_alike(root: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("5:cpu,cpuacct:/b\n4:memory:/a/b\n0::/\n")
    memory = root / "memory"
    group(memory, limit_in_bytes=UNLIMITED, usage_in_bytes=60 * GIB, use_hierarchy=1)
    assert (free_memory(), total_memory()) == (32 * GIB, 64 * GIB)
    stat = {"inactive_file": 0, "total_inactive_file": 2 * GIB, "total_active_file": GIB}
    group(memory / "a", limit_in_bytes=6 * GIB, usage_in_bytes=5 * GIB, stat=stat, use_hierarchy=1)
    assert (free_memory(), total_memory()) == (4 * GIB, 6 * GIB)
    group(memory / "a/b", limit_in_bytes=8 * GIB, usage_in_bytes=0)
    assert (free_memory(), total_memory()) == (4 * GIB, 6 * GIB)
    group(memory / "a", use_hierarchy=0)  # b's memory is not counted in a
    assert (free_memory(), total_memory()) == (8 * GIB, 8 * GIB)
    group(memory / "a/b", stat={"hierarchical_memory_limit": 2 * GIB})
    assert (free_memory(), total_memory()) == (2 * GIB, 2 * GIB)


def test_version_2_beside_version_1(root: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("1:name=systemd:/x\n0::/x\n")
    group(root / "unified/x", max=3 * GIB, current=GIB)
    assert free_memory() == 2 * GIB


def test_a_limit_without_what_is_used_still_holds(root: Path) -> None:
    group(root, max=3 * GIB)
    assert (free_memory(), total_memory()) == (3 * GIB, 3 * GIB)
    group(root, current=5 * GIB)
    assert free_memory() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
def test_what_is_no_file_is_not_read(root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "memory.max")
    (root / "memory.high").mkdir()
    (tmp_path / "own").unlink()
    (tmp_path / "own").symlink_to("own")
    assert (free_memory(), total_memory()) == (32 * GIB, 64 * GIB)


_NONSENSE = st.binary(max_size=50) | st.sampled_from(
    [
        b"", b"\n", b"max", b"-1", b"1_0", b"0x10", b"\xff\xfe", b"9" * 10_000, b"7" * 2**18,
        b"1 2", b"inactive_file", b"inactive_file x\n inactive_file 1 2", b"1" * 21,
        "\u0663".encode(), b"0::/\0", b"0::/a/b", b"4:memory:" + b"/x" * 50_000, b":::::",
        b"0::/" + b"y" * 9000,
    ]
)  # fmt: skip


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=60)
@given(own=_NONSENSE, files=st.lists(_NONSENSE, min_size=9, max_size=9))
def test_nonsense_never_raises(root: Path, tmp_path: Path, own: bytes, files: list[bytes]) -> None:
    (tmp_path / "own").write_bytes(own)
    (root / "memory").mkdir(exist_ok=True)
    names = ["memory.max", "memory.high", "memory.current", "memory.stat"]
    names += [f"memory/memory.{one}" for one in ("limit_in_bytes", "usage_in_bytes", "stat")]
    names += ["memory/memory.use_hierarchy", "memory.use_hierarchy"]
    for name, content in zip(names, files, strict=True):
        (root / name).write_bytes(content)
    assert 0 <= free_memory() <= 32 * GIB
    assert 0 <= total_memory() <= 64 * GIB
