"""What peers say of a session, and what they would have the engine compute."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.engine.random_model import random_model
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import Batch, token_batch
from p2pnode.inference.messages import (
    Close,
    Control,
    Edge,
    Failed,
    Open,
    from_body_untrusted,
    to_body,
)
from p2pnode.inference.running import run_work
from p2pnode.inference.work import Computed, Forward, WorkFailed
from p2pnode.sansio import NodeId
from p2pnode.wire.dtypes import DType
from p2pnode.wire.states import Rung, encode_states
from p2pnode.wire.vframe import Slice

PEER = NodeId(bytes(range(32)))
ORDER = Open(1, 0, 2, range(3), 200, Edge(PEER, 5), Edge(PEER, 6), "f16", None, 0)


def change(message: Control, key: str, value: object) -> Mapping[str, object]:
    return {**to_body(message), key: value}


@pytest.mark.parametrize(
    "body",
    [
        change(Close(1, 0), "session", "0123456789abcd  "),
        change(Close(1, 0), "session", "01 23 45 67 89  "),
        change(Failed(1, 0, 2, PEER, "silent"), "culprit", PEER.hex()[:62] + " \t"),
        change(ORDER, "up", [" " * 64, 5]),
        change(ORDER, "down", [PEER.hex()[:-2] + "\n\n", 5]),
    ],
)
def test_spaces_make_no_shorter_node_or_session(body: Mapping[str, object]) -> None:
    with pytest.raises(RemoteProtocolError, match="bytes in hex"):
        from_body_untrusted(body)


@given(st.text(alphabet="0123456789abcdefABCDEF \t", min_size=64, max_size=64))
def test_a_node_has_32_bytes_or_is_refused(text: str) -> None:
    try:
        read = from_body_untrusted(change(Failed(1, 0, 2, PEER, "silent"), "culprit", text))
    except RemoteProtocolError:
        assert any(letter.isspace() for letter in text)
        return
    assert isinstance(read, Failed)
    assert len(read.culprit) == 32


def test_a_reason_moves_no_cursor() -> None:
    said = from_body_untrusted(to_body(Failed(1, 0, 2, PEER, "\x1b[2J\x1b]0;owned\x07 no")))
    assert isinstance(said, Failed)
    assert said.reason == "[2J]0;owned no"


@pytest.mark.parametrize("token", [256, 1 << 31, (1 << 32) - 1])
def test_a_token_beyond_the_vocabulary_fails_its_session_and_no_more(token: int) -> None:
    engine = random_model(5, n_layers=1, vocab_size=256)

    def work(session: bytes, batch: Batch) -> Forward:
        return Forward(session, range(1), (batch,), "f16", None, 0)

    failed = run_work(engine, work(b"1", token_batch((1, token), 0)), lambda: 0.0)
    assert isinstance(failed, WorkFailed)
    assert "vocabulary" in failed.reason
    assert isinstance(run_work(engine, work(b"2", token_batch((255,), 0)), lambda: 0.0), Computed)


def test_a_token_beyond_the_vocabulary_in_a_second_frame_is_seen_too() -> None:
    engine = random_model(5, n_layers=1, vocab_size=256)
    pieces = ((Slice(DType.I8, (1, 4), bytes(4)),), (Slice(DType.I8, (1, 4), b"\0\0\0\x80"),))
    work = Forward(b"1", range(1), (Batch(0, 2, pieces),), "f16", None, 0)
    assert isinstance(run_work(engine, work, lambda: 0.0), WorkFailed)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [np.inf, -np.inf], [3e38] * 8, [1e7]], ids=str)
def test_states_beyond_all_measure_fail_their_sender_without_a_warning(
    rows: int, bad: list[float]
) -> None:
    engine = random_model(5, n_layers=3)
    states = np.ones((rows, engine.info.d_model), np.float32)
    states[-1, : len(bad)] = bad
    batch = Batch(0, rows, (encode_states(states, Rung.F32),))
    work = Forward(b"1", range(1, 3), (batch,), "f16", None, 0)
    result = run_work(engine, work, lambda: 0.0)
    assert isinstance(result, WorkFailed)
    assert result.is_input_bad
    assert "beyond all measure" in result.reason
