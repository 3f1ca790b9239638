"""The application on an imagined screen. Polling is by hand: no test waits for time to pass."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from textual.color import Color
from textual.pilot import Pilot
from textual.widgets import DataTable

from p2pnode.errors import UserError
from p2pnode.interfaces.tui.app import TopApp
from p2pnode.interfaces.tui.counters import Counters
from p2pnode.interfaces.tui.example import crowd, lonely, minute
from p2pnode.interfaces.tui.header import NodeHeader
from p2pnode.interfaces.tui.help import HelpScreen
from p2pnode.interfaces.tui.layer_map import LayerMap
from p2pnode.interfaces.tui.log_tail import LogTail
from p2pnode.interfaces.tui.palette import THEMES
from p2pnode.interfaces.tui.panel import Panel
from p2pnode.interfaces.tui.peer_columns import matches
from p2pnode.interfaces.tui.peer_detail import PeerDetail
from p2pnode.interfaces.tui.peers import Peers
from p2pnode.interfaces.tui.traffic import Traffic
from p2pnode.interfaces.tui.work import Work
from p2pnode.node.peer_snapshot import OfferView
from p2pnode.node.snapshot import EngineView, ModelView, NodeSnapshot

SMALL, LARGE = (80, 24), (144, 44)
HOUSE = list(minute())[-8:]
Scenario = Callable[[TopApp, Pilot[None]], Awaitable[None]]


def run(
    scenario: Scenario,
    answers: Iterable[NodeSnapshot | Exception],
    size: tuple[int, int] = LARGE,
) -> None:
    """Run ``scenario`` against a node that gives ``answers``, and the last one for ever."""
    pending = list(answers)

    def fetch() -> NodeSnapshot:
        answer = pending.pop(0) if len(pending) > 1 else pending[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def played() -> None:
        app = TopApp(fetch, interval=None)
        async with app.run_test(size=size) as pilot:
            await scenario(app, pilot)

    asyncio.run(played())


async def polled(app: TopApp, pilot: Pilot[None], times: int = 1) -> None:
    for _ in range(times):
        await app.poll()
    await pilot.pause()


def names(app: TopApp) -> list[str]:
    """Return the first column of the table, as it is shown."""
    table: DataTable[Any] = app.query_one(DataTable)
    return [table.get_row_at(row)[0].text for row in range(table.row_count)]


def text(app: TopApp, panel: type[Panel]) -> str:
    return app.screen_stack[0].query_one(panel).drawn.plain


def header(app: TopApp) -> str:
    return app.screen_stack[0].query_one(NodeHeader).drawn.plain


def test_a_large_screen_shows_everything_at_once() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot, times=len(HOUSE))
        for panel in app.query(Panel):
            assert panel.region.height > 2, panel
        assert "kitchen 3f9a1c2e" in header(app)
        assert "swarm c4e1aa07" in header(app)
        assert "loop late p50/p99 0.3/4.2 ms" in header(app)
        assert "┣━" in text(app, LayerMap)
        assert "think" in text(app, Traffic)
        assert "█" in text(app, Traffic)
        assert "kitchen [0, 10) → attic [10, 20)" in text(app, Work)
        assert "+1  fec: recovered without a resend" in text(app, Counters)
        assert "17:12:41 porch is suspected" in text(app, LogTail)

    run(scenario, HOUSE)


def test_a_node_that_rests_says_what_its_owner_uses_and_allows() -> None:
    resting = replace(
        HOUSE[-1],
        state="resting",
        reason="the owner uses 63% of the CPU",
        owners_cpu=0.63,
        limits=("memory 4 GiB", "when idle"),
    )

    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        assert "resting: the owner uses 63% of the CPU" in header(app)
        assert "owner uses 63% of the CPU" in header(app)
        assert "lends at most memory 4 GiB, when idle" in header(app)

    run(scenario, [resting])


def test_a_busy_engine_says_for_how_many_it_computes_and_what_is_kept() -> None:
    busy = replace(
        HOUSE[-1],
        engine=EngineView(3, 90, 2.5, 2.5, 4.25, 11.0),
        kept_bytes=3 << 20,
        kept_caches=2,
        counters={"inference: positions reused": 1024},
    )

    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        assert "steps 2.5 sessions each, queued 4.2 ms, 3 wait" in header(app)
        assert "more kept of old sessions, 1024 positions reused" in header(app)

    run(scenario, [busy])


def test_several_models_each_have_a_map_of_who_holds_them() -> None:
    node = HOUSE[-1]
    views = (
        ModelView(node.model, "ab" * 32, node.space_hash32, 30, node.layers, "serving", ""),
        ModelView("other", "cd" * 32, 7, 12, (0, 6), "serving", "", missing_layers=((9, 12),)),
        ModelView("third", "ef" * 32, 8, 4, (0, 0), "loading", "", missing_layers=()),
    )
    offers = (
        OfferView(node.model, node.space_hash32, 30, (10, 20)),
        OfferView("other", 7, 12, (6, 9)),
    )
    attic = replace(node.peers[0], offers=offers)
    several = replace(node, models=views, peers=(attic, *node.peers[1:]))

    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        assert "other [0, 6) of 12" in header(app)
        assert "third no layers of 4, loading" in header(app)
        rows = text(app, LayerMap).splitlines()
        of_other = rows[rows.index("other") : rows.index("third")]
        assert any("kitchen" in row and "attic" in row for row in of_other)
        assert any("✕" in row for row in of_other)
        assert "held by nobody: [9, 12) of other" in str(app.query_one(LayerMap).border_subtitle)
        table: DataTable[Any] = app.query_one(DataTable)
        table.move_cursor(row=names(app).index("attic"))
        await pilot.pause()
        assert "other [6, 9), space 00000007" in text(app, PeerDetail)

    run(scenario, [several])


def test_a_small_screen_shows_a_page_at_a_time() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        pages = {
            "1": {"layers"}, "2": {"traffic"}, "3": {"work"}, "4": {"counters"}, "5": {"log"},
        }  # fmt: skip
        for key, shown in pages.items():
            await pilot.press(key)
            await pilot.pause()
            visible = {panel.id for panel in app.query(Panel) if panel.region.area}
            assert visible == shown
        assert not app.query_one(Peers).region.area

    run(scenario, [HOUSE[-1]], SMALL)


@pytest.mark.parametrize("size", [(40, 10), (20, 5), (49, 50), (120, 8), (1, 1)])
def test_a_tiny_screen_says_the_essential(size: tuple[int, int]) -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        rows = header(app).splitlines()
        if size[0] >= 40:
            assert rows[:3] == [
                "kitchen ● serving",
                "layers [0, 10) of 30, all served",
                "7 peers, 1 gone, 1 only seen",
            ]
            assert "answer 18 ● running 148 tokens" in rows
            assert "for cellar [0, 10), 360 tokens" in rows
        assert not [panel for panel in app.query(Panel) if panel.region.area]
        for key in ("3", "5", "d", "z", "slash", "escape", "question_mark", "escape", "p"):
            await pilot.press(key)
        await polled(app, pilot)

    run(scenario, [HOUSE[-1]], size)


def test_a_tiny_screen_says_what_is_missing_and_that_the_node_is_gone() -> None:
    lacking = replace(HOUSE[-1], missing_layers=((10, 20),))

    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        assert "layers [0, 10) of 30, missing [10, 20)" in header(app)
        await polled(app, pilot)
        assert header(app).splitlines()[1].startswith("✕ node gone")

    run(scenario, [lacking, UserError("no node")], (40, 10))


@pytest.mark.parametrize(
    "keys", [("q",), ("ctrl+c",), ("slash", "ctrl+c"), ("question_mark", "ctrl+c")]
)
def test_it_ends_as_every_command_does(keys: tuple[str, ...]) -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        await pilot.press(*keys)
        assert app._exit

    run(scenario, HOUSE)


def test_the_log_of_an_older_node_is_shown_without_times() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        assert text(app, LogTail).startswith("attic joined the swarm")

    run(scenario, [replace(HOUSE[-1], log_times=())])


def test_work_says_what_is_done_for_others_and_what_is_waited_for() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        await pilot.press("3")
        shown = " ".join(text(app, Work).split())
        assert "lost library [15, 22): leaving the swarm;" in shown
        assert "waits for layers [15, 22), 17 s at most" in shown
        assert "cellar [0, 10) 360 in KV 8.2 tok/s" in shown

    run(scenario, [HOUSE[-1]])


def test_every_column_of_a_small_screen_fits() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot, times=2)
        table = app.query_one(DataTable)
        assert len(table.columns) == 9
        assert table.virtual_size.width <= table.scrollable_content_region.width

    run(scenario, HOUSE[:2], SMALL)


@pytest.mark.parametrize("node", [lonely(), crowd(60), HOUSE[-1]], ids=["alone", "crowd", "house"])
def test_no_size_and_no_swarm_is_too_much(node: NodeSnapshot) -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        for size in [(1, 1), (20, 5), SMALL, (120, 34), (250, 70), (1, 1)]:
            await pilot.resize_terminal(*size)
            await polled(app, pilot)
            assert app.screen.has_class("dashboard") == (size >= (120, 32))
        assert app.is_running

    run(scenario, [node], (1, 1))


def test_a_node_that_goes_away_is_said_to_be_gone_and_comes_back() -> None:
    answers: list[NodeSnapshot | Exception] = [
        ConnectionRefusedError("nobody listens"),
        HOUSE[0],
        UserError("the node does not answer", hint="is it running?"),
        HOUSE[1],
    ]

    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        assert "waiting for the node" in header(app)
        await polled(app, pilot)
        assert "waiting for the node: nobody listens" in header(app)
        await polled(app, pilot)
        assert "gone" not in header(app)
        await polled(app, pilot)
        assert "node gone, retrying (this is " in header(app)
        assert "s old): the node does not answer" in header(app)
        assert "attic" in names(app)
        assert app.screen.has_class("gone")
        await polled(app, pilot)
        assert "gone" not in header(app)
        assert not app.screen.has_class("gone")

    run(scenario, answers)


def test_it_polls_by_itself() -> None:
    asked = asyncio.Event()

    async def played() -> None:
        loop = asyncio.get_running_loop()

        def fetch() -> NodeSnapshot:
            loop.call_soon_threadsafe(asked.set)
            return HOUSE[-1]

        app = TopApp(fetch, interval=0.001)
        async with app.run_test(size=SMALL):
            await asyncio.wait_for(asked.wait(), timeout=20)

    asyncio.run(played())


def test_rows_are_updated_in_place_and_the_cursor_stays_on_its_peer() -> None:
    changed = tuple(
        replace(peer, layers=(29, 30), rtt_ms=99.5, software="0.9.1")
        if peer.name == "attic"
        else peer
        for peer in HOUSE[1].peers
    )

    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        await pilot.press("down", "down")
        await pilot.pause()
        assert "attic" in text(app, PeerDetail)
        assert names(app).index("attic") == 2
        await polled(app, pilot)
        assert names(app).index("attic") == 5
        assert app.query_one(DataTable).cursor_row == 5
        assert "RTT 99.5 ms" in text(app, PeerDetail)
        assert "0.9.1" in text(app, PeerDetail)

    run(scenario, [HOUSE[0], replace(HOUSE[1], peers=changed)])


def test_a_peer_that_is_forgotten_leaves_the_table() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        assert len(names(app)) == 9
        await polled(app, pilot)
        assert names(app) == ["attic"]
        assert "attic" in text(app, PeerDetail)
        await polled(app, pilot)
        assert names(app) == []
        assert "no peer selected" in text(app, PeerDetail)

    one = replace(HOUSE[1], peers=HOUSE[1].peers[:1])
    run(scenario, [HOUSE[0], one, replace(HOUSE[2], peers=())])


def test_the_detail_says_why_a_peer_does_no_work() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        assert not app.query_one(PeerDetail).region.area
        await pilot.press("slash", *"guest", "enter", "enter")
        await pilot.pause()
        assert app.query_one(PeerDetail).region.area
        assert "4 layers of memory, 6 needed" in text(app, PeerDetail)
        assert "192.168.1.26:4433" in text(app, PeerDetail)

    run(scenario, [HOUSE[-1]], SMALL)


def test_sorting_by_each_column_and_back() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        peers = app.query_one(Peers)
        peers.sort_by("rtt")
        assert names(app)[:2] == ["attic", "cellar"]
        assert names(app)[-1] in ("boathouse", "be1e0823")  # what is not known comes last
        await pilot.press("r")
        assert names(app)[-1] == "attic"
        for _ in range(12):
            peers.sort_by_next()
            assert len(names(app)) == 9
        await pilot.click(DataTable, offset=(4, 0))
        await pilot.pause()
        assert peers.sort_key == "name"
        assert names(app) == sorted(names(app), reverse=peers.reverse)

    run(scenario, [HOUSE[-1]])


def test_the_filter_narrows_and_escape_clears_it() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        await pilot.press("slash", *"serving", "space", *"x8")
        await pilot.pause()
        assert names(app) == ["cellar"]
        aside = str(app.query_one(Peers).border_subtitle)
        assert aside.startswith("1 shown of 7 peers, 1 gone, 1 only seen, by")
        await pilot.press("escape")
        await pilot.pause()
        assert len(names(app)) == 9
        assert isinstance(app.focused, DataTable)

    run(scenario, [HOUSE[-1]])


def test_a_filter_wants_every_word() -> None:
    attic = HOUSE[-1].peers[0]
    assert matches(attic, "")
    assert matches(attic, "ATT serving 192.168")
    assert not matches(attic, "attic dead")


def test_a_pause_holds_the_picture_and_not_the_history() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        await pilot.press("p")
        await polled(app, pilot)
        assert "PAUSED" in header(app)
        assert len(names(app)) == 9
        await pilot.press("p")
        await pilot.pause()
        assert "PAUSED" not in header(app)
        assert names(app) == []

    run(scenario, [HOUSE[0], replace(HOUSE[1], peers=())])


def test_help_opens_while_the_node_goes_on_and_closes() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        await polled(app, pilot)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, HelpScreen)

    run(scenario, HOUSE[:2], SMALL)


def test_every_theme_draws_and_the_last_leads_back_to_the_first() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        seen = []
        for _ in THEMES:
            seen.append(app.theme)
            app.action_next_theme()
            await pilot.pause()
            styles = {app.query_one(DataTable).get_row_at(0)[0].style.color}
            assert styles == {Color.parse(app.theme_variables["foreground"]).rich_color}
        assert tuple(seen) == THEMES
        assert app.theme == THEMES[0]
        app.theme = "ansi-dark"  # leaves its colours to the terminal
        await polled(app, pilot)

    run(scenario, [HOUSE[-1]])


def test_zoom_fills_the_screen_with_a_panel_and_goes_back() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        await pilot.press("3", "z")
        await pilot.pause()
        assert app.screen.maximized is app.query_one(Work)
        await pilot.press("z")
        await pilot.pause()
        assert app.screen.maximized is None

    run(scenario, [HOUSE[-1]])


def test_a_hole_is_drawn_and_named() -> None:
    async def scenario(app: TopApp, pilot: Pilot[None]) -> None:
        await polled(app, pilot)
        assert "✕✕✕" in text(app, LayerMap)
        assert "held by nobody: [12, 18)" in str(app.query_one(LayerMap).border_subtitle)

    run(scenario, [replace(crowd(7), missing_layers=((12, 18),))])
