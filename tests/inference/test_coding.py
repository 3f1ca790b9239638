"""A coded batch: within its budget, in frames that each can be read alone, refused when wrong."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.inference.activations import (
    MAX_BATCH,
    MOST_SCALES,
    Batch,
    Inbox,
    to_frames,
    token_batch,
)
from p2pnode.inference.coding import (
    cost_of,
    decode_pieces_untrusted,
    encode_pieces,
    encode_within,
)
from p2pnode.inference.stage import _HIDDEN, _TOKENS
from p2pnode.inference.terms import LADDER
from p2pnode.wire.calibration import Calibration, measure_calibration
from p2pnode.wire.dtypes import DType
from p2pnode.wire.states import Rung
from p2pnode.wire.vframe import (
    MAX_FRAME,
    Frame,
    MessageType,
    Slice,
    decode_frame_untrusted,
    encode_frame,
)

Rows = NDArray[np.float32]
COARSE = [rung for rung in LADDER if rung is not Rung.F16]


def states(rows: int, width: int, seed: int = 1) -> Rows:
    """Return what hidden states are like: each channel has a mean and a spread of its own."""
    rng = np.random.default_rng(seed)
    spread = rng.lognormal(0, 1, width)  # [width]
    rows_of = rng.standard_normal((rows, width)) * spread + 2 * spread  # [rows, width]
    return rows_of.astype(np.float32)


def calibration(width: int, seed: int = 1) -> Calibration:
    return measure_calibration(states(512, width, seed), space_hash32=7, cut=3)


def batch_of(rows: Rows, rung: Rung, start: int = 0) -> Batch:
    pieces, coded = encode_within(rows, (rung,), 0.0, None)
    assert coded.rung is rung
    return Batch(start, len(rows), pieces, 5, 6, 7)


def carried(batch: Batch, width: int) -> Batch:
    """Return ``batch`` as it comes out at the other end of an edge, its frames in any order."""
    inbox = Inbox(width, _HIDDEN, batch.end, MOST_SCALES)
    inbox.skip_to(batch.start)
    for frame in reversed(list(to_frames(batch, 9, 1))):
        data = encode_frame(frame)
        assert len(data) <= MAX_FRAME
        assert inbox.add_untrusted(decode_frame_untrusted(data))
    arrived = inbox.take_batch()
    assert arrived is not None
    return arrived


@given(
    st.sampled_from(LADDER),
    st.integers(1, MAX_BATCH),
    st.integers(1, 300),
    st.integers(0, 1000),
)
def test_a_batch_arrives_as_it_was_coded(rung: Rung, rows: int, width: int, start: int) -> None:
    batch = batch_of(states(rows, width), rung, start)
    arrived = carried(batch, width)
    assert (arrived.start, arrived.rows) == (batch.start, batch.rows)
    assert (arrived.compute_us, arrived.micronats, arrived.codings) == (5, 6, 7)
    assert np.array_equal(
        decode_pieces_untrusted(arrived.pieces, None), decode_pieces_untrusted(batch.pieces, None)
    )


@pytest.mark.parametrize("rung", LADDER)
@pytest.mark.parametrize("width", [576, 4096, 16384])
def test_wide_and_long_batches_fit_their_frames(rung: Rung, width: int) -> None:
    rows = states(96, width)
    batch = batch_of(rows, rung)
    decoded = decode_pieces_untrusted(carried(batch, width).pieces, None)
    whole = decode_pieces_untrusted(encode_pieces(rows, rung, None), None)
    assert decoded.shape == rows.shape
    assert np.array_equal(decoded, whole)


@pytest.mark.parametrize("rung", COARSE)
def test_how_a_batch_is_cut_changes_no_row(rung: Rung) -> None:
    rows = states(200, 576)
    together = decode_pieces_untrusted(encode_pieces(rows, rung, None), None)
    alone = [decode_pieces_untrusted(encode_pieces(row[None], rung, None), None) for row in rows]
    assert np.array_equal(together, np.concatenate(alone))


def test_the_first_coding_within_the_budget_is_taken() -> None:
    rows = states(16, 576)
    costs = {rung: encode_within(rows, (rung,), 0.0, None)[1].kl for rung in COARSE}
    assert 0 < costs[Rung.I8] < costs[Rung.Q4] < costs[Rung.Q2]
    tries = (Rung.Q2, Rung.Q4, Rung.I8, Rung.F16)
    for allowed, taken, failed in (
        (costs[Rung.Q2], Rung.Q2, ()),
        (costs[Rung.Q4], Rung.Q4, (Rung.Q2,)),
        (costs[Rung.I8], Rung.I8, (Rung.Q2, Rung.Q4)),
        (0.0, Rung.F16, (Rung.Q2, Rung.Q4, Rung.I8)),
    ):
        _, coded = encode_within(rows, tries, allowed, None)
        assert (coded.rung, coded.failed) == (taken, failed)
        assert coded.kl <= allowed


@given(st.floats(0, 0.5), st.integers(1, 20), st.integers(0, 50), st.booleans())
def test_nothing_is_sent_beyond_the_budget(
    kl: float, rows: int, seed: int, calibrated: bool
) -> None:
    tensor = states(rows, 96, seed)
    known = calibration(96) if calibrated else None
    pieces, coded = encode_within(tensor, (Rung.Q2, Rung.Q4, Rung.I8, Rung.F16), kl, known)
    assert coded.kl <= kl
    if coded.rung is not Rung.F16:
        assert cost_of(tensor, decode_pieces_untrusted(pieces, known), known) <= kl


@pytest.mark.parametrize("rung", COARSE)
@pytest.mark.parametrize("rows", [1, 3, 96, 300])
def test_a_calibrated_batch_arrives_as_it_was_coded_and_fits_its_frames(
    rung: Rung, rows: int
) -> None:
    width = 1024
    known, tensor = calibration(width), states(rows, width)
    pieces, coded = encode_within(tensor, (rung,), 0.0, known)
    assert {piece[0].dtype for piece in pieces} == {DType.CENTRED}
    assert coded.saved > 0
    arrived = carried(Batch(0, rows, pieces), width)
    decoded = decode_pieces_untrusted(arrived.pieces, known)
    assert cost_of(tensor, decoded, known) == coded.kl
    plain = encode_within(tensor, (rung,), 0.0, None)[1]
    assert coded.kl < plain.kl
    with pytest.raises(RemoteProtocolError, match="calibration"):
        decode_pieces_untrusted(arrived.pieces, None)


def test_bytes_saved_are_those_that_f16_would_have_taken_more() -> None:
    rows = states(64, 576)
    pieces, coded = encode_within(rows, (Rung.I8,), 1.0, None)
    sent = sum(len(part.payload) for piece in pieces for part in piece)
    assert coded.saved == 2 * rows.size - sent > 0.4 * 2 * rows.size


def test_values_beyond_half_precision_go_as_f32_whatever_was_asked() -> None:
    rows = states(4, 64)
    rows[2, 3] = 1e5
    for rung in LADDER:
        ((piece,),), coded = encode_within(rows, (rung,), 0.0, None)
        assert piece.dtype == DType.F32
        assert (coded.saved, coded.kl) == (0, 0.0)


def test_what_is_no_number_is_no_small_cost() -> None:
    rows = states(2, 64)
    spoilt = rows.copy()
    spoilt[0, 0] = np.nan
    for known in (None, calibration(64)):
        assert cost_of(rows, spoilt, known) == float("inf")


def test_the_estimate_is_the_error_in_units_of_how_far_channels_stray() -> None:
    rows, known = states(512, 64), calibration(64)
    signs = np.random.default_rng(2).choice([-1.0, 1.0], rows.shape).astype(np.float32)
    decoded = rows + np.float32(0.1 * known.unit) * signs
    assert cost_of(rows, decoded, known) == pytest.approx(0.01, rel=0.2)


def test_a_row_far_from_all_others_is_judged_by_its_own_length() -> None:
    """The first token's states are 100 times as long, and are rounded 100 times as coarsely."""
    rows, known = states(64, 576), calibration(576)
    usual = cost_of(rows, (1 + 1e-3) * rows, known)
    rows[0] *= 150
    assert cost_of(rows, (1 + 1e-3) * rows, known) < 2 * usual


