"""One handshake, seen from either end.

XXpsk3 when the peer's key is unknown, IKpsk2 when it is known::

    XX   dial: INIT ->   answer: RESPONSE ->   dial: FINISH ->   answer: first DATA
    IK   dial: INIT ->   answer: RESPONSE ->   dial: first DATA

Whoever is told last confirms: a connection exists for the dialler of XX and the answerer of IK only
once the other's first sealed packet has opened. So a recorded INIT, played back, makes no
connection and replaces none.
"""

from dataclasses import dataclass
from math import inf

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import Address, NodeId, Rng, format_address
from p2pnode.transport.admission import SwarmKeys, mac
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.identity import Identity, static_key_untrusted
from p2pnode.transport.noise import IK_PSK2, XX_PSK3, HandshakeState
from p2pnode.transport.packets import (
    INIT_PADDING,
    MAC_SIZE,
    CookieReply,
    DroppedError,
    Finish,
    Hello,
    Init,
    Response,
)
from p2pnode.transport.session import Session

_PROLOGUE = b"p2pnode transport 1"
_MOST_HOPES = 8


@dataclass(frozen=True, slots=True)
class Local:
    """What all handshakes of one endpoint share."""

    config: TransportConfig
    identity: Identity
    keys: SwarmKeys
    hello: Hello
    rng: Rng


@dataclass(frozen=True, slots=True)
class Established:
    """A connection is to be made of this.

    Attributes:
        hello: The peer's, authenticated.
        session: Its keys.
        index: Our index, under which the peer's packets come.
        address: Where the peer is.
        is_dialler: Whether we began.
        rtt: Round trip the handshake measured; None when a message was repeated.
        began: When the handshake began here.
    """

    hello: Hello
    session: Session
    index: int
    address: Address
    is_dialler: bool
    rtt: float | None
    began: float


class Dial:
    """The initiator's side, until it is established or given up.

    Attributes:
        address: Where it dials.
        peer: Whom it expects there; learnt on the way when it was None.
        hopes: Everyone whom somebody hoped to find there.
        index: Our index.
        ephemeral: Our ephemeral public key; compared when both ends dial at once.
        heard: Whether anything at all that is genuine came back.
    """

    def __init__(
        self,
        local: Local,
        address: Address,
        peer: NodeId | None,
        index: int,
        now: float,
        most_tries: int | None = None,
    ) -> None:
        """Raises LocalProtocolError when ``peer`` is no possible node id.

        ``most_tries`` bounds how often the INIT is sent while nothing comes back.
        """
        self._local = local
        self.address = address
        self.peer = peer
        self.hopes: list[NodeId] = [] if peer is None else [peer]
        self.index = index
        self.began = now
        self.heard = False
        self.deadline = now + local.config.dial_timeout
        self.retry_at = now
        self._pause = local.config.dial_retry
        self._tries = 0
        self._most_tries = inf if most_tries is None else most_tries
        self._established: Established | None = None
        self._has_finish = False
        pattern = XX_PSK3 if peer is None else IK_PSK2
        self._noise = HandshakeState(
            pattern,
            is_initiator=True,
            prologue=_PROLOGUE,
            psk=local.keys.psk,
            static=local.identity.static_key,
            ephemeral=local.rng.randbytes(32),
            remote_static=None if peer is None else _static_key(peer),
        )
        payload = bytes(INIT_PADDING) if peer is None else local.hello.encode()
        init = Init(pattern, index, self._noise.write_message(payload))
        self.ephemeral = init.ephemeral
        self._packet = local.keys.stamp(init.encode())
        self._mac1 = self._packet[-MAC_SIZE:]
        self._mac2: bytes = bytes(MAC_SIZE)

    @property
    def established(self) -> Established | None:
        """What the response made, for the first sealed packet to confirm (XX)."""
        return self._established

    def is_answered_by(self, hello: Hello) -> bool:
        """Whether the response came from the process of ``hello``."""
        made = self._established
        return made is not None and made.hello.instance == hello.instance

    @property
    def is_finished_by_response(self) -> bool:
        """Whether the response was the last message (IK), so that our first DATA confirms."""
        return not self._has_finish

    def hope_for(self, peer: NodeId | None) -> bool:
        """Somebody wants ``peer``, who may live here too; False when that is one too many."""
        if peer is None or peer in self.hopes:
            return True
        if len(self.hopes) >= _MOST_HOPES:
            return False
        self.hopes.append(peer)
        return True

    def next_packet(self, now: float) -> bytes:
        """Return what to send now, and set the time of the next retry."""
        self.retry_at = now + self._pause
        self._pause *= 2
        self._tries += 1
        if self._tries >= self._most_tries and not self.heard:
            self.retry_at = inf
        return self._packet + self._mac2

    def receive_cookie_untrusted(self, reply: CookieReply) -> None:
        """Keep the cookie; the INIT may go out again at once."""
        if self._established is not None:
            raise DroppedError("cookie_unexpected")
        cookie = self._local.keys.open_cookie_untrusted(reply, self._mac1)
        self.heard = True
        mac2 = mac(cookie, self._packet)
        if mac2 == self._mac2:
            raise DroppedError("cookie_unexpected", "the cookie we have already")
        self._mac2 = mac2

    def receive_response_untrusted(
        self, response: Response, source: Address, now: float
    ) -> Established:
        """Finish our side. In XX, :meth:`next_packet` is the FINISH from here on.

        Raises:
            DroppedError, RemoteProtocolError: It is not the answer to our INIT; nothing changed.
        """
        if self._established is not None:
            raise DroppedError("handshake_repeated")
        payload = self._noise.read_message_untrusted(response.noise)
        hello = Hello.decode_untrusted(payload, self._noise.remote_static)
        self.heard = True
        self._has_finish = not self._noise.is_finished
        if self._has_finish:
            finish = Finish(response.sender, self._noise.write_message(self._local.hello.encode()))
            self._packet = self._local.keys.stamp(finish.encode())
            self._mac2 = b""
        rtt = now - self.began if self._tries == 1 else None
        self._pause = self._local.config.dial_retry
        self._tries = 0
        outward, inward = self._noise.split()
        self.peer = hello.node_id
        self._established = Established(
            hello,
            _session(self._local, outward, inward, response.sender, now),
            self.index,
            source,
            is_dialler=True,
            rtt=rtt,
            began=self.began,
        )
        return self._established

    @property
    def failure(self) -> str:
        """Why nothing came of it, for a person."""
        where = format_address(self.address)
        seconds = self._local.config.dial_timeout
        if self._established is not None:
            return (
                f"{where} answered but did not finish the handshake within {seconds:g} s: "
                "it may be full, or packets are lost"
            )
        if self.heard:
            return f"{where} is under load and did not answer within {seconds:g} s"
        doubt = "" if self.peer is None else ", or another node lives there now"
        return (
            f"no answer from {where} within {seconds:g} s: nothing listens there, a firewall "
            f"drops UDP, or its swarm secret differs from ours{doubt}"
        )


