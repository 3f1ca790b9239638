"""What a stage keeps costs no live session anything, is one requester's, and leaks nothing."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.inference.config import ReuseConfig
from p2pnode.inference.events import ComputeRequested, InferenceEvent
from p2pnode.inference.memory import stage_bytes
from p2pnode.inference.messages import Close, Edge, Failed, Open, Opened, Refused, Resume
from p2pnode.inference.prefix_body import MOST_NAMES, Names
from p2pnode.inference.running import run_work
from p2pnode.inference.work import Adopt, Keep, Release
from p2pnode.sansio import NodeId
from tests.inference.one_host import HOG, OTHER, POSITIONS, THIRD, US, Host

ROWS = 48


def names(*positions: int, of: int = 0, shared: bool = False) -> Names:
    marks = tuple((at, (of << 32 | at).to_bytes(16, "big")) for at in positions)
    return Names(marks, shared)


class Keeper(Host):
    """A stage whose engine does everything it is asked, in that order."""

    def __init__(self, kv_sessions: float = 100.0, reuse: ReuseConfig | None = None) -> None:
        """Have memory for so many sessions."""
        self.asked: list[ComputeRequested] = []
        super().__init__(64, reuse=reuse or ReuseConfig())  # type: ignore[arg-type]
        needed = stage_bytes(self.engine.info, 1, POSITIONS, "f32")
        self.core.serve(self.engine.info, self.engine.layers, int(kv_sessions * needed))

    def _take(self, event: InferenceEvent) -> None:
        if isinstance(event, ComputeRequested):
            self.asked.append(event)
        else:
            super()._take(event)

    def work(self) -> None:
        """Let the engine do all there is."""
        while self.asked:
            event = self.asked.pop(0)
            if event.job not in self.core.jobs:
                continue  # nobody waits for it
            result = run_work(self.engine, event.work, lambda: 0.0)
            self.core.compute_finished(event.job, result, self.now)
            self.take()

    def order(self, session: int, prefix: Names | None = None, positions: int = POSITIONS) -> Open:
        edges = Edge(HOG, session), Edge(THIRD, 1000 + session)
        return Open(session, 0, 1, range(1), positions, *edges, "f32", None, 0, prefix=prefix)

    def begin(
        self, session: int, prefix: Names | None = None, requester: NodeId = HOG, **given: int
    ) -> int | None:
        """Open a session; return where it begins, None if it was refused."""
        self.said.clear()
        order = self.order(session, prefix, **given)
        self.tell(requester, replace(order, upstream=Edge(requester, session)))
        opened = self.heard(requester, Opened)
        return opened[0].next_position if opened and isinstance(opened[0], Opened) else None

    def end(self, session: int, keep: Names | None = None, requester: NodeId = HOG) -> None:
        self.tell(requester, Close(session, 0, ((1, keep),) if keep else ()))

    def leave(self, session: int, keep: Names, requester: NodeId = HOG, rows: int = ROWS) -> None:
        """Run a session of some rows, and have it kept."""
        assert self.begin(session, requester=requester) == 0
        for start in range(0, rows, 16):
            self.feed(requester, session, 16, start)
        self.work()
        self.end(session, keep, requester)
        self.work()

    def check(self) -> None:
        """The engine holds what is live and what is kept, and nothing else."""
        self.work()
        kept = {one.key for one in self.core.kept}
        live = {stage.session_key for stage in self.core.stages()}
        held = {key for key, _ in self.engine._slots._slots}  # type: ignore[attr-defined]
        assert held - live == kept
        for one in self.core.kept:
            assert self.engine.length(one.key, 0) == one.length
        total = sum(stage.kv_bytes for stage in self.core.stages()) + self.core.kept.used
        assert total <= self.core._host._reuse.kv_total


def test_a_cache_is_handed_on_at_its_end_and_copied_before() -> None:
    host = Keeper()
    host.leave(1, names(16, 32, 48))
    assert host.begin(2, names(16, 32, 40)) == 32
    [adopted] = [one.work for one in host.asked if isinstance(one.work, Adopt)]
    assert adopted.is_copy
    host.check()
    assert len(host.core.kept) == 1
    assert host.begin(3, names(48)) == 48
    [adopted] = [one.work for one in host.asked if isinstance(one.work, Adopt)]
    assert not adopted.is_copy
    assert not len(host.core.kept)
    host.check()
    assert host.begin(4, names(48)) == 0
    host.check()


def test_what_was_sent_is_sent_again_from_where_the_next_lacks_it() -> None:
    host = Keeper()
    host.leave(1, names(16, 32, 48))
    first = [one.frame for one in host.sent]
    host.sent.clear()
    host.begin(2, names(16, 32, 48))
    host.work()
    assert not host.sent  # until it is told
    host.tell(HOG, Resume(2, 0, 1, 16))
    again = [one.frame for one in host.sent]
    assert [frame.frame_seq for frame in again] == [17, 33]
    assert [bytes(one.slices[0].payload) for one in again] == [
        bytes(one.slices[0].payload) for one in first[1:]
    ]
    host.sent.clear()
    host.feed(HOG, 2, 1, 48)
    host.work()
    assert [one.frame.frame_seq for one in host.sent] == [49]


def test_names_that_lead_nowhere_begin_with_nothing() -> None:
    host = Keeper()
    host.leave(1, names(16, 32, 48))
    for session, prefix in enumerate(
        (
            names(16, 32, 48, of=1),
            Names(((48, names(32).marks[0][1]),)),  # at another position
            names(),
            names(16, 32, 48, shared=True),
        ),
        10,
    ):
        assert host.begin(session, prefix) == 0
    assert host.begin(20, names(16, 32, 48), OTHER) == 0
    host.check()
    assert len(host.core.kept) == 1


def test_a_session_closed_before_its_cache_was_handed_over_leaks_nothing() -> None:
    for keep in (None, names(48)):
        for is_copy in (False, True):
            host = Keeper()
            host.leave(1, names(16, 48))
            assert host.begin(2, names(16) if is_copy else names(48)) == (16 if is_copy else 48)
            host.end(2, keep)
            host.check()


def test_kept_caches_give_way_to_live_sessions() -> None:
    host = Keeper(kv_sessions=5.5)
    for session in range(1, 4):
        host.leave(session, names(112, of=session), rows=112)
    left = []
    for session in range(10, 15):
        left.append(len(host.core.kept))
        assert host.begin(session) == 0
        host.check()
    assert left == [2, 2, 2, 2, 1]  # of half the memory
    assert not len(host.core.kept)


def test_the_last_memory_is_taken_over_and_not_copied() -> None:
    host = Keeper(kv_sessions=1.5, reuse=ReuseConfig(share=1.0))
    host.leave(1, names(16, 112), rows=112)
    assert len(host.core.kept) == 1
    assert host.begin(2, names(16)) == 16  # there is no room for two
    [adopted] = [one.work for one in host.asked if isinstance(one.work, Adopt)]
    assert not adopted.is_copy
    host.check()
    assert host.engine.length(host.core.stages()[0].session_key, 0) == 16


def test_a_cache_keeps_no_room_that_nobody_used() -> None:
    host = Keeper(kv_sessions=1.5, reuse=ReuseConfig(share=1.0))
    host.leave(1, names(16, 48))
    [kept] = host.core.kept
    assert kept.kv_bytes == stage_bytes(host.engine.info, 1, 48, "f32")
    assert host.engine.kv_bytes() < kept.kv_bytes  # which has what it sent, too
    assert host.begin(2, names(16, 48)) == 48
    host.check()
    host.feed(HOG, 2, 16, 48)
    host.work()
    assert not host.heard(HOG, Failed)
    # Where there is no memory for both at once, it stays where it is.
    host.end(2, names(16, 48))
    [keep] = [one.work for one in host.asked if isinstance(one.work, Keep)]
    assert keep.is_copy
    host.check()
    full = Keeper(kv_sessions=1.1, reuse=ReuseConfig(share=1.0))
    full.leave(1, names(16, 48))
    [kept] = full.core.kept
    assert kept.kv_bytes == stage_bytes(full.engine.info, 1, POSITIONS, "f32")
    full.check()


def test_only_what_was_computed_is_kept() -> None:
    host = Keeper()
    host.begin(1)
    host.feed(HOG, 1, 16)
    host.work()
    host.feed(HOG, 1, 16, 16)  # still with the engine
    host.end(1, names(16, 32, 48))
    host.check()
    assert [one.length for one in host.core.kept] == [16]
    assert host.begin(2, names(16, 32, 48)) == 16
    host.begin(3)
    host.end(3, names(16))
    host.check()
    assert not len(host.core.kept)


@pytest.mark.parametrize("why", ["rest", "drain", "gone", "engine", "serve", "withdrawn"])
def test_what_cannot_serve_again_is_let_go_of(why: str) -> None:
    host = Keeper()
    host.leave(1, names(48))
    host.begin(2)
    host.feed(HOG, 2, 16)
    host.work()
    core, info = host.core, host.engine.info
    match why:
        case "rest":
            core.rest("the owner is back")
        case "drain":
            core.drain("leaving")
            host.end(2, names(16))  # nothing more is kept
            assert len(core.kept) == 1
            core.give_up("leaving")
        case "gone":
            core.peer_gone(HOG)
        case "engine":
            core.give_up("its engine failed", info.space_hash32)
        case "serve":
            core.serve(info, host.engine.layers, 1 << 20)
        case _:
            core.drop_model(info.space_hash32, "was unloaded", host.now)
    host.take()
    assert not len(core.kept)
    assert any(isinstance(one.work, Release) for one in host.asked)


def test_what_this_node_kept_for_itself_stays_while_it_rests() -> None:
    host = Keeper()
    host.leave(1, names(48))
    host.leave(2, names(48), US)
    host.core.rest("the owner is back")
    host.take()
    host.check()
    assert [one.owner for one in host.core.kept] == [US]


def test_a_cache_that_the_engine_lost_fails_its_session_and_nothing_else() -> None:
    host = Keeper()
    host.leave(1, names(48))
    for one in host.core.kept:
        host.engine.close(one.key)
    assert host.begin(2, names(48)) == 48
    host.work()
    [failed] = host.heard(HOG, Failed)
    assert isinstance(failed, Failed)
    assert "is gone" in failed.reason
    host.check()


def test_a_million_names_cost_no_more_than_a_few() -> None:
    host = Keeper(reuse=ReuseConfig(most_kept=8))
    many = Names(tuple((at, at.to_bytes(16, "big")) for at in range(1, MOST_NAMES + 1)))
    for session in range(1, 40):
        host.leave(session, names(48, of=session))
    for session in range(100, 140):
        assert host.begin(session, many) == 0
        host.end(session)
    host.check()
    assert len(host.core.kept) == 8
    assert len(host.core.kept._by_name) == 8


steps = st.lists(
    st.tuples(
        st.sampled_from(["open", "feed", "end", "keep", "work", "gone"]),
        st.integers(1, 4),
        st.sampled_from([HOG, OTHER]),
        st.sampled_from([(16,), (32,), (16, 32, 48), (48,), ()]),
        st.booleans(),
    ),
    max_size=40,
)


@given(steps)
@settings(deadline=None, max_examples=150)
def test_whatever_is_asked_memory_is_what_is_live_and_kept(
    story: list[tuple[str, int, NodeId, tuple[int, ...], bool]],
) -> None:
    host = Keeper(kv_sessions=5.0, reuse=ReuseConfig(share=0.6, most_kept=3))
    fed: dict[tuple[NodeId, int], int] = {}
    for what, session, who, at, shared in story:
        key = (who, session)
        match what:
            case "open":
                begins = host.begin(session, names(*at, shared=shared), who)
                if begins is not None:
                    fed.setdefault(key, begins)
            case "feed" if key in fed and fed[key] + 16 <= POSITIONS:
                host.feed(who, session, 16, fed[key])
                fed[key] += 16
            case "end":
                host.end(session, None, who)
                fed.pop(key, None)
            case "keep":
                host.end(session, names(*at, shared=shared), who)
                fed.pop(key, None)
            case "work":
                host.work()
            case "gone":
                host.core.peer_gone(who)
                host.take()
                fed = {one: position for one, position in fed.items() if one[0] != who}
    host.check()


def test_who_takes_a_large_cache_over_is_charged_for_all_of_it() -> None:
    host = Keeper(1.0, ReuseConfig(share=1.0))  # no room for a copy of just what was used
    host.leave(1, names(16), rows=16)
    [kept] = host.core.kept
    assert kept.kv_bytes == stage_bytes(host.engine.info, 1, POSITIONS, "f32")
    assert host.begin(2, names(16), positions=17) == 16
    host.work()
    [stage] = host.core.stages()
    assert stage.kv_bytes == kept.kv_bytes
    assert host.engine.kv_bytes() <= stage.kv_bytes
    host.check()


@pytest.mark.parametrize("shared", [False, True])
def test_of_a_cache_that_could_not_be_kept_nothing_is_left(shared: bool) -> None:
    host = Keeper()
    host.begin(1)
    host.feed(HOG, 1, 16)
    host.work()
    [stage] = host.core.stages()
    host.end(1, names(16, shared=shared))
    [keep] = [one.work for one in host.asked if isinstance(one.work, Keep)]
    host.engine.close(stage.session_key)  # as where the engine is another by now
    host.work()
    assert not len(host.core.kept)
    assert host.core.all_counters()["kept cache let go: the engine has it no more"] == 1
    assert not host.engine.length(keep.kept, 0)
    assert host.begin(2, names(16, shared=shared)) == 0
    host.check()


def test_a_cache_that_is_gone_ends_the_session_alone_and_is_found_no_more() -> None:
    host = Keeper()
    host.leave(1, names(16, 32, shared=True))
    [kept] = host.core.kept
    host.engine.close(kept.key)
    assert host.begin(2, names(16, 32, shared=True)) == 32
    host.work()
    assert host.heard(HOG, Failed)
    assert not len(host.core.kept)
    assert not host.core.all_counters()["memory ran out"]
    assert host.begin(3, names(16, 32, shared=True)) == 0
    host.check()


def test_where_another_engine_has_the_layers_sessions_move_on() -> None:
    host = Keeper()
    host.leave(1, names(16))
    host.begin(2)
    host.feed(HOG, 2, 16)
    host.core.reloaded(host.engine.info.space_hash32)
    host.take()
    assert not host.core.stages()
    assert not len(host.core.kept)
    [refused] = host.heard(HOG, Refused)
    assert isinstance(refused, Refused)
    assert (refused.session, refused.code) == (2, "draining")
