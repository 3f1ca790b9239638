"""The columns of the table of peers: what a cell says, and what it is sorted by."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from rich.console import JustifyMethod
from rich.style import Style
from rich.text import Text

from p2pnode.interfaces.tui.formats import (
    ABSENT,
    ago,
    clip,
    layers,
    milliseconds,
    share,
    short_bytes,
)
from p2pnode.interfaces.tui.palette import ROLES
from p2pnode.interfaces.tui.panel import Picture
from p2pnode.interfaces.tui.rates import STILL
from p2pnode.node.peer_snapshot import PeerView

Rank: TypeAlias = tuple[Any, ...]
"""Values that Python can order; within a column always of the same kinds."""

LOSSY = 0.05  # from here on a link's loss is worth a colour; a guess
NARROW = 90
"""Width of the table below which long names are cut."""
OTHERS = 82
"""Columns of the screen that all but the last column of the table may take."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell shows, and what it is sorted by. Two that are equal look the same."""

    rank: Rank
    text: str
    style: Style
    justify: JustifyMethod = "left"

    def __rich__(self) -> Text:
        return Text(self.text, style=self.style, justify=self.justify, no_wrap=True)


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and the width of the table from which on it is worth its place."""

    key: str
    title: str
    at_least: int
    cell: Callable[[PeerView, Picture], Cell]
    is_number: bool = True


def cells(
    peer: PeerView, picture: Picture, shown: tuple[Column, ...], width: int
) -> dict[str, Cell]:
    """Return ``peer``'s cells by column, in a table ``width`` wide."""
    row = {column.key: column.cell(peer, picture) for column in shown}
    if width < NARROW:
        row["name"] = replace(row["name"], text=clip(row["name"].text, 12))
    if "reason" in row:  # the last column: it gets what the others leave
        row["reason"] = replace(row["reason"], text=clip(row["reason"].text, width - OTHERS))
    return row


def matches(peer: PeerView, wanted: str) -> bool:
    """Return whether every word of ``wanted`` is somewhere in what describes ``peer``."""
    described = " ".join(
        (peer.name, peer.state, peer.node_id, peer.model, peer.device, *peer.addresses)
    ).lower()
    return all(word in described for word in wanted.lower().split())


def _name(peer: PeerView, picture: Picture) -> Cell:
    name = peer.name or peer.node_id[:8]
    gone = peer.state in ("dead", "left", "seen")
    style = picture.palette.muted if gone else picture.palette.plain
    return Cell((name.lower(), peer.node_id), clip(name, 16), style)


def _state(peer: PeerView, picture: Picture) -> Cell:
    text, style = picture.palette.state(peer.state)
    known = list(ROLES)
    rank = known.index(peer.state) if peer.state in known else len(known)
    return Cell((rank, peer.name), text, style)


def _layers(peer: PeerView, picture: Picture) -> Cell:
    none = peer.layers[0] >= peer.layers[1]
    lost = peer.state in ("dead", "left", "seen")
    rank = (none or lost, lost, *peer.layers, peer.state, peer.name)
    return _number(rank, layers(peer.layers), picture)


def _token(peer: PeerView, picture: Picture) -> Cell:
    value = peer.decode_us / 1000 if peer.decode_us else None
    return _measured(value, milliseconds(value), picture)


def _rtt(peer: PeerView, picture: Picture) -> Cell:
    return _measured(peer.rtt_ms, milliseconds(peer.rtt_ms), picture)


def _loss(peer: PeerView, picture: Picture) -> Cell:
    if not peer.connected:
        return _measured(None, ABSENT, picture)
    cell = _measured(peer.loss, share(peer.loss), picture)
    return replace(cell, style=picture.palette.warn) if peer.loss >= LOSSY else cell


def _in(peer: PeerView, picture: Picture) -> Cell:
    return _rate(picture.rates.peers.get(peer.node_id, STILL).bytes_in, picture)


def _out(peer: PeerView, picture: Picture) -> Cell:
    return _rate(picture.rates.peers.get(peer.node_id, STILL).bytes_out, picture)


def _heard(peer: PeerView, picture: Picture) -> Cell:
    return _measured(peer.last_heard_s, ago(peer.last_heard_s), picture)


def _reason(peer: PeerView, picture: Picture) -> Cell:
    return Cell((peer.reason,), peer.reason, picture.palette.muted)


def _rate(value: float, picture: Picture) -> Cell:
    return _measured(value, short_bytes(value) if value >= 0.5 else "·", picture)


def _measured(value: float | None, text: str, picture: Picture) -> Cell:
    """Return the cell of a number, of which an unknown one comes last."""
    return _number((value is None, value or 0.0), text, picture)


def _number(rank: Rank, text: str, picture: Picture) -> Cell:
    faint = text in (ABSENT, "·", "never")
    return Cell(rank, text, picture.palette.muted if faint else picture.palette.plain, "right")


COLUMNS = (
    Column("name", "Name", 0, _name, is_number=False),
    Column("state", "State", 0, _state, is_number=False),
    Column("layers", "Layers", 0, _layers),
    Column("token", "ms/tok", 50, _token),
    Column("rtt", "RTT", 0, _rtt),
    Column("loss", "Loss", 56, _loss),
    Column("in", "In/s", 64, _in),
    Column("out", "Out/s", 64, _out),
    Column("heard", "Heard", 70, _heard),
    Column("reason", "Why", 100, _reason, is_number=False),
)
