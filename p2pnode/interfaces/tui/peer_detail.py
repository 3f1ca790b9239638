"""All that is known of one peer: the one the table's cursor is on."""

from rich.text import Text

from p2pnode.interfaces.tui.formats import layers, long_bytes, milliseconds, share, span
from p2pnode.interfaces.tui.panel import Panel, Picture, lines
from p2pnode.node.peer_snapshot import OfferView, PeerView


class PeerDetail(Panel):
    """Addresses, device, memory, and why the peer is in its state."""

    BORDER_TITLE = "Peer"

    _node_id: str | None = None

    def select(self, node_id: str | None) -> None:
        self._node_id = node_id
        self.redraw()

    def draw(self, picture: Picture, width: int, height: int) -> Text:
        peer = next((p for p in picture.node.peers if p.node_id == self._node_id), None)
        if peer is None:
            return Text("no peer selected", style=picture.palette.muted)
        state, style = picture.palette.state(peer.state)
        rows = [
            Text.assemble((peer.name, picture.palette.accent), f" {peer.node_id}"),
            Text.assemble((state, style), f"{_since(peer)}  {peer.reason}"),
        ]
        labelled = [
            Text.assemble((f"{label:<12}", picture.palette.muted), value)
            for label, value in _facts(peer)
        ]
        return lines(*rows, *labelled)


def _since(peer: PeerView) -> str:
    return "" if peer.gone_s is None else f" {span(peer.gone_s)} ago"


def _facts(peer: PeerView) -> list[tuple[str, str]]:
    session = "session up" if peer.connected else "no session"
    rtt = f", RTT {milliseconds(peer.rtt_ms)} ms" if peer.rtt_ms is not None else ""
    loss = f", loss {share(peer.loss)}" if peer.connected else ""
    silent = "never heard" if peer.last_heard_s is None else f"heard {span(peer.last_heard_s)} ago"
    first = OfferView(peer.model, peer.space_hash32, 0, peer.layers, peer.decode_us)
    offers = peer.offers or ((first,) if peer.model else ())
    return [
        ("reached at", ", ".join(peer.addresses) or "unknown"),
        ("link", f"{session}{rtt}{loss}, {silent}"),
        *(("model", _offer(one)) for one in offers),
        *([] if offers else [("model", "none")]),
        *(("sends", line) for line in _sends(peer)),
        ("device", f"{peer.device or 'unknown'}, KV free {long_bytes(peer.kv_free_bytes)}"),
        *([("numerics", peer.numerics)] if peer.numerics else []),
        *([("version", peer.software)] if peer.software else []),
        ("traffic", f"{long_bytes(peer.bytes_in)} in, {long_bytes(peer.bytes_out)} out"),
    ]


def _offer(one: OfferView) -> str:
    token = f", {milliseconds(one.decode_us / 1000)} ms a token" if one.decode_us else ""
    return f"{one.model} {layers(one.layers)}{token}, space {one.space_hash32:08x}"


def _sends(peer: PeerView) -> list[str]:
    """How hidden states leave for it, where they are coded, or were."""
    return [
        f"{edge.coding} for each {edge.kind} into layer {edge.layer}, "
        f"{long_bytes(edge.bytes_saved)} saved: {edge.reason}"
        for edge in peer.edges
        if edge.coding != "f16" or edge.bytes_saved
    ]
