"""Answers as models write them, and what is in them: the published shapes, in our own words."""

from dataclasses import dataclass

from p2pnode.text.tool_calls.formats import ToolFormat
from p2pnode.text.tool_calls.pieces import Piece, Text, ToolCall

HERMES, LLAMA, MISTRAL = ToolFormat.HERMES, ToolFormat.LLAMA, ToolFormat.MISTRAL


@dataclass(frozen=True)
class Transcript:
    """An answer.

    Attributes:
        name: What is special about it.
        format: How its model writes calls.
        answer: What the model wrote.
        pieces: What is in it, texts joined.
    """

    name: str
    format: ToolFormat
    answer: str
    pieces: tuple[Piece, ...]


def _hermes(name: str, answer: str, *pieces: Piece) -> Transcript:
    return Transcript(f"hermes: {name}", HERMES, answer, pieces)


def _llama(name: str, answer: str, *pieces: Piece) -> Transcript:
    return Transcript(f"llama: {name}", LLAMA, answer, pieces)


def _mistral(name: str, answer: str, *pieces: Piece) -> Transcript:
    return Transcript(f"mistral: {name}", MISTRAL, answer, pieces)


WEATHER = ToolCall("get_weather", '{"city":"Oslo","days":3}')
TIME = ToolCall("get_time", '{"zone":"Europe/Oslo"}')
NO_ARGUMENTS = ToolCall("list_files", "{}")