class Answer:
    """The responder's side: half open until the initiator confirms.

    Attributes:
        source: Where the INIT came from.
        index: Our index.
        ephemeral: The initiator's ephemeral public key, by which a repeated INIT is known.
        response: The datagram to send, and to repeat when the INIT is repeated.
        repeated: Whether it was; the time to the FINISH then says nothing (Karn's algorithm).
        deadline: When it is forgotten.
        established: Its session, once there is one to confirm.
    """

    def __init__(self, local: Local, init: Init, source: Address, index: int, now: float) -> None:
        """Answer an INIT that passed the door.

        Raises:
            RemoteProtocolError: Noise or the hello in it fails; nothing is to be sent.
        """
        self._local = local
        self._remote_index = init.sender
        self.source = source
        self.index = index
        self.ephemeral = init.ephemeral
        self.began = now
        self.deadline = now + local.config.dial_timeout
        self.established: Established | None = None
        self.repeated = False
        self._noise = HandshakeState(
            init.pattern,
            is_initiator=False,
            prologue=_PROLOGUE,
            psk=local.keys.psk,
            static=local.identity.static_key,
            ephemeral=local.rng.randbytes(32),
        )
        payload = self._noise.read_message_untrusted(init.noise)
        hello = None
        if init.pattern is IK_PSK2:
            hello = Hello.decode_untrusted(payload, self._noise.remote_static)
        noise = self._noise.write_message(local.hello.encode())
        self.response = local.keys.stamp(Response(index, init.sender, noise).encode())
        if hello is not None:
            self._establish(hello, now)

    def receive_finish_untrusted(self, finish: Finish, now: float) -> Established:
        """Finish XX.

        Raises:
            DroppedError, RemoteProtocolError: It is not what we wait for; nothing changed.
        """
        if self._noise.is_finished:
            raise DroppedError("handshake_repeated")
        payload = self._noise.read_message_untrusted(finish.noise)
        hello = Hello.decode_untrusted(payload, self._noise.remote_static)
        return self._establish(hello, now)

    def _establish(self, hello: Hello, now: float) -> Established:
        inward, outward = self._noise.split()
        self.established = Established(
            hello,
            _session(self._local, outward, inward, self._remote_index, now),
            self.index,
            self.source,
            is_dialler=False,
            rtt=None if self.repeated or now <= self.began else now - self.began,
            began=self.began,
        )
        return self.established


def _session(local: Local, outward: bytes, inward: bytes, remote_index: int, now: float) -> Session:
    return Session(
        outward,
        inward,
        remote_index,
        rekey_seconds=local.config.rekey_seconds,
        rekey_packets=local.config.rekey_packets,
        now=now,
    )


def _static_key(peer: NodeId) -> bytes:
    try:
        return static_key_untrusted(peer)
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"cannot dial {peer.hex()}: {error}") from error
