"""What the tests of this room share: a directory of models, and a table of what they measured."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models() -> Iterator[Path]:
    """Give a directory for GGUF files that lives as long as the session."""
    with tempfile.TemporaryDirectory(prefix="p2pnode-engines-") as directory:
        yield Path(directory)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line of each comparison: what a test recorded under ``figures``."""
    rows = [
        f"{report.nodeid.split('::')[-1]:60} {text}"
        for report in terminalreporter.getreports("passed")
        for name, text in report.user_properties
        if name == "figures"
    ]
    if rows:
        terminalreporter.section("engines against the references")
        terminalreporter.write_line("\n".join(rows))
