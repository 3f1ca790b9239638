"""The application: it polls the node, keeps a minute of history and shows the picture."""

import asyncio
import time
from collections.abc import Callable
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.events import Resize
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import DataTable, Footer

from p2pnode.interfaces.tui.counters import Counters
from p2pnode.interfaces.tui.formats import labelled, span
from p2pnode.interfaces.tui.header import NodeHeader
from p2pnode.interfaces.tui.help import HelpScreen
from p2pnode.interfaces.tui.layer_map import LayerMap
from p2pnode.interfaces.tui.log_tail import LogTail
from p2pnode.interfaces.tui.page_bar import PAGES, PageBar
from p2pnode.interfaces.tui.palette import HARBOUR, PAPER, THEMES, Palette, palette_of
from p2pnode.interfaces.tui.panel import Panel, Picture
from p2pnode.interfaces.tui.peer_detail import PeerDetail
from p2pnode.interfaces.tui.peers import Peers
from p2pnode.interfaces.tui.rates import History
from p2pnode.interfaces.tui.traffic import Traffic
from p2pnode.interfaces.tui.work import Work
from p2pnode.node.snapshot import NodeSnapshot

LARGE = (120, 34)
"""Columns and lines from which on everything is shown at once."""
SHORT = 34
"""Lines below which the detail of a peer takes the place of the layer map."""
TINY = (50, 14)
"""Columns or lines below which there is room for the essential alone, and no panels."""
WAITING = "waiting for the node"


