"""Scenario files that tests write."""

from pathlib import Path


def write(folder: Path, text: str) -> Path:
    """Return the scenario file of ``text`` in ``folder``."""
    path = folder / "small.toml"
    path.write_text(text, "utf-8")
    return path


def two_nodes(layers: int) -> str:
    """Return what a file says of two nodes, each with half of the layers, and of their link."""
    half = layers // 2
    return f"""
[link]
latency_ms = [0.2, 0.8]

[[node]]
name = "a"
layers = [0, {half}]

[[node]]
name = "b"
layers = [{half}, {layers}]
"""
