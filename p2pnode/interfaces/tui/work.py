"""Work: the answers asked for here, and the layers run here for others."""

from rich.text import Text

from p2pnode.interfaces.tui.formats import layers, long_bytes
from p2pnode.interfaces.tui.palette import Palette
from p2pnode.interfaces.tui.panel import Panel, Picture, flow, lines
from p2pnode.node.snapshot import GenerationView, StageView

INDENT = 5


class Work(Panel):
    """Generations, the newest first, each with its chain; then the stages served."""

    BORDER_TITLE = "Generations and stages"

    def aside(self, picture: Picture) -> str:
        return f"{len(picture.node.generations)} asked here, {len(picture.node.stages)} served"

    def draw(self, picture: Picture, width: int, height: int) -> Text:
        node, palette = picture.node, picture.palette
        rows: list[Text] = []
        for generation in reversed(node.generations):
            rows += _generation(generation, palette, width)
        if not node.generations:
            rows.append(Text("nothing asked from here", style=palette.muted))
        rows.append(Text())
        if node.stages:
            rows.append(Text("layers run for others", style=palette.muted))
        rows += [_stage(stage, palette) for stage in node.stages]
        if not node.stages:
            rows.append(Text("no layers run for others now", style=palette.muted))
        return lines(*rows)


def _generation(view: GenerationView, palette: Palette, width: int) -> list[Text]:
    state, style = palette.state(view.state)
    speed = f"  {view.tokens_per_s:.1f} tok/s" if view.tokens_per_s else ""
    reused = f", {view.reused} known before" if view.reused else ""
    first = Text.assemble(
        (f"#{view.generation:<4}", palette.plain),
        (f"{state:13}", style),
        (f"{view.prompt_tokens}+{view.tokens} tokens{reused}{speed}", palette.plain),
        (f"  sent as {', '.join(view.codings)}" if _is_coarse(view) else "", palette.warn),
    )
    links = [f"{stage} →" for stage in view.chain[:-1]] + list(view.chain[-1:])
    chain = [Text(link, palette.muted) for link in links]
    if view.epoch:
        chain.insert(0, Text(f"reopened {view.epoch}x:", palette.warn))
    reason = [Text(word, style) for word in _why(view).split()]
    below = flow(chain, width - INDENT, gap=" ") + flow(reason, width - INDENT, gap=" ")
    return [first, *(Text(" " * INDENT).append_text(row) for row in below)]


def _why(view: GenerationView) -> str:
    """Return who was lost and why, and what is waited for."""
    parts = [f"lost {', '.join(view.lost)}: {view.reason}" if view.lost else view.reason]
    if view.awaits:
        runs = ", ".join(map(layers, view.awaits))
        parts.append(f"waits for layers {runs}, {view.awaits_s:.0f} s at most")
    return "; ".join(filter(None, parts))


def _is_coarse(view: GenerationView) -> bool:
    return any(coding not in {"f16", "f32"} for coding in view.codings)


def _stage(view: StageView, palette: Palette) -> Text:
    return Text.assemble(
        (f"{view.requester:14}", palette.plain),
        (f"{layers(view.layers):10}", palette.plain),
        (f"{view.positions:>6} in KV", palette.plain),
        (f"  {view.tokens_per_s:.1f} tok/s" if view.tokens_per_s else "", palette.plain),
        (f"  {long_bytes(view.kv_bytes)}", palette.muted),
        (f"  reopened {view.epoch}x" if view.epoch else "", palette.warn),
    )
