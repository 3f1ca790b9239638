"""Which way of writing calls a template teaches, by what such templates say."""

import pytest

from p2pnode.text.detokenizer import Detokenizer
from p2pnode.text.tool_calls.formats import ToolFormat, format_of, marks
from p2pnode.text.tool_calls.parser import parser_of
from p2pnode.text.tool_calls.pieces import Text, ToolCall
from p2pnode.text.vocabulary import BYTE_LEVEL
from tests.text.test_template import SHIPPED
from tests.text.tool_calls.taught import TAUGHT


@pytest.mark.parametrize("name", TAUGHT)
def test_a_template_that_teaches_calls_is_known(name: str) -> None:
    assert format_of(TAUGHT[name].template) is TAUGHT[name].kind


@pytest.mark.parametrize("name", [one for one in SHIPPED if one != "qwen"])
def test_a_template_that_teaches_none_is_known(name: str) -> None:
    assert format_of(SHIPPED[name]) is None


@pytest.mark.parametrize(
    "template",
    [
        "",
        # Qwen3-Coder, GLM 4.5, Phi-4-mini, Granite 3, DeepSeek V3, Kimi K2
        "{{ '<tool_call>\\n<function=' ~ call.name ~ '>\\n<parameter=a>\\n' }}",
        "{{ '\\n<tool_call>' + call.name }}<arg_key>{{ k }}</arg_key>",
        "{{ '<|tool_call|>' }}{{ '{\"name\": ' }}{{ '\"parameters\": ' }}",
        "{{ '<|tool_call|>[' ~ calls | tojson }}",
        "{{ '<\uff5ctool\u2581calls\u2581begin\uff5c>' }}",
        "<|tool_calls_section_begin|>",
    ],
)
def test_calls_written_in_another_way_are_not_taken_for_ours(template: str) -> None:
    assert format_of(template) is None


def test_marks_are_those_that_the_parsers_look_for() -> None:
    assert marks(ToolFormat.HERMES) == {"<tool_call>", "</tool_call>"}
    assert marks(ToolFormat.LLAMA) == {"<|python_tag|>"}
    assert marks(ToolFormat.MISTRAL) == {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"}


def test_a_parser_sees_marks_that_are_control_tokens_and_no_others() -> None:
    tokens = ("so", "[TOOL_CALLS]", "f", "[ARGS]", "{}", "</s>")
    detokenizer = Detokenizer(tokens, (1, 3, 1, 3, 1, 3), BYTE_LEVEL, space_prefix=False)
    for shown, expected in (
        (marks(ToolFormat.MISTRAL), [Text("so"), ToolCall("f", "{}")]),
        (frozenset[str](), [Text("so"), Text("f"), Text("{}")]),
    ):
        decoder, parser = detokenizer.decoder(marks=shown), parser_of(ToolFormat.MISTRAL)
        found = [one for token in range(len(tokens)) for one in parser.push(decoder.push(token))]
        assert [*found, *parser.finish()] == expected
