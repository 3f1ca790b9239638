"""Phrases that the log, the snapshot and the command line share."""

from collections.abc import Iterable


def plural(count: int, noun: str) -> str:
    """Return ``1 peer`` or ``2 peers``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Iterable[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``; nothing for none."""
    *most, last = [*names] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def run_text(run: range) -> str:
    """Return a run of layers as people see it: ``[0, 10)``."""
    return f"[{run.start}, {run.stop})"


def runs_text(runs: Iterable[range]) -> str:
    """Return ``[0, 10), [20, 30)``."""
    return ", ".join(map(run_text, runs))


def holding(name: str, layers: range) -> str:
    """Return a peer with its layers: ``kitchen [0, 10)``."""
    return f"{name} {run_text(layers)}"
