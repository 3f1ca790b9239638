"""What models write: a model may come from anywhere, and say anything."""

import json
from collections.abc import Iterator

from p2pnode.text.stops import StopStrings
from p2pnode.text.tool_calls.formats import ToolFormat
from p2pnode.text.tool_calls.parser import parser_of
from p2pnode.text.tool_calls.pieces import Piece, Text, ToolCall
from tests.fuzz.target import Script, Target

_FORMATS = tuple(ToolFormat)
_STOPS = ("\n\n", "</s>", "</s></s>", "s>", "aab")


def tool_calls(data: bytes) -> None:
    """The format, the length of the pieces, and the answer."""
    script = Script(data)
    kind, size = _FORMATS[script.byte() % len(_FORMATS)], 1 + script.byte()
    answer = data[2:].decode("utf-8", "replace")
    found = _parsed(kind, answer, size)
    assert found == _parsed(kind, answer, len(answer) + 1)
    calls = [one for one in found if isinstance(one, ToolCall)]
    for call in calls:
        assert isinstance(json.loads(call.arguments, parse_int=str), dict)
    assert calls or "".join(one.text for one in found if isinstance(one, Text)) == answer


def stop_strings(data: bytes) -> None:
    """The length of the pieces, and the answer."""
    size, answer = 1 + Script(data).byte(), data[1:].decode("utf-8", "replace")
    stops = StopStrings(_STOPS)
    shown = "".join(stops.push(answer[at : at + size]) for at in range(0, len(answer), size))
    shown += stops.finish()
    starts = [at for stop in _STOPS if (at := answer.find(stop)) >= 0]
    assert shown == answer[: min(starts, default=len(answer))]
    assert (stops.matched is None) == (not starts)


def _parsed(kind: ToolFormat, answer: str, size: int) -> list[Piece]:
    """Return what is in an answer, the texts between calls joined."""
    parser = parser_of(kind)
    pieces = [
        one for at in range(0, len(answer), size) for one in parser.push(answer[at : at + size])
    ]
    found: list[Piece] = []
    texts: list[str] = []
    for piece in (*pieces, *parser.finish()):
        if isinstance(piece, Text):
            texts.append(piece.text)
            continue
        found += [Text("".join(texts)), piece] if texts else [piece]
        texts.clear()
    return [*found, Text("".join(texts))] if texts else found


def _answers() -> Iterator[bytes]:
    call = '{"name": "f", "arguments": {"a": [1.5, "}\\u00e9"]}}'
    for number, answers in enumerate(
        (
            (f"So\n<tool_call>\n{call}\n</tool_call>\n<tool_call>{call}", "<tool_call>{"),
            (f"{call}; {call}<|eom_id|>", f"<|python_tag|>{call}"),
            (f"[TOOL_CALLS] [{call}, {call}]", "[TOOL_CALLS]f[CALL_ID]abc[ARGS]{}[TOOL_CALLS]g{}"),
        )
    ):
        yield from (bytes((number, 2)) + answer.encode() for answer in answers)


_WORDS = (
    *(
        b"<tool_call>",
        b"</tool_call>",
        b"<|python_tag|>",
        b"<|eot_id|>",
        b"[TOOL_CALLS]",
        b"[ARGS]",
    ),
    *(b"[CALL_ID]", b'{"name":"f"}', b'"arguments":{', b'"parameters":{', b'{"', b'"}', b'\\"'),
)

TARGETS = (
    Target("tool-calls", tool_calls, _answers, refusals=(), words=_WORDS),
    Target(
        "stop-strings",
        stop_strings,
        lambda: (b"\x01one\n\ntwo", b"\x03a</s", b"\x00a</s></s>", b"\x02aaab"),
        refusals=(),
        words=tuple(stop.encode() for stop in _STOPS),
    ),
)
