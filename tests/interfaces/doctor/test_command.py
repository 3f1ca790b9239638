"""The command itself, on this machine's loopback."""

import json
import subprocess
import sys
from pathlib import Path

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


def test_a_broken_model_fails_in_words(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF and no more")
    result = doctor(tmp_path)
    assert result.returncode == 1
    assert "FAIL  model" in result.stdout
    assert "1 problem to solve first" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