# The door


def frame(*slices: Slice, position: int = 0) -> Frame:
    return Frame(MessageType.THINK, 9, position + 1, 1, slices=slices)


def slices_of(rung: Rung, rows: int = 3, width: int = 64) -> tuple[Slice, ...]:
    (one,) = to_frames(batch_of(states(rows, width), rung), 9, 1)
    return one.slices


@pytest.mark.parametrize("rung", COARSE)
def test_malformed_pieces_are_refused_at_the_door(rung: Rung) -> None:
    rows, *scales, meta = slices_of(rung)
    other = slices_of(rung, rows=2)[1]
    wrong = (
        (rows,),
        (rows, *scales),  # no meta data
        (rows, *scales, *scales, *scales, *scales, meta),
        (rows, other, meta),
        (scales[0], rows, meta),
        (rows, *scales, replace(meta, payload=meta.payload[:-1], shape=(15,))),
        (rows, *scales, Slice(DType.F16, (8,), bytes(16))),
    )
    for slices in wrong:
        inbox = Inbox(64, _HIDDEN, 100, MOST_SCALES)
        with pytest.raises(RemoteProtocolError):
            inbox.add_untrusted(frame(*slices))
        assert inbox.take_batch() is None


def test_what_was_not_advertised_is_refused() -> None:
    inbox = Inbox(64, frozenset({int(DType.F16), int(DType.F32)}), 100, MOST_SCALES)
    with pytest.raises(RemoteProtocolError, match="dtype"):
        inbox.add_untrusted(frame(*slices_of(Rung.I8)))


