"""Words of strangers reach a terminal whole, and steer nothing there."""

import json
import unicodedata

import pytest
from hypothesis import given, strategies as st

from p2pnode.terminal import label, shown, to_json

any_text = st.text(st.characters(), max_size=30) | st.text(
    st.sampled_from("a\x1b[2J\x9b\x7f\x85\r\n\t\u00a0\u202e\u2066\u2028\ud800\u200d\u00ad"),
    max_size=30,
)
KEPT = "\u00a0\u3000\u200c\u200d\u00ad\ufeff\u2028\u0301\u2067\u202e\U0001f468\U000e0001"


def test_only_control_characters_are_dropped() -> None:
    assert shown(f"a{KEPT}b") == f"a{KEPT}b"
    assert shown("a\x1b[31mb\r\n\tc\x07\x7f\x9b\x85d") == "a[31mb\n\tcd"
    assert shown("a\ud83db") == "a\ufffdb"


@given(any_text)
def test_what_is_shown_steers_nothing_and_can_be_written(text: str) -> None:
    result = shown(text)
    assert all(unicodedata.category(one) != "Cc" or one in "\n\t" for one in result)
    result.encode("utf-8")
    kept = [one for one in text if unicodedata.category(one) not in ("Cc", "Cs")]
    assert [one for one in result if one not in "\n\t\ufffd"] == [o for o in kept if o != "\ufffd"]


@given(any_text)
def test_a_label_is_one_line_that_turns_nothing(text: str) -> None:
    result = label(text)
    assert len(result.splitlines()) <= 1
    assert all(unicodedata.category(one) != "Cc" for one in result)
    assert not any(one in result for one in "\u202a\u202e\u2066\u2069\u2028\t")
    assert label(result) == result


def test_a_label_keeps_words_apart() -> None:
    assert label("attic\r\nb\x1b[2J\u202ec") == "attic b[2Jc"


@pytest.mark.parametrize("indent", [None, 2])
@given(value=st.dictionaries(any_text, any_text, max_size=3))
def test_json_says_the_same_and_steers_nothing(value: dict[str, str], indent: int | None) -> None:
    written = to_json(value, indent=indent)
    assert json.loads(written) == json.loads(json.dumps(value))
    assert all(unicodedata.category(one) not in ("Cc", "Cs") or one == "\n" for one in written)
    assert "\u202e" not in written


def test_json_keeps_letters_as_they_are() -> None:
    assert to_json({"a": "é\u00a0漢\u200d"}) == '{"a": "é\u00a0漢\u200d"}'
    assert to_json("\x7f\x9b\u202e\ud800") == '"\\u007f\\u009b\\u202e\\ud800"'
