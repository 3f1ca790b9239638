"""Judgements about a machine, from made-up figures, and the checks that need none."""

import fcntl
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode.errors import ConfigError, UserError
from p2pnode.interfaces.doctor.checkup import Subject, _port, _Running
from p2pnode.interfaces.doctor.clock import check_clock, report_clock, report_epoch
from p2pnode.interfaces.doctor.findings import Finding, examine, is_well
from p2pnode.interfaces.doctor.model import (
    Demand,
    check_calibration,
    check_model,
    demand_of,
    layers_that_fit,
    report_kv,
    report_memory,
)
from p2pnode.interfaces.doctor.multicast import report_interfaces, report_loopback
from p2pnode.interfaces.doctor.network import check_port, report_buffer, report_path
from p2pnode.interfaces.doctor.processor import report_blas, report_processor, report_timers
from p2pnode.interfaces.doctor.python import report_packages, report_python
from p2pnode.interfaces.doctor.runtime import report_length, report_runtime
from p2pnode.interfaces.doctor.state import (
    boot_epoch,
    check_state,
    lock_holder,
    report_directory,
    report_room,
)
from p2pnode.interfaces.tui.example import lonely
from p2pnode.net.udp import open_udp
from p2pnode.node.capacity import SPARE
from p2pnode.node.identity import StateDirectory
from p2pnode.node.model_cache import calibration_path
from p2pnode.testing.tiny_gguf import write_tiny_gguf

MIB = 1 << 20
DIRECTORY = stat.S_IFDIR | 0o700
MODEL = Demand("smol", 30, 14 * MIB, 108 * MIB, 1536)


def verdicts(findings: list[Finding]) -> list[str]:
    return [finding.verdict for finding in findings]


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> list[Finding]:
        raise ZeroDivisionError("no")

    def refused() -> list[Finding]:
        raise ConfigError("impossible", hint="another")

    [bug] = examine("x", broken)
    assert (bug.topic, bug.verdict) == ("x", "warn")
    assert "ZeroDivisionError" in bug.what
    assert examine("y", refused) == [Finding("y", "fail", "impossible", "another")]


def test_only_a_failure_makes_a_machine_ill() -> None:
    assert is_well([Finding("a", "ok", ""), Finding("b", "warn", "")])
    assert not is_well([Finding("a", "fail", "")])


def test_an_old_python_fails() -> None:
    assert report_python((3, 10), "CPython").verdict == "fail"
    assert report_python((3, 11), "CPython").verdict == "ok"
    assert report_python((3, 11), "PyPy").verdict == "warn"


def test_packages_are_compared_by_number() -> None:
    needed = {"trio": "0.9", "numpy": "2.0"}
    assert report_packages(needed, {"trio": "0.27", "numpy": "2.0rc1"}).verdict == "ok"
    missing = report_packages(needed, {"trio": "0.27", "numpy": None})
    assert missing.verdict == "fail"
    assert missing.what == "missing: numpy"
    old = report_packages(needed, {"trio": "0.8.1", "numpy": "2.1"})
    assert old.what == "too old: trio 0.8.1 (needs 0.9)"


def test_a_directory_of_others_fails() -> None:
    path = Path("/p")
    assert report_directory(path, DIRECTORY, is_ours=True, is_writable=True).verdict == "ok"
    assert report_directory(path, DIRECTORY, is_ours=False, is_writable=True).verdict == "fail"
    assert report_directory(path, DIRECTORY, is_ours=True, is_writable=False).verdict == "fail"
    assert (
        report_directory(path, DIRECTORY | 0o022, is_ours=True, is_writable=True).verdict == "warn"
    )


def test_looking_at_an_absent_directory_does_not_make_it(tmp_path: Path) -> None:
    assert verdicts(list(check_state(tmp_path / "a" / "b"))) == ["ok"]
    assert not (tmp_path / "a").exists()