class TopApp(App[None]):
    """``p2pnode top``.

    Args:
        fetch: Brings the newest snapshot, or raises; called in a thread.
        interval: Seconds between two calls; None calls only when :meth:`poll` is awaited.
        history: What is known of the last minute already.
    """

    CSS_PATH = "top.tcss"
    TITLE = "p2pnode top"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),  # as everywhere else
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Order"),
        Binding("d", "detail", "Detail"),
        Binding("p", "pause", "Pause"),
        Binding("z", "zoom", "Zoom"),
        Binding("t", "next_theme", "Theme"),
        Binding("escape", "clear_filter", "Clear", key_display="esc"),
        *(Binding(str(n), f"page({page!r})", show=False) for n, page in enumerate(PAGES, start=1)),
    ]

    def __init__(
        self,
        fetch: Callable[[], NodeSnapshot],
        *,
        interval: float | None = 0.5,
        history: History | None = None,
    ) -> None:
        super().__init__()
        self._fetch = fetch
        self._interval = interval
        self._history = history or History()
        self._node: NodeSnapshot | None = None
        self._fetched_at = 0.0
        self._notice = WAITING
        self._paused: Picture | None = None
        self._palette = Palette()

    def compose(self) -> ComposeResult:
        yield NodeHeader(id="header")
        yield PageBar(id="pages")
        with Container(id="body"):
            with Container(id="main"):
                with Vertical(id="left", classes="on-page on-peers"):
                    yield LayerMap(id="layers")
                    yield Peers()
                    yield PeerDetail(id="detail")
                with Vertical(id="right", classes="on-page on-traffic on-work on-counters"):
                    yield Traffic(id="traffic", classes="on-page on-traffic")
                    yield Work(id="work", classes="on-page on-work")
                    yield Counters(id="counters", classes="on-page on-counters")
            yield LogTail(id="log", classes="on-page on-log")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.register_theme(HARBOUR)
        self.register_theme(PAPER)
        self.theme_changed_signal.subscribe(self, lambda _: self._recolour())
        self.theme = HARBOUR.name
        self._recolour()
        self.screen.add_class("page-peers")
        self._lay_out(self.size)
        self.query_one(Peers).focus_table()
        if self._interval is not None:
            self.run_worker(self._poll_for_ever(self._interval))

    def on_resize(self, event: Resize) -> None:
        self._lay_out(event.size)

    # Polling

    async def poll(self) -> None:
        """Fetch once, in a thread, and show what came of it."""
        try:
            node = await asyncio.to_thread(lambda: labelled(self._fetch()))
        except Exception as error:  # whatever it was, the next call may do better
            self._lose(error)
        else:
            self._receive(node)

    async def _poll_for_ever(self, interval: float) -> None:
        while True:
            await self.poll()
            await asyncio.sleep(interval)

    def _receive(self, node: NodeSnapshot) -> None:
        self._node, self._notice, self._fetched_at = node, "", time.monotonic()
        self._history.add(node)
        self._refresh()

    def _lose(self, error: Exception) -> None:
        why = " ".join(str(error).split()) or type(error).__name__
        notice = WAITING
        if self._node is not None:
            age = span(time.monotonic() - self._fetched_at)
            notice = f"node gone, retrying (this is {age} old)"
        self._notice = f"{notice}: {labelled(why)}"
        self._refresh()

    # Showing

    def _refresh(self) -> None:
        """Show the newest picture, or the paused one.

        An answer may arrive while the screen is being taken down: what is gone is passed over.
        """
        if not self.screen_stack:
            return
        base, picture = self._base(), self._paused or self._picture()
        base.set_class(bool(self._notice), "gone")
        for header in base.query(NodeHeader):
            header.show(picture, notice=self._notice, paused=self._paused is not None)
        if picture is None:
            return
        for panel in base.query(Panel):
            panel.show(picture)
        for peers in base.query(Peers):
            peers.show(picture)

    def _picture(self) -> Picture | None:
        if self._node is None:
            return None
        return Picture(self._node, self._history.rates(), self._palette)

    def _recolour(self) -> None:
        self._palette = palette_of(self.theme_variables)
        if self._paused is not None:
            self._paused = Picture(self._paused.node, self._paused.rates, self._palette)
        self._refresh()

    def _lay_out(self, size: Size) -> None:
        large = size.width >= LARGE[0] and size.height >= LARGE[1]
        base = self._base()
        tiny = size.width < TINY[0] or size.height < TINY[1]
        base.set_class(large, "dashboard")
        base.set_class(not large, "paged")
        base.set_class(tiny, "tiny")
        base.query_one(NodeHeader).be_alone(tiny)
        base.set_class(size.height < SHORT, "short")

    # Keys

    def action_help(self) -> None:
        self.push_screen(HelpScreen(self._palette))

    def action_filter(self) -> None:
        self.action_page("peers")
        self._peers().open_filter()
        self.refresh_bindings()

    def action_clear_filter(self) -> None:
        self._peers().close_filter()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to clear a filter only where there is one."""
        return action != "clear_filter" or self._peers().is_filtering

    def action_sort(self) -> None:
        self._peers().sort_by_next()

    def action_reverse(self) -> None:
        self._peers().sort_by(self._peers().sort_key)

    def action_detail(self) -> None:
        self._base().toggle_class("detailed")

    def action_pause(self) -> None:
        self._paused = None if self._paused else self._picture()
        self._refresh()

    def action_zoom(self) -> None:
        if self.screen.maximized is not None:
            self.screen.minimize()
        elif self.focused is not None:
            self.screen.maximize(self.focused)

    def action_next_theme(self) -> None:
        at = THEMES.index(self.theme) if self.theme in THEMES else -1
        self.theme = THEMES[(at + 1) % len(THEMES)]

    def action_page(self, page: str) -> None:
        """Open ``page``; where all panels are in sight, go to its panel."""
        base = self._base()
        base.remove_class(*(f"page-{name}" for name in PAGES))
        base.add_class(f"page-{page}")
        self.query_one(PageBar).mark(page)
        if page == "peers":
            self._peers().focus_table()
        else:
            base.query_one(f"#{page}").focus()

    # What widgets tell

    def on_peers_selected(self, event: Peers.Selected) -> None:
        self._base().query_one(PeerDetail).select(event.node_id)

    def on_data_table_row_selected(self, event: "DataTable.RowSelected") -> None:
        self.action_detail()

    def _base(self) -> Screen[object]:
        return self.screen_stack[0]

    def _peers(self) -> Peers:
        return self._base().query_one(Peers)
