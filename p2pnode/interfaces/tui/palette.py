"""Colours by meaning, taken from the theme; and the signs that say the same without colours."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.style import Style
from textual.color import Color
from textual.theme import Theme

HARBOUR = Theme(
    name="harbour",
    primary="#6ea8c9",
    secondary="#8796a8",
    accent="#e0b573",
    success="#7fbf95",
    warning="#d9b56c",
    error="#e06c75",
    background="#14181d",
    surface="#14181d",
    panel="#232a32",
    foreground="#ccd4dc",
    dark=True,
)
PAPER = Theme(
    name="paper",
    primary="#2f6f94",
    secondary="#5c6b7a",
    accent="#9a5b00",
    success="#2d7a4b",
    warning="#946300",
    error="#b3261e",
    background="#faf8f3",
    surface="#faf8f3",
    panel="#e9e4d8",
    foreground="#2a2f35",
    dark=False,
)
THEMES = ("harbour", "paper", "nord", "gruvbox", "solarized-light")
"""What the theme key goes through; the command palette offers all others too."""

ROLES = {
    "serving": ("●", "good"),
    "running": ("●", "good"),
    "joining": ("◐", "warn"),
    "loading": ("◐", "warn"),
    "opening": ("◐", "warn"),
    "draining": ("◑", "warn"),
    "resting": ("◒", "muted"),
    "repairing": ("◑", "warn"),
    "suspect": ("?", "warn"),
    "idle": ("○", "muted"),
    "seen": ("◌", "muted"),
    "left": ("·", "muted"),
    "cancelled": ("·", "muted"),
    "finished": ("✓", "muted"),
    "dead": ("✕", "bad"),
    "failed": ("✕", "bad"),
}
"""Sign and role of each state of a node, a peer or a generation."""


PLAIN, SLANTED, STRONG, FAINT = Style(), Style(italic=True), Style(bold=True), Style(dim=True)


@dataclass(frozen=True, slots=True)
class Palette:
    """One style a meaning."""

    good: Style = PLAIN
    warn: Style = SLANTED
    bad: Style = STRONG
    accent: Style = STRONG
    muted: Style = FAINT
    plain: Style = PLAIN

    def role(self, name: str) -> Style:
        return {"good": self.good, "warn": self.warn, "bad": self.bad}.get(name, self.muted)

    def state(self, name: str) -> tuple[str, Style]:
        """Return ``name`` with its sign before it, and its style."""
        sign, role = ROLES.get(name, ("·", "muted"))
        return f"{sign} {name}", self.role(role)


def palette_of(variables: Mapping[str, str]) -> Palette:
    """Read the theme's colours; one that leaves a colour to the terminal gets plain styles."""
    ink, ground = Color.parse(variables["foreground"]), Color.parse(variables["background"])
    named = {
        name: Color.parse(variables[name]) for name in ("success", "warning", "error", "accent")
    }
    if any(color.ansi is not None for color in (ink, ground)):
        return Palette()
    return Palette(
        good=Style(color=named["success"].rich_color),
        warn=Style(color=named["warning"].rich_color),
        bad=Style(color=named["error"].rich_color, bold=True),
        accent=Style(color=named["accent"].rich_color, bold=True),
        muted=Style(color=ink.blend(ground, 0.42).rich_color),
        plain=Style(color=ink.rich_color),
    )
