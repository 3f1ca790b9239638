"""Chains of tiny engines whose stages are killed: what comes of an answer all the same."""

from p2pnode.inference.request import GenerationRequest
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import FrameNetwork


def tokens_of(network: FrameNetwork, asker: NodeId, request: GenerationRequest) -> list[int]:
    """Return the tokens of an answer; it has half a minute of virtual time."""
    number = network.generate(asker, request)
    network.run(seconds=30)
    return network.tokens(asker, number)


def kill_after(network: FrameNetwork, victim: NodeId, position: int) -> None:
    """Kill ``victim`` once the token at ``position`` is shown."""
    network.on_token = lambda event: network.kill(victim) if event.position == position else None
