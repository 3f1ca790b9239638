"""Calls in answers: recorded ones cut everywhere, and any text against a reading of the whole."""

import json
import re
from collections.abc import Generator, Iterable, Iterator
from itertools import combinations, groupby, pairwise

import pytest
from hypothesis import given, strategies as st

from p2pnode.text.tool_calls.call_json import LONGEST_NAME
from p2pnode.text.tool_calls.formats import ToolFormat
from p2pnode.text.tool_calls.json_scan import MOST_CALL, MOST_NESTED
from p2pnode.text.tool_calls.parser import parser_of
from p2pnode.text.tool_calls.pieces import Piece, Text, ToolCall
from p2pnode.text.tool_calls.source import MOST_CALLS, MOST_SPACES
from tests.text.tool_calls.transcripts import HERMES, LLAMA, MISTRAL, TRANSCRIPTS, Transcript

SHORT = 90  # characters of an answer that is cut at every two places at once


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for are_text, run in groupby(pieces, key=lambda one: isinstance(one, Text)):
        if are_text:
            found.append(Text("".join(one.text for one in run if isinstance(one, Text))))
        else:
            found += run
    return found


def parsed(kind: ToolFormat, pieces: Iterable[str]) -> list[Piece]:
    parser = parser_of(kind)
    found = [one for piece in pieces for one in parser.push(piece)]
    return joined([*found, *parser.finish()])


def cut(answer: str, *at: int) -> list[str]:
    return [answer[start:end] for start, end in pairwise((0, *at, len(answer)))]


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda one: one.name)
def test_a_transcript_cut_anywhere_has_the_same_in_it(transcript: Transcript) -> None:
    answer, expected = transcript.answer, list(transcript.pieces)
    assert parsed(transcript.format, [answer]) == expected
    assert parsed(transcript.format, answer) == expected
    for at in range(len(answer)):
        assert parsed(transcript.format, cut(answer, at)) == expected
    for size in (2, 3, 5, 7, 11):
        assert parsed(transcript.format, re.findall(rf"(?s).{{1,{size}}}", answer)) == expected


@pytest.mark.parametrize(
    "transcript",
    [one for one in TRANSCRIPTS if len(one.answer) <= SHORT],
    ids=lambda one: one.name,
)
def test_a_short_transcript_cut_twice_has_the_same_in_it(transcript: Transcript) -> None:
    for at in combinations(range(len(transcript.answer) + 1), 2):
        assert parsed(transcript.format, cut(transcript.answer, *at)) == list(transcript.pieces)


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda one: one.name)
def test_arguments_are_the_json_that_was_written(transcript: Transcript) -> None:
    for piece in parsed(transcript.format, transcript.answer):
        if isinstance(piece, ToolCall):
            arguments = json.loads(piece.arguments)
            assert isinstance(arguments, dict)
            assert not re.search(
                r"[:,{\[] |[\n\t\r]", re.sub(r'"(\\.|[^"])*"', "s", piece.arguments)
            )


@pytest.mark.parametrize(
    ("kind", "answer", "shown"),
    [
        (HERMES, "Hello <b> there", "Hello <b> there"),
        (HERMES, "Hello <tool", "Hello "),
        (LLAMA, '{"answer": [1, 2', '{"answer": [1, 2'),
        (LLAMA, '{"na', ""),
        (MISTRAL, "[TOOL_CALLS] but it", "[TOOL_CALLS] but it"),
        (MISTRAL, "[TOOL_CALLS] but", ""),
    ],
)
def test_text_is_shown_as_soon_as_it_can_be_no_call(
    kind: ToolFormat, answer: str, shown: str
) -> None:
    parser = parser_of(kind)
    assert joined(one for letter in answer for one in parser.push(letter)) == [
        Text(text) for text in [shown] if text
    ]
    assert joined([*[Text(shown)], *parser.finish()]) == [Text(answer)]


def test_a_call_is_there_as_soon_as_its_last_bracket_is() -> None:
    for kind, answer in (
        (HERMES, '<tool_call>{"name": "f", "arguments": {}}'),
        (LLAMA, '{"name": "f", "parameters": {}}'),
        (MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {}}'),
        (MISTRAL, "[TOOL_CALLS]f[ARGS]{}"),
    ):
        parser = parser_of(kind)
        assert parser.push(answer[:-1]) == []
        assert parser.push(answer[-1]) == [ToolCall("f", "{}")]


