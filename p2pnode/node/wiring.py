"""Who hears what: each core's events, handed to those that they concern.

What peers say is checked here once more: a member may be hostile, and what is wrong is counted and
dropped, and its session kept.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.events import (
    ComputeRequested,
    InferenceEvent,
    SendFrame,
    SessionRefused,
    StageEnded,
    TokenProduced,
)
from p2pnode.membership.events import (
    KeyShared,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MembershipEvent,
    MemberSuspected,
    MemberUpdated,
    OwnKeyUsedElsewhere,
)
from p2pnode.membership.messages import MAGIC
from p2pnode.node.events import FrameWaits, PeerReached
from p2pnode.node.outbox import SendRefused
from p2pnode.node.parts import NodeParts
from p2pnode.node.shared_keys import CURE
from p2pnode.sansio import Address, NodeId, format_address
from p2pnode.scheduler.offences import Offence
from p2pnode.terminal import label
from p2pnode.transport.events import (
    DialFailed,
    KeyUsedTwice,
    MessageReceived,
    PathTooSmall,
    PeerConnected,
    PeerDisconnected,
    PeerResponsive,
    PeerUnresponsive,
    Successor,
    TransportEvent,
)
from p2pnode.wire.capability import KEY_SHARED, SPACE_MISMATCH
from p2pnode.wire.messages import SyncError, parse_sync_untrusted, sync_frame
from p2pnode.wire.vframe import TYPE_NAMES, Frame, MessageType, decode_frame_untrusted

_T = TypeVar("_T")
_MOST_LETTERS = 200  # of what a peer says of an error
_GOSSIP = bytes((MAGIC,))


class Wiring:
    """Connects the parts of one node."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts

    def exchange(self, now: float) -> None:
        """Hand what each core says to those that it concerns.

        What comes in flows one way, so one pass in this order is enough; only frames that we send
        to ourselves start another.
        """
        parts = self._parts
        parts.clock = now
        if parts.endpoint.cleared:
            parts.outbox.go_on(now)
        while True:
            for transported in parts.endpoint.take_events():
                if isinstance(transported, MessageReceived):
                    message, peer = transported.payload, transported.peer
                    self._drop_hostile(self._receive_message_untrusted, message, peer, now)
                else:
                    self._on_transport(transported, now)
            if parts.swim.events:
                for said in parts.swim.take_events():
                    self._on_membership(said, now)
            for happened in parts.inference.take_news():
                self._on_inference(happened, now)
            if parts.outbox.refused and (refused := parts.outbox.take_refused(now)):
                for dropped in refused:
                    self._on_refused(dropped, now)
                continue
            if not parts.outbox.to_ourselves:
                break
            frame = parts.outbox.to_ourselves.popleft()
            self._drop_hostile(self._take_frame_untrusted, frame, parts.node_id, now)
        for outgoing in parts.swim.datagrams_to_send() if parts.swim.unsent else ():
            parts.outbox.send_gossip(outgoing.destination, outgoing.payload, outgoing.bulk, now)

    def _on_refused(self, dropped: SendRefused, now: float) -> None:
        """What was said to a peer has a hole in it: whoever leans on the peer must do without."""
        parts = self._parts
        if parts.remarks.may_be_made(dropped.peer, now):
            name = parts.planner.name_of(dropped.peer)
            parts.remarks.note(f"{name} cannot be sent to: {dropped.reason}", now)
        parts.inference.peer_lost(dropped.peer, f"cannot be sent to: {dropped.reason}", now)

    def _on_inference(self, event: InferenceEvent, now: float) -> None:
        parts = self._parts
        if isinstance(event, SendFrame):
            parts.outbox.send_frame(event.peer, event.frame, now, is_replay=event.is_replay)
            return
        if not isinstance(event, ComputeRequested | TokenProduced):
            parts.narration.tell(event, now)
            if isinstance(event, StageEnded | SessionRefused):
                return  # nobody else is to know
        parts.events.append(event)

    def _on_transport(self, event: TransportEvent, now: float) -> None:
        parts = self._parts
        match event:
            case PeerConnected(peer, address):
                parts.silent.discard(peer)
                parts.dialer.reached(peer, address, now)
                parts.outbox.connected(peer, now)
                parts.inference.refill()
                parts.swim.join(peer, now)
                self._returned(peer, now)
                parts.events.append(PeerReached(peer, address))
                line = f"session with {parts.planner.name_of(peer)} at {address[0]} is up"
                parts.peer_lines.say(peer, line, now, is_notice=False)
            case PeerUnresponsive(peer, silent_for):
                parts.silent.add(peer)
                parts.swim.report_unresponsive(peer, now)
                parts.inference.peer_lost(peer, f"silent for {silent_for:.1f} s", now)
                line = f"{parts.planner.name_of(peer)} has been silent for {silent_for:.1f} s"
                parts.peer_lines.say(peer, line, now, is_notice=False)
            case PeerResponsive(peer):
                parts.silent.discard(peer)
                parts.swim.report_responsive(peer, now)
                self._returned(peer, now)
            case PeerDisconnected(peer, reason):
                parts.silent.discard(peer)
                parts.outbox.disconnected(peer, now)
                offence = _offence_of_end(event)
                parts.inference.peer_lost(peer, f"session closed: {reason}", now, offence)
                line = f"session with {parts.planner.name_of(peer)} closed: {reason}"
                parts.peer_lines.say(peer, line, now, is_notice=False)
            case KeyUsedTwice(peer, address, other):
                first = "this one" if address is None else f"the one at {_text((address,))}"
                where = f"{first} and the one at {_text((other,))}"
                parts.key_is_shared(peer, where, now)
                if address is not None:
                    self._warn(peer, where, now)
            case PathTooSmall(peer, address, size):
                parts.peer_lines.say(
                    peer,
                    f"the path to {parts.planner.name_of(peer)} at {address[0]} does not carry "
                    f"datagrams of {size} bytes: look at the MTU of VPNs and tunnels on the way",
                    now,
                )
            case DialFailed(address, peer, reason, is_needless):
                parts.counters["dial failed"] += 1
                parts.outbox.dial_failed(address)
                is_news = parts.dialer.failed(address, peer, reason, now)
                if is_news and not is_needless:
                    line = f"nobody reached at {format_address(address)}: {reason}"
                    parts.peer_lines.say(peer, line, now)
                if peer is not None and not parts.endpoint.is_connected(peer):
                    parts.outbox.unreachable(peer)

    def _on_membership(self, event: MembershipEvent, now: float) -> None:
        parts = self._parts
        parts.narration.changed()
        parts.serving.members_changed()
        match event:
            case MemberJoined(record):
                peer = record.node_id
                parts.peer_lines.say(peer, f"{parts.planner.name_of(peer)} joined the swarm", now)
                self._returned(peer, now)
            case MemberUpdated(record):
                parts.inference.peer_back(record.node_id, now)
            case MemberSuspected(peer, reason):
                line = f"{parts.planner.name_of(peer)} is suspected: {reason}"
                parts.peer_lines.say(peer, line, now, is_notice=False)
                if not parts.is_heard(peer, now):
                    parts.inference.peer_lost(peer, _suspected(reason), now)
            case MemberRefuted(peer):
                self._returned(peer, now)
            case MemberDied(peer, reason):
                self._forget(peer, f"dead: {reason}", now, Offence.LOST)
            case MemberLeft(peer):
                self._forget(peer, "left the swarm", now, None)
            case KeyShared(peer, (one, other)):
                parts.key_is_shared(peer, f"at {_text(one)} and at {_text(other)}", now)
            case OwnKeyUsedElsewhere(addresses):
                where = f"this one and the one at {_text(addresses)}"
                parts.key_is_shared(parts.node_id, where, now)

    def _warn(self, peer: NodeId, where: str, now: float) -> None:
        """Tell whoever keeps the session that another machine has its key: it cannot see that."""
        warning = SyncError(KEY_SHARED, f"two machines use your key, {where}; {CURE}")
        frame = sync_frame(warning.to_body(), stream_id=0, frame_seq=0, space_hash32=0)
        self._parts.outbox.send_frame(peer, frame, now)

    def _returned(self, peer: NodeId, now: float) -> None:
        """``peer`` is there again: whoever was away but once may be used at once."""
        parts = self._parts
        parts.ledger.returned(peer, now)
        parts.inference.peer_back(peer, now)

    def _forget(self, peer: NodeId, reason: str, now: float, offence: Offence | None) -> None:
        parts = self._parts
        parts.peer_lines.say(peer, f"{parts.planner.name_of(peer)} is gone: {reason}", now)
        parts.inference.peer_lost(peer, reason, now, offence)
        parts.inference.peer_gone(peer)  # its session ends by itself, or is already a new life's

    def _receive_message_untrusted(self, payload: bytes, peer: NodeId, now: float) -> None:
        parts = self._parts
        if payload[:1] == _GOSSIP:
            parts.traffic.received("gossip", len(payload))
            parts.swim.receive_datagram(payload, peer, now)
            return
        frame = decode_frame_untrusted(payload)
        parts.traffic.received(TYPE_NAMES[frame.type], len(payload))
        self._take_frame_untrusted(frame, peer, now)

    def _take_frame_untrusted(self, frame: Frame, peer: NodeId, now: float) -> None:
        parts = self._parts
        if frame.type is MessageType.SYNC and frame.space_hash32 == 0:  # an error; never answered
            error = SyncError.from_body_untrusted(parse_sync_untrusted(frame))
            self._take_error_untrusted(error, peer, now)
            return
        if frame.type is MessageType.SYNC and parts.inquiries.concerns_untrusted(frame):
            owed = parts.inquiries.receive_untrusted(
                frame, peer, parts.model_of(frame.space_hash32) or parts.model
            )
            if owed is not None:
                parts.outbox.send_frame(peer, owed, now)
            return
        if parts.programs.concerns(frame) and parts.is_our_space(frame.space_hash32):
            if parts.programs.receive_untrusted(frame, peer):
                parts.events.append(FrameWaits())
            return
        refusal = parts.inference.receive_frame_untrusted(frame, peer, now)
        if refusal is not None:
            if not parts.remarks.may_be_made(peer, now):
                return
            name = parts.planner.name_of(peer)
            parts.remarks.note(f"refused a frame of {name}: {refusal.message}", now)
            answer = sync_frame(
                refusal.to_body(), stream_id=frame.stream_id, frame_seq=0, space_hash32=0
            )
            parts.outbox.send_frame(peer, answer, now)

    def _take_error_untrusted(self, error: SyncError, peer: NodeId, now: float) -> None:
        parts = self._parts
        words = label(error.message[:_MOST_LETTERS])
        known = error.code if error.code in {SPACE_MISMATCH, KEY_SHARED} else "another"
        parts.counters[f"error from a peer: {known}"] += 1
        if error.code == KEY_SHARED:
            parts.shared_keys.was_told(peer, words, now)
        if parts.remarks.may_be_made(peer, now):
            parts.remarks.note(f"{parts.planner.name_of(peer)} answers: {words}", now)

    def _drop_hostile(
        self, receive: Callable[[_T, NodeId, float], None], said: _T, peer: NodeId, now: float
    ) -> None:
        """What a member says may still be wrong: count it, drop it, keep the session."""
        parts = self._parts
        try:
            receive(said, peer, now)
        except RemoteProtocolError as error:
            parts.counters["message refused"] += 1
            if parts.remarks.may_be_made(peer, now):
                name = parts.planner.name_of(peer)
                parts.remarks.note(f"refused a message of {name}: {error}", now)


def _offence_of_end(end: PeerDisconnected) -> Offence | None:
    """Return what the end of a session says of the peer: a handshake done anew is none's fault."""
    if end.by_us or end.successor is Successor.SAME_PROCESS:
        return None
    return Offence.LOST if end.successor is Successor.NEW_PROCESS else Offence.CLOSED


def _text(addresses: Iterable[Address]) -> str:
    return " or ".join(format_address(one) for one in addresses) or "an unknown address"


def _suspected(reason: str) -> str:
    return reason if reason.startswith("suspected") else f"suspected: {reason}"
