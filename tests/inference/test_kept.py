"""What is kept is bounded, found by its names alone, and goes least recently used first."""

import math
from dataclasses import replace

from hypothesis import given, settings, strategies as st

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.config import ReuseConfig
from p2pnode.inference.kept import KeptCache, KeptCaches
from p2pnode.inference.messages import Edge, Open
from p2pnode.inference.prefix_body import Names
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import node_id

A, B, C = (node_id(name) for name in "abc")
MODEL, LAYERS = random_model(5).info, range(2, 4)
SPACE = MODEL.space_hash32


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def names(*marks: tuple[int, int], shared: bool = False) -> Names:
    return Names(tuple((position, name(number)) for position, number in marks), shared)


def kept(
    key: int,
    said: Names,
    owner: NodeId = A,
    kv_bytes: int = 10,
    now: float = 0.0,
    layers: range = LAYERS,
) -> KeptCache:
    length = said.marks[-1][0] if said.marks else 0
    return KeptCache(name(key), owner, SPACE, layers, "f32", False, length, [], kv_bytes, said, now)


def order(
    said: Names | None,
    *,
    layers: range = LAYERS,
    positions: int = 1000,
    out: str = "f32",
    sampling: Sampling | None = None,
) -> Open:
    return Open(1, 0, 1, layers, positions, Edge(A, 1), Edge(B, 2), out, sampling, 0, prefix=said)


def test_the_longest_beginning_is_found_and_the_newest_of_equals() -> None:
    caches = KeptCaches(ReuseConfig())
    for key, said in enumerate((names((64, 1), (128, 2)), names((64, 1)), names((64, 1), (90, 3)))):
        caches.add(kept(key, said), 1000)
    for asked, expected in (
        (names((64, 1), (128, 2), (192, 9)), (0, 128)),
        (names((64, 1), (128, 8)), (2, 64)),
        (names((64, 1), (90, 3), (154, 4)), (2, 90)),
        (names((64, 8)), None),
        (names((60, 1)), None),  # another position is another beginning
        (names(), None),
        (None, None),
    ):
        found = caches.find(order(asked), A, MODEL)
        assert (found and (found.cache.key, found.position)) == (
            expected and (name(expected[0]), expected[1])
        )


def test_only_what_was_computed_alike_is_found() -> None:
    caches, said = KeptCaches(ReuseConfig()), names((64, 1))
    caches.add(kept(0, said), 1000)
    assert caches.find(order(said), A, MODEL)
    assert caches.find(order(said), A, replace(MODEL, space_hash32=SPACE + 1)) is None
    assert caches.find(order(said, layers=range(2, 5)), A, MODEL) is None
    assert caches.find(order(said, out="f16"), A, MODEL) is None
    assert caches.find(order(said, positions=64), A, MODEL) is None
    assert caches.find(order(said), A, replace(MODEL, long_from=1000))
    assert caches.find(order(said), A, replace(MODEL, long_from=999)) is None
    assert caches.find(order(said, sampling=Sampling(mean=True)), A, MODEL) is None


def test_a_requester_finds_its_own_and_what_was_shared() -> None:
    caches = KeptCaches(ReuseConfig())
    mine, ours = names((64, 1)), names((64, 1), shared=True)
    caches.add(kept(0, mine), 1000)
    caches.add(kept(1, ours), 1000)
    assert caches.find(order(mine), B, MODEL) is None
    for requester in (A, B):
        found = caches.find(order(ours), requester, MODEL)
        assert found
        assert found.cache.key == name(1)
    assert [one.key for one in caches.forget(A)] == [name(0)]
    assert [one.key for one in caches.of_others(B)] == [name(1)]


def test_what_another_goes_on_from_is_let_go_of() -> None:
    caches = KeptCaches(ReuseConfig())
    first, other, shared = (
        kept(0, names((64, 1), (90, 2))),
        kept(1, names((64, 1), (90, 3))),
        kept(2, names((64, 1), (90, 2), shared=True)),
    )
    foreign = kept(3, names((64, 1), (90, 2)), B)
    for one in (first, other, shared, foreign):
        caches.add(one, 1000)
    following = kept(4, names((64, 1), (90, 2), (150, 5)))
    assert caches.replaced_by(following) == [first]
    assert not caches.replaced_by(kept(5, names((64, 1)), layers=range(5)))


