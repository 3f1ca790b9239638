"""Where each peer's bar of layers goes: packed into lanes, so that 60 peers need few lines."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from p2pnode.interfaces.tui.formats import clip
from p2pnode.node.peer_snapshot import PeerView
from p2pnode.node.snapshot import NodeSnapshot

LIVE = frozenset({"serving", "joining", "draining", "resting", "suspect", "loading"})
"""States whose layers are still worth a bar; a dead peer's are not."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A run of layers that somebody holds."""

    name: str
    state: str
    first: int
    last: int
    ours: bool = False


def bars(node: NodeSnapshot, space: int = 0) -> list[Bar]:
    """Return who holds layers of a model, by first layer.

    Without a ``space`` it is this node's first, or the commonest one.
    """
    wanted = space or model_space(node)
    found = [
        Bar(peer.name or peer.node_id[:8], peer.state, *run)
        for peer in node.peers
        if peer.state in LIVE and (run := _run_of(peer, wanted))[0] < run[1]
    ]
    ours = {one.space_hash32: one.layers for one in node.models} or {wanted: node.layers}
    run = ours.get(wanted, (0, 0))
    if run[0] < run[1]:
        found.append(Bar(node.name, node.state, *run, ours=True))
    return sorted(found, key=lambda bar: (bar.first, not bar.ours, bar.last, bar.name))


def model_space(node: NodeSnapshot) -> int:
    """Return the space whose layers are drawn: the node's own, else the one most peers serve."""
    if node.space_hash32:
        return node.space_hash32
    spaces = [peer.space_hash32 for peer in node.peers if _holds(peer)]
    return max(spaces, key=spaces.count, default=0)


def layer_count(node: NodeSnapshot, found: Sequence[Bar]) -> int:
    """Return how many layers the map spans, even when only the peers know."""
    ends = [bar.last for bar in found] + [last for _, last in node.missing_layers]
    return max([node.n_layers, *ends])


def lanes(found: Sequence[Bar]) -> list[list[Bar]]:
    """Pack bars, given by first layer, into as few lanes as possible without an overlap.

    Taking the first lane that is free is optimal for intervals in this order, and where the
    swarm covers the model, the top lane reads as a chain from end to end.
    """
    packed: list[list[Bar]] = []
    for bar in found:
        free = [lane for lane in packed if lane[-1].last <= bar.first]
        # The lane that ends nearest: bars that follow each other stand beside each other.
        best = max(free, key=lambda lane: lane[-1].last, default=None)
        if best is None:
            packed.append([bar])
        else:
            best.append(bar)
    return packed


def columns(first: int, last: int, n_layers: int, width: int) -> tuple[int, int]:
    """Return the columns of layers [first, last) in a map ``width`` wide; at least one."""
    low = first * width // n_layers
    return low, max(low + 1, last * width // n_layers)


def drawn(bar: Bar, width: int) -> str:
    """Draw a bar ``width`` columns wide; its line tells the state where there are no colours."""
    left, line, right = _STROKES.get(bar.state, _STROKES["serving"])
    if width == 1:
        return "╋" if line == "━" else "┼"
    name = _label(bar.name, width)
    inner = width - 2 - cell_len(name)
    return left + line * (inner // 2) + name + line * (inner - inner // 2) + right


def ticks(n_layers: int, width: int) -> str:
    """Return the axis: layer numbers above their columns, no denser than can be read."""
    step = next(s for s in _STEPS if s * width // n_layers >= 5 or s >= n_layers)
    axis = ""
    for layer in range(0, n_layers, step):
        axis += " " * (layer * width // n_layers - len(axis)) + str(layer)
    return axis[:width].ljust(width)


_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 100_000)
_STROKES = {
    "serving": ("┣", "━", "┫"),
    "joining": ("├", "┄", "┤"),
    "loading": ("├", "┄", "┤"),
    "draining": ("├", "─", "┤"),
    "resting": ("├", "─", "┤"),
    "suspect": ("┣", "╍", "┫"),
}


def _holds(peer: PeerView) -> bool:
    return peer.state in LIVE and peer.layers[0] < peer.layers[1]


def _run_of(peer: PeerView, space: int) -> tuple[int, int]:
    """Return what a peer holds of a model."""
    for one in peer.offers:
        if one.space_hash32 == space:
            return one.layers
    return peer.layers if peer.space_hash32 == space else (0, 0)


def _label(name: str, width: int) -> str:
    if cell_len(name) + 4 <= width:
        return f" {name} "
    return clip(name, width - 2) if width > 4 else ""  # one or two letters say nothing
