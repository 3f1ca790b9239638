"""A swarm of whole nodes on the virtual network: how long the machine takes for some seconds of it.

As a process of its own, ``python -m p2pnode.bench.swarm``, it prints what it measured as JSON.
"""

import json
import sys
import time
from typing import Any

from p2pnode import CORES
from p2pnode.engine.blas import limit_blas_threads
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.request import GenerationRequest
from p2pnode.testing.links import Bernoulli, Link
from p2pnode.testing.swarm import Swarm

NODES = 20
LAYERS = 3
"""One a stage: what they compute is the same however the cores run."""
SECONDS = 10.0
"""Virtual ones that are measured."""

_SETTLING = 5.0  # virtual seconds before: dials, ads, loading
_TOKENS = 40  # an answer goes on all the time
_ASKS_EVERY = 1.0


def run(seed: int = 1, *, loss: float = 0.01) -> dict[str, Any]:
    """Let a swarm answer, one prompt a second; ``seconds`` are the machine's.

    Returns:
        Besides ``seconds``, what must not depend on the machine or on how the cores run: a hash
        over every byte of every datagram and every event, and the tokens.
    """
    swarm = Swarm(
        seed, Link(Bernoulli(loss), latency=(0.001, 0.003), reorder=loss), n_layers=LAYERS
    )
    names = [f"node-{number:02}" for number in range(NODES)]
    for number, name in enumerate(names):
        start = number % LAYERS
        swarm.add(name, range(start, start + 1))
    swarm.introduce(*names)
    swarm.network.run(_SETTLING)
    began, asked = time.process_time(), []
    for turn in range(round(SECONDS / _ASKS_EVERY)):
        asker = names[turn % NODES]
        request = GenerationRequest(tuple(range(3, 20)), _TOKENS, Sampling(), frozenset())
        asked.append((asker, swarm.generate(asker, request)))
        swarm.network.run(_ASKS_EVERY)
    return {
        "cores": CORES.in_words(),
        "seconds": time.process_time() - began,
        "datagrams": swarm.network.statistics().sent,
        "tokens": [swarm.tokens(asker, number) for asker, number in asked],
        "story": swarm.network.trace_hash(),
    }


if __name__ == "__main__":
    limit_blas_threads(1)
    sys.stdout.write(json.dumps(run()) + "\n")
