"""The tail of the node's log."""

from rich.text import Text

from p2pnode.interfaces.tui.panel import Panel, Picture, lines


class LogTail(Panel):
    """The newest noteworthy lines; it follows them unless the user has scrolled up."""

    BORDER_TITLE = "Log"

    def redraw(self) -> None:
        at_end = self.scroll_offset.y >= self.max_scroll_y
        super().redraw()
        if at_end:
            self.call_after_refresh(self.scroll_end, animate=False)

    def draw(self, picture: Picture, width: int, height: int) -> Text:
        node, palette = picture.node, picture.palette
        if not node.log:
            return Text("nothing noteworthy yet", style=palette.muted)
        known = len(node.log_times) == len(node.log)  # an older node tells no times
        times = node.log_times if known else ("",) * len(node.log)
        return lines(
            *(
                Text.assemble((f"{clock} " * bool(clock), palette.muted), (line, palette.plain))
                for clock, line in zip(times, node.log, strict=True)
            )
        )
