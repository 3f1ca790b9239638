"""Counts frames and bytes by message type, as the snapshot shows them."""

from dataclasses import dataclass, field

from p2pnode.node.snapshot import TrafficView
from p2pnode.wire.vframe import TYPE_NAMES

KINDS = (*TYPE_NAMES, "gossip", "transport")


@dataclass(slots=True)
class Tally:
    """Running totals of one kind of traffic."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(slots=True)
class Traffic:
    """The tallies of a node."""

    tallies: dict[str, Tally] = field(default_factory=lambda: {kind: Tally() for kind in KINDS})
    _transport: Tally = field(init=False)

    def __post_init__(self) -> None:
        self._transport = self.tallies["transport"]

    def received(self, kind: str, size: int) -> None:
        tally = self.tallies[kind]
        tally.frames_in += 1
        tally.bytes_in += size

    def sent(self, kind: str, size: int) -> None:
        tally = self.tallies[kind]
        tally.frames_out += 1
        tally.bytes_out += size

    def datagram_in(self, size: int) -> None:
        tally = self._transport
        tally.frames_in += 1
        tally.bytes_in += size

    def datagram_out(self, size: int) -> None:
        tally = self._transport
        tally.frames_out += 1
        tally.bytes_out += size

    def views(self) -> tuple[TrafficView, ...]:
        """Return all totals; ``transport`` is what datagrams weigh beyond the messages in them."""
        inner = [tally for kind, tally in self.tallies.items() if kind != "transport"]
        carried_in = sum(tally.bytes_in for tally in inner)
        carried_out = sum(tally.bytes_out for tally in inner)
        return tuple(
            TrafficView(
                kind,
                tally.frames_in,
                tally.frames_out,
                max(0, tally.bytes_in - (carried_in if kind == "transport" else 0)),
                max(0, tally.bytes_out - (carried_out if kind == "transport" else 0)),
            )
            for kind, tally in self.tallies.items()
        )
