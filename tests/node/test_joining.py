"""Whole nodes that join: the gap and no more, and the first of a swarm all of it."""

from p2pnode.testing.swarm import Swarm


def test_a_newcomer_with_room_for_all_takes_what_is_missing() -> None:
    swarm = Swarm(5)
    swarm.add("kitchen", range(3))
    swarm.network.run(2)
    late = swarm.add("late")
    swarm.introduce("kitchen", "late")
    swarm.network.run(5)
    assert late.served == range(3, 6)
    assert late.holdings.reason == "nobody else holds [3, 6)"
    assert swarm.is_ready()


def test_the_first_of_its_swarm_takes_all() -> None:
    swarm = Swarm(5)
    alone = swarm.add("alone")
    swarm.network.run(5)
    assert alone.served == range(6)


def test_who_took_a_part_takes_the_rest_when_its_holder_is_gone_for_good() -> None:
    swarm = Swarm(5)
    swarm.add("kitchen", range(3))
    late = swarm.add("late")
    swarm.introduce("kitchen", "late")
    swarm.network.run(5)
    swarm.kill("kitchen")
    swarm.network.run(60)
    assert late.served == range(6)
