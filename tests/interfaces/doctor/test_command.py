"""The command itself, on this machine's loopback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from p2pnode.interfaces.cli.doctor_command import _sum_up
from p2pnode.interfaces.doctor.findings import Finding
from p2pnode.testing.tiny_gguf import write_tiny_gguf

PACKAGE = Path(__file__).parents[3]


def doctor(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    model = tmp_path / "tiny.gguf"
    if not model.exists():
        write_tiny_gguf(model)
    command = [sys.executable, "-m", "p2pnode", "doctor", "--state", str(tmp_path / "state")]
    return subprocess.run(
        [*command, "--model", str(model), *arguments],
        capture_output=True,
        text=True,
        cwd=PACKAGE,
        timeout=60,
    )


def test_a_machine_that_runs_the_tests_is_well(tmp_path: Path) -> None:
    result = doctor(tmp_path, "--json")
    facts = json.loads(result.stdout)
    topics = {finding["topic"] for finding in facts["findings"]}
    assert topics >= {"python", "state", "control", "clock", "processor", "timers", "udp"}
    assert topics >= {"buffers", "multicast", "model", "memory", "running"}
    assert facts["ok"], [one for one in facts["findings"] if one["verdict"] == "fail"]
    assert result.returncode == 0
    assert not (tmp_path / "state").exists()
    assert all("could not be checked" not in one["what"] for one in facts["findings"])


def test_a_swarm_that_lacks_layers_is_not_summed_up_as_one_that_works(
    capsys: pytest.CaptureFixture[str],
) -> None:
    slow = Finding("timers", "warn", "the event loop wakes late", "the machine is busy")
    lacking = Finding("layers", "warn", "nobody serves layers [15, 30) of smol", "start another")
    _sum_up([slow, lacking])
    said = capsys.readouterr().out
    assert "nobody can answer now: nobody serves layers [15, 30) of smol" in said
    assert "do this next: start another" in said
    assert "can work" not in said
    _sum_up([slow])
    assert "a node can work here; 1 thing could be better" in capsys.readouterr().out


def test_a_broken_model_fails_in_words(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF and no more")
    result = doctor(tmp_path)
    assert result.returncode == 1
    assert "FAIL  model" in result.stdout
    assert "1 problem to solve first" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