def test_who_keeps_much_loses_its_own() -> None:
    caches = KeptCaches(ReuseConfig(share=0.5))
    caches.add(kept(0, names((64, 0)), B), 200)
    for key in range(1, 10):
        assert not caches.add(kept(key, names((64, key))), 200)
    for key in range(10, 30):
        assert [one.key for one in caches.add(kept(key, names((64, key))), 200)] == [name(key - 9)]
    assert caches.used == 100
    assert caches.find(order(names((64, 0))), B, MODEL)


def test_many_keys_that_are_not_proven_count_as_one() -> None:
    caches = KeptCaches(ReuseConfig(share=1.0), lambda peer: peer == A)
    for key in range(4):
        caches.add(kept(key, names((64, key))), 100)
    for key in range(4, 30):
        caches.add(kept(key, names((64, key)), node_id(f"key {key}")), 100)
    assert sum(one.owner == A for one in caches) == 4
    assert caches.used == 100


def test_what_live_sessions_need_is_let_go_of_and_the_one_in_use_last() -> None:
    caches = KeptCaches(ReuseConfig())
    for key in range(4):
        caches.add(kept(key, names((64, key))), 1000)
    spared = next(iter(caches))
    assert [one.key for one in caches.make_room(25, spared)] == [name(1), name(2)]
    assert [one.key for one in caches.make_room(40, spared)] == []
    assert [one.key for one in caches.make_room(5, spared)] == [name(3), name(0)]
    assert not caches.used


def test_what_nobody_uses_expires() -> None:
    caches = KeptCaches(ReuseConfig(keep_for=10.0))
    assert caches.due == math.inf
    first, second = kept(0, names((64, 0))), kept(1, names((64, 1)), now=3.0)
    caches.add(first, 1000)
    caches.add(second, 1000)
    assert caches.due == 10.0
    caches.used_again(first, 6.0)
    assert (caches.due, caches.expire(12.9)) == (13.0, [])
    assert caches.expire(13.0) == [second]
    assert caches.expire(16.0) == [first]


def test_a_share_of_nothing_keeps_nothing() -> None:
    caches = KeptCaches(ReuseConfig(share=0.0))
    one = kept(0, names((64, 0)))
    assert caches.add(one, 1000) == [one]
    assert (len(caches), caches.used) == (0, 0)
    assert caches.find(order(names((64, 0))), A, MODEL) is None


marks = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=4).map(
    lambda found: names(*sorted({at: (at, number) for at, number in found}.values()))
)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from([A, B, C]), marks, st.integers(0, 60)),
            st.tuples(st.just("room"), st.integers(0, 100)),
            st.tuples(st.just("forget"), st.sampled_from([A, B, C])),
            st.tuples(st.just("take"), st.integers(0, 5)),
        ),
        max_size=30,
    )
)
@settings(deadline=None)
def test_whatever_happens_it_stays_within_its_bounds(story: list[tuple[object, ...]]) -> None:
    caches = KeptCaches(ReuseConfig(share=0.5, most_kept=4))
    for key, (what, *rest) in enumerate(story):
        match what, rest:
            case "add", [bytes() as owner, Names() as said, int(size)]:
                caches.add(kept(key, said, NodeId(owner), size), 200)
            case "room", [int(free)]:
                caches.make_room(free)
                assert caches.used <= free
            case "forget", [bytes() as owner]:
                assert all(one.owner == owner for one in caches.forget(NodeId(owner)))
            case "take", [int(number)]:
                for one in list(caches)[number : number + 1]:
                    caches.take(one)
        held = list(caches)
        assert caches.used == sum(one.kv_bytes for one in held) <= 100
        assert len(held) == len(caches) <= 4
        for one in held:
            for at, said_name in one.names.marks:
                found = caches.find(order(Names(((at, said_name),))), one.owner, MODEL)
                assert found
                assert found.position == at
        assert len(caches._by_name) <= sum(len(one.names.marks) for one in held)