# Any text: the same reading, done on the whole at once

MARK = {HERMES: "<tool_call>", LLAMA: "<|python_tag|>", MISTRAL: "[TOOL_CALLS]"}
SPACE = " \t\r\n"


class Whole:
    """Reads a whole answer by looking forward and back in it as it likes."""

    def __init__(self, kind: ToolFormat, answer: str) -> None:
        self.kind, self.answer = kind, answer
        self.calls = 0

    def pieces(self) -> Iterator[Piece]:
        at = 0
        if self.kind is LLAMA and (first := self.call(self.behind_space(0), marked=False)):
            at = yield from self.llama(first, marked=False)
        text = ""  # not yet yielded
        while (mark := self.answer.find(MARK[self.kind], at)) >= 0:
            between, end = self.answer[at:mark], mark + len(MARK[self.kind])
            found = self.first(end)
            if found is None:
                text += self.answer[at:end]
                at = end
                continue
            if (text or between.strip(SPACE)) and (text + between):
                yield Text(text + between)
            text = ""
            at = yield from self.rest(found)
        text += self.answer[at:]
        if text.strip(SPACE) or (text and not self.calls):
            yield Text(text)

    def first(self, at: int) -> tuple[ToolCall, int, bool] | None:
        """Return the first call behind a mark, where it ends, and whether a list goes on there."""
        start = self.behind_space(at)
        if self.kind is not MISTRAL:
            found = self.call(start)
            return found and (*found, False)
        if self.answer.startswith("[", start):
            found = self.call(self.behind_space(start + 1))
            return found and (*found, True)
        named = re.compile(
            r"([\w.:/-]{1,256})(?:\[CALL_ID\][\w-]*)?(?:\[ARGS\])?[ \t\r\n]*(?={)", re.ASCII
        ).match(self.answer, start)
        if named is None:
            return None
        value, end = self.value(named.end())
        return (ToolCall(named[1], compact(value)), end, False) if isinstance(value, dict) else None

    def rest(self, found: tuple[ToolCall, int, bool]) -> Generator[Piece, None, int]:
        call, at, in_list = found
        if self.kind is LLAMA:
            return (yield from self.llama((call, at), marked=True))
        yield self.counted(call)
        if self.kind is HERMES:
            closing = self.behind_space(at)
            told = self.answer.startswith("</tool_call>", closing)
            return closing + len("</tool_call>") if told else at
        while in_list:
            sign = self.behind_space(at)
            if self.answer.startswith("]", sign):
                return sign + 1
            more = self.answer.startswith(",", sign)
            if not more or not (found_next := self.call(self.behind_space(sign + 1))):
                break
            call, at = found_next
            yield self.counted(call)
        return at

    def llama(
        self, found: tuple[ToolCall, int] | None, *, marked: bool
    ) -> Generator[Piece, None, int]:
        at = 0
        while found:
            call, at = found
            yield self.counted(call)
            sign = self.behind_space(at)
            sign += self.answer.startswith(";", sign)
            found = self.call(self.behind_space(sign), marked=marked)
        end = re.compile(r"[ \t\r\n]*<\|eo[mt]_id\|>").match(self.answer, at)
        return end.end() if end else at

    def counted(self, call: ToolCall) -> ToolCall:
        self.calls += 1
        return call

    def call(self, at: int, *, marked: bool = True) -> tuple[ToolCall, int] | None:
        value, end = self.value(at) if self.answer.startswith("{", at) else (None, at)
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return None
        given = value.get("arguments", value.get("parameters"))
        if isinstance(given, dict) or (given is None and marked):
            return (ToolCall(value["name"], compact(given or {})), end) if value["name"] else None
        return None

    def value(self, at: int) -> tuple[object, int]:
        try:
            found: tuple[object, int] = json.JSONDecoder(strict=False).raw_decode(self.answer, at)
        except ValueError:
            return None, at
        return found

    def behind_space(self, at: int) -> int:
        return len(self.answer) - len(self.answer[at:].lstrip(SPACE))


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


