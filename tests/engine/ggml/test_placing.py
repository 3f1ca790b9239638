"""Which device computes: a GPU that was seen to compute wrongly never does."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from p2pnode.engine.ggml import load as load_module
from p2pnode.engine.ggml.binding import Device, Ggml
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.load import load_ggml
from p2pnode.engine.ggml.placing import choose_device, loaded_device, share_out
from p2pnode.engine.ggml.probe import Candidate, ProbedDevice, Report
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.errors import EngineError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

CPU: Final = ProbedDevice("CPU", "a processor", DeviceType.CPU, 0, 0, (), ())
GOOD: Final = ProbedDevice("Vulkan1", "a card", DeviceType.GPU, 1, 2, (), ())
WRONG: Final = replace(GOOD, name="Vulkan0", faults=("mul_mat is off by 0.5 (at most 0.02)",))
LACKING: Final = replace(GOOD, name="Vulkan0", unsupported=("set_rows",))
SHARED: Final = replace(GOOD, type=DeviceType.INTEGRATED_GPU)


def report(*devices: ProbedDevice) -> Report:
    return Report("0.26.0", "abc", "ggml 0.26.0/x64", devices, (), ())


def loaded(*devices: ProbedDevice) -> list[Device]:
    return [
        Device(number, one.name, one.description, one.type, one.free, one.total)
        for number, one in enumerate(devices, 1)
    ]


@pytest.mark.parametrize("broken", [WRONG, LACKING, SHARED])
def test_auto_takes_the_first_gpu_that_can_be_used(broken: ProbedDevice) -> None:
    assert choose_device("auto", (broken, GOOD, CPU)) == GOOD
    assert choose_device("auto", (broken, CPU)) == CPU


@pytest.mark.parametrize(
    ("broken", "why"),
    [(WRONG, "it computes wrongly: mul_mat is off by 0.5"), (LACKING, "it lacks set_rows")],
)
def test_a_gpu_that_was_named_is_refused_with_its_fault(broken: ProbedDevice, why: str) -> None:
    devices = (broken, GOOD, CPU)
    with pytest.raises(EngineError, match=rf"vulkan:0 \(a card\) cannot be used: {why}") as caught:
        choose_device("vulkan:0", devices)
    assert "--device" in caught.value.hint
    assert choose_device("vulkan:1", devices) == GOOD  # the others keep their numbers
    assert choose_device("vulkan", devices) == GOOD
    with pytest.raises(EngineError, match=why):
        choose_device("vulkan", (broken, CPU))


def test_only_what_was_tried_is_taken_when_it_is_loaded() -> None:
    tried = report(WRONG, GOOD, CPU)
    assert loaded_device("auto", tried, loaded(WRONG, GOOD, CPU)).name == "Vulkan1"
    assert loaded_device("cpu", tried, loaded(WRONG, GOOD, CPU)).name == "CPU"
    assert loaded_device("auto", report(CPU), loaded(GOOD, CPU)).name == "CPU"


def test_a_gpu_that_is_gone_since_is_told(caplog: pytest.LogCaptureFixture) -> None:
    tried = report(GOOD, CPU)
    for there in ((CPU,), (replace(GOOD, description="another card"), CPU)):
        assert loaded_device("auto", tried, loaded(*there)).name == "CPU"
        assert "is not now: the CPU computes" in caplog.messages[-1]
        with pytest.raises(EngineError, match=r"Vulkan1 \(a card\) was there .* is not now"):
            loaded_device("vulkan:0", tried, loaded(*there))


def test_no_layers_are_loaded_onto_a_gpu_that_computes_wrongly(
    library: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.report is not None
    path, chosen, here = tmp_path / "tiny.gguf", [], Ggml.devices
    write_tiny_gguf(path, n_layers=2)
    with GgufFile(path) as file:
        tree = hash_file(file)
    (gpu,) = loaded(WRONG)
    monkeypatch.setattr(Ggml, "devices", lambda self: [gpu, *here(self)])

    def shares(
        layers: range,
        device: Device,
        cpu: Device,
        sizes: list[int],
        end: int,
        most: int | None,
    ) -> list[tuple[Device, range]]:
        chosen.append(device)
        return share_out(layers, cpu, cpu, sizes, end, most)

    monkeypatch.setattr(load_module, "share_out", shares)
    faulty = replace(library, report=replace(library.report, devices=(WRONG, CPU)))
    load_ggml(faulty, path, range(2), tree, kv_budget_bytes=1 << 20).shut()
    assert [device.type for device in chosen] == [DeviceType.CPU]
    with pytest.raises(EngineError, match="cannot be used: it computes wrongly"):
        load_ggml(faulty, path, range(2), tree, device="vulkan:0", kv_budget_bytes=1 << 20)
    untried = replace(library, report=None, reason="it crashed")
    with pytest.raises(EngineError, match="cannot be used: it crashed"):
        load_ggml(untried, path, range(2), tree, kv_budget_bytes=1 << 20)


def test_no_more_of_a_gpu_is_taken_than_its_owner_allows() -> None:
    gpu, cpu = loaded(replace(GOOD, free=8 << 30), CPU)
    one, end = 1 << 30, 1 << 29

    def on_gpu(most: int | None) -> int:
        shares = share_out(range(10, 20), gpu, cpu, [one] * 10, end, most)
        return sum(len(run) for where, run in shares if where is gpu)

    assert [on_gpu(most) for most in (None, 1 << 40, end + 3 * one, 3 * one, 0)] == [7, 7, 3, 2, 0]
