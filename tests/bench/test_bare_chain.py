"""Engines joined by bare sockets: what every chain of nodes is measured against."""

from pathlib import Path

import numpy as np
import pytest

from p2pnode.bench.bare_chain import bare_chain
from p2pnode.bench.hop.knobs import Compute, Knobs, Setting
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.engine.solo import answer_alone
from p2pnode.errors import UserError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

CUTS = [0, 1, 3, 4]


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bare") / "tiny.gguf"
    write_tiny_gguf(path, context_length=1024)
    return path


@pytest.mark.parametrize("length", [3, 64, 300])
def test_tokens_are_those_of_one_engine(
    model: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A state of this model is small: let those of a chunk need several datagrams all the same.
    monkeypatch.setattr("p2pnode.bench.bare_chain._MOST_BYTES", 1000)
    prompt = np.random.default_rng(length).integers(0, 256, length).tolist()
    alone = answer_alone(NumpyEngine.load(model, range(4)), prompt, 5)
    with bare_chain(model, "numpy", 1, CUTS) as chain:
        first, steps, hops = chain.answer(prompt, 5)
        again, *_ = chain.answer(prompt, 5)
    assert tuple(first) == tuple(again) == alone.token_ids
    assert len(steps) == len(hops) == 4
    assert all(0 < 3 * hop < step for hop, step in zip(hops, steps, strict=True))


def test_stages_sleep_where_they_are_told_to(model: Path, tmp_path: Path) -> None:
    told = [tmp_path / f"{number}.knobs" for number in range(3)]
    for file in told:
        with Knobs(file) as knobs:
            knobs.setting = Setting(compute=Compute.SLEEP, forward=0.02, logits=0.01)
    with bare_chain(model, "numpy", 1, CUTS, told) as chain:
        _, steps, hops = chain.answer([1, 2, 3], 4)
    assert min(steps) >= 0.07
    assert all(0 < 3 * hop <= step - 0.07 for hop, step in zip(hops, steps, strict=True))


def test_a_stage_that_is_gone_is_told(model: Path) -> None:
    with bare_chain(model, "numpy", 1, CUTS) as chain:
        chain.answer([1, 2, 3], 2)
        chain._others[1].terminate()
        chain._others[1].join()
        with pytest.raises(UserError, match="ended with"):
            chain.answer([1, 2, 3], 2)


def test_rows_that_fill_no_buffer_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "wide.gguf"
    write_tiny_gguf(path, d_model=2048, n_heads=32, n_kv_heads=4, n_layers=3)
    prompt = np.random.default_rng(0).integers(0, 256, 64).tolist()
    alone = answer_alone(NumpyEngine.load(path, range(3)), prompt, 2)
    with bare_chain(path, "numpy", 1, [0, 1, 2, 3]) as chain:
        found, *_ = chain.answer(prompt, 2)
    assert tuple(found) == alone.token_ids