def test_tokens_have_no_scales() -> None:
    (tokens,) = to_frames(token_batch((1, 2, 3), 0), 9, 1)
    ids, meta = tokens.slices
    inbox = Inbox(4, _TOKENS, 100)
    with pytest.raises(RemoteProtocolError):
        inbox.add_untrusted(frame(ids, Slice(DType.F16, (3, 1), bytes(6)), meta))
    assert inbox.add_untrusted(tokens)


slice_of = st.builds(
    lambda shape, scale: (
        Slice(DType.F16, shape, bytes(2 * shape[0] * shape[1]))
        if scale
        else Slice(DType.I8, shape, bytes(shape[0] * shape[1]))
    ),
    st.tuples(st.integers(0, 4), st.integers(0, 66)),
    st.booleans(),
)
meta_of = st.binary(max_size=20).map(lambda data: Slice(DType.I8, (len(data),), data))


@given(st.lists(slice_of, max_size=6), meta_of, st.integers(0, 200))
def test_whatever_comes_is_taken_or_refused(
    slices: list[Slice], meta: Slice, position: int
) -> None:
    inbox = Inbox(64, _HIDDEN, 100, MOST_SCALES)
    try:
        taken = inbox.add_untrusted(frame(*slices, meta, position=position))
        batch = inbox.take_batch()
    except RemoteProtocolError:
        return
    assert taken
    if batch is not None:
        try:
            decoded = decode_pieces_untrusted(batch.pieces, None)
        except RemoteProtocolError:
            return
        assert decoded.shape == (batch.rows, 64)


def test_without_a_coding_to_try_nothing_is_guessed() -> None:
    with pytest.raises(LocalProtocolError):
        encode_within(states(1, 8), (), 1.0, None)
