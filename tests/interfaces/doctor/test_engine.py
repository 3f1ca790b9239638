"""What doctor says of the engine, its libraries, its speed and its limits, from made-up figures."""

from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode.engine.base import StageCost
from p2pnode.engine.ggml import providers
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.finding import Search, find_library
from p2pnode.engine.ggml.probe import Candidate, ProbedDevice, Report
from p2pnode.engine.ggml.providers import Provider
from p2pnode.installing import install_extra
from p2pnode.interfaces.doctor.engine import (
    check_engine,
    limits_of,
    report_gpus,
    report_libraries,
    report_speed,
    speed_of,
)
from p2pnode.node.model_facts import facts_of
from p2pnode.testing.tiny_gguf import write_tiny_gguf

CPU = ProbedDevice("CPU", "a CPU", DeviceType.CPU, 0, 0, (), ())
GPU = ProbedDevice("CUDA0", "RTX", DeviceType.GPU, 8 * 10**9, 8 * 10**9, (), ())
BROKEN = ProbedDevice("Vulkan0", "Intel", DeviceType.GPU, 1, 1, ("mul_mat is off",), ())
SEEN = [("an NVIDIA GPU", "CUDA")]


def candidate(*devices: ProbedDevice, numerics: str = "ggml 0.20.2/avx2#1") -> Candidate:
    report = Report("0.20.2", "", numerics, devices, (), ())
    return Candidate(Provider("libggml-python 0.20.2", ()), report, "", is_usable=True)


def test_each_library_has_its_verdict() -> None:
    bad = Candidate(Provider("other 1", ()), None, "it crashed (SIGILL)", is_usable=False)
    used, refused = report_libraries(Search((candidate(CPU, GPU), bad)))
    assert "libggml-python 0.20.2 is used: CPU (a CPU), CUDA0 (RTX), 8.0 GB free" in used.what
    assert "other 1 cannot be used: it crashed (SIGILL)" in refused.what
    lacking = replace(BROKEN, faults=(), unsupported=("set_rows",))
    for one, why in (
        (BROKEN, "it computes wrongly: mul_mat is off"),
        (lacking, "it lacks set_rows"),
    ):
        (told,) = report_libraries(Search((candidate(CPU, one),)))
        assert f"Vulkan0 (Intel), 0.0 GB free, not used: {why}" in told.what
    (alone,) = report_libraries(Search(()))
    assert alone.verdict == "warn"
    assert "pip install libggml-python" in alone.advice


def test_a_variable_that_names_no_library_is_to_be_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PNODE_GGML_DIR", str(tmp_path / "wrong"))
    monkeypatch.setattr(providers, "PACKAGES", ())  # shuts out every library
    search = find_library(None)
    refused, none = report_libraries(search)
    assert "P2PNODE_GGML_DIR names what cannot be used: " in refused.what
    assert str(tmp_path / "wrong") in refused.what
    assert refused.advice.startswith("unset P2PNODE_GGML_DIR")
    assert "pip install libggml-python" in none.advice
    refused, used = report_libraries(Search((*search.candidates, candidate(CPU))))
    assert refused.verdict == "warn"
    assert "libggml-python 0.20.2 is used" in used.what


def test_a_gpu_that_nothing_computes_with_is_told_with_the_cure() -> None:
    (said,) = report_gpus(SEEN, Search((candidate(CPU),)), has_torch=False)
    assert "there is an NVIDIA GPU" in said.what
    assert "P2PNODE_GGML_DIR" in said.advice
    assert "CUDA" in said.advice
    assert install_extra("torch") in said.advice
    (said,) = report_gpus(SEEN, Search((candidate(CPU, BROKEN),)), has_torch=True)
    assert "mul_mat is off" in said.what
    assert "torch" not in said.advice
    assert report_gpus(SEEN, Search((candidate(CPU, GPU),)), has_torch=False) == []
    assert report_gpus([], Search(()), has_torch=False) == []


def test_what_limits_a_machine_comes_with_what_to_do() -> None:
    wide = '{"flags": "sse2 avx2 avx512f amx_int8"}'
    ((why, advice),) = limits_of("ggml", candidate(CPU), wide, 4)
    assert "AMX_INT8" in why
    assert "transcribe-cpp-native" in advice
    dispatched = candidate(CPU, numerics="ggml 0.26.0/sapphirerapids#1")
    assert limits_of("ggml", dispatched, wide, 4) == []
    assert limits_of("ggml", candidate(CPU), '{"flags": "sse2 avx2"}', 4) == []
    (no_library, no_avx2, one_core) = limits_of("numpy", None, '{"flags": "sse2"}', 1)
    assert "libggml-python" in no_library[1]
    assert "AVX2" in no_avx2[0]
    assert "one core" in one_core[0]


def test_a_speed_is_reckoned_for_the_whole_model(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", n_layers=4)
    facts = facts_of(tmp_path / "m.gguf")
    speed = speed_of(StageCost(100, 200, 100, 50_000), facts)
    assert speed.decode == 1000
    assert speed.prefill == 5000
    assert speed.bandwidth == 1000 * facts.weights
    shown = [one.what for one in report_speed("ggml", speed, facts, [("why", "do")])]
    assert "about 1000.0 tokens/s, prompts 5000 tokens/s, all 4 layers here" in shown[0]
    assert shown[1].endswith("; why")
    busy, _ = report_speed("ggml", speed, facts, [], on_core=0.25)
    assert busy.verdict == "warn"
    assert "other programs had its core 75% of the time" in busy.what


def test_a_model_is_measured_here(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf")
    found = {one.topic: one for one in check_engine(str(tmp_path / "m.gguf"))}
    assert "tokens/s" in found["speed"].what
    assert "limit" in found
    assert found["library"].what
    assert "speed" not in {one.topic for one in check_engine("none")}