def test_looking_draws_no_identity(tmp_path: Path) -> None:
    assert verdicts(list(check_state(tmp_path))) == ["ok", "ok"]
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.set_swarm_secret(bytes(32))
    state.identity_seed()
    (tmp_path / "peers.json").write_text("{")
    (tmp_path / "boot-epoch").write_text("tomorrow")
    (tmp_path / "identity.key").chmod(0o644)
    findings = list(check_state(tmp_path))
    assert verdicts(findings) == ["ok", "fail", "warn", "warn"]
    assert [
        name for name in ("identity.key", "peers.json", "boot-epoch") if name in str(findings)
    ] == [
        "identity.key",
        "peers.json",
        "boot-epoch",
    ]


def test_the_holder_of_the_lock_is_found_and_left_alone(tmp_path: Path) -> None:
    assert lock_holder(tmp_path) is None
    with StateDirectory(tmp_path).lock():
        assert lock_holder(tmp_path) == os.getpid()
        with (tmp_path / "lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert lock_holder(tmp_path) is None  # the file stays and names a live process, without a lock


def test_the_epoch_of_the_latest_start_is_read(tmp_path: Path) -> None:
    assert boot_epoch(tmp_path) is None
    (tmp_path / "boot-epoch").write_text("12\n")
    assert boot_epoch(tmp_path) == 12
    (tmp_path / "boot-epoch").write_text("-1")
    with pytest.raises(UserError, match="boot-epoch is broken"):
        boot_epoch(tmp_path)


def test_a_long_path_and_an_open_directory_fail() -> None:
    assert report_length(Path("/tmp/x.sock")) is None
    long = report_length(Path("/" + "x" * 120))
    assert long is not None
    assert long.verdict == "fail"
    assert report_runtime(Path("/r"), DIRECTORY, is_ours=True).verdict == "ok"
    assert report_runtime(Path("/r"), DIRECTORY | 0o005, is_ours=True).verdict == "fail"
    assert report_runtime(Path("/r"), DIRECTORY, is_ours=False).verdict == "fail"


def test_clocks_that_jump_or_were_never_set_are_noticed() -> None:
    assert report_clock([5.0, 5.001], 1.8e9).verdict == "ok"
    assert report_clock([5.0, 6.0], 1.8e9).verdict == "warn"
    assert "1970" in report_clock([5.0, 5.0], 0.0).what
    assert report_epoch(1_800_000_000, 1.8e9) is None
    ahead = report_epoch(1_800_864_000, 1.8e9)
    assert ahead is not None
    assert "10.0 days in the future" in ahead.what


def test_the_clocks_of_this_machine_are_looked_at() -> None:
    assert len(list(check_clock(2**40))) == 2


def test_memory_says_how_many_layers_fit() -> None:
    plenty, kv = 1 << 34, 64 * MIB
    assert report_memory(plenty, MODEL, kv, is_loaded=False).verdict == "ok"
    some = report_memory(SPARE + kv + 145 * MIB, MODEL, kv, is_loaded=False)
    assert some.verdict == "warn"
    assert "10 of 30 layers" in some.what
    assert "--max-layers 10" in some.advice
    assert report_memory(SPARE, MODEL, kv, is_loaded=False).verdict == "fail"
    assert report_memory(SPARE, MODEL, kv, is_loaded=True).verdict == "ok"


def test_the_head_counts_with_the_last_layer() -> None:
    layers = 30 * MODEL.layer_bytes
    assert layers_that_fit(SPARE + layers, MODEL, 0) == 29
    assert layers_that_fit(SPARE + layers + MODEL.head_bytes, MODEL, 0) == 30


def test_kv_memory_is_told_in_tokens() -> None:
    assert report_kv(512 * MIB, MODEL).verdict == "ok"
    little = report_kv(MIB, MODEL)
    assert little.verdict == "warn"
    assert "22 tokens" in little.what


def test_a_file_says_what_its_layers_take(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", n_layers=3)
    stored = demand_of(tmp_path / "m.gguf", "ggml")
    assert stored.n_layers == 3
    # q and o: 64 x 64; k and v: 32 x 64; gate, up and down: 64 x 128; 34 bytes for 32; two norms
    matrices = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128
    assert stored.layer_bytes == matrices * 34 // 32 + 4 * 2 * 64
    for engine in ("numpy", "jax"):
        expanded = demand_of(tmp_path / "m.gguf", engine)
        assert expanded.layer_bytes == 4 * (matrices + 2 * 64)
        assert expanded.kv_bytes_per_token_layer == 2 * stored.kv_bytes_per_token_layer
    assert expanded.kv_bytes_per_token_layer == 2 * stored.kv_bytes_per_token_layer


def test_processors_are_judged_by_load_and_share() -> None:
    assert report_processor(2, 1.0, None).verdict == "ok"
    assert report_processor(2, 9.0, None).verdict == "warn"
    assert "0.50 of one core" in report_processor(8, 0.1, 0.5).what
    assert report_timers([0.001] * 100).verdict == "ok"
    assert report_timers([0.001] * 90 + [0.02] * 10).verdict == "warn"
    assert report_blas([]).verdict == "ok"
    pool = {"user_api": "blas", "internal_api": "openblas", "version": "1", "num_threads": 2}
    assert "openblas 1" in report_blas([pool]).what


def test_buffers_are_compared_with_what_was_asked_for() -> None:
    assert report_buffer(8 * MIB, "linux").verdict == "ok"  # it reports the double
    small = report_buffer(425_984, "linux")
    assert small.verdict == "warn"
    assert "net.core.rmem_max" in small.advice
    assert report_buffer(4 * MIB, "darwin").verdict == "ok"
    assert "maxsockbuf" in report_buffer(MIB, "darwin").advice


def test_a_narrow_interface_is_named() -> None:
    assert report_path({"eth0": 1500}, never_fragments=True).verdict == "ok"
    narrow = report_path({"eth0": 1500, "tun0": 576}, never_fragments=True)
    assert narrow.verdict == "warn"
    assert narrow.what.startswith("tun0 ")


def test_multicast_that_fails_has_a_way_around() -> None:
    assert report_loopback(heard=True).verdict == "ok"
    assert "--peer" in report_loopback(heard=False).advice
    assert report_interfaces([], {}).verdict == "ok"
    refused = report_interfaces(["eth0"], {"wlan0": "No such device"})
    assert "wlan0 (No such device)" in refused.what


def test_a_port_in_use_is_told_from_our_own() -> None:
    taken = open_udp("127.0.0.1", 0)
    try:
        port = taken.address[1]
        assert next(check_port(port, is_ours=False)).verdict == "warn"
        assert verdicts(list(check_port(port, is_ours=True))) == ["ok"]
    finally:
        taken.close()


def test_the_port_looked_at_is_that_of_the_node_that_runs_here(tmp_path: Path) -> None:
    running = _Running(tmp_path)
    assert running.ports == []
    running.picture = replace(lonely(), listening=("0.0.0.0:59305", "[::]:59305"))
    assert running.ports == [59305]
    (found,) = _port(Subject(tmp_path, ("none",), None, 0, tuple), running)
    assert (found.verdict, found.what) == ("ok", "the running node listens on port 59305")
    asked = open_udp("127.0.0.1", 0)
    try:  # another port that is named is looked at all the same
        found = next(_port(Subject(tmp_path, ("none",), asked.address[1], 0, tuple), running))
    finally:
        asked.close()
    assert (found.verdict, str(asked.address[1]) in found.what) == ("warn", True)


def test_a_broken_calibration_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path))
    assert [*check_calibration(7)] == []
    (tmp_path / "calibrations").mkdir()
    calibration_path(7).write_bytes(b"PCAL")
    [finding] = check_calibration(7)
    assert finding.verdict == "warn"
    assert "cut short" in finding.what
    assert "p2pnode models calibrate" in finding.advice


def test_a_full_disk_is_told() -> None:
    assert report_room(Path("/x"), None) == report_room(Path("/x"), 10**9) == []
    [finding] = report_room(Path("/x"), 3000)
    assert (finding.verdict, finding.what) == ("fail", "no space left in /x: 3 KB are free")


def test_no_model_is_no_problem() -> None:
    [finding] = check_model("none")
    assert finding.verdict == "ok"
