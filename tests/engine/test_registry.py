"""Which engine computes: what cannot be as it was asked is refused, with what to do instead."""

import logging
from pathlib import Path

import pytest

from p2pnode.engine.ggml import finding
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.finding import Search
from p2pnode.engine.ggml.probe import Candidate, ProbedDevice, Report
from p2pnode.engine.ggml.providers import DIRECTORY_VARIABLE, Provider
from p2pnode.engine.registry import (
    EngineOptions,
    _say_once,
    check_device,
    check_device_name,
    check_engine,
    engine_for,
    load_engine,
)
from p2pnode.errors import EngineError, ModelError, UsageError
from p2pnode.installing import pip_install
from p2pnode.testing.tiny_gguf import write_tiny_gguf

CPU = ProbedDevice("CPU", "a processor", DeviceType.CPU, 1, 2, (), ())
GPU = ProbedDevice("CUDA0", "a card", DeviceType.GPU, 1, 2, (), ())
PROVIDER = Provider("some-ggml 1.0", (Path("/x/libggml.so"),))


class Machine:
    """The libraries of a machine; counts how often they are looked for."""

    def __init__(self) -> None:
        self.candidates: tuple[Candidate, ...] = ()
        self.looked = 0

    def has(self, *devices: ProbedDevice) -> None:
        report = Report("0.26.0", "abc", "ggml 0.26.0/x64", devices, (), ())
        self.candidates = (Candidate(PROVIDER, report, "", is_usable=True),)

    def fails(self, reason: str) -> None:
        self.candidates = (Candidate(PROVIDER, None, reason, is_usable=False),)

    def find_library(self, cache: Path | None) -> Search:
        self.looked += 1
        return Search(self.candidates)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(finding, "find_library", found.find_library)
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    _say_once.cache_clear()
    return found


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    write_tiny_gguf(tmp_path / "llama.gguf")
    return tmp_path / "llama.gguf"


@pytest.fixture
def windowed(tmp_path: Path) -> Path:
    """A model that numpy does not compute."""
    write_tiny_gguf(
        tmp_path / "windowed.gguf",
        edit=lambda writer: writer.add_uint32("llama.attention.sliding_window", 8),
    )
    return tmp_path / "windowed.gguf"


