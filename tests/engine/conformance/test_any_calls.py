"""Any calls in any order: a model says what each session holds, a second engine what bits."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)  # fmt: skip

from p2pnode.engine.base import Array, Engine, Floats, KvBlock, SessionRows
from p2pnode.errors import CapacityError, LocalProtocolError
from tests.engine.conformance.engines import ALL, CONTEXT, ids, same, states
from tests.engine.conformance.loader import Loader

SESSIONS = (b"s", b"t", b"u")
RUNS = (range(4), range(2), range(2, 4), range(1, 3))
BUDGET_POSITIONS = 2 * CONTEXT  # of all layers: sessions that grow meet its end

Cache: TypeAlias = tuple[bytes, int]
"""A session and its first layer."""

counts = st.sampled_from([1, 1, 1, 2, 7, 33, 64, 200])


@dataclass
class Story:
    """What a cache went through since it was empty, for a second engine to repeat.

    Attributes:
        layers: Its layers.
        length: Its positions.
        calls: What to do again: a batch and what it gave, a block, or a length to cut to.
    """

    layers: range
    length: int = 0
    calls: list[tuple[Any, Floats | None]] = field(default_factory=list)


class Calls(RuleBasedStateMachine):
    """Calls the first engine, legally and not, and repeats the stories in the second."""

    def __init__(self, engine: Engine, second: Engine) -> None:
        super().__init__()
        self.engine, self.second = engine, second
        self.stories: dict[Cache, Story] = {}
        self.blocks: dict[range, KvBlock] = {}
        self.drawn = 0

    @initialize()
    def begin(self) -> None:
        for session in SESSIONS:
            self.engine.close(session)

    def rows(self, layers: range, count: int) -> Array:
        self.drawn += 1
        return (states if layers.start else ids)(count, self.drawn)

    def story(self, session: bytes, layers: range) -> Story | None:
        """Return what such a call would go on with; None where the session runs other layers."""
        story = self.stories.get((session, layers.start), Story(layers))
        return story if story.layers == layers else None

    def keep(self, session: bytes, story: Story, call: Any, given: Floats | None, end: int) -> None:
        story.calls.append((call, given))
        story.length = end
        self.stories[session, story.layers.start] = story

    @rule(
        session=st.sampled_from(SESSIONS),
        layers=st.sampled_from(RUNS),
        sizes=st.lists(counts, min_size=1, max_size=3),
    )
    def forward(self, session: bytes, layers: range, sizes: list[int]) -> None:
        batches = [self.rows(layers, size) for size in sizes]
        story = self.story(session, layers)
        if story is None:
            with pytest.raises(LocalProtocolError):
                self.engine.forward(
                    session, layers, batches, self.engine.length(session, layers.start)
                )
            return
        held = self.engine.kv_bytes()
        try:
            given = self.engine.forward(session, layers, batches, story.length)
        except CapacityError:
            assert self.engine.kv_bytes() == held
            return
        for batch, hidden in zip(batches, given, strict=True):
            self.keep(session, story, batch, hidden, story.length + len(batch))

    @rule(
        layers=st.sampled_from(RUNS),
        sizes=st.lists(st.sampled_from([1, 1, 3, 8, 32]), min_size=2, max_size=3),
    )
    def forward_many(self, layers: range, sizes: list[int]) -> None:
        stories = [self.story(session, layers) for session, _ in zip(SESSIONS, sizes, strict=False)]
        parts = [
            SessionRows(session, self.rows(layers, size), story.length if story else 0)
            for session, story, size in zip(SESSIONS, stories, sizes, strict=False)
        ]
        held = self.engine.kv_bytes()
        if not all(stories):
            with pytest.raises(LocalProtocolError):
                self.engine.forward_many(layers, parts)
            assert self.engine.kv_bytes() == held
            return
        try:
            given = self.engine.forward_many(layers, parts)
        except CapacityError:
            assert self.engine.kv_bytes() == held
            return
        for part, story, hidden in zip(parts, stories, given, strict=True):
            if story is not None:
                self.keep(part.session, story, part.rows, hidden, part.start + len(part.rows))

    @rule(session=st.sampled_from(SESSIONS), length=st.integers(-1, 300))
    def truncate(self, session: bytes, length: int) -> None:
        if length < 0:
            with pytest.raises(LocalProtocolError):
                self.engine.truncate(session, length)
            return
        self.engine.truncate(session, length)
        for (whose, _), story in self.stories.items():
            if whose == session and length < story.length:
                self.keep(session, story, length, None, length)

    @rule(session=st.sampled_from(SESSIONS))
    def close(self, session: bytes) -> None:
        self.engine.close(session)
        for layers in RUNS:
            self.stories.pop((session, layers.start), None)
        if not self.stories:
            held = self.engine.kv_bytes()
            for each in SESSIONS:  # those that were only reserved
                self.engine.close(each)
            assert held >= self.engine.kv_bytes() == 0

    @rule(
        session=st.sampled_from(SESSIONS),
        layers=st.sampled_from(RUNS),
        start=st.integers(0, 300),
        count=st.integers(-1, 300),
    )
    def export(self, session: bytes, layers: range, start: int, count: int) -> None:
        positions = range(start, start + count)
        story = self.stories.get((session, layers.start))
        if story is None or count < 0 or positions.stop > story.length:
            with pytest.raises(LocalProtocolError):
                self.engine.export_kv(session, layers, positions)
        elif story.layers == layers:
            block = self.engine.export_kv(session, layers, positions)
            if block.size:
                self.blocks[layers] = block

    @rule(session=st.sampled_from(SESSIONS), layers=st.sampled_from(RUNS))
    def take_over(self, session: bytes, layers: range) -> None:
        block = self.blocks.get(layers)
        story = self.story(session, layers)
        if block is None or story is None:
            return
        with pytest.raises(LocalProtocolError):
            self.engine.import_kv(session, layers, story.length + 1, block)
        held = self.engine.kv_bytes()
        try:
            self.engine.import_kv(session, layers, story.length, block)
        except CapacityError:
            assert self.engine.kv_bytes() == held
            return
        self.keep(session, story, block, None, story.length + block.shape[2])

    @rule(
        session=st.sampled_from(SESSIONS),
        layers=st.sampled_from([range(5), range(1, 1), range(-1, 3), range(0, 4, 2)]),
        off=st.sampled_from([0, 1, -1, 10**9]),
    )
    def nonsense(self, session: bytes, layers: range, off: int) -> None:
        held = self.engine.kv_bytes()
        at = self.engine.length(session, 0)
        with pytest.raises(LocalProtocolError):
            self.engine.forward(session, layers, [ids(1)], at)
        bad = [ids(1), np.array([10**6])] if off == 0 else [ids(1)]
        with pytest.raises(LocalProtocolError):
            self.engine.forward(session, ALL, bad, at + off)
        assert self.engine.kv_bytes() == held

    @rule(cache=st.sampled_from([(session, run.start) for session in SESSIONS for run in RUNS]))
    def repeat(self, cache: Cache) -> None:
        """Do the same in the second engine: it gives the same bits, and holds the same."""
        story = self.stories.get(cache)
        if story is None:
            return
        length = 0
        for call, given in story.calls:
            if isinstance(call, int):
                self.second.truncate(b"s", call)
                length = call
            elif given is None:
                self.second.import_kv(b"s", story.layers, length, call)
                length += call.shape[2]
            else:
                [ours] = self.second.forward(b"s", story.layers, [call], length)
                assert same(ours, given)
                length += len(call)
        assert length == story.length
        held = range(length)
        theirs = self.second.export_kv(b"s", story.layers, held)
        assert same(self.engine.export_kv(cache[0], story.layers, held), theirs)
        self.second.close(b"s")

    @invariant()
    def lengths_are_known(self) -> None:
        for session in SESSIONS:
            for layer in ALL:
                story = self.stories.get((session, layer))
                assert self.engine.length(session, layer) == (story.length if story else 0)
        per_layer = self.engine.kv_bytes_per_token_layer
        needed = sum(story.length * len(story.layers) for story in self.stories.values())
        most = BUDGET_POSITIONS * len(ALL) * per_layer
        assert needed * per_layer <= self.engine.kv_bytes() <= most

    def teardown(self) -> None:
        for cache in [*self.stories]:
            self.repeat(cache)
        for session in SESSIONS:
            self.engine.close(session)
        assert self.engine.kv_bytes() == self.second.kv_bytes() == 0


def test_any_calls_in_any_order(loader: Loader) -> None:
    second = loader.shared()
    budget = BUDGET_POSITIONS * len(ALL) * second.kv_bytes_per_token_layer
    engine = loader.fresh(budget=budget)

    class Here(Calls):
        def __init__(self) -> None:
            super().__init__(engine, second)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=[*HealthCheck],
            phases=[Phase.generate],  # to shrink a failure takes minutes, past the time limit
        ),
    )
