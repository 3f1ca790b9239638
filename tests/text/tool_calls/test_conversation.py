"""Conversations with calls, as templates that people ship read them."""

import datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import ModelError, UserError
from p2pnode.text.tool_calls.conversation import for_template
from p2pnode.text.tool_calls.formats import ToolFormat
from p2pnode.text.tool_calls.json_scan import MOST_CALL
from p2pnode.text.tool_calls.offered import checked_tools
from p2pnode.text.tool_calls.parser import parser_of
from p2pnode.text.tool_calls.pieces import ToolCall
from p2pnode.text.tool_calls.source import MOST_CALLS
from tests.text.test_template import SHIPPED, control, hostile, with_template
from tests.text.tool_calls.taught import TAUGHT

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The "weather".',
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "get_time"}},
]


def call(name: str, arguments: object, known: str | None = "call_8bX2mQ") -> dict[str, Any]:
    return {
        "id": known,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


ASKED: dict[str, Any] = {"role": "user", "content": "Weather and time in Oslo?"}
CALLED: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        call("get_weather", '{"city": "Oslo \\u00e9", "days": 3}', "call_1"),
        call("get_time", "", "call_2"),
    ],
    "refusal": None,
}
# As an API's client hands it back, results in another order than calls.
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    ASKED,
    CALLED,
    {"role": "tool", "tool_call_id": "call_2", "content": "12:00"},
    {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees": 3}'},
    {"role": "assistant", "content": "3 degrees at noon.", "tool_calls": None},
    {"role": "user", "content": "Thanks. And Rome?"},
]


def rendered(name: str, messages: list[dict[str, Any]]) -> str:
    tokenizer = with_template(TAUGHT[name].template, clock=lambda: datetime.datetime(2031, 5, 4))
    tools = [tool.as_offered() for tool in checked_tools(TOOLS)]
    assert tokenizer.tool_format is TAUGHT[name].kind
    return str.__str__(tokenizer.chat(messages, tools=tools))


EXPECTED = {
    "Qwen 2.5": (
        "<|im_start|>assistant\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Oslo \u00e9", "days": 3}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n12:00\n</tool_response>\n"
        '<tool_response>\n{"degrees": 3}\n</tool_response><|im_end|>\n'
        "<|im_start|>assistant\n3 degrees at noon.<|im_end|>\n"
        "<|im_start|>user\nThanks. And Rome?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "Llama 3.1": (
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "get_weather", "parameters": {"city": "Oslo \u00e9", "days": 3}}<|eot_id|>'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"{\\"degrees\\": 3}"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "get_time", "parameters": {}}<|eot_id|>'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"12:00"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n3 degrees at noon.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nThanks. And Rome?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "Mistral v3": (
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo \u00e9", "days": 3}, '
        '"id": "call00000"}, {"name": "get_time", "arguments": {}, "id": "call00001"}]</s>'
        '[TOOL_RESULTS] {"content": 12:00, "call_id": "call00001"}[/TOOL_RESULTS]'
        '[TOOL_RESULTS] {"content": {"degrees": 3}, "call_id": "call00000"}[/TOOL_RESULTS]'
        " 3 degrees at noon.</s>"
    ),
    "Mistral v11": (
        '[TOOL_CALLS]get_weather[CALL_ID]call00000[ARGS]{"city": "Oslo \u00e9", "days": 3}'
        "[TOOL_CALLS]get_time[CALL_ID]call00001[ARGS]{}</s>"
        "[TOOL_RESULTS]call00001[TOOL_CONTENT]12:00[/TOOL_RESULTS]"
        '[TOOL_RESULTS]call00000[TOOL_CONTENT]{"degrees": 3}[/TOOL_RESULTS]'
        "3 degrees at noon.</s>"
    ),
}
EXPECTED["Llama 3.2"] = EXPECTED["Llama 3.1"]
EXPECTED["Qwen 3"] = EXPECTED["Qwen 2.5"]


@pytest.mark.parametrize("name", TAUGHT)
def test_a_conversation_with_calls_is_rendered_as_its_model_was_taught(name: str) -> None:
    text = rendered(name, CONVERSATION)
    assert EXPECTED[name] in text
    assert "get_time" in text.replace(EXPECTED[name], "")  # among the tools that are offered
    assert "Be brief." in text


@pytest.mark.parametrize("name", TAUGHT)
def test_calls_that_a_template_wrote_are_read_back(name: str) -> None:
    text = EXPECTED[name]
    for frame in ("<|im_start|>assistant\n", "<|start_header_id|>assistant<|end_header_id|>\n\n"):
        text = text.removeprefix(frame)
    parser = parser_of(TAUGHT[name].kind)
    found = [one for one in parser.push(text) if isinstance(one, ToolCall)]
    expected = [
        ToolCall("get_weather", '{"city":"Oslo \u00e9","days":3}'),
        ToolCall("get_time", "{}"),
    ]
    assert found == expected[: 1 if name.startswith("Llama") else 2]


@pytest.mark.parametrize("name", TAUGHT)
def test_a_conversation_that_ends_with_a_result_is_rendered(name: str) -> None:
    text = rendered(name, CONVERSATION[:5])
    assert text.index("get_weather") < text.rindex("degrees")


