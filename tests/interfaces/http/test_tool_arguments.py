"""Arguments of calls, as APIs have them that want an object."""

import pytest

from p2pnode.interfaces.http.tool_arguments import arguments_of


@pytest.mark.parametrize(
    "text", [r'{"a":"\ud800"}', '{"a":1e999}', f'{{"a":{"9" * 5000}}}', "[1]", "no JSON"]
)
def test_arguments_that_cannot_be_written_again_stay_text(text: str) -> None:
    assert arguments_of({"arguments": text}) == {"arguments": text}


def test_arguments_are_an_object() -> None:
    assert arguments_of({"arguments": ""}) == {}
    assert arguments_of({"arguments": r'{"a":"\ud83d\ude00"}'}) == {"a": "\U0001f600"}
