"""The layer map: who holds which layers, and where nobody does."""

from rich.text import Text

from p2pnode.interfaces.tui.formats import layers
from p2pnode.interfaces.tui.layer_bars import (
    Bar,
    bars,
    columns,
    drawn,
    lanes,
    layer_count,
    ticks,
)
from p2pnode.interfaces.tui.palette import ROLES, Palette
from p2pnode.interfaces.tui.panel import Panel, Picture, lines


class LayerMap(Panel):
    """An axis of layers, the holes in it, and a bar for each peer."""

    BORDER_TITLE = "Layers"

    def aside(self, picture: Picture) -> str:
        holes = ", ".join(layers(hole) for hole in picture.node.missing_layers)
        found = bars(picture.node)
        if holes:
            return f"held by nobody: {holes}"
        return "every layer is held" if found else ""

    def draw(self, picture: Picture, width: int, height: int) -> Text:
        node, palette = picture.node, picture.palette
        found = bars(node)
        n_layers = layer_count(node, found)
        if not n_layers:
            return Text("no model, no layers", style=palette.muted)
        rows = [Text(ticks(n_layers, width), style=palette.muted)]
        if node.missing_layers:
            rows.append(_holes(node.missing_layers, n_layers, width, palette))
        rows += [_lane(lane, n_layers, width, palette) for lane in lanes(found)]
        return lines(*rows)


def _holes(
    missing: tuple[tuple[int, int], ...], n_layers: int, width: int, palette: Palette
) -> Text:
    row = Text()
    for first, last in sorted(missing):
        low, high = columns(first, last, n_layers, width)
        low = max(low, row.cell_len)
        row.append(" " * (low - row.cell_len))
        row.append("✕" * max(1, high - low), style=palette.bad)
    return row


def _lane(lane: list[Bar], n_layers: int, width: int, palette: Palette) -> Text:
    row = Text()
    for bar in lane:
        low, high = columns(bar.first, bar.last, n_layers, width)
        low = max(low, row.cell_len)  # more layers than columns: a bar gives way to the one before
        if high <= low:
            continue
        row.append(" " * (low - row.cell_len))
        _, role = ROLES.get(bar.state, ("", "muted"))
        style = palette.accent if bar.ours else palette.role(role)
        row.append(drawn(bar, high - low), style=style)
    return row
