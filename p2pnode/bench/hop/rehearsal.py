"""A message's code run once for nothing, so that what is about to arrive finds it in the caches."""

from __future__ import annotations

from itertools import count
from typing import Final

import numpy as np

from p2pnode.inference.activations import Batch, to_frames
from p2pnode.inference.coding import decode_pieces_untrusted
from p2pnode.testing.pair import connected_pair
from p2pnode.transport.events import Delivery, MessageReceived
from p2pnode.wire.states import Rung, encode_states
from p2pnode.wire.vframe import decode_frame_untrusted, encode_frame

_WIDTH: Final = 576  # values of a hidden state of the default model
_SPACE: Final = 1

_STEP: Final = 0.01
"""Seconds from one to the next for the two, however long it was: nobody is to miss the other."""


class Rehearsal:
    """Two endpoints in memory that speak with each other; the code is the node's, the data not.

    Coding, frames and the transport take part, in both directions in turns. What a node does with
    a frame after that does not, so what this saves is the least that could be saved.
    """

    def __init__(self) -> None:
        pair, alice, bob = connected_pair(0)
        self._addresses = alice, bob
        self._endpoints = pair.endpoints[alice], pair.endpoints[bob]
        self._peers = pair.node_id(alice), pair.node_id(bob)
        self._now = pair.network.now
        self._numbers = count(1)
        self._rows = np.ones((1, _WIDTH), np.float32)

    def run(self) -> int:
        """Send a hidden state from one to the other; return how many arrived."""
        number = next(self._numbers)
        self._now = now = self._now + _STEP
        for endpoint in self._endpoints:
            due = endpoint.next_timeout()
            if due is not None and due <= now:
                endpoint.handle_timeout(now)
        batch = Batch(number, 1, (encode_states(self._rows, Rung.F32),))
        for frame in to_frames(batch, 1, _SPACE):
            side = number % 2
            data = encode_frame(frame)
            self._endpoints[side].send(self._peers[1 - side], data, Delivery.LATENCY, now)
        return self._carry(number % 2, now) + self._carry(1 - number % 2, now)

    def _carry(self, side: int, now: float) -> int:
        arrived = 0
        there = self._endpoints[1 - side]
        for transmit in self._endpoints[side].datagrams_to_send():
            there.receive_datagram(transmit.payload, self._addresses[side], now)
        for event in there.take_events():
            if isinstance(event, MessageReceived):
                frame = decode_frame_untrusted(event.payload)
                decode_pieces_untrusted((frame.slices[:1],), None)
                arrived += 1
        return arrived
