"""The layer map: who holds which layers, and where nobody does."""

from collections.abc import Iterator, Sequence

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
from p2pnode.node.snapshot import ModelView, NodeSnapshot, lacking


class LayerMap(Panel):
    """An axis of layers, the holes in it, and a bar for each peer."""

    BORDER_TITLE = "Layers"

    def aside(self, picture: Picture) -> str:
        holes = ", ".join(_hole(picture.node, name, runs) for name, runs in lacking(picture.node))
        found = bars(picture.node)
        if holes:
            return f"held by nobody: {holes}"
        return "every layer is held" if found else ""

    def draw(self, picture: Picture, width: int, height: int) -> Text:
        node, palette = picture.node, picture.palette
        if len(node.models) > 1:
            return lines(
                *(row for one in node.models for row in _of_model(node, one, width, palette))
            )
        found = bars(node)
        n_layers = layer_count(node, found)
        if not n_layers:
            return Text("no model, no layers", style=palette.muted)
        return lines(*_rows(found, node.missing_layers, n_layers, width, palette))


def _hole(node: NodeSnapshot, name: str, runs: Sequence[tuple[int, int]]) -> str:
    of = f" of {name}" if len(node.models) > 1 else ""
    return f"{', '.join(map(layers, runs))}{of}"


def _of_model(node: NodeSnapshot, model: ModelView, width: int, palette: Palette) -> Iterator[Text]:
    """Yield the map of one of several models, under its name."""
    yield Text(model.name, style=palette.plain)
    found = bars(node, model.space_hash32)
    yield from _rows(found, model.missing_layers, model.n_layers, width, palette)


def _rows(
    found: list[Bar],
    missing: tuple[tuple[int, int], ...],
    n_layers: int,
    width: int,
    palette: Palette,
) -> Iterator[Text]:
    yield Text(ticks(n_layers, width), style=palette.muted)
    if missing:
        yield _holes(missing, n_layers, width, palette)
    for lane in lanes(found):
        yield _lane(lane, n_layers, width, palette)


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
