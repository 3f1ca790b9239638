"""A reader that stops reading ends its own answer, and nothing else."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from p2pnode.errors import GenerationError
from p2pnode.inference.events import ChainBroken, ChainRepaired, GenerationEvent, GenerationFinished
from p2pnode.node.answering.stream import _QUEUE, READER_PATIENCE, Answer, AnswerStream


def broken(epoch: int) -> ChainBroken:
    return ChainBroken(1, epoch, (), "closed")


async def nothing(event: GenerationEvent) -> None:
    await trio.lowlevel.checkpoint()


async def follow(
    stream: AnswerStream, show: Callable[[GenerationEvent], Awaitable[None]]
) -> Answer:
    with stream:
        async for event in stream:
            await show(event)
    return stream.answer


async def test_events_nobody_reads_cancel_the_answer_and_raise_nothing() -> None:
    cancelled: list[float] = []
    forgotten: list[bool] = []
    stream: AnswerStream
    now = 1000.0

    def cancel() -> None:
        cancelled.append(now)
        stream.put(GenerationFinished(1, "cancelled"), now)  # as the core does, at once

    stream = AnswerStream(cancel, lambda: forgotten.append(True))
    for epoch in range(60):
        now = 1000.0 + epoch
        stream.put(broken(epoch), now)
    assert cancelled == [1000 + READER_PATIENCE + 1]
    assert stream.is_unread
    shown: list[GenerationEvent] = []

    async def show(event: GenerationEvent) -> None:
        shown.append(event)

    with pytest.raises(GenerationError, match="stopped reading"):
        await follow(stream, show)
    assert shown == [broken(epoch) for epoch in range(31)]
    assert forgotten == [True]


async def test_what_waits_is_bounded_whatever_the_clock_says() -> None:
    cancelled: list[bool] = []
    stream = AnswerStream(lambda: cancelled.append(True), lambda: None)
    for epoch in range(_QUEUE):
        stream.put(broken(epoch), 0.0)
    assert not cancelled
    stream.put(broken(_QUEUE), 0.0)
    assert cancelled == [True]
    assert stream.is_unread


async def test_a_reader_that_hangs_over_one_event_ends_its_answer(
    autojump_clock: MockClock,
) -> None:
    cancelled: list[float] = []
    stream = AnswerStream(lambda: cancelled.append(trio.current_time()), lambda: None)
    began = trio.current_time()

    async def hang(event: GenerationEvent) -> None:
        if isinstance(event, ChainBroken) and event.epoch == 20:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, stream, hang)
        for epoch in range(100):
            stream.put(broken(epoch), trio.current_time())
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert 20 + READER_PATIENCE <= cancelled[0] - began <= 20 + READER_PATIENCE + 3


async def test_a_reader_that_pauses_within_bounds_loses_nothing() -> None:
    stream = AnswerStream(lambda: None, lambda: None)
    for epoch in range(1000):
        stream.put(broken(epoch), READER_PATIENCE * epoch / 1000)
    stream.put(GenerationFinished(1, "eos"), 2 * READER_PATIENCE)  # it is over anyway
    stream.put(broken(1000), 2 * READER_PATIENCE)  # after the end: nobody waits for it
    answer = await follow(stream, nothing)
    assert answer.finish == "eos"
    assert len(answer.broken) == 1000
    assert not stream.is_unread


async def test_a_slow_reader_that_takes_what_waits_is_borne(autojump_clock: MockClock) -> None:
    stream = AnswerStream(lambda: None, lambda: None)

    async def dawdle(event: GenerationEvent) -> None:
        await trio.sleep(READER_PATIENCE - 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, stream, dawdle)
        for epoch in range(200):
            stream.put(broken(epoch), trio.current_time())
            await trio.sleep(1)
        assert not stream.is_unread
        nursery.cancel_scope.cancel()


def test_the_first_change_of_numerics_stays_with_the_answer() -> None:
    answer = Answer()
    for epoch, why in enumerate(("", "b computes as numpy", "c computes as jax")):
        answer.take(ChainRepaired(1, epoch, (), 0.1, (), why))
        if not epoch:
            assert answer.changed == ""
    assert answer.changed == "b computes as numpy"
