"""Records and names of beginnings: whole batches in common, nothing more, within bounds."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import Batch, token_batch
from p2pnode.inference.config import ReuseConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.cover import Leg
from p2pnode.inference.messages import (
    MAX_CONTEXT,
    Close,
    Edge,
    Open,
    from_body_untrusted,
    to_body,
)
from p2pnode.inference.prefix_body import MOST_LEGS, MOST_NAMES, NAME_BYTES, Names
from p2pnode.inference.prefix_names import (
    NEWEST,
    Scope,
    digests,
    landmarks,
    lineage,
    name_of,
    named,
    shared_scope,
)
from p2pnode.inference.prefixes import Prefixes, Record
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import StageRun
from p2pnode.testing.frames import node_id
from p2pnode.wire.messages import parse_sync_untrusted
from p2pnode.wire.vframe import decode_frame_untrusted, encode_frame

A, B = node_id("a"), node_id("b")
SCOPE, ROOT = Scope(b"s" * 16), bytes(32)
KIND = (ROOT, "f32", False)
ORDER = Open(1, 0, 2, range(3), 200, Edge(A, 5), Edge(A, 6), "f32", None, 0)

sizes = st.lists(st.integers(1, 70), max_size=40)
tokens = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(tuple)


def prefixes(most_records: int = 64, most_positions: int = 1 << 18) -> Prefixes:
    config = ReuseConfig(most_records=most_records, most_positions=most_positions)
    return Prefixes(config, SCOPE)


def record(ids: Sequence[int], ends: Sequence[int], holder: NodeId = A) -> Record:
    return Record(*KIND, tuple(ids), tuple(ends), ((holder, range(4)),))


def cut(ids: Sequence[int], ends: Sequence[int]) -> list[Batch]:
    return [token_batch(tuple(ids[one:other]), one) for one, other in pairwise((0, *ends))]


@given(sizes, st.integers(0, 40))
def test_whether_a_boundary_is_a_landmark_depends_on_those_before_it(
    found: list[int], count: int
) -> None:
    ends = list(accumulate(found))
    whole = landmarks(ends)
    assert landmarks(ends[:count]) == [end for end in whole if end in ends[:count]]
    assert set(whole) <= set(ends)


def test_the_longest_session_has_names_enough_for_a_message() -> None:
    assert len(named(range(1, MAX_CONTEXT + 1))) <= MOST_NAMES
    assert len(named(range(64, MAX_CONTEXT + 1, 64))) <= MOST_NAMES
    assert named(range(16, 129, 16)) == [16, 32, 48, 64, 80, 96, 112, 128]
    assert named(range(1001, 1101))[-NEWEST:] == list(range(1093, 1101))


@given(tokens, tokens, st.data())
def test_names_are_alike_where_the_batches_are_and_nowhere_else(
    one: tuple[int, ...], other: tuple[int, ...], data: st.DataObject
) -> None:
    cuts = [sorted(data.draw(st.sets(st.integers(1, len(ids))))) for ids in (one, other)]
    both = zip((one, other), cuts, strict=True)
    found = [digests(SCOPE, ROOT, cut(ids, ends), ends) for ids, ends in both]
    for at in {*found[0], *found[1]}:
        ours, theirs = ([end for end in ends if end <= at] for ends in cuts)
        same = ours == theirs and one[:at] == other[:at] and all(at in each for each in found)
        assert (found[0].get(at) == found[1].get(at)) == same


def test_another_secret_or_model_has_other_names() -> None:
    batches = cut((1, 2, 3), (2, 3))
    made = [
        digests(scope, root, batches, [3])[3]
        for scope in (SCOPE, Scope(b"other"), Scope(b""))
        for root in (ROOT, b"\1" * 32)
    ]
    assert len(set(made)) == len(made)


def test_who_says_the_same_word_in_one_swarm_has_one_secret() -> None:
    assert shared_scope("", b"swarm") is None
    made = [shared_scope(word, swarm) for word in ("a", "b") for swarm in (b"one", b"two")]
    assert len(set(made)) == 4
    assert all(one is not None and one.is_shared for one in made)
    assert shared_scope("a", b"one") == made[0]


def legs(*runs: tuple[int, int, int, str, NodeId]) -> list[Leg]:
    return [
        Leg(number, StageRun(peer, "x", range(start, stop), 0.0, "", numerics), out, frozenset())
        for number, (start, stop, numerics, out, peer) in enumerate(runs, 1)
    ]


def test_where_f32_passes_between_alike_the_cut_is_no_matter_and_elsewhere_it_is() -> None:
    whole = legs((0, 2, 7, "f32", A), (2, 4, 7, "f32", B), (4, 6, 7, "f32", A))
    moved = legs((0, 1, 7, "f32", B), (1, 4, 7, "f32", A), (4, 6, 7, "f32", B))
    assert lineage(whole, 2) == lineage(moved, 2)
    assert lineage(whole, 1) != lineage(moved, 1)  # other layers are its own
    coarse = legs((0, 2, 7, "f16", A), (2, 4, 7, "f16", B), (4, 6, 7, "f16", A))
    shifted = legs((0, 1, 7, "f16", B), (1, 4, 7, "f16", A), (4, 6, 7, "f16", B))
    mixed = legs((0, 2, 8, "f32", A), (2, 4, 7, "f32", B), (4, 6, 7, "f32", A))
    silent = [
        legs((0, 2, 0, "f32", peer), (2, 4, 7, "f32", B), (4, 6, 7, "f32", A)) for peer in (A, B)
    ]
    lines = [lineage(one, 2) for one in (whole, coarse, shifted, mixed, *silent)]
    assert len(set(lines)) == len(lines)
    names = [name_of(b"d", line) for line in lines]
    assert {len(name) for name in names} == {NAME_BYTES}
    assert len(set(names)) == len(names)


def test_the_longest_beginning_in_common_is_found() -> None:
    known = prefixes()
    known.note(record(range(48), (16, 32, 48)))
    known.note(record((*range(40), 90, 91), (16, 32, 41, 42)))
    for prompt, ends in (
        ((*range(48), 7), (16, 32, 48)),
        (range(48), (16, 32)),  # one token is left to compute
        ((*range(41),), (16, 32)),
        ((*range(40), 90, 91, 92), (16, 32, 41, 42)),
        ((*range(40), 90, 92, 91), (16, 32, 41)),
        (range(17), (16,)),
        (range(16), None),
        ((1, *range(48)), None),
        ((0,), None),
    ):
        found = known.match(KIND, tuple(prompt))
        assert (found and found.ends) == ends, prompt
    for kind in ((b"\1" * 32, "f32", False), (ROOT, "f16", False), (ROOT, "f32", True)):
        assert known.match(kind, (*range(48), 7)) is None


def test_the_next_turn_takes_the_place_of_the_last() -> None:
    known = prefixes()
    known.note(record(range(32), (16, 32)))
    known.note(record(range(50), (16, 32, 50)))
    assert (len(known), known.positions) == (1, 50)
    known.note(record(range(60), (30, 60)))  # cut otherwise
    known.note(record(range(60), (30, 60), B))  # the other may be held still
    assert len(known) == 3


@given(st.lists(st.tuples(tokens, st.sampled_from([A, B])), max_size=12), tokens)
def test_records_are_few_and_what_is_found_is_in_common(
    story: list[tuple[tuple[int, ...], NodeId]], prompt: tuple[int, ...]
) -> None:
    known = prefixes(most_records=4, most_positions=100)
    for ids, holder in story:
        known.note(record(ids, (*range(8, len(ids), 8), len(ids)), holder))
        assert len(known) <= 4
        assert known.positions <= 100
    known.forget(B)
    found = known.match(KIND, prompt)
    if found is not None:
        assert 0 < found.positions < len(prompt)
        assert any(ids[: found.positions] == prompt[: found.positions] for ids, _ in story)
        assert all(peer != B for peer, _ in found.holders)


marks = st.lists(st.integers(1, MAX_CONTEXT), unique=True, max_size=MOST_NAMES).map(
    lambda found: tuple((at, at.to_bytes(NAME_BYTES, "big")) for at in sorted(found))
)


@given(marks, st.booleans())
def test_names_come_back(found: tuple[tuple[int, bytes], ...], shared: bool) -> None:
    names = Names(found, shared)
    order = Open(1, 0, 2, range(3), 200, Edge(A, 5), Edge(A, 6), "f32", None, 0, prefix=names)
    assert from_body_untrusted(to_body(order)) == order
    closed = Close(1, 4, ((2, names), (7, Names(()))))
    assert from_body_untrusted(to_body(closed)) == closed


def test_all_that_a_peer_may_be_told_to_keep_fits_a_frame() -> None:
    marks = tuple((at, b"\xff" * NAME_BYTES) for at in named(range(1, MAX_CONTEXT + 1)))
    closed = Close(1, 4, tuple((leg, Names(marks, True)) for leg in range(MOST_LEGS)))
    frame = decode_frame_untrusted(encode_frame(control_frame(closed, 7)))
    assert from_body_untrusted(parse_sync_untrusted(frame)) == closed


def test_what_is_not_asked_for_stands_nowhere() -> None:
    assert "prefix" not in to_body(ORDER)
    assert "keep" not in to_body(Close(1, 0))


NAME = bytes(NAME_BYTES).hex()


@pytest.mark.parametrize(
    "bad",
    [
        7,
        {},
        {"names": 7},
        {"names": [[1]]},
        {"names": [[0, NAME]]},
        {"names": [[-1, NAME]]},
        {"names": [[2, NAME], [2, NAME]]},
        {"names": [[MAX_CONTEXT + 1, NAME]]},
        {"names": [[1, NAME + "00"]]},
        {"names": [[1, NAME[:-2] + "  "]]},
        {"names": [[1.0, NAME]]},
        {"names": [[at, NAME] for at in range(1, MOST_NAMES + 2)]},
        {"names": [], "shared": 1},
    ],
    ids=str,
)
def test_what_are_no_names_is_refused(bad: object) -> None:
    with pytest.raises(RemoteProtocolError):
        from_body_untrusted({**to_body(ORDER), "prefix": bad})
    kept = [{"leg": 1, **bad}] if isinstance(bad, dict) else [bad]
    with pytest.raises(RemoteProtocolError):
        from_body_untrusted({**to_body(Close(1, 0)), "keep": kept})


@pytest.mark.parametrize("bad", [7, {}, [{"names": []}], [{"leg": -1, "names": []}]], ids=str)
def test_what_is_nothing_to_keep_is_refused(bad: object) -> None:
    with pytest.raises(RemoteProtocolError):
        from_body_untrusted({**to_body(Close(1, 0)), "keep": bad})
    many = [{"leg": leg, "names": []} for leg in range(100)]
    with pytest.raises(RemoteProtocolError):
        from_body_untrusted({**to_body(Close(1, 0)), "keep": many})


json_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["names", "leg", "shared"]), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_anything_else_is_names_or_refused(value: object) -> None:
    for body in ({**to_body(ORDER), "prefix": value}, {**to_body(Close(1, 0)), "keep": value}):
        try:
            read = from_body_untrusted(body)
        except RemoteProtocolError:
            continue
        assert isinstance(read, Open | Close)
