"""The header: who this node is and how it does, in as few lines as the width allows."""

from rich.text import Text
from textual.events import Resize
from textual.widgets import Static

from p2pnode.interfaces.tui.formats import layers, long_bytes, milliseconds, span
from p2pnode.interfaces.tui.panel import Picture, flow


class NodeHeader(Static):
    """Name, state, model, addresses and health of the node; or that it is gone."""

    DEFAULT_CSS = """
    NodeHeader { height: auto; max-height: 5; padding: 0 1; background: $panel; }
    """

    drawn = Text()
    _picture: Picture | None = None
    _notice = ""
    _paused = False

    def on_resize(self, event: Resize) -> None:
        self._redraw()

    def show(self, picture: Picture | None, *, notice: str = "", paused: bool = False) -> None:
        """Draw ``picture``; ``notice`` says what is wrong with getting a newer one."""
        self._picture, self._notice, self._paused = picture, notice, paused
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
        if self._notice:
            bad = self._picture.palette.bad if self._picture else "bold"
            rows.append(Text(f"✕ {self._notice}", style=bad, no_wrap=True, overflow="ellipsis"))
        return rows


def facts(picture: Picture) -> list[Text]:
    """Return what there is to say of the node, the most important first."""
    node, palette = picture.node, picture.palette
    state, style = palette.state(node.state)
    said = Text.assemble((state, style), (f": {node.reason}" if node.reason else "", palette.muted))
    identity = Text.assemble((node.name, palette.accent), (f" {node.node_id[:8]}", palette.muted))
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
        ("KV", f"{used} of {total}" * bool(node.kv_total_bytes), palette.plain),
        ("listening", ", ".join(node.listening), palette.plain),
        ("swarm", node.swarm_tag, palette.plain),
        ("loop late p50/p99", f"{milliseconds(p50)}/{milliseconds(p99)} ms", late),
    ]
    return [
        identity,
        said,
        _model(picture),
        *(Text.assemble((f"{k} ", palette.muted), (v, s)) for k, v, s in labelled if v),
    ]


def _model(picture: Picture) -> Text:
    node, palette = picture.node, picture.palette
    if not node.model:
        return Text("no model", style=palette.muted)
    held = layers(node.layers)
    run = f" {held} of {node.n_layers}" if held != "-" else f" no layers of {node.n_layers}"
    return Text.assemble((node.model, palette.plain), (run, palette.muted))
