"""Counters: everything dropped, refused, retried or repaired, and which of it happens now."""

from rich.text import Text

from p2pnode.interfaces.tui.palette import Palette
from p2pnode.interfaces.tui.panel import Panel, Picture, lines


class Counters(Panel):
    """Those that moved over the last ten seconds on top, then all others by name."""

    BORDER_TITLE = "Drops, refusals, retries"

    def aside(self, picture: Picture) -> str:
        moved = len(picture.rates.moved)
        return f"{moved} moved in 10 s" if moved else "quiet"

    def draw(self, picture: Picture, width: int, height: int) -> Text:
        palette, moved = picture.palette, picture.rates.moved
        named = sorted(
            picture.node.counters.items(), key=lambda item: (item[0] not in moved, item[0])
        )
        rows = [_row(name, count, moved.get(name, 0), palette) for name, count in named]
        return lines(*rows) if rows else Text("nothing was dropped or refused", style=palette.muted)


def _row(name: str, count: int, moved: int, palette: Palette) -> Text:
    still = palette.plain if count else palette.muted
    return Text.assemble(
        (f"{count:>8}", palette.warn if moved else still),
        (f"{f'+{moved}' if moved else '':>6}", palette.accent),
        (f"  {name}", palette.warn if moved else still),
    )
