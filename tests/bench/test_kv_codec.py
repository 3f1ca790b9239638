"""The bench of the KV codec counts real bytes, and finds small errors where there are such."""

from importlib import resources

import numpy as np

from p2pnode.bench import kv_codec
from p2pnode.engine.kv_importance import Case
from p2pnode.engine.kv_probe import KvProbe
from p2pnode.engine.random_model import random_model


def test_a_row_has_the_bytes_the_errors_and_the_times() -> None:
    engine = random_model(3, n_layers=2)
    probe = KvProbe(engine._config, engine._weights)
    count = kv_codec.CACHED + kv_codec.ANSWERED
    cases = [
        Case(probe, np.random.default_rng(seed).integers(1, 256, count), kv_codec.ANSWERED)
        for seed in (1, 2)
    ]
    row = kv_codec._row("int8 groups", cases, None, 0)
    assert row["scheme"] == "int8 groups"
    assert 1.2 < row["ratio"] < 2.1  # a head of 8 has a scale of its own
    assert row["bytes_per_token"] == round(2 * 2 * 32 / row["ratio"])
    assert 0 < row["kl"] <= row["kl_worst"] < 0.001
    assert row["top1"] > 0.95
    assert abs(row["dppl"]) < 0.01
    assert row["encode_ms"] > 0
    assert row["decode_ms"] > 0


def test_the_texts_are_shipped_and_are_of_several_kinds() -> None:
    folder = resources.files("p2pnode.bench") / "kv_texts"
    names = {file.name for file in folder.iterdir()}
    assert {"story.txt", "code.txt", "chat.txt"} <= names
