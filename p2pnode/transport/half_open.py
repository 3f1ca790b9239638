"""Handshakes under way: who dials us, whom we dial, and who of two that dial at once gives way.

When both ends dial each other at the same time, each sees the other's INIT while its own is
unanswered. Both know both ephemeral keys, so both come to the same choice without a word: the
greater key's dial goes on, the other gives way and its owner answers instead.
"""

from collections.abc import Callable
from math import inf
from typing import TypeAlias

from p2pnode.errors import RemoteProtocolError
from p2pnode.sansio import Address, NodeId, Transmit
from p2pnode.transport.admission import CookieJar
from p2pnode.transport.handshake import Answer, Dial, Established, Local
from p2pnode.transport.noise import XX_PSK3
from p2pnode.transport.packets import (
    MAC_SIZE,
    CookieReply,
    DroppedError,
    Finish,
    Hello,
    Init,
    Response,
    response_size,
)

HalfOpen: TypeAlias = Dial | Answer


class HalfOpenTable:
    """Every handshake of an endpoint that is not a connection yet."""

    def __init__(
        self,
        local: Local,
        *,
        draw_index: Callable[[], int],
        outbox: list[Transmit[Address]],
        count: Callable[[str], None],
        now: float,
    ) -> None:
        """``draw_index`` returns an index no one has; datagrams are appended to ``outbox``."""
        self._local = local
        self._draw_index = draw_index
        self._outbox = outbox
        self._count = count
        self._jar = CookieJar(local.config.handshake_rate, local.rng, now)
        self._dials: dict[Address, Dial] = {}
        self._answers: dict[bytes, Answer] = {}
        self._by_index: dict[int, HalfOpen] = {}
        self._earliest: float | None = inf  # None when it must be looked for

    def __contains__(self, index: int) -> bool:
        return index in self._by_index

    @property
    def half_open(self) -> int:
        """How many handshakes were answered and are not finished."""
        return len(self._answers)

    # Commands

    def dial(
        self, address: Address, peer: NodeId | None, now: float, tries: int | None = None
    ) -> bool:
        """Begin a handshake; one under way at the same address goes on for ``peer`` as well.

        Returns:
            False when too many others are hoped for there already.
        """
        under_way = self._dials.get(address)
        if under_way is not None:
            return under_way.hope_for(peer)
        dial = Dial(self._local, address, peer, self._draw_index(), now, tries)
        self._dials[address] = dial
        self._by_index[dial.index] = dial
        self._earliest = None
        self._send(dial.next_packet(now), address)
        return True

    def is_dialling(self, peer: NodeId) -> bool:
        """Whether a handshake with ``peer`` may come of a dial under way."""
        return any(dial.peer == peer or peer in dial.hopes for dial in self._dials.values())

    def answered_by(self, hello: Hello, *, besides: Dial | None = None) -> Dial | None:
        """Return our dial, other than ``besides``, that this very process has answered."""
        for dial in self._dials.values():
            if dial is not besides and dial.peer == hello.node_id and dial.is_answered_by(hello):
                return dial
        return None

    def drop(self, half_open: HalfOpen) -> None:
        """Forget a handshake: it became a connection, or nothing will come of it."""
        self._by_index.pop(half_open.index, None)
        self._earliest = None
        if isinstance(half_open, Dial):
            if self._dials.get(half_open.address) is half_open:
                del self._dials[half_open.address]
            return
        self._answers.pop(half_open.ephemeral, None)

    def drop_dials(self, peer: NodeId, address: Address) -> list[Dial]:
        """Forget, and return, our dials that a connection to ``peer`` has made needless."""
        needless = [
            dial for dial in self._dials.values() if dial.peer == peer or dial.address == address
        ]
        for dial in needless:
            self.drop(dial)
        return needless

    # Inputs; each raises RemoteProtocolError when it drops the datagram

    def receive_init_untrusted(self, datagram: bytes, source: Address, now: float) -> None:
        covered, mac2 = datagram[:-MAC_SIZE], datagram[-MAC_SIZE:]
        init = Init.decode_untrusted(self._local.keys.strip_untrusted(covered))
        known = self._answers.get(init.ephemeral)
        if known is not None:
            if known.source != source:
                raise DroppedError("handshake_repeated", "an INIT repeated from elsewhere")
            known.repeated = True
            self._send(known.response, source)
            return
        # More bytes than came go only where somebody was seen to receive.
        is_short = len(datagram) < response_size(init.pattern)
        if (self._jar.is_under_load(now) or is_short) and not self._jar.is_paid(
            covered, mac2, source, now
        ):
            self._count("cookies_sent")
            reply = self._local.keys.seal_cookie(
                self._jar.bake(source, now), init.sender, covered[-MAC_SIZE:], self._local.rng
            )
            self._send(self._local.keys.stamp(reply.encode()), source)
            return
        if len(self._answers) >= self._local.config.max_half_open:
            raise DroppedError("handshake_too_many")
        self._answer_untrusted(init, source, now)

    def receive_response_untrusted(
        self, datagram: bytes, source: Address, now: float
    ) -> tuple[Dial, Established]:
        """Return the dial that this answers; it stays here until :meth:`drop`."""
        response = Response.decode_untrusted(self._local.keys.strip_untrusted(datagram))
        dial = self._by_index.get(response.receiver)
        if not isinstance(dial, Dial):
            raise DroppedError("handshake_unknown_index")
        return dial, dial.receive_response_untrusted(response, source, now)

    def receive_finish_untrusted(
        self, datagram: bytes, source: Address, now: float
    ) -> tuple[Answer, Established]:
        finish = Finish.decode_untrusted(self._local.keys.strip_untrusted(datagram))
        answer = self._by_index.get(finish.receiver)
        if not isinstance(answer, Answer) or answer.source != source:
            raise DroppedError("handshake_unknown_index")
        return answer, answer.receive_finish_untrusted(finish, now)

    def receive_cookie_untrusted(self, datagram: bytes, source: Address, now: float) -> None:
        reply = CookieReply.decode_untrusted(self._local.keys.strip_untrusted(datagram))
        dial = self._by_index.get(reply.receiver)
        if not isinstance(dial, Dial) or dial.address != source:
            raise DroppedError("cookie_unexpected")
        dial.receive_cookie_untrusted(reply)
        self._earliest = None
        self._send(dial.next_packet(now), dial.address)

    def open_untrusted(self, index: int, datagram: bytes) -> tuple[HalfOpen, int, bytes]:
        """Open the first sealed packet of a handshake: it confirms the session.

        Returns:
            The handshake, the packet's counter and its frames.
        """
        half_open = self._by_index.get(index)
        if half_open is None or half_open.established is None:
            raise DroppedError("data_unknown_index")
        counter, frames = half_open.established.session.open_untrusted(datagram)
        return half_open, counter, frames

    def send_finish(self, dial: Dial, now: float) -> None:
        self._earliest = None
        self._send(dial.next_packet(now), dial.address)

    # Time

    def next_timeout(self) -> float:
        """Return when something is due; infinity when no handshake is under way."""
        if self._earliest is None:
            dials = (min(dial.retry_at, dial.deadline) for dial in self._dials.values())
            answers = (answer.deadline for answer in self._answers.values())
            self._earliest = min((*dials, *answers), default=inf)
        return self._earliest

    def handle_timeout(self, now: float) -> list[Dial]:
        """Repeat what is due and forget what is over; return the dials that failed."""
        if self.next_timeout() > now:
            return []
        self._earliest = None
        for answer in [held for held in self._answers.values() if held.deadline <= now]:
            self.drop(answer)
            self._count("handshake_unfinished")
        failed = [dial for dial in self._dials.values() if dial.deadline <= now]
        for dial in failed:
            self.drop(dial)
        for dial in self._dials.values():
            if dial.retry_at <= now:
                self._count("handshake_retries")
                self._send(dial.next_packet(now), dial.address)
        return failed

    def _answer_untrusted(self, init: Init, source: Address, now: float) -> None:
        rival = self._dials.get(source)
        if rival is not None and rival.established is None and rival.ephemeral > init.ephemeral:
            raise DroppedError("handshake_crossed", "both ends dialled; ours goes on")
        try:
            answer = Answer(self._local, init, source, self._draw_index(), now)
        except DroppedError:
            raise
        except RemoteProtocolError as error:
            stale = "handshake_forged" if init.pattern is XX_PSK3 else "handshake_not_for_us"
            raise DroppedError(stale, str(error)) from error
        self._answers[init.ephemeral] = answer
        self._by_index[answer.index] = answer
        self._earliest = None
        self._send(answer.response, source)

    def _send(self, payload: bytes, destination: Address) -> None:
        self._outbox.append(Transmit(destination, payload))
