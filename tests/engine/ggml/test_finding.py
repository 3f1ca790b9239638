"""Answers are kept for as long as they hold, and mistrusted when they make no sense."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from p2pnode.engine.ggml import finding
from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.probe import Candidate, ProbedDevice, Report
from p2pnode.engine.ggml.providers import Provider

CPU = ProbedDevice("CPU", "a processor", DeviceType.CPU, 1, 2, (), ())
GPU = ProbedDevice("CUDA0", "a card", DeviceType.GPU, 1, 2, (), ())
REPORT = Report("0.26.0", "abc", "ggml 0.26.0/x64", (CPU,), ("CPU_REPACK",), ())


class Tries:
    """Answers in the place of a child process, and counts the questions."""

    def __init__(self, answers: dict[str, Report | str] | None = None) -> None:
        self.names: list[str] = []
        self._answers = answers or {}

    def __call__(self, provider: Provider) -> Candidate:
        self.names.append(provider.name)
        answer = self._answers.get(provider.name, REPORT)
        if isinstance(answer, str):
            return Candidate(provider, None, answer, is_usable=False)
        return Candidate(provider, answer, "", is_usable=True)


@pytest.fixture
def library(tmp_path: Path) -> Provider:
    return _library(tmp_path, "a")


def _library(tmp_path: Path, name: str) -> Provider:
    path = tmp_path / f"libggml-{name}.so"
    path.write_bytes(b"a library")
    return Provider(name, (path,))


def test_a_library_is_tried_once(tmp_path: Path, library: Provider) -> None:
    tries = Tries()
    first = find_library(tmp_path / "cache", found=[library], try_one=tries)
    second = find_library(tmp_path / "cache", found=[library], try_one=tries)
    assert tries.names == ["a"]
    assert first == second
    assert first.chosen == Candidate(library, REPORT, "", is_usable=True)


def test_without_a_cache_it_is_tried_each_time(library: Provider) -> None:
    tries = Tries()
    find_library(None, found=[library], try_one=tries)
    find_library(None, found=[library], try_one=tries)
    assert tries.names == ["a", "a"]


def test_a_try_that_was_ended_from_outside_is_made_again(tmp_path: Path, library: Provider) -> None:
    cut = Candidate(library, None, "it crashed (SIGTERM)", is_usable=False, is_cut_short=True)
    assert find_library(tmp_path, found=[library], try_one=lambda _: cut).chosen is None
    tries = Tries()
    assert find_library(tmp_path, found=[library], try_one=tries).chosen is not None
    assert tries.names == ["a"]


def test_a_changed_file_is_tried_anew(tmp_path: Path, library: Provider) -> None:
    tries = Tries()
    find_library(tmp_path, found=[library], try_one=tries)
    library.libraries[0].write_bytes(b"another library")
    find_library(tmp_path, found=[library], try_one=tries)
    os.utime(library.libraries[0], ns=(1, 1))
    find_library(tmp_path, found=[library], try_one=tries)
    assert len(tries.names) == 3


@pytest.mark.parametrize("what", ["cpu_name", "_own_version"])
def test_another_machine_or_version_is_tried_anew(
    tmp_path: Path, library: Provider, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    tries = Tries()
    find_library(tmp_path, found=[library], try_one=tries)
    monkeypatch.setattr(finding, what, lambda: "another")
    find_library(tmp_path, found=[library], try_one=tries)
    assert len(tries.names) == 2


def test_a_variable_that_hides_gpus_is_tried_anew(
    tmp_path: Path, library: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = Tries()
    find_library(tmp_path, found=[library], try_one=tries)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    find_library(tmp_path, found=[library], try_one=tries)
    assert len(tries.names) == 2


def test_a_failure_is_tried_again_after_a_day(
    tmp_path: Path, library: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = Tries({"a": "it crashed"})
    now = time.time()
    for later in (0, 3600, 25 * 3600):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        search = find_library(tmp_path, found=[library], try_one=tries)
        assert search.candidates[0].reason == "it crashed"
        assert search.chosen is None
    assert len(tries.names) == 2


def test_the_first_is_chosen_unless_another_has_a_gpu(tmp_path: Path) -> None:
    found = [_library(tmp_path, name) for name in "abc"]
    with_gpu = replace(REPORT, devices=(GPU, CPU))
    cases: list[tuple[dict[str, Report | str], str]] = [
        ({}, "a"),
        ({"a": "it crashed"}, "b"),
        ({"b": with_gpu}, "b"),
        ({"b": with_gpu, "c": with_gpu}, "b"),
        ({"c": replace(REPORT, devices=(replace(GPU, faults=("x",)), CPU))}, "a"),
    ]
    for answers, chosen in cases:
        search = find_library(None, found=found, try_one=Tries(answers))
        assert [one.provider.name for one in search.candidates] == ["a", "b", "c"]
        assert search.chosen is not None
        assert search.chosen.provider.name == chosen
    assert find_library(None, found=[]).chosen is None


def test_what_was_named_goes_before_a_gpu_and_is_replaced_where_it_fails(tmp_path: Path) -> None:
    named = replace(_library(tmp_path, "the folder x"), is_named=True)
    found = [named, _library(tmp_path, "b")]
    with_gpu = replace(REPORT, devices=(GPU, CPU))
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        search = find_library(cache, found=found, try_one=Tries({"b": with_gpu}))
        assert search.chosen is not None
        assert search.chosen.provider == named
        assert not search.passed_over
    for reason, told in (
        ("it crashed", "the folder x: it crashed"),
        ("nothing in the folder x", "nothing in the folder x"),
    ):
        search = find_library(None, found=found, try_one=Tries({"the folder x": reason}))
        assert search.chosen is not None
        assert search.chosen.provider == found[1]
        what = f"does not use what P2PNODE_GGML_DIR names ({told}): b takes its place"
        assert search.passed_over == what
    failing = Tries({"the folder x": "bad", "b": "bad"})
    assert not find_library(None, found=found, try_one=failing).passed_over


def test_the_file_is_bounded_and_keeps_what_was_asked_last(tmp_path: Path) -> None:
    cache, tries = tmp_path / "cache", Tries()
    found = [_library(tmp_path, f"{index}") for index in range(20)]
    for library in found:
        find_library(cache, found=[library], try_one=tries)
    assert len(json.loads((cache / "ggml.json").read_text())) == 16
    find_library(cache, found=found[-16:], try_one=tries)
    assert len(tries.names) == 20
    assert [path.name for path in cache.iterdir()] == ["ggml.json"]


_BAD = st.sampled_from(
    [b"", b"{", b"[]", b"5", b"null", b"[" * 100_000, b"\xff\xfe", b" " * 2**21, b'{"a": NaN}']
) | st.binary(max_size=50)


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=15)
@given(_BAD)
def test_a_malformed_file_is_as_good_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ggml.json").write_bytes(data)
    library, tries = _library(tmp_path, "a"), Tries()
    assert find_library(tmp_path, found=[library], try_one=tries).chosen is not None
    find_library(tmp_path, found=[library], try_one=tries)
    assert tries.names == ["a"]


_WRONG: list[object] = [None, True, -1, 0, 2.5, 10**30, "", "x", [], {}, [1], [{}], {"a": 1}]


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=25)
@given(
    st.sampled_from(["", "report", "reason", "at", "devices", "gpus", "version"]),
    st.sampled_from(_WRONG),
)
def test_a_malformed_entry_is_tried_anew(tmp_path: Path, field: str, value: object) -> None:
    library, path = _library(tmp_path, "a"), tmp_path / "ggml.json"
    find_library(tmp_path, found=[library], try_one=Tries())
    entries = json.loads(path.read_text())
    for key, entry in entries.items():
        if not field:
            entries[key] = value
        elif field in entry:
            entry[field] = value
        else:
            entry["report"][field] = value
    path.write_text(json.dumps(entries))
    chosen = find_library(tmp_path, found=[library], try_one=Tries()).chosen
    assert chosen is None or chosen.report is not None
    path.unlink()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, library: Provider) -> None:
    (tmp_path / "file").touch()
    tries = Tries()
    assert find_library(tmp_path / "file", found=[library], try_one=tries).chosen is not None
