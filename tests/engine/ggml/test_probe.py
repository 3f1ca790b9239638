"""Libraries that work, that do not, and that bring down the process that tries them."""

import contextlib
import ctypes.util
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.probe import ProbedDevice, Report, assess, probe, report_from_json
from p2pnode.engine.ggml.providers import Provider, providers

CPU = ProbedDevice("CPU", "a processor", DeviceType.CPU, 1, 2, (), ())
GPU = ProbedDevice("CUDA0", "a card", DeviceType.GPU, 1, 2, (), ("set_rows",))
REPORT = Report("0.26.0", "abc", "ggml 0.26.0/x64", (GPU, CPU), ("CPU_REPACK",), ("a line",))
PROVIDER = Provider("a folder", (Path("/x/libggml.so"),), (), (Path("/x/libggml-cuda.so"),))


def test_a_library_that_works_says_what_it_is() -> None:
    found = providers()
    if not found:
        pytest.skip("no package here holds ggml: pip install libggml-python")
    candidate = probe(found[0])
    assert candidate.is_usable, candidate.reason
    assert candidate.reason == ""
    report = candidate.report
    assert report is not None
    assert re.fullmatch(rf"ggml {report.version}/[a-z0-9_+=.]+#[0-9a-f]{{8}}", report.numerics)
    assert [device.faults for device in report.devices if device.type == DeviceType.CPU] == [()]
    assert report_from_json(json.loads(json.dumps(report.to_json()))) == report


def test_what_is_no_library_is_told(tmp_path: Path) -> None:
    path = tmp_path / "libggml.so"
    path.write_bytes(b"no library")
    candidate = probe(Provider("a folder", (path,)))
    assert not candidate.is_usable
    assert candidate.reason.startswith("libggml.so of a folder cannot be loaded")


def test_a_library_of_something_else_is_told() -> None:
    libc = ctypes.util.find_library("c")
    if libc is None:
        pytest.skip("no C library is found by name here")
    candidate = probe(Provider("the C library", (Path(libc),)))
    assert candidate.reason.startswith("the C library lacks ggml_init")


def test_a_folder_without_a_library_is_told() -> None:
    assert probe(Provider("the folder x", ())).reason == "There is no ggml library in the folder x"


def test_a_library_without_a_back_end_for_this_cpu_is_told() -> None:
    found = [one for one in providers() if len(one.cpu_modules) > 1]
    if not found:
        pytest.skip("no package here has several CPU back ends: pip install transcribe-cpp-native")
    candidate = probe(replace(found[0], cpu_modules=(), gpu_modules=()))
    assert candidate.reason == f"ggml of {found[0].name} has no back end for this CPU"


