"""Schemas are compiled beside the engine thread, once, and waited for no longer than a moment."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import pytest

from p2pnode.engine.sampling.schema import Constraints, Matcher, check_schema
from p2pnode.engine.sampling.schema_text import ANY_OBJECT
from p2pnode.errors import DrawError, ModelError, UserError
from p2pnode.node import grammars
from p2pnode.node.grammars import ModelGrammars
from p2pnode.text.detokenizer import token_bytes
from p2pnode.text.vocabulary import Vocabulary

T = TypeVar("T")

TOKENS = [b"", *(bytes([byte]) for byte in range(32, 127))]


def made(read: Callable[[], Constraints] | None = None) -> ModelGrammars:
    return ModelGrammars(None, read or (lambda: Constraints(TOKENS, 0)))


def test_a_schema_is_compiled_once_and_each_answer_goes_its_own_way() -> None:
    reads: list[int] = []

    def read() -> Constraints:
        reads.append(1)
        return Constraints(TOKENS, 0)

    some = made(read)
    some.prepare(ANY_OBJECT)
    one, other = some.matcher(ANY_OBJECT), some.matcher(ANY_OBJECT)
    one.take((TOKENS.index(b"{"),))
    assert TOKENS.index(b"}") in one.allowed((0,))
    assert TOKENS.index(b"}") not in other.allowed((0,))
    assert len(reads) == 1


def test_what_cannot_be_compiled_is_told_each_time() -> None:
    some = made()
    for _ in range(2):
        with pytest.raises(DrawError, match="Invalid type"):
            some.matcher('{"type":"banana"}')
    assert len(some.matcher(ANY_OBJECT).allowed((0,)))


def test_a_vocabulary_that_cannot_be_read_is_tried_again() -> None:
    tries: list[int] = []

    def read() -> Constraints:
        tries.append(1)
        if len(tries) == 1:
            raise ModelError("the file is gone")
        return Constraints(TOKENS, 0)

    some = made(read)
    with pytest.raises(DrawError, match="the file is gone"):
        some.matcher(ANY_OBJECT)
    assert len(some.matcher(ANY_OBJECT).allowed((0,)))
    with pytest.raises(DrawError, match="no model"):
        ModelGrammars(None).matcher(ANY_OBJECT)


def test_nobody_waits_longer_than_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "VOCABULARY_PATIENCE", 0.0)
    go_on = threading.Event()

    def read() -> Constraints:
        go_on.wait(10)
        return Constraints(TOKENS, 0)

    some = made(read)
    with pytest.raises(DrawError, match="vocabulary takes too long"):
        some.matcher(ANY_OBJECT)
    go_on.set()
    monkeypatch.undo()
    assert len(some.matcher(ANY_OBJECT).allowed((0,)))  # what was begun is not lost


def test_all_schemas_together_are_waited_for_a_share_of_the_time() -> None:
    """Whoever begins session after session, each with a slow schema, holds up nobody for long."""
    go_on, now = threading.Event(), [0.0]
    waits: list[float] = []

    class Slow(Constraints):
        def matcher(self, schema: str) -> Matcher:
            go_on.wait(10)
            return super().matcher(schema)

    class Waited(ModelGrammars):
        @staticmethod
        def _wait(future: "Future[T]", seconds: float, late: str) -> "T":
            if "schema" not in late:
                return ModelGrammars._wait(future, seconds, late)
            waits.append(seconds)
            now[0] += seconds
            return ModelGrammars._wait(future, 0.0, late)

    some = Waited(None, lambda: Slow(TOKENS, 0), lambda: now[0])
    for number in range(2 * grammars.COMPILED):
        with pytest.raises(DrawError, match="the schema takes too long"):
            some.matcher(f'{{"const":{number}}}')
        now[0] += 0.1
    assert waits[0] == grammars.SCHEMA_PATIENCE
    assert sum(waits) <= grammars.SCHEMA_PATIENCE + now[0] / grammars.SHARE_OF_WAITING
    with pytest.raises(DrawError, match="too many schemas"):
        some.matcher(ANY_OBJECT)
    now[0] += 60
    go_on.set()
    for one in some._compiled.values():
        one.result(10)
    with pytest.raises(DrawError, match="takes too long"):
        some.matcher(ANY_OBJECT)
    assert waits[-1] == grammars.SCHEMA_PATIENCE  # but no more, however long nobody waited


def test_no_more_schemas_are_kept_than_there_may_be() -> None:
    some = made()
    for number in range(2 * grammars.COMPILED):
        some.matcher(f'{{"const":{number}}}')
    assert len(some._compiled) == grammars.COMPILED


def test_a_schema_that_a_session_waits_for_does_not_give_way() -> None:
    go_on, compiled = threading.Event(), list[str]()

    class Slow(Constraints):
        def matcher(self, schema: str) -> Matcher:
            compiled.append(schema)
            return super().matcher(schema)

    def read() -> Constraints:
        go_on.wait(10)
        return Slow(TOKENS, 0)

    some = made(read)
    schemas = [f'{{"const":{number}}}' for number in range(3 * grammars.COMPILED)]
    for schema in schemas:
        some.prepare(schema)
    waiting = list(some._compiled.values())
    assert len(waiting) == grammars.COMPILED  # no longer queue, whoever begins sessions
    go_on.set()
    for schema in schemas:
        assert len(some.matcher(schema).allowed((0,)))
    assert not any(one.cancelled() for one in waiting)
    assert compiled == schemas  # each once, in its turn
    assert len(some._compiled) == grammars.COMPILED


def test_a_schema_is_looked_at_before_anybody_is_asked() -> None:
    check_schema(ANY_OBJECT)
    foreign, broken = '{"$ref":"file:///etc/passwd"}', '{"pattern":"(","type":"string"}'
    for schema in ('{"type":"banana"}', foreign, broken):
        with pytest.raises(UserError, match="cannot be followed"):
            check_schema(schema)


def test_tokens_that_are_no_text_have_no_bytes() -> None:
    tokens = ["a", "\u0120b", "<|end|>", "<unk>", "<user>", "gone"]
    vocabulary = Vocabulary(tokens, [], [1, 1, 3, 2, 4, 5], "gpt-2")
    assert token_bytes(vocabulary) == [b"a", b" b", b"", b"", b"<user>", b""]