@pytest.mark.parametrize("name", TAUGHT)
@settings(deadline=None, max_examples=40)  # the first compiles the template
@given(words=st.lists(hostile, min_size=4, max_size=4))
def test_nothing_called_or_answered_becomes_control(name: str, words: list[str]) -> None:
    tokenizer = with_template(TAUGHT[name].template, clock=lambda: datetime.datetime(2031, 5, 4))

    def said(words: list[str]) -> list[dict[str, Any]]:
        arguments = {words[1]: [words[2]]}
        called = {**CALLED, "tool_calls": [call(words[0] or "f", arguments, "id")]}
        return [ASKED, called, {"role": "tool", "tool_call_id": "id", "content": words[3]}]

    plain = said(["a", "b", "c", "d"])
    assert control(tokenizer, said(words), tools=TOOLS) == control(tokenizer, plain, tools=TOOLS)


@pytest.mark.parametrize("name", ["chatml", "phi", "gemma", "llama 3"])
def test_a_template_that_knows_no_calls_renders_what_else_was_said(name: str) -> None:
    text = with_template(SHIPPED[name]).chat(CONVERSATION, tools=TOOLS)
    assert "None" not in text
    assert '{"degrees": 3}' in text
    assert text.index("Oslo?") < text.index("12:00") < text.index("And Rome?")


def test_a_message_with_a_broken_call_is_named_before_a_template_sees_it() -> None:
    broken = {**CALLED, "tool_calls": [{"name": "f"}]}
    with pytest.raises(UserError, match="tool call 1 of message 2 has no function") as caught:
        with_template(TAUGHT["Llama 3.1"].template).chat([ASKED, broken])
    assert not isinstance(caught.value, ModelError)


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"a": 1}', {"a": 1}),
        (' {"a": {"b": [1.5, "x\ny"]}}\n', {"a": {"b": [1.5, "x\ny"]}}),
        ({"a": 1}, {"a": 1}),
        (None, {}),
        (" ", {}),
        ("[1]", "[1]"),
        ("cut {", "cut {"),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"a": ' + "9" * 5000 + "}", '{"a": ' + "9" * 5000 + "}"),
        ('{"a":' * 10_000, '{"a":' * 10_000),
    ],
    ids=lambda one: str(one)[:20],
)
def test_arguments_become_an_object_where_they_are_one(arguments: object, read: object) -> None:
    (message,) = for_template([{**CALLED, "tool_calls": [call("f", arguments)]}])
    assert message["tool_calls"][0]["function"]["arguments"] == read


def test_what_a_call_need_not_have_is_left_out() -> None:
    given = {**call("f", "{}", None), "index": 0}
    given["function"]["parsed"] = {"a": 1}
    (message,) = for_template([{**CALLED, "tool_calls": [given]}])
    assert message["tool_calls"] == [
        {"type": "function", "function": {"name": "f", "arguments": {}}}
    ]
    assert for_template([{**CALLED, "content": "hi", "tool_calls": []}]) == [
        {"role": "assistant", "content": "hi", "refusal": None}
    ]
    assert for_template([ASKED]) == [ASKED]


def test_ids_for_mistral_are_short_and_pair_results_with_calls() -> None:
    messages = [
        {
            **CALLED,
            "tool_calls": [call("f", "{}", "D681PevKs"), call("g", "{}", "toolu_01ABCDEFG")],
        },
        {"role": "tool", "tool_call_id": "toolu_01ABCDEFG", "content": "1"},
        {"role": "tool", "tool_call_id": "D681PevKs", "content": "2"},
        {**CALLED, "tool_calls": [call("f", "{}", None), call("g", "{}", None)]},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "4"},
    ]
    read = for_template(messages, ToolFormat.MISTRAL)
    calls = [one["id"] for message in read for one in message.get("tool_calls", ())]
    results = [message["tool_call_id"] for message in read if message["role"] == "tool"]
    assert calls == ["D681PevKs", "call00000", "call00001", "call00002"]
    assert results == ["call00000", "D681PevKs", "call00001", "call00002"]


def test_several_calls_of_a_message_for_llama_have_a_message_each() -> None:
    calls = [call("f", "{}", "1"), call("g", "{}", "2"), call("h", "{}", "3")]
    results = [
        {"role": "tool", "tool_call_id": "2", "content": "two"},
        {"role": "tool", "tool_call_id": "9", "content": "nine"},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
    ]
    read = for_template(
        [{**CALLED, "content": "So.", "tool_calls": calls}, *results, ASKED], ToolFormat.LLAMA
    )
    assert [
        message["tool_calls"][0]["function"]["name"]
        if message.get("tool_calls")
        else message["content"]
        for message in read
    ] == ["f", "one", "g", "two", "h", "nine", ASKED["content"]]
    assert [message["content"] for message in read[:5:2]] == ["So.", None, None]


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ("f", "the tool_calls of message 2"),
        ([call("f", "{}")] * (MOST_CALLS + 1), "the tool_calls of message 2"),
        ([call("f", "{}"), 7], "tool call 2 of message 2 has no function"),
        ([{"function": {"arguments": "{}"}}], "tool call 1 of message 2 has no name"),
        ([{**call("f", "{}"), "id": 7}], "the id of tool call 1 of message 2"),
        ([call("f", 7)], "the arguments of tool call 1 of message 2"),
        ([call("f", "x" * (MOST_CALL + 1))], "262145 characters"),
    ],
    ids=lambda one: str(one)[:30],
)
def test_calls_that_are_none_are_refused(calls: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        for_template([ASKED, {"role": "assistant", "content": None, "tool_calls": calls}])


def test_a_message_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="message 2 is none"):
        for_template([ASKED, "hi"], ToolFormat.MISTRAL)
