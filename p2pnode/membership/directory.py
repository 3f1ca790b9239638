"""Who offers what, kept: each ad decoded once, found by peer, by name, by what it belongs to.

What an ad says is not membership's business. It is given a function that reads one, and two that
tell what it is called and which *spaces* it is of (any numbers; here: who can work together).

The directory follows the table of members by what changed since it last looked, and looks whenever
it is asked. So a question costs what has changed, not what there is.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from p2pnode.membership.members import Member
from p2pnode.sansio import NodeId

AdT = TypeVar("AdT")
_HEX_HEAD = 8


class Table(Protocol):
    """What is followed: :class:`~p2pnode.membership.swim.Swim`."""

    @property
    def members_version(self) -> int:
        """Grows with every change of a record or a belief."""

    def members_changed_since(self, version: int) -> list[NodeId] | None:
        """Return whose line changed, appeared or vanished; None: read all."""

    def member(self, node_id: NodeId) -> Member | None:
        """Return one line."""

    def members(self) -> list[Member]:
        """Return all lines."""


class Line(Generic[AdT]):
    """One node of the directory.

    Attributes:
        peer: Its node id.
        member: What membership believes of it.
        ad: What it offers; None if it cannot be read.
        name: What it calls itself; empty if that is unknown.
        met: The moment from which it has been in the table without a gap.
    """

    __slots__ = ("ad", "member", "met", "name", "peer")

    def __init__(self, peer: NodeId, member: Member, ad: AdT | None, name: str, met: float) -> None:
        self.peer = peer
        self.member = member
        self.ad = ad
        self.name = name
        self.met = met


class Directory(Generic[AdT]):
    """All other nodes known, the dead and departed included.

    Attributes:
        decoded: How often an ad was read; for tests and figures.
    """

    def __init__(
        self,
        table: Table,
        decode: Callable[[bytes], AdT | None],
        name_of: Callable[[AdT], str],
        spaces_of: Callable[[AdT], Iterable[int]],
    ) -> None:
        self._table = table
        self._decode = decode
        self._name_of = name_of
        self._spaces_of = spaces_of
        self._lines: dict[NodeId, Line[AdT]] = {}
        self._by_name: dict[str, dict[NodeId, None]] = {}
        self._by_space: dict[int, dict[NodeId, None]] = {}
        self._version = -1
        self.decoded = 0

    def __iter__(self) -> Iterator[Line[AdT]]:
        self._follow()
        return iter(self._lines.values())

    def __len__(self) -> int:
        self._follow()
        return len(self._lines)

    def line(self, peer: NodeId) -> Line[AdT] | None:
        """Return the line of ``peer``; None if it is not known."""
        self._follow()
        return self._lines.get(peer)

    def of_space(self, space: int) -> list[Line[AdT]]:
        """Return whoever has an ad of this space, among others."""
        self._follow()
        return [self._lines[peer] for peer in self._by_space.get(space, ())]

    def named(self, name: str) -> list[NodeId]:
        """Return whoever calls itself exactly so."""
        self._follow()
        return list(self._by_name.get(name, ()))

    def find(self, text: str) -> list[NodeId]:
        """Return whom a person means by a name or by the head of a key, in hex.

        An exact name wins: a machine may be called ``cafe``. Keys are looked through one by one,
        since only people ask this.
        """
        named = self.named(text)
        if named or not text:
            return named
        head = text.lower()
        return [peer for peer in self._lines if peer.hex().startswith(head)]

    def name_of(self, peer: NodeId) -> str:
        """Return what ``peer`` calls itself, or the head of its key."""
        line = self.line(peer)
        return line.name if line is not None and line.name else head_of(peer)

    def label_of(self, peer: NodeId) -> str:
        """Return the name of ``peer``, with the head of its key where others are called so too."""
        name = self.name_of(peer)
        return f"{name} ({head_of(peer)})" if len(self._by_name.get(name, ())) > 1 else name

    def _follow(self) -> None:
        version = self._table.members_version
        if version == self._version:
            return
        changed = None if self._version < 0 else self._table.members_changed_since(self._version)
        self._version = version
        if changed is None:
            members = self._table.members()
            here = {member.record.node_id for member in members}
            for peer in [peer for peer in self._lines if peer not in here]:
                self._update(peer, None)
            for member in members:
                self._update(member.record.node_id, member)
            return
        for peer in changed:
            self._update(peer, self._table.member(peer))

    def _update(self, peer: NodeId, member: Member | None) -> None:
        old = self._lines.get(peer)
        if old is not None and old.member is member:
            return
        if member is None:
            if old is not None:
                self._unlist(old)
                del self._lines[peer]
            return
        if old is not None and old.member.record.ad == member.record.ad:
            self._lines[peer] = Line(peer, member, old.ad, old.name, old.met)
            return
        self.decoded += 1
        ad = self._decode(member.record.ad)
        name = "" if old is None else old.name  # whoever leaves has no ad, and keeps its name
        if ad is not None:
            name = self._name_of(ad)
        line = Line(peer, member, ad, name, member.since if old is None else old.met)
        if old is not None:
            self._unlist(old)
        self._lines[peer] = line
        if name and ad is not None:
            self._by_name.setdefault(name, {})[peer] = None
        if ad is not None:
            for space in self._spaces_of(ad):
                self._by_space.setdefault(space, {})[peer] = None

    def _unlist(self, line: Line[AdT]) -> None:
        _remove(self._by_name, line.name, line.peer)
        if line.ad is not None:
            for space in self._spaces_of(line.ad):
                _remove(self._by_space, space, line.peer)


def head_of(peer: NodeId) -> str:
    """Return the start of a key, as people see it."""
    return peer.hex()[:_HEX_HEAD]


_KeyT = TypeVar("_KeyT")


def _remove(index: dict[_KeyT, dict[NodeId, None]], key: _KeyT, peer: NodeId) -> None:
    peers = index.get(key)
    if peers is not None:
        peers.pop(peer, None)
        if not peers:
            del index[key]
