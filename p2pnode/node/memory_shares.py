"""Divides the memory for weights among a node's models, where they do not all fit.

What a model may grow by is only given once the others have left it. One that changes its own layers
has both runs in memory for a moment, since it serves until the new ones are loaded.
"""

from collections.abc import Callable, Iterable

from p2pnode.node.bundle import Bundle
from p2pnode.scheduler.division import Claimant, divide


def share_memory(bundles: Iterable[Bundle], requests: Callable[[int], float]) -> None:
    """Tell each model how many of its layers there is room for, beside the others.

    ``requests`` says how much the swarm asks of a space. The room is what was free for weights when
    the models were opened: the largest that any of them was told.
    """
    held = [one for one in bundles if one.capacity is not None]
    sharing = [one for one in held if one.leave_by is None]
    if len(held) < 2:
        for one in sharing:
            if one.capacity is not None:
                one.holdings.fit(one.capacity)
        return
    room = _room(held)
    given = divide(room, [_claimant(one, requests) for one in sharing])
    for one in sharing:
        beside = sum(other.held_bytes for other in held if other is not one)
        _fit(one, min(given[one.space], room - beside))


def _room(bundles: Iterable[Bundle]) -> int:
    return max((one.capacity.room for one in bundles if one.capacity is not None), default=0)


def _claimant(one: Bundle, requests: Callable[[int], float]) -> Claimant:
    n_layers, pinned = one.model.n_layers, one.chosen
    capacity = one.capacity
    if capacity is None:
        raise AssertionError("who has no capacity shares no memory")
    return Claimant(
        one.space,
        requests(one.space),
        capacity.bytes_of(range(n_layers), n_layers),
        capacity.layer_bytes,
        0 if pinned is None else capacity.bytes_of(pinned, n_layers),
    )


def _fit(one: Bundle, room: int) -> None:
    if one.capacity is not None:
        one.holdings.fit(one.capacity.in_room(room, one.model.n_layers))