FRAGMENTS = {
    HERMES: ("<tool_call>", "</tool_call>", "<tool_", "call>", "<"),
    LLAMA: ("<|python_tag|>", "<|eom_id|>", "<|eot_id|>", "<|", ";", "; "),
    MISTRAL: ("[TOOL_CALLS]", "[TOOL_CALLS] [", "[ARGS]", "[CALL_ID]", "[TOOL", "f", ",", "]"),
}
SHARED = (
    *('{"name": "f", "arguments": {}}', '{"name":"g","parameters":{"a":[1,"}"]}}', '{"name": "h"}'),
    *('{"a": "', '{"name": "f", "arguments": {"a": "', '"}}', '"}', '\\"', "\\", '"', "{", "}"),
    *("[", "]", " ", "\n", "1", "text", "\u00e9", '{"b": {}}', '{"name": "", "arguments": {}}'),
)


@pytest.mark.parametrize("kind", ToolFormat)
@given(data=st.data())
def test_any_text_in_any_cutting_is_read_as_the_whole_is(
    kind: ToolFormat, data: st.DataObject
) -> None:
    fragments = st.sampled_from((*FRAGMENTS[kind] * 2, *SHARED))
    answer = "".join(data.draw(st.lists(fragments, max_size=14)))
    at = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    found = parsed(kind, cut(answer, *at))
    assert found == list(Whole(kind, answer).pieces())
    assert found == parsed(kind, answer)
    if not any(isinstance(one, ToolCall) for one in found):
        assert found == ([Text(answer)] if answer else [])


@pytest.mark.parametrize("kind", ToolFormat)
@given(answer=st.text(max_size=60), at=st.lists(st.integers(0, 60), max_size=4))
def test_text_without_calls_comes_back_as_it_was(
    kind: ToolFormat, answer: str, at: list[int]
) -> None:
    borders = sorted(min(one, len(answer)) for one in at)
    assert parsed(kind, cut(answer, *borders)) == ([Text(answer)] if answer else [])


# Bounds


def hermes(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


@pytest.mark.parametrize("size", [1, 4096, 10**6])
@pytest.mark.parametrize(
    "answer",
    [
        hermes('{"name": "f", "arguments": ' + '{"a":' * 10_000),
        hermes('{"name": "f", "arguments": {"a": ' + "[" * 30_000 + "]" * 30_000 + "}}"),
        hermes('{"name": "f", "arguments": "' + '{\\"a\\":' * 20_000 + '"}'),
        hermes('{"name": "f", "arguments": {"a": "' + "x" * MOST_CALL + '"}}'),
        hermes(json.dumps({"name": "x" * (LONGEST_NAME + 1), "arguments": {}})),
        hermes(r'{"name": "\ud800", "arguments": {}}'),  # half a character
        "<tool_call>{" * 10_000,
        '<tool_call>{"<tool_call>{","' * 5_000,
        "<tool_call>" + " " * (MOST_SPACES + 1) + '{"name": "f"}',
    ],
    ids=lambda answer: answer[:40],
)
def test_what_is_too_much_is_text(answer: str, size: int) -> None:
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    assert parsed(HERMES, pieces) == [Text(answer)]


def test_as_much_as_may_be_is_a_call() -> None:
    deep = '{"name":"f","arguments":' + '{"a":' * (MOST_NESTED - 1) + "1" + "}" * MOST_NESTED
    assert parsed(HERMES, [hermes(deep)]) == [ToolCall("f", deep[24:-1])]
    frame = '{"name":"f","arguments":{"a":""}}'
    long = frame.replace('""', '"' + "x" * (MOST_CALL - len(frame)) + '"')
    for pieces in ([hermes(long)], [hermes(long)[:99], hermes(long)[99:]]):
        assert parsed(HERMES, pieces) == [ToolCall("f", long[24:-1])]
    spaced = "<tool_call>" + " " * MOST_SPACES + '{"name": "f"}'
    assert parsed(HERMES, [spaced]) == [ToolCall("f", "{}")]


@pytest.mark.parametrize(
    ("kind", "one", "between", "opening"),
    [
        (HERMES, hermes('{"name":"f"}'), "\n", ""),
        (LLAMA, '{"name":"f","parameters":{}}', ";", ""),
        (MISTRAL, '{"name":"f"}', ",", "[TOOL_CALLS]["),
        (MISTRAL, "[TOOL_CALLS]f[ARGS]{}", "", ""),
    ],
)
def test_calls_beyond_the_most_are_text(
    kind: ToolFormat, one: str, between: str, opening: str
) -> None:
    answer = opening + between.join([one] * (MOST_CALLS + 2))
    found = parsed(kind, [answer])
    assert found == parsed(kind, answer)
    assert found[:-1] == [ToolCall("f", "{}")] * MOST_CALLS
    assert found[-1] == Text(between + one + between + one)
