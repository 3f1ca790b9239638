"""The help screen."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from p2pnode.interfaces.tui.palette import Palette

KEYS = (
    ("1 to 5", "open a page; with everything in sight, go to the panel"),
    ("enter, d", "all about the chosen peer, on small screens"),
    ("/", "filter the peers; every word must match; escape clears"),
    ("s, r", "sort by the next column, reverse; or click on a heading"),
    ("p", "pause the picture; the node goes on"),
    ("z", "let the panel in focus fill the screen, and back"),
    ("t", "next theme; ctrl+p has all of them"),
    ("?, q", "this help; quit (the node stays)"),
)
SIGNS = (
    ("serving", "runs its layers for the swarm"),
    ("joining", "not ready for work yet"),
    ("draining", "finishes its work and takes no more"),
    ("resting", "steps back for its owner; its detail says why"),
    ("idle", "a member without layers; its detail says why"),
    ("suspect", "did not answer a probe, and may be dead"),
    ("dead", "did not refute that in time"),
    ("left", "said that it leaves"),
    ("seen", "announced itself, but no handshake succeeded"),
)
MAP = (
    ("┣━ name ━┫", "serves these layers"),
    ("├┄ name ┄┤", "joining;  ┣╍ ╍┫ suspect;  ├─ ─┤ draining, resting"),
    ("✕✕✕", "layers that nobody serves"),
)


class HelpScreen(ModalScreen[None]):
    """Keys, and what the signs mean."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "app.pop_screen", "Close")
    ]
    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > VerticalScroll {
        width: 78; max-width: 100%; height: auto; max-height: 100%;
        border: round $primary; border-title-color: $primary; padding: 0 1;
        background: $background;
    }
    HelpScreen Static { height: auto; }
    """

    def __init__(self, palette: Palette) -> None:
        super().__init__()
        self._palette = palette

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title = "Help"
            yield Static(self._text())

    def _text(self) -> Text:
        palette = self._palette
        text = Text()
        for keys, meaning in KEYS:
            text.append(f"{keys:<10}  ", style=palette.accent).append(f"{meaning}\n")
        text.append("\n")
        for state, meaning in SIGNS:
            sign, style = palette.state(state)
            text.append(f"{sign:<10}  ", style=style).append(f"{meaning}\n")
        text.append("\n")
        for sign, meaning in MAP:
            text.append(f"{sign:<10}  ", style=palette.plain).append(f"{meaning}\n")
        text.rstrip()
        return text
