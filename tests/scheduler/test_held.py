"""Who holds a prompt's beginning is preferred as far as that pays, and the plan says so."""

from hypothesis import given, strategies as st

from p2pnode.scheduler.chain import ChainPlan
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.held import FEW_TOKENS, Held
from p2pnode.testing.offers import an_offer, peer_id as node_id
from tests.scheduler.test_chain import KIB, a_view, chain, plan, runs

HOLDERS = ((node_id(1), range(10)), (node_id(2), range(10, 30)))
PARTS = (an_offer(1, 0, 30), an_offer(2, 0, 30))
WHOLE = [("peer1", 0, 30)]
HELD = [("peer1", 0, 10), ("peer2", 10, 30)]


def held(positions: int = 1000, tokens: int = 256) -> Held:
    return Held(HOLDERS, positions, tokens)


def test_holders_are_taken_where_they_save_more_than_they_cost() -> None:
    assert runs(chain(*PARTS)) == WHOLE
    found = chain(*PARTS, held=held())
    assert runs(found) == HELD
    assert (
        "the first 1000 positions of the prompt were computed before by peer1 and peer2"
        in found.reasons
    )
    few = chain(*PARTS, held=held(positions=1))  # a visit and a hop cost more than that
    assert runs(few) == WHOLE
    assert not any("computed before" in reason for reason in few.reasons)


def test_what_is_saved_is_shared_by_the_tokens_of_an_answer() -> None:
    # 30 layers at 80 us a position: 2.4 ms each; the chain of two costs 0.8 ms a token more.
    for tokens in (1, 8, FEW_TOKENS, 10 * FEW_TOKENS):
        share = min(tokens, FEW_TOKENS)
        pays = -(-share // 3)
        assert runs(chain(*PARTS, held=held(pays, tokens))) == HELD
        assert runs(chain(*PARTS, held=held(pays - 1, tokens))) == WHOLE


def test_whom_a_person_spares_or_the_ledger_excludes_is_not_preferred() -> None:
    assert runs(chain(*PARTS, held=held(), avoid=frozenset({node_id(2)}))) == WHOLE
    assert runs(chain(*PARTS, held=held(), prefer=frozenset({node_id(1)}))) == WHOLE
    assert runs(chain(*PARTS, held=held(), exclude={node_id(2): "it lied"})) == WHOLE


def test_a_chain_that_is_none_any_more_is_left() -> None:
    for offers in (
        (PARTS[0],),
        (PARTS[0], an_offer(2, 11, 30)),
        (PARTS[0], an_offer(2, 0, 30, kv_free_bytes=19 * KIB)),
    ):
        assert runs(chain(*offers, held=held())) == WHOLE
    for broken in (HOLDERS[:1], HOLDERS[1:], HOLDERS[::-1], (), (*HOLDERS, HOLDERS[1])):
        assert runs(chain(*PARTS, held=Held(broken, 1000, 256))) == WHOLE


def test_the_estimate_leaves_out_what_is_held() -> None:
    def first_ms(known: Held | None) -> float:
        found = chain(*PARTS, held=known, prompt=1010, chunk=64)
        assert found.estimate is not None
        return found.estimate.first_token_ms

    assert first_ms(held()) < first_ms(None) / 10


def test_a_repair_asks_for_no_holders() -> None:
    view = a_view(PARTS, held=held())
    found = view.repair(range(30), (node_id(0), node_id(0)))
    assert isinstance(found, tuple)
    assert runs(found) == WHOLE


offers = st.builds(an_offer, st.integers(1, 4), st.integers(0, 9), st.integers(20, 30))


@given(
    st.lists(offers, min_size=1, max_size=4, unique_by=lambda one: one.peer),
    st.lists(
        st.tuples(st.integers(1, 5).map(node_id), st.integers(0, 30), st.integers(0, 30)),
        max_size=3,
    ),
    st.integers(0, 5000),
)
def test_whatever_is_said_to_be_held_the_plan_is_a_cover(
    found: list[Offer], said: list[tuple[bytes, int, int]], positions: int
) -> None:
    known = Held(tuple((peer, range(one, other)) for peer, one, other in said), positions, 8)  # type: ignore[misc]
    without, made = plan(*found), plan(*found, held=known)
    assert type(made) is type(without)
    if isinstance(made, ChainPlan):
        layers = [layer for stage in made.stages for layer in stage.layers]
        assert layers == list(range(30))
