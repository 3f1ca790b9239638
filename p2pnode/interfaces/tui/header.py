"""The header: who this node is and how it does, in as few lines as the width allows."""

from rich.text import Text
from textual.events import Resize
from textual.widgets import Static

from p2pnode.interfaces.tui.formats import layers, long_bytes, milliseconds, span
from p2pnode.interfaces.tui.palette import Palette
from p2pnode.interfaces.tui.panel import Picture, flow
from p2pnode.node.peer_snapshot import counted
from p2pnode.node.snapshot import NodeSnapshot, lacking

_CURRENT = ("opening", "running", "repairing")


class NodeHeader(Static):
    """Name, state, model, addresses and health of the node; or that it is gone."""

    DEFAULT_CSS = """
    NodeHeader { height: auto; max-height: 5; padding: 0 1; background: $panel; }
    """

    drawn = Text()
    _picture: Picture | None = None
    _notice = ""
    _paused = False
    is_alone = False
    """Whether the screen is too small for anything else: then it says the essential of all."""

    def on_resize(self, event: Resize) -> None:
        self._redraw()

    def show(self, picture: Picture | None, *, notice: str = "", paused: bool = False) -> None:
        """Draw ``picture``; ``notice`` says what is wrong with getting a newer one."""
        self._picture, self._notice, self._paused = picture, notice, paused
        self._redraw()

    def be_alone(self, is_alone: bool) -> None:
        self.is_alone = is_alone
        self._redraw()

    def _redraw(self) -> None:
        width = self.content_size.width or max(1, self.app.size.width - 2)
        text = Text("\n").join(self._lines(width))
        if text != self.drawn:
            self.drawn = text
            self.update(text)

    def _lines(self, width: int) -> list[Text]:
        parts = [] if self._picture is None else facts(self._picture)
        if self._paused:
            parts.insert(0, Text(" PAUSED ", style="reverse bold"))
        rows = flow(parts, width)
        if self.is_alone and self._picture is not None:
            rows = [_cut(row, width) for row in essential(self._picture)]
        if self._notice:
            bad = self._picture.palette.bad if self._picture else "bold"
            notice = Text(f"✕ {self._notice}", style=bad, no_wrap=True, overflow="ellipsis")
            rows.insert(1 if self.is_alone else len(rows), notice)
        return rows


def essential(picture: Picture) -> list[Text]:
    """Return a line each of state, layers, peers and current work, the most important first."""
    node, palette = picture.node, picture.palette
    state, style = palette.state(node.state)
    missing = ", ".join(layers(run) for _, runs in lacking(node) for run in runs)
    served = f", missing {missing}" if missing else ", all served" if node.model else ""
    of_all = f"layers {layers(node.layers)} of {node.n_layers}" if node.model else "no model"
    now = [one for one in node.generations if one.state in _CURRENT]
    return [
        Text.assemble((node.name, palette.accent), " ", (state, style)),
        Text(f"{of_all}{served}", palette.warn if missing else palette.plain),
        Text(counted(node.peers), palette.plain),
        *(
            Text.assemble(
                f"answer {one.generation} ", palette.state(one.state), f" {one.tokens} tokens"
            )
            for one in reversed(now)
        ),
        *(
            Text(f"for {stage.requester} {layers(stage.layers)}, {stage.positions} tokens")
            for stage in node.stages
        ),
        *([Text(node.reason, palette.muted)] if node.model and node.reason else []),
    ]


def _cut(row: Text, width: int) -> Text:
    row.truncate(width, overflow="ellipsis")
    return row


def facts(picture: Picture) -> list[Text]:
    """Return what there is to say of the node, the most important first."""
    node, palette = picture.node, picture.palette
    state, style = palette.state(node.state)
    said = Text.assemble((state, style), (f": {node.reason}" if node.reason else "", palette.muted))
    identity = Text.assemble((node.name, palette.accent), (f" {node.node_id[:8]}", palette.muted))
    owner = node.owners_cpu
    p50, p99 = node.loop_late_ms
    late = palette.warn if p99 >= 100 else palette.plain
    used, total = long_bytes(node.kv_used_bytes), long_bytes(node.kv_total_bytes)
    labelled = [
        ("up", span(node.uptime_s), palette.plain),
        ("device", node.device, palette.plain),
        (
            "token",
            f"{milliseconds(node.decode_us / 1000)} ms" * bool(node.decode_us),
            palette.plain,
        ),
        ("KV", f"{used} of {total}{_kept(node)}" * bool(node.kv_total_bytes), palette.plain),
        ("steps", _steps(node), palette.plain),
        ("owner uses", "" if owner is None else f"{owner:.0%} of the CPU", palette.plain),
        ("lends at most", ", ".join(node.limits), palette.plain),
        ("listening", ", ".join(node.listening), palette.plain),
        ("swarm", node.swarm_tag, palette.plain),
        ("loop late p50/p99", f"{milliseconds(p50)}/{milliseconds(p99)} ms", late),
    ]
    return [
        identity,
        said,
        *_models(picture),
        *(Text.assemble((f"{k} ", palette.muted), (v, s)) for k, v, s in labelled if v),
    ]


def _kept(node: NodeSnapshot) -> str:
    """Say what is kept of sessions that are over, and how much of that was of use."""
    if not node.kept_bytes:
        return ""
    reused = node.counters.get("inference: positions reused", 0)
    said = f", {long_bytes(node.kept_bytes)} more kept of old sessions"
    return f"{said}, {reused} positions reused" if reused else said


def _steps(node: NodeSnapshot) -> str:
    """Say for how many sessions the engine computes at once, and who waits for it how long."""
    engine = node.engine
    if not engine.steps:
        return ""
    queued = f"queued {milliseconds(engine.queued_ms)} ms"
    waiting = f", {engine.waiting} wait" if engine.waiting else ""
    return f"{engine.mean_sessions:.1f} sessions each, {queued}{waiting}"


def _models(picture: Picture) -> list[Text]:
    node, palette = picture.node, picture.palette
    if not node.model:
        return [Text("no model", style=palette.muted)]
    first = (node.model, node.layers, node.n_layers, "")
    models = [(one.name, one.layers, one.n_layers, one.state) for one in node.models] or [first]
    return [_model(*one, palette) for one in models]


def _model(name: str, held: tuple[int, int], of: int, state: str, palette: Palette) -> Text:
    run = f" {layers(held)} of {of}" if held[1] > held[0] else f" no layers of {of}"
    under_way = f", {state}" if state in ("loading", "unloading") else ""
    return Text.assemble((name, palette.plain), (f"{run}{under_way}", palette.muted))
