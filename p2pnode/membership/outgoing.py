"""Putting messages together: who speaks, where it is, what it says, and piggybacked news."""

from collections.abc import Iterable

from p2pnode.membership.anti_entropy import pages
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.coordinates import Vivaldi
from p2pnode.membership.dissemination import Broadcasts
from p2pnode.membership.members import Members
from p2pnode.membership.messages import Gossip, Message, Records, encode_head
from p2pnode.membership.own_record import OwnRecord
from p2pnode.sansio import NodeId, Transmit
from p2pnode.values import value


@value
class Outgoing(Transmit[NodeId]):
    """``payload`` is to be sent to the node ``destination``.

    Attributes:
        bulk: Whether it wants reliable delivery and may exceed one datagram (8 KB at most);
            otherwise it is fire-and-forget and fits one.
    """

    bulk: bool = False


class Outbox:
    """Composes what is to be sent, and keeps it until it is taken.

    Attributes:
        waiting: What is kept; the same list for good.
    """

    def __init__(
        self,
        config: MembershipConfig,
        own: OwnRecord,
        members: Members,
        broadcasts: Broadcasts,
        vivaldi: Vivaldi,
    ) -> None:
        self._config = config
        self._own = own
        self._members = members
        self._broadcasts = broadcasts
        self._vivaldi = vivaldi
        self.waiting: list[Outgoing] = []

    def send(self, destination: NodeId, message: Message) -> None:
        """Send one datagram, with as much news as fits."""
        payload = self._head(message) + self._accusation_of(destination)
        limit = self._config.retransmits(len(self._members) + 1)
        news = self._broadcasts.take(self._config.max_datagram - len(payload), limit)
        self.waiting.append(Outgoing(destination, payload + b"".join(news)))

    def send_bulk(self, destination: NodeId, message: Message, news: bytes = b"") -> None:
        """Send one message reliably, with no other news than ``news``."""
        self.waiting.append(Outgoing(destination, self._head(message) + news, bulk=True))

    def send_records(self, destination: NodeId, payloads: Iterable[bytes]) -> None:
        """Send records and claims reliably, in as many messages as they need."""
        head = self._head(Records())
        for page in pages(payloads, self._config.max_bulk - len(head)):
            self.waiting.append(Outgoing(destination, head + page, bulk=True))

    def gossip_to(self, destination: NodeId) -> None:
        """Send as much news as fits one datagram; nothing if there is none."""
        if self._broadcasts:
            self.send(destination, Gossip())

    def take(self) -> list[Outgoing]:
        taken = self.waiting.copy()
        self.waiting.clear()
        return taken

    def _head(self, message: Message) -> bytes:
        return encode_head(self._own.version, self._vivaldi.own, message)

    def _accusation_of(self, destination: NodeId) -> bytes:
        """Return what is held against the destination, if anything (Lifeguard's buddy system).

        Nobody needs to hear it more, and with it the answer to any ping is a refutation.
        """
        known = self._members.belief(destination)
        return b"" if known is None or known.claim is None else known.claim.encoded
