"""Scenario files that tests write."""

from pathlib import Path


def write(folder: Path, text: str) -> Path:
    """Return the scenario file of ``text`` in ``folder``."""
    path = folder / "small.toml"
    path.write_text(text, "utf-8")
    return path