def _child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let this be what a child process does."""
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable} -SE\nimport json, os, signal, sys, time\n"
        f"asked = json.loads(sys.argv[-1])\n{body}\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGILL)", r"crashed \(SIGILL\): it was built for another"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"crashed \(SIGSEGV\)$"),
        (
            "print('GGML_ASSERT failed', file=sys.stderr, flush=True); os.abort()",
            r"crashed \(SIGABRT\): GGML_ASSERT failed",
        ),
        ("sys.exit(3)", "ended with status 3"),
        ("sys.exit('no such symbol')", "ended with status 1: no such symbol"),
        ("print('{}')", "no answer that makes sense"),
        ("print('[' * 100_000)", "no answer that makes sense"),
        ("print('[1, 2]')", "no answer that makes sense"),
        ("print('null')", "no answer that makes sense"),
        ("sys.stdout.buffer.write(bytes(range(256)))", "no answer that makes sense"),
        ("print('x' * 1_000_000)", "no answer that makes sense"),
        ("print('{\"error\": 5}')", "no answer that makes sense"),
        ('print(\'{"error": "it is too old"}\')', "it is too old"),
    ],
)
def test_a_child_that_fails_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    _child(tmp_path, monkeypatch, body)
    candidate = probe(replace(PROVIDER, gpu_modules=()))
    assert not candidate.is_usable
    assert candidate.report is None
    assert re.search(reason, candidate.reason), candidate.reason


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _child(tmp_path, monkeypatch, "time.sleep(60)")
    candidate = probe(replace(PROVIDER, gpu_modules=()), timeout=0.2)
    assert candidate.reason == "it did not answer within 0 s"


@pytest.mark.parametrize("out", ["1", "2"])
def test_a_child_that_prints_without_end_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    _child(tmp_path, monkeypatch, f"while True: os.write({out}, bytes(65536))")
    tracemalloc.start()
    try:
        assert probe(replace(PROVIDER, gpu_modules=()), timeout=0.5).reason.startswith("it did not")
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no alarm, and no named pipe")
def test_a_child_whose_asker_is_gone_ends_itself(tmp_path: Path) -> None:
    path = tmp_path / "libggml.so"
    os.mkfifo(path)  # to load it is to wait for ever
    files = {"name": "x", "libraries": [str(path)], "cpu_modules": [], "gpu_modules": []}
    question = json.dumps({"provider": files, "gpus": False, "seconds": 1})
    command = [sys.executable, "-P", "-m", "p2pnode.engine.ggml.probe", question]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, timeout=30, check=False)
    assert done.returncode == -signal.SIGALRM


def test_without_a_python_to_start_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert probe(PROVIDER).reason.startswith("no process could be started")


def test_gpus_that_bring_it_down_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps(replace(REPORT, devices=(CPU,), gpus=False).to_json())
    _child(
        tmp_path,
        monkeypatch,
        f"if asked['gpus']: os.kill(os.getpid(), signal.SIGSEGV)\nprint({answer!r})",
    )
    candidate = probe(PROVIDER)
    assert candidate.is_usable
    assert candidate.report is not None
    assert not candidate.report.gpus
    assert candidate.reason == "without its GPUs: it crashed (SIGSEGV)"


def test_only_a_cpu_that_computes_rightly_makes_a_library_usable() -> None:
    assert assess(PROVIDER, REPORT).is_usable
    wrong = replace(CPU, faults=("mul_mat Q4_0 is off by 0.5 (at most 0.02)",))
    cases = {
        "it computes wrongly: mul_mat Q4_0 is off by 0.5 (at most 0.02)": (GPU, wrong),
        "it lacks set_rows": (GPU, replace(CPU, unsupported=("set_rows",))),
        "it has no back end for this CPU": (GPU,),
    }
    for reason, devices in cases.items():
        candidate = assess(PROVIDER, replace(REPORT, devices=devices))
        assert (candidate.is_usable, candidate.reason) == (False, reason)


def test_a_gpu_that_computes_wrongly_is_none() -> None:
    whole = replace(GPU, unsupported=())
    assert replace(REPORT, devices=(whole, CPU)).has_gpu
    assert not REPORT.has_gpu  # ggml would end the process at the first step
    assert not replace(REPORT, devices=(CPU,)).has_gpu
    assert not replace(REPORT, devices=(replace(whole, faults=("x",)), CPU)).has_gpu
    shared = replace(whole, type=DeviceType.INTEGRATED_GPU)
    assert not replace(REPORT, devices=(shared, CPU)).has_gpu


def test_a_newer_library_is_told_as_such() -> None:
    assert not REPORT.is_newer_than_tested
    assert replace(REPORT, version="0.99.1").is_newer_than_tested
    assert replace(REPORT, version="1.0").is_newer_than_tested


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None)
@given(_JSON)
def test_any_answer_is_a_report_or_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="not a"):
        report_from_json(data)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(REPORT.to_json())), _JSON)
def test_a_report_with_anything_in_one_place(field: str, value: Any) -> None:
    data = json.loads(json.dumps(REPORT.to_json())) | {field: value}
    with contextlib.suppress(ValueError):
        assert isinstance(report_from_json(data), Report)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["name", "type", "free", "faults"]), _JSON)
def test_a_device_with_anything_in_one_place(field: str, value: Any) -> None:
    data = json.loads(json.dumps(REPORT.to_json()))
    data["devices"][0][field] = value
    with contextlib.suppress(ValueError):
        assert isinstance(report_from_json(data), Report)


def test_a_child_ended_from_outside_says_nothing_of_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _child(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGTERM)")
    assert probe(PROVIDER).is_cut_short
    _child(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGILL)")
    assert not probe(PROVIDER).is_cut_short


def test_a_ctrl_c_of_whoever_asks_does_not_reach_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _child(tmp_path, monkeypatch, 'print(json.dumps({"error": f"{os.getpgrp() == os.getpid()}"}))')
    assert probe(PROVIDER).reason == "True"
