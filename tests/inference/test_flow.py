"""Bytes on a slow way explain a wait, and are not sent twice; who only says so is replaced."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.events import (
    ChainBroken,
    ComputeRequested,
    GenerationFinished,
    InferenceEvent,
    SendFrame,
)
from p2pnode.inference.messages import Opened, from_body_untrusted, to_body
from p2pnode.inference.request import GenerationRequest
from p2pnode.scheduler.offences import Offence
from p2pnode.testing.links import Link
from p2pnode.testing.stand_in import stand_in
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.messages import parse_sync_untrusted
from p2pnode.wire.vframe import MessageType
from tests.inference.story import EVIL, PROMPT, TOKENS, Story, right, silent

D_MODEL = 576
ROW = 4 * D_MODEL  # bytes of a position in f32, as the default model has it


def swarm_on(
    rate: float | None,
    stages: int = 2,
    *,
    spare: bool = False,
    computer: Callable[[ComputeRequested], None] | None = None,
) -> Swarm:
    """Let ``a`` ask of ``b``, ``c`` and so on, over links of ``rate`` bytes a second.

    ``spare`` holds what the second does, whose engine ``computer`` may be.
    """
    link = Link(latency=(0.005, 0.005), rate=rate)
    swarm = Swarm(1, link, n_layers=6, d_model=D_MODEL, n_heads=9, n_kv_heads=3)
    swarm.add("a", holds=False)
    count = 6 // stages
    names = [chr(ord("b") + index) for index in range(stages)]
    for index, name in enumerate(names):
        held = range(index * count, (index + 1) * count)
        swarm.add(name, held, computer=computer if name == "c" else None)
    if spare:
        swarm.add("spare", range(count, 2 * count))
    swarm.introduce("a", *names, *(["spare"] if spare else []))
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(3)
    return swarm


def ask(swarm: Swarm, prompt: int, tokens: int, seconds: float = 400.0) -> tuple[list[int], float]:
    """Return the answer, and how long it took."""
    request = GenerationRequest((3,) * prompt, tokens, Sampling(), frozenset())
    began = swarm.network.now
    number = swarm.generate("a", request)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), seconds)
    assert any(isinstance(event, GenerationFinished) for _, _, event in swarm.answers)
    return swarm.tokens("a", number), swarm.network.now - began


def broken(swarm: Swarm) -> list[ChainBroken]:
    return [event for _, _, event in swarm.answers if isinstance(event, ChainBroken)]


def offences(swarm: Swarm) -> list[Mapping[str, int]]:
    entries = swarm.nodes["a"].ledger.entries(swarm.network.now)
    return [entry.offences for entry in entries if entry.offences]


@pytest.mark.parametrize(
    ("rate", "prompt", "stages", "spare"),
    [
        (30_000, 200, 2, False),
        (40_000, 200, 2, True),
        (30_000, 320, 2, True),
        (20_000, 200, 3, True),
        (20_000, 100, 2, True),
    ],
)
def test_a_prompt_that_crosses_slowly_is_waited_for_and_sent_once(
    rate: float, prompt: int, stages: int, spare: bool
) -> None:
    swarm = swarm_on(rate, stages, spare=spare)
    _, took = ask(swarm, prompt, 2)
    assert not broken(swarm)
    assert not offences(swarm)
    pipeline = (stages - 2) * 64 * ROW / rate  # the last batch crosses the cuts one by one
    assert took < 1.15 * (prompt * ROW / rate + pipeline) + 3


def test_slow_ways_change_no_token_and_a_stage_that_dies_meanwhile_is_replaced() -> None:
    right_ones, _ = ask(swarm_on(None), 200, 8)
    swarm = swarm_on(60_000, spare=True)
    swarm.network.after(4.0, lambda now: swarm.kill("c"))
    tokens, _ = ask(swarm, 200, 8)
    assert tokens == right_ones
    assert len(broken(swarm)) == 1


def test_a_silent_engine_behind_a_slow_way_is_replaced_all_the_same() -> None:
    swarm = swarm_on(60_000, spare=True, computer=lambda request: None)
    _, took = ask(swarm, 200, 2)
    assert {peer for event in broken(swarm) for peer in event.peers} == {swarm.nodes["c"].node_id}
    assert took < 2 * 200 * ROW / 60_000 + 20


def test_tokens_whose_bytes_take_long_make_nobody_slower_than_promised() -> None:
    story = Story(config=InferenceConfig(prefill_chunk=16, slow_margin=0.01, slow_seconds=0.3))
    network = story.network
    network.roster.costs = dict.fromkeys(network.cores, 500.0)
    network.rate = 10_000
    story.ask(40)
    assert story.tokens == right(40)
    assert story.generation.counters["slow tokens: their bytes take as long"]
    assert not story.book.noted
    assert not story.all_of(ChainBroken)


@pytest.mark.parametrize("rows", [1, 3, 10_000], ids=["trickle", "some", "all but the last"])
def test_who_only_says_that_bytes_come_is_replaced_in_bounded_time(rows: int) -> None:
    story = Story()
    network = story.network
    network.behaviours[EVIL] = silent
    core = network.cores[EVIL]
    taken, told = core.take_events, [0]

    def lie(event: InferenceEvent) -> InferenceEvent:
        if not isinstance(event, SendFrame) or event.frame.type is not MessageType.SYNC:
            return event
        message = from_body_untrusted(parse_sync_untrusted(event.frame))
        if not isinstance(message, Opened):
            return event
        told[0] = min(told[0] + rows, len(PROMPT) - 1) * bool(message.epoch)
        lying = replace(message, next_position=0, computed=0, arrived=told[0])
        return SendFrame(event.peer, control_frame(lying, network.space))

    network.cores[EVIL] = stand_in(core, take_events=lambda: [lie(event) for event in taken()])
    assert story.ask(TOKENS) < 30
    assert story.tokens == right()
    assert story.chain == ["a", "b", "c"]
    assert Offence.STALLED in story.book.offences(EVIL)


def test_what_arrived_is_told_and_left_out_where_it_says_nothing() -> None:
    assert "arrived" not in to_body(Opened(1, 2, 3, 44, 44, 44))
    told = Opened(1, 2, 3, 44, 40, 60)
    assert from_body_untrusted(to_body(told)) == told
