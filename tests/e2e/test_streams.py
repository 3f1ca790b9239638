"""Standard streams that are closed, full or without a reader: a quiet end or a line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

COMMANDS = [("--help",), ("--version",), ("models", "list"), ("models", "list", "--json")]
FULL = "p2pnode: cannot write to standard output: No space left on device"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("P2PNODE_HOME", str(tmp_path / "state"))


def shell(words: tuple[str, ...], streams: str) -> tuple[int, str]:
    """Run a command with its streams as a shell would give them."""
    line = f"exec {sys.executable} -m p2pnode {' '.join(words)} {streams}"
    done = subprocess.run(["/bin/sh", "-c", line], stderr=subprocess.PIPE, text=True, timeout=50)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", COMMANDS)
def test_a_full_standard_output_is_one_line(words: tuple[str, ...]) -> None:
    status, said = shell(words, ">/dev/full")
    assert status == 1
    assert said.splitlines()[0] == FULL


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/null 2>/dev/full"])
def test_closed_streams_are_no_failure(words: tuple[str, ...], streams: str) -> None:
    assert shell(words, streams) == (0, "")


def test_a_mistake_has_its_status_though_nobody_can_hear_of_it() -> None:
    assert shell(("up", "--port", "x"), "2>/dev/full") == (2, "")
    assert shell(("up", "--port", "x"), "2>&-") == (2, "")


@pytest.mark.parametrize("words", COMMANDS)
def test_a_reader_that_has_gone_is_no_failure(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "p2pnode", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=50)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nothing_lands_in_a_file_that_got_a_closed_stream_s_number(tmp_path: Path) -> None:
    script = (
        "from p2pnode.interfaces.cli.main import mend_streams; mend_streams();"
        f"import os; number = os.open({str(tmp_path / 'x')!r}, os.O_CREAT | os.O_WRONLY);"
        "print('hello', flush=True); os._exit(0 if number > 2 else 1)"
    )
    done = subprocess.run(["/bin/sh", "-c", f'exec {sys.executable} -c "$0" >&- 2>&-', script])
    assert done.returncode == 0
    assert (tmp_path / "x").read_bytes() == b""
