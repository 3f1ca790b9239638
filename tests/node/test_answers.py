"""A reader that stops reading ends its own answer, and nothing else."""

import pytest
import trio

from p2pnode.errors import GenerationError
from p2pnode.inference.events import ChainBroken, GenerationEvent, GenerationFinished
from p2pnode.node import answers
from p2pnode.node.answers import AnswerStream


def broken(epoch: int) -> ChainBroken:
    return ChainBroken(1, epoch, (), "closed")


async def test_events_nobody_reads_cancel_the_answer_and_raise_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "_QUEUE", 4)
    cancelled: list[bool] = []
    forgotten: list[bool] = []
    stream: AnswerStream

    def cancel() -> None:
        cancelled.append(True)
        stream.put(GenerationFinished(1, "cancelled"))  # as the core does, at once

    stream = AnswerStream(cancel, lambda: forgotten.append(True))
    for epoch in range(20):
        stream.put(broken(epoch))
    assert cancelled == [True]
    assert stream.is_unread

    shown: list[GenerationEvent] = []

    async def show(event: GenerationEvent) -> None:
        shown.append(event)

    with pytest.raises(GenerationError, match="stopped reading"):
        await stream.follow(show)
    assert shown == [broken(epoch) for epoch in range(4)]
    assert forgotten == [True]


async def test_a_reader_that_pauses_within_bounds_loses_nothing() -> None:
    stream = AnswerStream(lambda: None, lambda: None)
    for epoch in range(1000):
        stream.put(broken(epoch))
    stream.put(GenerationFinished(1, "eos"))
    stream.put(broken(1000))  # after the end: nobody waits for it

    async def show(event: GenerationEvent) -> None:
        await trio.lowlevel.checkpoint()

    answer = await stream.follow(show)
    assert answer.finish == "eos"
    assert len(answer.broken) == 1000
    assert not stream.is_unread
