"""The comparison of engines runs, and who fails or hangs is a row with the reason."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from p2pnode.bench.engine import contestants, measure as measurement
from p2pnode.bench.engine.contestants import LLAMA_CPP, Contestant, choose
from p2pnode.bench.engine.measure import Measured, measure, ratios
from p2pnode.bench.engine.process import Process
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.finding import Search, find_library
from p2pnode.engine.ggml.probe import Candidate, ProbedDevice, Report
from p2pnode.engine.ggml.providers import Provider
from p2pnode.errors import ConfigError, ModelError, UserError
from p2pnode.interfaces.cli.bench_commands import bench
from p2pnode.interfaces.cli.engine_table import as_table
from p2pnode.node import free_memory
from p2pnode.node.capacity import SPARE
from p2pnode.testing.tiny_gguf import write_tiny_gguf

CPU = ProbedDevice("CPU", "a CPU", DeviceType.CPU, 0, 0, (), ())
GPU = ProbedDevice("CUDA0", "a card", DeviceType.GPU, 1, 2, (), ())
NUMPY = Contestant("numpy", "", 1, "auto")
FIGURES = ("decode_tok_s", "decode_cpu_ms", "prefill64_tok_s", "prefill128_tok_s", "rss_mb")


def ignore(part: float) -> None:
    pass


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.gguf"
    write_tiny_gguf(path, context_length=256, n_layers=2)
    return path


def measured(path: Path, them: list[Contestant], **options: Any) -> dict[str, Any]:
    wanted = {"rounds": 2, "tokens": 4, "quality": True, "tell": ignore, **options}
    return measure(path, them, **wanted)


def test_engines_are_measured_in_turns_and_compared_with_float32(tiny: Path) -> None:
    library = find_library(None).chosen
    them = [NUMPY]
    if library is not None:
        them.append(Contestant("ggml", library.provider.name, 1, "cpu"))
    figures = measured(tiny, them)
    assert figures["compared_tokens"] == 256
    for row in figures["rows"]:
        assert all(row[name] > 0 for name in FIGURES), row
        assert row["prefill512_tok_s"] is None  # the model has fewer positions
        assert row["rss_peak_mb"] >= row["rss_mb"] * 0.9
        assert 0 < row["load_s"] < 60
        assert row["kl"] < 0.02
        assert row["argmax"] > 0.9
    assert figures["rows"][0]["kl"] == 0  # numpy is the reference itself
    if library is not None:
        assert 0 < figures["rows"][1]["python_us"] < 10_000
        assert 0 < figures["rows"][1]["python_layer_us"] < 10_000
        assert figures["ratios"][0]["against"] == "numpy"
    assert "numpy" in as_table({**figures, "conditions": _CONDITIONS})


def test_a_library_that_cannot_be_used_is_a_row_with_the_reason(tiny: Path) -> None:
    broken = Contestant("ggml", "a library", 1, "cpu", unusable="it computes wrongly")
    gone = Contestant("ggml", "nowhere 1.0", 1, "cpu")
    figures = measured(tiny, [broken, gone, NUMPY], quality=False, rounds=1)
    reasons = [row.get("failed") for row in figures["rows"]]
    assert reasons == [
        "it computes wrongly",
        "the library nowhere 1.0 is no longer there",
        None,
    ]
    assert figures["reference"] == "not asked for"
    shown = as_table({**figures, "conditions": _CONDITIONS})
    assert "failed: ggml a library, it computes wrongly" in shown


def test_a_process_that_hangs_or_dies_fails_in_words(tiny: Path) -> None:
    with Process(NUMPY) as process:
        process.load(tiny, list(range(64)), 256)
        process._hangs = 0.0
        with pytest.raises(UserError, match="its process ended with status -9"):
            process.ask("decode", start=16, tokens=10**9)


def test_what_a_child_raises_is_an_answer_and_not_its_end(tiny: Path) -> None:
    with Process(NUMPY) as process:
        process.load(tiny, list(range(64)), 256)
        with pytest.raises(UserError, match="AttributeError"):
            process.ask("nonsense")
        assert process.ask("memory")["rss_mb"] > 0


def test_a_model_too_large_for_float32_is_compared_with_nothing(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "SPARE", 2**60)
    figures = measured(tiny, [NUMPY])
    assert "are free" in figures["reference"]
    assert "are free" in figures["rows"][0]["failed"]


def test_a_container_has_the_memory_of_its_limit(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(free_memory, "_CGROUP", tmp_path)
    for limit, answer in ((SPARE + 2**30, ""), (SPARE, "float32 takes 0.3 GB, 0.3 GB are free")):
        for name, size in (("memory.max", limit), ("memory.current", 0)):
            (tmp_path / name).write_text(f"{size}\n")
        assert measurement.too_large(tiny) == answer


def test_the_work_is_told_to_be_done_at_its_end(tiny: Path) -> None:
    told: list[float] = []
    measured(tiny, [NUMPY], rounds=1, quality=False, tell=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_model_that_cannot_be_run_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_tiny_gguf(path, arch="mamba")
    with pytest.raises(ModelError, match="mamba") as caught:
        measured(path, [NUMPY])
    assert "llama, qwen2" in caught.value.hint


def test_more_tokens_than_the_model_has_positions_are_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="too few to decode 400 tokens"):
        measured(tiny, [NUMPY], tokens=400)


def test_ratios_pair_one_library_with_itself_and_equal_threads() -> None:
    def measured(engine: str, library: str, threads: int, seconds: float) -> Measured:
        spent = {"decode": [(seconds, 2 * seconds)] * 3}
        return Measured(Contestant(engine, library, threads, "cpu"), spent=spent)

    found = ratios(
        [
            measured("numpy", "", 1, 0.4),
            measured("ggml", "x 1", 1, 0.1),
            measured("ggml", "y 2", 1, 0.2),
            measured("ggml", "x 1", 2, 0.05),
            measured(LLAMA_CPP, "x 1", 1, 0.1),
        ]
    )
    speeds = {(row["engine"], row["against"]): row["decode"] for row in found}
    assert speeds == {
        ("ggml x 1", "numpy"): 4.0,
        ("ggml y 2", "numpy"): 2.0,
        ("ggml x 1", LLAMA_CPP): 1.0,
    }


def test_names_choose_and_an_unknown_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [("numpy", "", ""), ("ggml", "libggml-python 1", ""), (LLAMA_CPP, "xllamacpp 2", "")]
    monkeypatch.setattr(contestants, "_everyone", lambda _: there)

    def chosen(*only: str) -> list[str]:
        return [one.name for one in choose(only, [1], "cpu", None)]

    assert chosen() == ["numpy", "ggml libggml-python 1", "llama.cpp xllamacpp 2"]
    assert chosen("numpy", "llama.cpp") == ["numpy", "llama.cpp xllamacpp 2"]
    assert chosen("libggml") == ["ggml libggml-python 1"]
    assert len(choose((), [1, 2, 2], "cpu", None)) == 6
    with pytest.raises(UserError, match="no engine here is called 'cuda'"):
        chosen("cuda")


def test_a_device_that_is_none_is_refused_at_once(tiny: Path) -> None:
    asked = ["engine", "--model", str(tiny), "--device", "banana"]
    done = CliRunner().invoke(bench, asked)
    assert isinstance(done.exception, ConfigError)
    assert "banana" in str(done.exception)


def library(*devices: ProbedDevice) -> Candidate:
    report = Report("0.26.0", "", "ggml 0.26.0/x64", devices, (), ())
    return Candidate(Provider("some-ggml 1", ()), report, "", is_usable=True)


@pytest.mark.parametrize(
    ("only", "there", "told"),
    [
        (("numpy",), [library(CPU, GPU)], "numpy would be measured on the CPU alone, not on cuda"),
        (("llama.cpp", "numpy"), [], "llama.cpp and numpy would be measured on the CPU alone"),
        ((), [library(CPU)], "there is no cuda:0 here: the library finds no GPU"),
        ((), [replace(library(CPU), report=None, is_usable=False)], "no ggml library can be used"),
        ((), [library(CPU, replace(GPU, faults=("x",)))], "cannot be used: it computes wrongly"),
        ((), [library(CPU), library(CPU, GPU)], ""),
    ],
)
def test_a_device_that_nobody_measured_has_is_refused(
    only: tuple[str, ...], there: list[Candidate], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [("numpy", "", ""), ("ggml", "some-ggml 1", ""), (LLAMA_CPP, "xllamacpp 2", "")]
    monkeypatch.setattr(contestants, "_everyone", lambda _: names)
    monkeypatch.setattr(contestants, "find_library", lambda _: Search(tuple(there)))
    if not told:
        assert len(choose(only, [1], "cuda:0", None)) == 3
        return
    with pytest.raises(UserError, match=told) as caught:
        choose(only, [1], "cuda:0", None)
    assert caught.value.hint


def test_the_command_prints_rows(tiny: Path) -> None:
    asked = ["engine", "--model", str(tiny), "--engine", "numpy", "--rounds", "1", "--tokens", "4"]
    done = CliRunner().invoke(bench, [*asked, "--no-quality", "--json"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["rows"]
    assert row["engine"] == "numpy"
    assert row["threads"] == 1


_CONDITIONS: dict[str, Any] = {
    "cpu": "a CPU", "cpu_mhz": 1, "cpu_count": 1, "load": [0], "python": "3",
    "cores": "pure", "versions": {},
}  # fmt: skip
