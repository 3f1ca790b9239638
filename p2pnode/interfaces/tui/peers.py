"""The peers: a table updated in place, sorted and filtered as the user says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.message import Message
from textual.widgets import DataTable, Input, Static

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
from p2pnode.node.snapshot import PeerView


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell shows, and what it is sorted by."""

    rank: Any
    text: Text

    def __rich__(self) -> Text:
        return self.text


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and the width of the table from which on it is worth its place."""

    key: str
    title: str
    at_least: int
    cell: Callable[[PeerView, Picture], Cell]
    is_number: bool = True


class Peers(Vertical):
    """The table of peers and the line to filter it by."""

    class Selected(Message):
        """The cursor came to rest on another peer, or on none."""

        def __init__(self, node_id: str | None) -> None:
            super().__init__()
            self.node_id = node_id

    ALLOW_MAXIMIZE = True
    DEFAULT_CSS = """
    Peers {
        border: round $foreground 25%;
        border-title-color: $primary;
        border-subtitle-color: $foreground 60%;
        height: 1fr;
    }
    Peers:focus-within { border: round $primary; }
    Peers DataTable { height: 1fr; background: transparent; scrollbar-size-vertical: 1;
                      scrollbar-size-horizontal: 0; }
    Peers Input, Peers Input:focus { display: none; height: 1; border: none; padding: 0 1; }
    Peers #nobody { display: none; padding: 0 1; color: $foreground 60%; }
    Peers.empty #nobody { display: block; }
    Peers.empty DataTable { visibility: hidden; }
    Peers Input.open, Peers Input.open:focus { display: block; }
    """

    BORDER_TITLE = "Peers"

    def __init__(self) -> None:
        super().__init__(id="peers")
        self.sort_key = "layers"
        self.reverse = False
        self._picture: Picture | None = None
        self._columns: tuple[Column, ...] = ()
        self._shown: dict[str, dict[str, Cell]] = {}
        self._selected: str | None = None
        self._input = Input(placeholder="filter by name, state, id, model, address or device")
        self._table: DataTable[Cell] = DataTable(cursor_type="row")

    def compose(self) -> ComposeResult:
        yield self._input
        yield Static("nobody else is known yet", id="nobody")
        yield self._table

    def on_resize(self, event: Resize) -> None:
        self._redraw()

    def show(self, picture: Picture) -> None:
        self._picture = picture
        self._redraw()

    # What the user may do

    def focus_table(self) -> None:
        self._table.focus()

    def open_filter(self) -> None:
        self._input.add_class("open")
        self._input.focus()

    @property
    def is_filtering(self) -> bool:
        return self._input.has_class("open")

    def close_filter(self) -> None:
        """Forget the filter and return to the table."""
        self._input.value = ""
        self._input.remove_class("open")
        self._table.focus()
        self._redraw()

    def sort_by(self, key: str) -> None:
        """Sort by a column; by the same once more, the other way round."""
        self.reverse = not self.reverse if key == self.sort_key else False
        self.sort_key = key
        self._redraw()

    def sort_by_next(self) -> None:
        keys = [column.key for column in self._columns]
        if keys:
            at = keys.index(self.sort_key) if self.sort_key in keys else -1
            self.sort_key = keys[(at + 1) % len(keys)]
            self._redraw()

    # What Textual tells

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._redraw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._table.focus()

    def on_data_table_header_selected(self, event: "DataTable.HeaderSelected") -> None:
        event.stop()
        self.sort_by(event.column_key.value or "")

    def on_data_table_row_highlighted(self, event: "DataTable.RowHighlighted") -> None:
        event.stop()
        self._follow_cursor()

    # Drawing

    def _redraw(self) -> None:
        width = self.content_size.width
        if self._picture is None or not width:
            return
        wanted = tuple(column for column in COLUMNS if column.at_least <= width)
        if wanted != self._columns:
            self._rebuild(wanted)
        peers = [p for p in self._picture.node.peers if matches(p, self._input.value)]
        self._update(peers, self._picture)
        self.set_class(not self._picture.node.peers, "empty")
        self._sort()
        self.border_subtitle = self._aside(len(peers), len(self._picture.node.peers))

    def _rebuild(self, wanted: tuple[Column, ...]) -> None:
        self._columns = wanted
        self._shown.clear()
        self._table.clear(columns=True)
        for column in wanted:
            heading = Text(column.title, justify="right" if column.is_number else "left")
            self._table.add_column(heading, key=column.key)

    def _update(self, peers: Sequence[PeerView], picture: Picture) -> None:
        """Bring the rows up to date, touching only the cells that changed."""
        for gone in self._shown.keys() - {peer.node_id for peer in peers}:
            self._table.remove_row(gone)
            del self._shown[gone]
        for peer in peers:
            cells = self._cells(peer, picture)
            before = self._shown.get(peer.node_id)
            self._shown[peer.node_id] = cells
            if before is None:
                self._table.add_row(*cells.values(), key=peer.node_id)
                continue
            for key, cell in cells.items():
                if cell != before[key]:
                    self._table.update_cell(peer.node_id, key, cell, update_width=True)

    def _cells(self, peer: PeerView, picture: Picture) -> dict[str, Cell]:
        cells = {column.key: column.cell(peer, picture) for column in self._columns}
        if self.content_size.width < NARROW:
            cells["name"].text.truncate(12, overflow="ellipsis")
        if "reason" in cells:  # the last column: it gets what the others leave
            cells["reason"].text.truncate(self.content_size.width - OTHERS, overflow="ellipsis")
        return cells

    def _sort(self) -> None:
        """Sort where the order is another, and keep the cursor on its peer."""
        key = self.sort_key if any(c.key == self.sort_key for c in self._columns) else "name"
        order = [row.key.value or "" for row in self._table.ordered_rows]
        ranks = {row: cells[key].rank for row, cells in self._shown.items()}
        if order != sorted(order, key=ranks.__getitem__, reverse=self.reverse):
            self._table.sort(key, key=lambda cell: cell.rank, reverse=self.reverse)
        if self._selected in self._shown:
            at = self._table.get_row_index(self._selected)
            if at != self._table.cursor_row:
                self._table.move_cursor(row=at, scroll=False)
        else:
            self._follow_cursor()

    def _follow_cursor(self) -> None:
        """Tell which peer the cursor is on, where that is news."""
        node_id = None
        if self._table.row_count:
            keys = self._table.coordinate_to_cell_key(self._table.cursor_coordinate)
            node_id = keys.row_key.value
        if node_id != self._selected:
            self._selected = node_id
            self.post_message(self.Selected(node_id))

    def _aside(self, shown: int, known: int) -> str:
        count = f"{shown} of {known}" if self._input.value else f"{known}"
        title = next((c.title for c in COLUMNS if c.key == self.sort_key), "")
        return f"{count} peers, by {title.lower()} {'▼' if self.reverse else '▲'}"


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
    return Cell((name.lower(), peer.node_id), Text(clip(name, 16), style=style))


def _state(peer: PeerView, picture: Picture) -> Cell:
    text, style = picture.palette.state(peer.state)
    known = list(ROLES)
    rank = known.index(peer.state) if peer.state in known else len(known)
    return Cell((rank, peer.name), Text(text, style=style))


def _layers(peer: PeerView, picture: Picture) -> Cell:
    none = peer.layers[0] >= peer.layers[1]
    lost = peer.state in ("dead", "left", "seen")
    rank = (none or lost, lost, *peer.layers, peer.state, peer.name)
    return Cell(rank, _right(layers(peer.layers), picture))


def _token(peer: PeerView, picture: Picture) -> Cell:
    value = peer.decode_us / 1000 if peer.decode_us else None
    return _measured(value, milliseconds(value), picture)


def _rtt(peer: PeerView, picture: Picture) -> Cell:
    return _measured(peer.rtt_ms, milliseconds(peer.rtt_ms), picture)


def _loss(peer: PeerView, picture: Picture) -> Cell:
    if not peer.connected:
        return _measured(None, ABSENT, picture)
    cell = _measured(peer.loss, share(peer.loss), picture)
    if peer.loss >= 0.05:
        cell.text.stylize(picture.palette.warn)
    return cell


def _in(peer: PeerView, picture: Picture) -> Cell:
    return _rate(picture.rates.peers.get(peer.node_id, STILL).bytes_in, picture)


def _out(peer: PeerView, picture: Picture) -> Cell:
    return _rate(picture.rates.peers.get(peer.node_id, STILL).bytes_out, picture)


def _heard(peer: PeerView, picture: Picture) -> Cell:
    return _measured(peer.last_heard_s, ago(peer.last_heard_s), picture)


def _reason(peer: PeerView, picture: Picture) -> Cell:
    return Cell(peer.reason, Text(peer.reason, style=picture.palette.muted))


def _rate(value: float, picture: Picture) -> Cell:
    return _measured(value, short_bytes(value) if value >= 0.5 else "·", picture)


def _measured(value: float | None, text: str, picture: Picture) -> Cell:
    """Return the cell of a number, of which an unknown one comes last."""
    return Cell((value is None, value or 0.0), _right(text, picture))


def _right(text: str, picture: Picture) -> Text:
    faint = text in (ABSENT, "·", "never")
    style = picture.palette.muted if faint else picture.palette.plain
    return Text(text, style=style, justify="right")


NARROW = 90
"""Width of the table below which long names are cut."""

OTHERS = 82
"""Columns of the screen that all but the last column of the table may take."""

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
