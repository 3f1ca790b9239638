"""Where a node should go: at once among a few, elsewhere among many, with the same answer."""

from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.moving import Choosing, Moving, PlacementTask, Settling
from p2pnode.scheduler.placement import Placement, choose_layers, should_move
from p2pnode.testing.offers import N_LAYERS as N, an_offer, peer_id as node_id
from p2pnode.wire.ad import AdState

US = node_id(1)
JOINING = AdState.JOINING


def the_questions(count: int) -> list[PlacementTask]:
    serving = tuple(an_offer(number, 0, 20) for number in range(1, count + 1))
    claims = tuple(an_offer(number, 0, 10, state=JOINING) for number in range(1, count + 1))
    return [
        Choosing(serving, N, 10),
        Settling(claims, US, N, range(10)),
        Moving(serving, US, N, 10, 1_000.0),
    ]


def test_among_a_few_every_question_is_brief_and_among_a_thousand_none() -> None:
    assert all(task.is_brief for task in the_questions(12))
    assert not any(task.is_brief for task in the_questions(1_000))


def test_those_who_serve_make_no_long_settlement() -> None:
    claim = an_offer(1, 0, 10, state=JOINING)
    serving = tuple(an_offer(number, 0, 20) for number in range(2, 200))
    assert Settling((claim, *serving), US, N, range(10)).is_brief


def test_the_answers_are_those_of_the_policy() -> None:
    serving = (an_offer(1, 0, 10), an_offer(2, 0, 10), an_offer(3, 10, 20))
    assert Choosing(serving, N, 10)() == choose_layers(serving, n_layers=N, capacity_layers=10)
    moved = should_move(serving, us=US, n_layers=N, capacity_layers=10, hole_seconds=50.0)
    assert moved is not None
    assert Moving(serving, US, N, 10, 50.0)() == moved
    assert Moving(serving, US, N, 10, 1.0)() is None


def test_a_claim_that_stands_is_no_answer_and_another_says_why() -> None:
    claims = (an_offer(1, 0, 10, state=JOINING), an_offer(2, 0, 10, state=JOINING))
    assert Settling(claims, node_id(1), N, range(10))() is None
    assert Settling(claims, node_id(2), N, range(10))() == Placement(
        range(10, 20), "others had claimed the same layers"
    )


def test_who_has_little_room_beside_the_head_leaves_nothing_for_it_that_it_alone_serves() -> None:
    """22 layers fit, with the last one 10 or none: there it would leave [8, 12)."""
    held = (an_offer(1, 8, 20), an_offer(2, 0, 8), an_offer(3, 12, 29))

    def move(with_last: int | None, offers: tuple[Offer, ...] = held) -> range | None:
        moved = should_move(
            offers,
            us=node_id(1),
            n_layers=N,
            capacity_layers=22,
            hole_seconds=500.0,
            capacity_with_last=with_last,
        )
        return None if moved is None else moved.layers

    assert move(None) == range(8, 30)
    assert move(10) is None
    assert move(0) is None
    free = (*held, an_offer(4, 8, 12))
    assert move(10, free) == range(20, 30)
    assert move(0, free) is None


def test_a_hole_before_the_end_is_not_left_for_a_shorter_one_at_the_end() -> None:
    held = (an_offer(1, 0, 10), an_offer(2, 0, 10), an_offer(3, 20, 29))
    moved = should_move(
        held, us=node_id(1), n_layers=N, capacity_layers=10, hole_seconds=500, capacity_with_last=1
    )
    assert moved is not None
    assert moved.layers == range(10, 20)
