"""The evaluator of codings: what it feeds on, and that it tells better from worse."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pnode.bench import codec
from p2pnode.bench.codec_quality import Coding, Evaluator
from p2pnode.bench.codec_texts import KINDS, texts
from p2pnode.engine.state_calibration import calibration_text
from p2pnode.interfaces.cli.model_commands import models
from p2pnode.node.models import describe_model, state_calibrations
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.wire.states import Rung


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    return path


def test_texts_of_three_kinds_that_calibrated_nothing() -> None:
    everything = [text for kind in KINDS for text in texts(kind)]
    assert len(everything) == 15
    for text in everything:
        assert not set(text.splitlines()) & set(calibration_text().splitlines()) - {"", "}"}


def test_a_coarser_coding_is_judged_smaller_and_worse(tiny: Path) -> None:
    ids = [[3 + (7 * at) % 50 for at in range(40)], [3 + (11 * at) % 50 for at in range(40)]]
    evaluator = Evaluator(tiny, None, ids, lambda _: None)
    exact, half, coarse = (
        evaluator.evaluate(Coding(rung, calibrated=False), lambda _: None)
        for rung in (Rung.F32, Rung.F16, Rung.Q2)
    )
    assert exact["kl"] == exact["rel_l2"] == 0
    assert exact["top1"] == 1
    assert 0 < half["rel_l2"] < coarse["rel_l2"]
    assert coarse["kl"] > half["kl"] >= 0
    assert exact["bytes_per_token"] > half["bytes_per_token"] > coarse["bytes_per_token"]


def test_a_model_is_calibrated_and_then_its_codings_are_measured(
    tiny: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a few words to calibrate on, again and again and again. " * 20)
    done = CliRunner().invoke(models, ["calibrate", str(tiny), "--text", str(text), "--json"])
    assert done.exit_code == 0, done.output
    assert state_calibrations(describe_model(tiny).space_hash32) is not None
    told: list[float] = []
    figures = codec.measure(tiny, tokens=300, tell=told.append, timing=False)
    assert figures["calibrated"]
    assert told == sorted(told)
    assert told[-1] == 1
    rungs = [(row["rung"], row["calibrated"], row["rows"]) for row in figures["rows"]]
    assert rungs[0] == ("f16", False, 20)
    assert ("q3", True, 20) in rungs
    assert ("q3", True, 1) in rungs
    headings, cells = codec.table_cells(figures)
    assert {len(row) for row in cells} == {len(headings)}
