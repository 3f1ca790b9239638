"""The measurement of prompts runs, and an ordinary one is brief."""

from pathlib import Path

from p2pnode.bench import text
from p2pnode.testing.tiny_gguf import write_tiny_gguf


def test_an_ordinary_prompt_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, context_length=1024)
    figures = text.measure(path, rounds=5)
    assert 100 < figures["prompt_tokens"] < 200
    assert 0 < figures["prompt_ms"]["p50"] <= figures["prompt_ms"]["p99"]
    assert figures["process_mib"] > 1
