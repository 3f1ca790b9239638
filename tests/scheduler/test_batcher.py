"""What an engine computes next, and for whom."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.sansio import NodeId
from p2pnode.scheduler.batcher import FEW_ROWS, MOST_ROWS, Batcher
from p2pnode.scheduler.step_cost import StepCost
from p2pnode.scheduler.waiting import Group, Kind, Waiting

STEP_MS = 20.0
COST = StepCost(100, 100, 50, rows4_us=300, rows8_us=500, prefill_us=50)
GROUP: Group = (7, 0, 10)
CHUNK = 64


def requester(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


def batcher(*, is_batching: bool = True, cost: StepCost = COST) -> Batcher:
    made = Batcher(STEP_MS, is_batching=is_batching)
    for space in (7, 8):
        made.measured(space, cost)
    return made


def waiting(
    who: int,
    session: int,
    kind: Kind = Kind.ROWS,
    rows: int = 1,
    *,
    group: Group = GROUP,
    since: float = 0.0,
) -> Waiting:
    return Waiting((requester(who), session, 0), group, kind, rows, draws=False, since=since)


def chunk(who: int, session: int, kind: Kind = Kind.PROMPT) -> Waiting:
    return waiting(who, session, kind, CHUNK)


def step(made: Batcher, now: float = 0.0) -> list[Waiting]:
    made.finished()
    return list(made.compose(now))


# One step


def test_one_session_is_computed_at_once() -> None:
    made = batcher()
    made.ready(waiting(1, 1))
    assert list(made.compose(0.0)) == [waiting(1, 1)]
    assert not len(made)


def test_what_comes_while_the_engine_computes_is_gathered() -> None:
    made = batcher()
    made.ready(waiting(1, 1))
    made.compose(0.0)
    for session in (2, 3, 4):
        made.ready(waiting(session, session))
        assert made.compose(0.0) == ()
    assert {one.session[1] for one in step(made)} == {2, 3, 4}
    assert step(made) == []


def test_a_session_that_waits_already_waits_once() -> None:
    made = batcher()
    made.ready(waiting(1, 1))
    made.ready(waiting(1, 1, rows=2))
    made.ready(waiting(2, 2))
    made.ready(waiting(2, 2, rows=2))
    assert sorted(one.rows for one in step(made)) == [1, 1]


def test_the_oldest_of_a_requester_come_first() -> None:
    made = batcher(is_batching=False)
    for session in (5, 3, 9):
        made.ready(waiting(1, session))
    assert [step(made)[0].session[1] for _ in range(3)] == [5, 3, 9]


def test_a_step_is_of_one_model_and_one_run_of_layers() -> None:
    made = batcher()
    groups: list[Group] = [(7, 0, 10), (7, 0, 5), (8, 0, 10)]
    for session in range(9):
        made.ready(waiting(session % 2, session, group=groups[session % 3]))
    for _ in range(3):
        taken = step(made)
        assert len({one.group for one in taken}) == 1
        assert len(taken) == 3
    assert step(made) == []


def test_a_batch_of_a_prompt_is_a_step_of_its_own() -> None:
    made = batcher()
    made.ready(chunk(1, 1))
    made.ready(chunk(2, 2))
    made.ready(waiting(3, 3))
    made.ready(waiting(4, 4))
    assert [one.session[1] for one in step(made)] == [3, 4]
    assert len(step(made)) == 1
    assert len(step(made)) == 1


def test_nobody_waits_where_everybody_left() -> None:
    made = batcher()
    made.ready(waiting(1, 1))
    made.leave((requester(1), 1, 0))
    assert step(made) == []
    for session in (1, 2, 3):
        made.ready(waiting(1, session))
    for session in (1, 2, 3, 4):
        made.leave((requester(1), session, 0))
    assert not len(made)
    assert step(made) == []


def test_a_few_rows_are_a_step_however_long_they_take_and_more_are_not() -> None:
    made = Batcher(STEP_MS)  # nobody measured it, so it has the price of a slow machine
    for session in range(20):
        made.ready(waiting(session, session))
    assert len(step(made)) == FEW_ROWS


# Who gets the engine


def _served(made: Batcher, parties: dict[int, list[Waiting]], steps: int) -> Counter[int]:
    """Let requesters always have everything waiting; return what each had of the engine."""
    spent: Counter[int] = Counter()
    for one in (one for ones in parties.values() for one in ones):
        made.ready(one)
    for _ in range(steps):
        for one in step(made):
            spent[one.session[0][0]] += int(COST.rows_us(one.rows, one.layers))
            made.ready(one)
    return spent


@pytest.mark.parametrize("is_batching", [True, False])
def test_two_hundred_sessions_get_no_more_than_a_few(is_batching: bool) -> None:
    hog, other = [waiting(1, n) for n in range(200)], [waiting(2, n) for n in range(40)]
    spent = _served(batcher(is_batching=is_batching), {1: hog, 2: other}, 400)
    assert abs(spent[1] - spent[2]) <= 0.05 * spent[2]


def test_a_single_session_is_in_every_step_beside_two_hundred() -> None:
    made = batcher()
    for session in range(200):
        made.ready(waiting(1, session))
    made.ready(waiting(2, 0))
    for _ in range(30):
        taken = step(made)
        assert any(one.session[0] == requester(2) for one in taken)
        cost = COST.fixed_us + COST.rows_us(len(taken), 10)
        assert cost <= 0.75 * STEP_MS * 1000, "the other's share of a step is left free"
        for one in taken:
            made.ready(one)


def test_large_batches_do_not_buy_more_of_the_engine() -> None:
    large = [waiting(1, n, rows=16) for n in range(20)]
    small = [waiting(2, n, rows=1) for n in range(60)]
    spent = _served(batcher(), {1: large, 2: small}, 400)
    assert abs(spent[1] - spent[2]) <= 0.1 * spent[2]


def test_prompts_of_requesters_take_turns() -> None:
    made = batcher()
    for session in range(20):
        made.ready(chunk(1, session))
    made.ready(chunk(2, 0))
    first = [step(made)[0].session[0] for _ in range(3)]
    assert requester(2) in first


def test_models_share_the_engine_by_weight() -> None:
    made = batcher()
    made.weigh({7: 3.0})
    ones = [waiting(1, n, group=(7, 0, 10)) for n in range(64)]
    ones += [waiting(2, n, group=(8, 0, 10)) for n in range(64)]
    spent: Counter[int] = Counter()
    for one in ones:
        made.ready(one)
    for _ in range(200):
        for one in step(made):
            spent[one.group[0]] += 1
            made.ready(one)
    assert 2.5 <= spent[7] / spent[8] <= 3.5


def test_a_model_saves_nothing_up_while_nobody_asks_it() -> None:
    made = batcher()
    ones = [waiting(1, n, group=(7, 0, 10)) for n in range(64)]
    for one in ones:
        made.ready(one)
    for _ in range(100):
        for one in step(made):
            made.ready(one)
    for session in range(64):
        made.ready(waiting(2, session, group=(8, 0, 10)))
    spaces = Counter(step(made)[0].group[0] for _ in range(4))
    assert spaces[7] >= 1


# Rows, prompts and replays


def test_a_token_waits_for_one_batch_of_a_prompt_at_most() -> None:
    made = batcher()
    for session in range(8):
        made.ready(chunk(1, session))
    between = 0
    for turn in range(40):
        if turn % 3 == 0:
            made.ready(waiting(2, 0))
        taken = step(made)
        if any(one.kind is Kind.ROWS for one in taken):
            between = 0
            continue
        between += (requester(2), 0, 0) in made
        assert between <= 1
        made.ready(taken[0])


def test_a_prompt_has_half_of_the_engine_whoever_decodes() -> None:
    made = batcher()
    for session in range(64):
        made.ready(waiting(session, session))
    made.ready(chunk(70, 1))
    spent: Counter[Kind] = Counter()
    for _ in range(200):
        for one in (taken := step(made)):
            made.ready(one)
        rows = sum(one.rows for one in taken)
        spent[taken[0].kind] += int(COST.rows_us(rows, 10))
    assert 0.35 <= spent[Kind.PROMPT] / spent.total() <= 0.65


def test_a_replay_goes_on_beside_prompts_and_they_beside_it() -> None:
    made = batcher()
    for session in range(4):
        made.ready(chunk(session, session))
        made.ready(chunk(session, 10 + session, Kind.REPLAY))
    kinds = Counter[Kind]()
    for _ in range(40):
        [one] = step(made)
        kinds[one.kind] += 1
        made.ready(one)
    assert kinds[Kind.PROMPT] > kinds[Kind.REPLAY] >= 8


# Whatever comes


@st.composite
def asked(draw: st.DrawFn) -> Waiting:
    kind = draw(st.sampled_from(Kind))
    most = MOST_ROWS if kind is Kind.ROWS else 200
    start = draw(st.integers(0, 1))
    return waiting(
        draw(st.integers(0, 3)),
        draw(st.integers(0, 5)),
        kind,
        draw(st.integers(1, most)),
        group=(draw(st.sampled_from((7, 8))), start, start + draw(st.integers(1, 10))),
    )


@settings(max_examples=150)
@given(
    sayings=st.lists(
        st.one_of(asked(), st.just("step"), st.tuples(st.integers(0, 3), st.integers(0, 5))),
        max_size=120,
    ),
    is_batching=st.booleans(),
)
def test_nothing_is_lost_and_nothing_doubled(
    sayings: list[Waiting | str | tuple[int, int]], is_batching: bool
) -> None:
    made = batcher(is_batching=is_batching)
    here: dict[object, Waiting] = {}
    for saying in sayings:
        if isinstance(saying, Waiting):
            made.ready(saying)
            here.setdefault(saying.session, saying)
        elif isinstance(saying, tuple):
            name = (requester(saying[0]), saying[1], 0)
            made.leave(name)
            here.pop(name, None)
        else:
            _check_step(step(made), here, is_batching=is_batching)
        assert len(made) == len(here)
    for _ in range(len(here)):
        _check_step(step(made), here, is_batching=is_batching)
    assert not here, "each step computes at least one"
    assert step(made) == []


def _check_step(taken: list[Waiting], here: dict[object, Waiting], *, is_batching: bool) -> None:
    assert bool(taken) == bool(here)
    for one in taken:
        assert here.pop(one.session) == one
    assert len({one.group for one in taken}) <= 1
    if len(taken) < 2:
        return
    assert is_batching
    assert {one.kind for one in taken} == {Kind.ROWS}
    rows = sum(one.rows for one in taken)
    assert rows <= MOST_ROWS
    assert COST.fixed_us + COST.rows_us(rows, taken[0].layers) <= STEP_MS * 1000


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), parties=st.integers(2, 5))
def test_requesters_who_always_wait_are_served_alike(seed: int, parties: int) -> None:
    """The bound of deficit round robin: a quantum and the largest part apart, whoever asks what."""
    rng = Random(seed)
    made = batcher(is_batching=rng.random() < 0.5)
    shares: dict[int, list[Waiting]] = {
        who: [waiting(who, n, rows=rng.randint(1, 8)) for n in range(40)] for who in range(parties)
    }
    spent = _served(made, shares, 120)
    largest = COST.rows_us(8, 10)
    quantum = STEP_MS * 1000 / parties
    assert max(spent.values()) - min(spent.values()) <= 2 * (quantum + largest)


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_whoever_waits_is_computed_before_long(seed: int) -> None:
    rng = Random(seed)
    made = batcher()
    kinds = (Kind.ROWS, Kind.ROWS, Kind.PROMPT, Kind.REPLAY)
    ones = [
        waiting(rng.randint(0, 4), n, kind := rng.choice(kinds), 1 if kind is Kind.ROWS else CHUNK)
        for n in range(30)
    ]
    # Of four batches one is a replay; rows have as much as each takes, and may overrun by a step.
    most = max(Counter((one.requester, one.kind) for one in ones).values())
    batch = 2 * COST.rows_us(CHUNK, 10) + STEP_MS * 1000
    bound = 4 * 5 * (most + 1) * batch
    since = {one.session: 0.0 for one in ones}
    clock = 0.0
    for one in ones:
        made.ready(one)
    while clock < 2 * bound:
        taken = step(made)
        clock += COST.fixed_us + COST.rows_us(sum(one.rows for one in taken), 10)
        for one in taken:
            since[one.session] = clock
            made.ready(one)
        assert min(since.values()) >= clock - bound, "somebody starves"


# Figures


def test_the_figures_say_what_waits_and_how_long_it_did() -> None:
    made = batcher()
    made.ready(waiting(1, 1, since=1.0))
    made.compose(1.0)
    made.ready(waiting(1, 2, since=1.0))
    made.ready(waiting(1, 3, rows=3, since=2.0))
    assert made.figures.waiting == 2
    step(made, 4.0)
    told = made.figures
    assert (told.waiting, told.steps, told.sessions, told.rows) == (0, 2, 1.5, 2.5)
    assert told.queued == pytest.approx(5 / 3)
    assert told.longest == 3.0