def test_without_a_library_numpy_serves_where_it_can_and_says_why(
    machine: Machine, llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.fails("it crashed (SIGILL)")
    with caplog.at_level(logging.WARNING):
        load_engine(llama, range(1)).shut()
        engine = load_engine(llama, range(1))  # is no news
    assert engine.numerics.startswith("numpy")
    why = "no ggml library can be used here (some-ggml 1.0: it crashed (SIGILL))"
    assert caplog.messages == [f"computes with numpy: {why}"]
    engine.shut()


def test_numpy_that_was_asked_for_is_no_remark(
    machine: Machine, llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_engine(llama, range(1), EngineOptions("numpy")).shut()
    assert not caplog.messages
    assert not machine.looked


def test_what_needs_no_library_tries_none(machine: Machine, llama: Path) -> None:
    check_engine(llama)
    check_engine(llama, EngineOptions("numpy", "cpu"))
    assert not machine.looked


def test_a_name_is_said_once(machine: Machine, llama: Path) -> None:
    machine.fails("there is nothing in some-ggml 1.0")
    with pytest.raises(EngineError, match=r"here \(there is nothing in some-ggml 1.0\)$"):
        check_engine(llama, EngineOptions("ggml"))


def test_a_folder_that_was_named_for_nothing_is_told_once(
    machine: Machine, llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.has(CPU)
    named = Candidate(Provider("the folder x", (), is_named=True), None, "bad", is_usable=False)
    machine.candidates = (named, *machine.candidates)
    with caplog.at_level(logging.WARNING):
        check_engine(llama, EngineOptions("ggml"))
        assert not caplog.messages  # no log is kept yet
        assert engine_for(llama) == engine_for(llama) == "ggml"
    why = "does not use what P2PNODE_GGML_DIR names (the folder x: bad)"
    assert caplog.messages == [f"{why}: some-ggml 1.0 takes its place"]


def test_ggml_that_is_not_there_is_refused(machine: Machine, llama: Path) -> None:
    with pytest.raises(EngineError, match="none is installed") as caught:
        check_engine(llama, EngineOptions("ggml"))
    assert caught.value.hint.startswith(pip_install("libggml-python"))


def test_a_model_beyond_numpy_is_refused_where_only_numpy_is(
    machine: Machine, windowed: Path
) -> None:
    with pytest.raises(ModelError, match="the numpy engine does not compute") as caught:
        check_engine(windowed, EngineOptions("numpy"))
    assert "--layers none" in caught.value.hint
    with pytest.raises(EngineError, match="only ggml computes, and no ggml library"):
        check_engine(windowed)
    machine.has(CPU)
    check_engine(windowed)


def test_a_device_that_is_not_there_is_refused(machine: Machine, llama: Path) -> None:
    machine.has(CPU)
    with pytest.raises(EngineError, match="no cuda:0 here: the library finds no GPU"):
        check_engine(llama, EngineOptions(device="cuda:0"))
    machine.has(GPU, CPU)
    check_engine(llama, EngineOptions(device="cuda"))
    with pytest.raises(EngineError, match=r"no cuda:1 here: the library finds CUDA0 \(a card\)"):
        check_engine(llama, EngineOptions(device="cuda:1"))
    machine.fails("it crashed")
    with pytest.raises(EngineError, match="the CPU alone, not on cuda:0"):
        check_engine(llama, EngineOptions(device="cuda:0"))


def test_numpy_on_a_gpu_is_a_mistake_of_the_command_line(machine: Machine, llama: Path) -> None:
    with pytest.raises(UsageError, match="the CPU alone, not on cuda:0"):
        check_engine(llama, EngineOptions("numpy", "cuda:0"))
    assert not machine.looked


@pytest.mark.parametrize(
    ("engine", "known"),
    [
        ("auto", ["auto", "cpu", "cuda:0", "vulkan:1", "metal"]),
        ("ggml", ["rocm", "sycl:2"]),
        ("numpy", ["auto", "cpu"]),
        ("torch", ["auto", "cuda:3", "mps", "cpu"]),
        ("jax", ["auto", "tpu:0", "cuda:1", "cpu"]),
    ],
)
def test_a_name_is_checked_where_nothing_computes(engine: str, known: list[str]) -> None:
    for name in known:
        check_device_name(EngineOptions(engine, name))
        if engine != "auto":
            check_device_name(EngineOptions("auto", name), "" if engine == "numpy" else engine)
    wrong = ("CPU", "", "gpu", "vulkan:99999999999", "cuda:x", f"cuda:{'9' * 5000}", "cuda:\u0663")
    for name in (*wrong, "tpu" if engine != "jax" else "mps"):
        with pytest.raises(UsageError, match="device"):
            check_device_name(EngineOptions(engine, name))
        with pytest.raises(UsageError, match="device"):
            check_device(EngineOptions(engine, name))  # installed or not
    with pytest.raises(UsageError, match="the CPU alone"):
        check_device_name(EngineOptions("numpy", "cuda:0"))


@pytest.mark.parametrize("engine", ["auto", "numpy", "ggml"])
def test_a_device_of_no_machine_is_a_mistake(machine: Machine, llama: Path, engine: str) -> None:
    for name in ("nonsense", "", "cuda:x", "gpu", "cpu:0", "CUDA0"):
        with pytest.raises(UsageError, match="there is no device") as caught:
            check_engine(llama, EngineOptions(engine, name))
        assert "cuda:0" in caught.value.hint
        assert all(f"{other}" in caught.value.hint for other in ("tpu:0", "metal:0", "mps"))
    assert not machine.looked
