"""Node processes that are measured, and what is asked of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from p2pnode.bench.hop.knobs import Knobs, Setting
from p2pnode.bench.hop.stamps import Stamp, read_stamps
from p2pnode.errors import UserError
from p2pnode.net.control_client import ControlClient
from p2pnode.node.models import describe_model
from p2pnode.testing.processes import LocalSwarm, local_swarm

PROMPT: Final = "Explain how a bicycle stays upright."
"""What is asked."""

_NAMES: Final = ("one", "two", "three")


class MeasuredSwarm:
    """Nodes with an equal share of the layers each, the first of which is asked.

    Attributes:
        swarm: Their processes.
        folder: Where knobs and stamps are.
        knobs: What each is told, in the order of their layers.
        client: Speaks to the first.
    """

    def __init__(
        self, swarm: LocalSwarm, folder: Path, knobs: Sequence[Knobs], client: ControlClient
    ) -> None:
        self.swarm = swarm
        self.folder = folder
        self.knobs = tuple(knobs)
        self.client = client

    def set(self, setting: Setting) -> None:
        """Tell all of them the same."""
        for knobs in self.knobs:
            knobs.setting = setting

    def answer(self, tokens: int) -> dict[str, Any]:
        """Return an answer of so many tokens with its details, as the control socket has it."""
        params = {"prompt": PROMPT, "max_tokens": tokens, "ignore_eos": True, "details": True}
        result: dict[str, Any] = self.client.call("generate", params)
        return result

    def warm_up(self, packets: int, *, most: int = 64) -> None:
        """Answer until each link carried so many packets, a token each, and nothing is cold."""
        while packets > 0:
            self.answer(min(packets, most))
            packets -= most

    def stop(self) -> Mapping[str, list[Stamp]]:
        """Stop the nodes; return the stamps of each by its name.

        Raises:
            UserError: One of them left none.
        """
        nodes = tuple(self.swarm.nodes)
        for node in nodes:
            node.leave()
        for node in nodes:
            node.stop()
        files = {node.name: self.folder / f"{node.name}.npy" for node in nodes}
        for node in nodes:
            if not files[node.name].exists():
                raise UserError(
                    f"node {node.name} ended without its stamps: {node.last_words()}",
                    hint="run it again; a machine that is very busy stops nodes too late",
                )
        return {name: read_stamps(file) for name, file in files.items()}


@contextmanager
def measured_swarm(path: Path, count: int, *, engine: str, threads: int) -> Iterator[MeasuredSwarm]:
    """Yield ``count`` nodes that serve; whatever they are doing, they have ended afterwards.

    Raises:
        UserError: The model has fewer layers, or a node did not start.
    """
    total = describe_model(path).n_layers
    if total < count:
        raise UserError(
            f"{path.name} has {total} layers, too few for {count} processes",
            hint="choose fewer with --processes, or another model",
        )
    cuts = [-(-total * part // count) for part in range(count + 1)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pnode-")))
        swarm = stack.enter_context(local_swarm())
        program = ("p2pnode.bench.hop.process", str(folder))
        computing = ("--engine", engine, "--threads", str(threads))
        knobs = []
        for name, first, stop in zip(_NAMES, cuts, cuts[1:], strict=False):
            knobs.append(stack.enter_context(Knobs(folder / f"{name}.knobs")))
            held = ("--model", str(path), "--layers", f"{first}:{stop}")
            swarm.start(name, *held, *computing, program=program)
        for node in swarm.nodes:
            node.wait_until_up()
        swarm.wait_until_serving()
        client = stack.enter_context(swarm.nodes[0].client(timeout=None))
        yield MeasuredSwarm(swarm, folder, knobs, client)
