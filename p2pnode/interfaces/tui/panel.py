"""What the panels share: a picture to draw, and a bordered box that draws it as text."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.widgets import Static

from p2pnode.interfaces.tui.palette import Palette
from p2pnode.interfaces.tui.rates import Rates
from p2pnode.node.snapshot import NodeSnapshot


@dataclass(frozen=True, slots=True)
class Picture:
    """All that a panel may look at."""

    node: NodeSnapshot
    rates: Rates = field(default_factory=Rates)
    palette: Palette = field(default_factory=Palette)


class Panel(VerticalScroll):
    """A bordered box of text, drawn anew for each picture and each size."""

    ALLOW_MAXIMIZE = True

    DEFAULT_CSS = """
    Panel {
        border: round $foreground 25%;
        border-title-color: $primary;
        border-subtitle-color: $foreground 60%;
        padding: 0 1;
        height: 1fr;
        scrollbar-size-vertical: 1;
    }
    Panel:focus { border: round $primary; }
    Panel > Static { width: 100%; height: auto; }
    """

    picture: Picture | None = None
    drawn = Text()

    def compose(self) -> ComposeResult:
        yield Static(expand=True)

    def on_resize(self, event: Resize) -> None:
        self.redraw()

    def show(self, picture: Picture) -> None:
        """Draw ``picture``; the screen is touched only where the text has changed."""
        self.picture = picture
        self.redraw()

    def redraw(self) -> None:
        width, height = self.scrollable_content_region.size
        if self.picture is None or not width:
            return
        self.border_subtitle = self.aside(self.picture)
        text = trimmed(self.draw(self.picture, width, height), width)
        if text != self.drawn:
            self.drawn = text
            self.query_one(Static).update(text)

    def draw(self, picture: Picture, width: int, height: int) -> Text:
        """Return the panel's text for a space of ``width`` by ``height``; more lines scroll."""
        raise NotImplementedError

    def aside(self, picture: Picture) -> str:
        """Return what the lower border says."""
        return ""


def lines(*parts: Text) -> Text:
    """Join texts, one a line."""
    return Text("\n").join(parts)


def trimmed(text: Text, width: int) -> Text:
    """Return ``text`` with no line wider than ``width``: a table that wraps is hard to read."""
    rows = list(text.split("\n", allow_blank=True))
    for row in rows:
        row.truncate(width, overflow="ellipsis")
    return lines(*rows)


def flow(parts: Iterable[Text], width: int, gap: str = "   ") -> list[Text]:
    """Lay ``parts`` out in lines of at most ``width``; a part too wide for a line is cut."""
    rows: list[Text] = []
    for part in parts:
        if rows and rows[-1].cell_len + len(gap) + part.cell_len <= width:
            rows[-1].append(gap).append_text(part)
        else:
            row = part.copy()
            row.truncate(width, overflow="ellipsis")
            rows.append(row)
    return rows
