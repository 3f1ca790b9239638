"""The bar of pages, for screens too small to show everything at once."""

from rich.style import Style
from rich.text import Text
from textual.widgets import Static

PAGES = ("peers", "traffic", "work", "counters", "log")


class PageBar(Static):
    """One line that names the pages and the keys that open them; a click does so too."""

    DEFAULT_CSS = """
    PageBar {
        height: 1; padding: 0 1; color: $foreground 70%;
        link-style: none; link-color: $foreground 70%;
        link-style-hover: underline; link-background-hover: transparent;
        link-color-hover: $primary;
    }
    """

    def on_mount(self) -> None:
        self.mark(PAGES[0])

    def mark(self, page: str) -> None:
        """Show that ``page`` is open."""
        bar = Text(no_wrap=True)
        for number, name in enumerate(PAGES, start=1):
            label = f" {number} {name.capitalize()} "
            if name == page:
                bar.append(label, style="reverse bold")
            else:
                bar.append(label, style=Style.from_meta({"@click": f"app.page('{name}')"}))
            bar.append(" ")
        self.update(bar)
