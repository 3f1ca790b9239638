"""What an image is made of is there, and is let through to the engine that builds it."""

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from p2pnode.interfaces.cli.node_options import DEFAULT_PORT

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / ".ci" / "Containerfile").read_text("utf-8")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    rules = (ROOT / ".containerignore").read_text("utf-8").splitlines()
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--)(.+)$", TEXT, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert len(copied) >= 5
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, rule) for rule in kept), source


def test_it_runs_as_no_root_on_the_port_of_a_node_with_a_base_of_a_named_version() -> None:
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", TEXT, re.MULTILINE)
    assert f"EXPOSE {DEFAULT_PORT}/udp" in TEXT
    assert set(re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)) == {"python:3.11-slim-bookworm"}


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint here")
def test_hadolint_finds_nothing_wrong_with_it() -> None:
    done = subprocess.run(
        ["hadolint", "--no-color", str(ROOT / ".ci" / "Containerfile")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")
