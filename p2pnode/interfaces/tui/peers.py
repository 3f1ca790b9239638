"""The peers: a table updated in place, sorted and filtered as the user says."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from p2pnode.interfaces.tui.panel import Picture
from p2pnode.interfaces.tui.peer_columns import COLUMNS, Cell, Column, cells, matches
from p2pnode.node.peer_snapshot import PeerView, counted


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
        self._widths: dict[str, int] = {}
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
        self.border_subtitle = self._aside(peers, self._picture.node.peers)

    def _rebuild(self, wanted: tuple[Column, ...]) -> None:
        self._columns = wanted
        self._shown.clear()
        self._widths.clear()
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
            row = cells(peer, picture, self._columns, self.content_size.width)
            before = self._shown.get(peer.node_id)
            self._shown[peer.node_id] = row
            if before is None:
                self._table.add_row(*row.values(), key=peer.node_id)
            for key, cell in row.items():
                grows = self._grows(key, cell)
                if before is not None and cell != before[key]:
                    self._table.update_cell(peer.node_id, key, cell, update_width=grows)

    def _grows(self, key: str, cell: Cell) -> bool:
        """Return whether ``cell`` is the widest its column ever had.

        Columns grow and never shrink: they stay still while one reads, and Textual measures all
        their rows for each new width, which with 60 peers was most of the work of a poll.
        """
        width = cell_len(cell.text)
        grows = width > self._widths.get(key, 0)
        if grows:
            self._widths[key] = width
        return grows

    def _sort(self) -> None:
        """Sort where the order is another, and keep the cursor on its peer."""
        key = self.sort_key if any(c.key == self.sort_key for c in self._columns) else "name"
        order = [row.key.value or "" for row in self._table.ordered_rows]
        ranks = {node_id: row[key].rank for node_id, row in self._shown.items()}
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

    def _aside(self, shown: Sequence[PeerView], known: Sequence[PeerView]) -> str:
        part = f"{len(shown)} shown of " if self._input.value else ""
        title = next((c.title for c in COLUMNS if c.key == self.sort_key), "")
        return f"{part}{counted(known)}, by {title.lower()} {'▼' if self.reverse else '▲'}"
