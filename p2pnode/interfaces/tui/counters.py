"""Counters: everything dropped, refused, retried or repaired, and which of it happens now."""

from rich.text import Text

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
        rows = [
            Text.assemble(
                (f"{count:>9}  {name}", palette.warn),
                (f"  +{moved[name]}", palette.accent),
            )
            if name in moved
            else Text(f"{count:>9}  {name}", style=palette.plain if count else palette.muted)
            for name, count in named
        ]
        return lines(*rows) if rows else Text("nothing was dropped or refused", style=palette.muted)
