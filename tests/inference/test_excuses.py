"""What a stage says to excuse itself or to accuse another: believed once, and worth a word."""

from functools import partial
from random import Random

import pytest

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.events import ComputeRequested, GenerationFinished
from p2pnode.inference.messages import Control, Failed, Open, Refusal, Refused
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Forward
from p2pnode.sansio import NodeId
from p2pnode.testing.hostile_member import Conduct, HostileMember
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm

HONEST = ("a", "b", "c", "asker")
PROMPT = tuple(range(3, 23))


class Says(Conduct):
    """Serves the middle layers, and says something else instead of each result."""

    def layers(self, n_layers: int) -> range | None:
        return range(2, 4)

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        member = self.member
        now = member.swarm.network.now
        for stage in member.node.inference.stages():
            if stage.session_key == forward.session:
                member.say(NodeId(forward.session[:32]), self.word(stage.order), now)

    def word(self, order: Open) -> Control:
        raise NotImplementedError


class SaysUnused(Says):
    """Claims to have waited in vain, as an honest stage does after many seconds."""

    def word(self, order: Open) -> Control:
        return Refused(order.session, order.epoch, order.leg, Refusal.UNUSED, "nobody used it")


class AccusesTheOneBefore(Says):
    """Claims that what the stage before it sent is no use."""

    def word(self, order: Open) -> Control:
        culprit = order.upstream.peer
        return Failed(order.session, order.epoch, order.leg, culprit, "not finite")


@pytest.mark.parametrize("conduct", [SaysUnused, AccusesTheOneBefore])
def test_a_strangers_words_end_no_answer(conduct: type[Says]) -> None:
    """Every honest node is the only one that holds its layers, beside the hostile one."""
    swarm = Swarm(1, Link(latency=(0.0002, 0.0008)))
    for name, first in zip(HONEST, (0, 2, 4), strict=False):
        swarm.add(name, range(first, first + 2))
    swarm.add("asker", holds=False)
    swarm.introduce(*HONEST)
    assert swarm.network.run_until(swarm.is_ready, 10)
    member = HostileMember(swarm, "evil", HONEST, conduct, "never", Random(1))
    member.appear()
    swarm.network.run(4)
    for _ in range(3):
        request = GenerationRequest(PROMPT, 8, Sampling(), frozenset(), wait=5.0)
        number = swarm.generate("asker", request)
        swarm.network.run_until(partial(swarm.ended, "asker", number), 60)
        assert isinstance(swarm.answers[-1][2], GenerationFinished)
        swarm.network.run(2)
    assert member.jobs <= 3  # it was found out in the first answer
    assert "lying" not in " ".join(swarm.nodes["asker"].ledger.counters)