TRANSCRIPTS = (
    _hermes(
        "one call",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}\n'
        "</tool_call>",
        WEATHER,
    ),
    _hermes(
        "text around two calls",
        "I look both up.\n\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}\n'
        "</tool_call>\n"
        '<tool_call>\n{"name": "get_time", "arguments": {"zone": "Europe/Oslo"}}\n</tool_call>\n'
        "One moment.",
        Text("I look both up.\n\n"),
        WEATHER,
        TIME,
        Text("\nOne moment."),
    ),
    _hermes(
        "white space of every kind, and none",
        '\n <tool_call>{ "arguments" :\r\n\t{"city":"Oslo" , "days":3 } ,"name":"get_weather"}'
        '</tool_call><tool_call>{"name":"list_files","arguments":{}}</tool_call>\n\n',
        WEATHER,
        NO_ARGUMENTS,
    ),
    _hermes(
        "the closing mark and brackets within strings",
        '<tool_call>\n{"name": "write", "arguments": {"text": "</tool_call> {\\"a\\": [}", '
        '"path": "C:\\\\"}}\n</tool_call>',
        ToolCall("write", '{"text":"</tool_call> {\\"a\\": [}","path":"C:\\\\"}'),
    ),
    _hermes(
        "nested arguments, numbers as spelled",
        '<tool_call>\n{"name": "plot", "arguments": {"points": [[0, 1.50], [1, -2e-3]], "style": '
        '{"line": {"width": 10000000000000000000000}, "grid": null, "on": true}}}\n</tool_call>',
        ToolCall(
            "plot",
            '{"points":[[0,1.50],[1,-2e-3]],"style":{"line":{"width":10000000000000000000000},'
            '"grid":null,"on":true}}',
        ),
    ),
    _hermes(
        "letters of other scripts, spelled out and escaped",
        '<tool_call>\n{"name": "say", "arguments": {"\u00e4": "\u6f22\U0001f600", '
        '"b": "\\u6f22\\ud83d\\ude00\\n"}}\n</tool_call>',
        ToolCall("say", '{"\u00e4":"\u6f22\U0001f600","b":"\\u6f22\\ud83d\\ude00\\n"}'),
    ),
    _hermes(
        "a line break within a string",
        '<tool_call>\n{"name": "run", "arguments": {"code": "a = 1\n\tb"}}\n</tool_call>',
        ToolCall("run", '{"code":"a = 1\\n\\tb"}'),
    ),
    _hermes(
        "no arguments, null, a string of them, parameters",
        '<tool_call>{"name": "list_files"}</tool_call>'
        '<tool_call>{"name": "list_files", "arguments": null}</tool_call>'
        '<tool_call>{"name": "get_time", "arguments": "{\\"zone\\": \\"Europe/Oslo\\"}"}'
        "</tool_call>"
        '<tool_call>{"name": "get_time", "parameters": {"zone": "Europe/Oslo"}}</tool_call>',
        NO_ARGUMENTS,
        NO_ARGUMENTS,
        TIME,
        TIME,
    ),
    _hermes(
        "the closing mark is missing",
        '<tool_call>\n{"name": "list_files", "arguments": {}}\n\nDone.',
        NO_ARGUMENTS,
        Text("\n\nDone."),
    ),
    _hermes(
        "cut off within the arguments",
        'So:\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Os',
        Text('So:\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Os'),
    ),
    _hermes("cut off within the mark", "I call <tool_c", Text("I call <tool_c")),
    _hermes(
        "a bracket is missing, and the next call is right",
        ' <tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}\n</tool_call>\n'
        '<tool_call>\n{"name": "list_files", "arguments": {}}\n</tool_call>',
        Text(' <tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}\n</tool_call>\n'),
        NO_ARGUMENTS,
    ),
    _hermes(
        "a quote is missing, and the next call is right",
        '<tool_call>{"name": "get_weather, "arguments": {}}</tool_call>'
        '<tool_call>{"name": "list_files"}</tool_call>',
        Text('<tool_call>{"name": "get_weather, "arguments": {}}</tool_call>'),
        NO_ARGUMENTS,
    ),
    _hermes(
        "what is no call: Python, no name, a name that is a number, a list, true for an object",
        "<tool_call>{'name': 'f', 'arguments': {}}</tool_call>"
        '<tool_call>{"arguments": {}}</tool_call><tool_call>{"name": 7}</tool_call>'
        '<tool_call>[{"name": "f"}]</tool_call><tool_call>{"name": "f", "arguments": true}'
        '</tool_call><tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'
        '<tool_call>{"name": "f", "arguments": {"a": 1,}}</tool_call>'
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        Text(
            "<tool_call>{'name': 'f', 'arguments': {}}</tool_call>"
            '<tool_call>{"arguments": {}}</tool_call><tool_call>{"name": 7}</tool_call>'
            '<tool_call>[{"name": "f"}]</tool_call><tool_call>{"name": "f", "arguments": true}'
            '</tool_call><tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'
            '<tool_call>{"name": "f", "arguments": {"a": 1,}}</tool_call>'
            '<tool_call>{"name": "", "arguments": {}}</tool_call>'
        ),
    ),
    _hermes(
        "a mark that is only spoken of",
        "Put it into <tool_call> marks, <b>not</b> </tool_call>.\n\n",
        Text("Put it into <tool_call> marks, <b>not</b> </tool_call>.\n\n"),
    ),
    _hermes("text alone", " It is 3 degrees. ", Text(" It is 3 degrees. ")),
    _llama(
        "one call",
        '{"name": "get_weather", "parameters": {"city": "Oslo", "days": 3}}',
        WEATHER,
    ),
    _llama(
        "behind the mark, with the end of the message",
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo", "days": 3}}'
        "<|eom_id|>",
        WEATHER,
    ),
    _llama(
        "several, a type, arguments for parameters",
        '{"type": "function", "name": "get_weather", "parameters": {"city": "Oslo", "days": 3}}; '
        '{"name": "get_time", "arguments": {"zone": "Europe/Oslo"}}\n'
        '{"name": "list_files", "parameters": {}}<|eot_id|>',
        WEATHER,
        TIME,
        NO_ARGUMENTS,
    ),
    _llama(
        "text before the mark and behind the call",
        'I look it up.<|python_tag|>{"name": "list_files", "parameters": {}}\nThere; you go.',
        Text("I look it up."),
        NO_ARGUMENTS,
        Text("\nThere; you go."),
    ),
    _llama(
        "a separator without a call",
        '{"name": "list_files", "parameters": {}} ; and so on',
        NO_ARGUMENTS,
        Text(" ; and so on"),
    ),
    _llama(
        "strings with brackets and marks",
        '{"name": "write", "parameters": {"text": "}; {\\"<|python_tag|>", "e": "\\u00e9"}}',
        ToolCall("write", '{"text":"}; {\\"<|python_tag|>","e":"\\u00e9"}'),
    ),
    _llama(
        "Python behind the mark",
        '<|python_tag|>print("{}")',
        Text('<|python_tag|>print("{}")'),
    ),
    _llama(
        "JSON that is no call",
        '{"name": "Bob", "age": 7}\n{"name": "list_files", "parameters": {}}',
        Text('{"name": "Bob", "age": 7}\n{"name": "list_files", "parameters": {}}'),
    ),
    _llama(
        "a call, then JSON that is none",
        '{"name": "list_files", "parameters": {}}\n{"answer": 42}',
        NO_ARGUMENTS,
        Text('\n{"answer": 42}'),
    ),
    _llama(
        "JSON within text",
        'Say {"name": "list_files", "parameters": {}}',
        Text('Say {"name": "list_files", "parameters": {}}'),
    ),
    _llama(
        "cut off",
        '{"name": "get_weather", "parameters": {"city": "Os',
        Text('{"name": "get_weather", "parameters": {"city": "Os'),
    ),
    _mistral(
        "a list of one",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}]',
        WEATHER,
    ),
    _mistral(
        "a list of several with ids, and text around",
        'I look.\n[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}, '
        '"id": "D681PevKs"} ,\n{"arguments": {"zone": "Europe/Oslo"}, "name": "get_time"}]\nThere.',
        Text("I look.\n"),
        WEATHER,
        TIME,
        Text("\nThere."),
    ),
    _mistral(
        "names before their arguments",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo", "days": 3}'
        '[TOOL_CALLS]get_time[ARGS]{"zone": "Europe/Oslo"}',
        WEATHER,
        TIME,
    ),
    _mistral(
        "names and ids before their arguments, and text",
        'So [TOOL_CALLS]get_weather[CALL_ID]D681PevKs[ARGS]{"city": "Oslo", "days": 3}\n'
        "[TOOL_CALLS]list_files[CALL_ID]a1B2c3D4e[ARGS]{}",
        Text("So "),
        WEATHER,
        NO_ARGUMENTS,
    ),
    _mistral(
        "names and arguments with nothing between",
        '[TOOL_CALLS]get_time{"zone": "Europe/Oslo"}',
        TIME,
    ),
    _mistral(
        "marks and brackets within strings",
        '[TOOL_CALLS] [{"name": "write", "arguments": {"text": "}] [TOOL_CALLS]", '
        '"e": "\\u00e9"}}]',
        ToolCall("write", '{"text":"}] [TOOL_CALLS]","e":"\\u00e9"}'),
    ),
    _mistral(
        "the second of a list is no call",
        '[TOOL_CALLS] [{"name": "list_files"}, {"title": "get_time"}] so',
        NO_ARGUMENTS,
        Text(', {"title": "get_time"}] so'),
    ),
    _mistral(
        "cut off within the second of a list",
        '[TOOL_CALLS] [{"name": "list_files", "arguments": {}}, {"name": "get_ti',
        NO_ARGUMENTS,
        Text(', {"name": "get_ti'),
    ),
    _mistral(
        "the first of a list is no call",
        '[TOOL_CALLS] [7, {"name": "list_files"}][TOOL_CALLS]list_files[ARGS]{}',
        Text('[TOOL_CALLS] [7, {"name": "list_files"}]'),
        NO_ARGUMENTS,
    ),
    _mistral(
        "a mark that is only spoken of",
        "[TOOL_CALLS] is a mark, [TOOL_CALLS]too[ARGS], [TOOL",
        Text("[TOOL_CALLS] is a mark, [TOOL_CALLS]too[ARGS], [TOOL"),
    ),
    _mistral("an empty list", "[TOOL_CALLS] []", Text("[TOOL_CALLS] []")),
)
