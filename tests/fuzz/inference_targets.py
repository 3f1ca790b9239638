"""Inference: orders and activations of peers that nobody vouches for."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from random import Random

import numpy as np
import numpy.typing as npt

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import Batch, Inbox, to_frames, token_batch
from p2pnode.inference.coding import encode_pieces
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.core import Inference
from p2pnode.inference.events import ComputeRequested
from p2pnode.inference.messages import Close, Edge, Open, Resume
from p2pnode.inference.prefix_body import Names
from p2pnode.inference.running import run_work
from p2pnode.inference.terms import LADDER, Terms
from p2pnode.testing.frames import Roster, node_id
from p2pnode.wire.dtypes import DType
from p2pnode.wire.states import Rung
from p2pnode.wire.tensor import tensor_to_slices
from p2pnode.wire.vframe import Frame, decode_frame_untrusted, encode_frame
from tests.fuzz.target import MIB, Script, Target, blob, with_crc

_EVIL, _US, _THIRD = (node_id(name) for name in ("evil", "us", "third"))
_ROWS = 64
_ENGINE_SEED = 5
_KV_BYTES = 4 * MIB


def inbox(data: bytes) -> None:
    """Frames of one edge; no more rows are held than the session may have."""
    box = Inbox(4, frozenset({int(DType.I8)}), limit=_ROWS)
    script, taken = Script(data), 0
    while script:
        with suppress(RemoteProtocolError):
            box.add_untrusted(decode_frame_untrusted(with_crc(script.blob())))
            while (batch := box.take_batch()) is not None:
                assert batch.start >= taken
                assert sum(piece[0].shape[0] for piece in batch.pieces) == batch.rows
                taken = batch.end
        assert taken <= _ROWS


def inference(data: bytes) -> None:
    """Two peers order and feed stages, and a real engine computes whatever they ask for."""
    engine = random_model(_ENGINE_SEED, n_layers=2)
    core = Inference(InferenceConfig(), _US, Roster(), Random(1))
    core.use_model(engine.info)
    core.serve(engine.info, engine.layers, _KV_BYTES)
    script, now = Script(data), 0.0
    while script:
        step = script.byte()
        now += step >> 2
        with suppress(RemoteProtocolError):
            frame = decode_frame_untrusted(with_crc(script.blob()))
            core.receive_frame_untrusted(frame, (_EVIL, _THIRD)[step & 1], now)
        if step & 2:
            core.handle_timeout(now)
        for event in core.take_events():
            if isinstance(event, ComputeRequested):
                core.compute_finished(event.job, run_work(engine, event.work, lambda: 0.0), now)
    assert core.kv_used <= _KV_BYTES


# Seeds


def _order(leg: int, layers: range, epoch: int = 0) -> Open:
    return Open(1, epoch, leg, layers, 40, Edge(_EVIL, leg), Edge(_THIRD, 9), "f16", None, 0)


def _inference_seeds() -> Iterator[bytes]:
    info = random_model(_ENGINE_SEED, n_layers=2).info
    space = info.space_hash32

    def story(*frames: Frame) -> bytes:
        return b"".join(b"\0" + blob(encode_frame(frame)[:-4]) for frame in frames)

    hidden = tensor_to_slices(_random_rows(3, info.d_model))
    tokens = [*to_frames(token_batch((1, 2, 3), 0), 1, space)]
    states = [*to_frames(Batch(0, 3, (hidden,)), 2, space)]
    coarse = [
        frame
        for rung in (Rung.I8, Rung.Q4, Rung.Q2)
        for pieces in [encode_pieces(_random_rows(3, info.d_model), rung, None)]
        for frame in to_frames(Batch(0, 3, pieces, codings=1), 2, space)
    ]
    first = control_frame(_order(1, range(1)), space)
    second = control_frame(_order(2, range(1, 2)), space)
    again = control_frame(_order(1, range(1), epoch=1), space)
    resume = control_frame(Resume(1, 1, 1, 0), space)
    yield story(first, *tokens, again, resume, control_frame(Close(1, 1), space))
    names = Names(((3, bytes(16)),))
    kept = control_frame(Close(1, 1, ((1, names), (2, names))), space)
    alike = control_frame(replace(_order(1, range(1)), session=2, prefix=names), space)
    yield story(first, *tokens, kept, alike, resume)
    yield story(second, *states)
    yield from (story(second, frame) for frame in coarse)
    for asked in (
        Sampling(0.8, 0, 0.9, 1, 0.1, 1.2, 0.5, 0.5, 64, 2),
        Sampling(schema='{"type":"object"}', ends=(2,)),
    ):
        order = replace(
            _order(2, range(1, 2)), sampling=asked, sample_from=3, past=Past(2, 3, (1, 2, 3))
        )
        yield story(control_frame(order, space), *states)
    terms = Terms("auto", frozenset(LADDER), 1.0)
    yield story(control_frame(replace(_order(1, range(1)), terms=terms), space), *tokens)


def _random_rows(rows: int, width: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((rows, width), np.float32)


def _inbox_seeds() -> Iterator[bytes]:
    frames = [*to_frames(token_batch((1, 2, 3), 0), 1, 0), *to_frames(token_batch((4,), 3), 1, 0)]
    pieces = [blob(encode_frame(frame)[:-4]) for frame in frames]
    yield b"".join(pieces)
    yield b"".join(reversed(pieces))


TARGETS = (
    Target("inbox", inbox, _inbox_seeds, max_len=2000),
    Target("inference", inference, _inference_seeds, max_len=3000, memory=2 * _KV_BYTES),
)
