"""What was said: asked, taken back, kept in files, and files that have something else."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.interfaces.chat.conversation import Conversation, Turn, conversation_of
from p2pnode.interfaces.chat.line_history import LONGEST, MOST_ENTRIES, LineHistory
from p2pnode.interfaces.chat.saved import load, save
from p2pnode.interfaces.chat.talk import Talk

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "user"]), inner, max_size=3
        )
    ),
    max_leaves=10,
)
TURNS = st.lists(
    st.builds(Turn, st.text(max_size=9), st.text(max_size=9), st.booleans()), max_size=4
)


def talk(*questions: str) -> Talk:
    made = Talk(Conversation("Be brief."))
    for question in questions:
        made.answered(Turn(question, question.upper()))
    return made


def test_a_question_is_asked_after_all_that_was_said() -> None:
    said = [(one["role"], one["content"]) for one in talk("a").now.asking("b")]
    assert said == [("system", "Be brief."), ("user", "a"), ("assistant", "A"), ("user", "b")]


def test_the_oldest_turns_leave_and_the_system_prompt_stays() -> None:
    made = talk("a", "b")
    made.answered(Turn("c", "C"), left_out=2)
    assert [turn.question for turn in made.now.turns] == ["b", "c"]
    assert made.now.system == "Be brief."


def test_retry_asks_again_in_place_of_the_answer() -> None:
    made = talk("a", "b")
    assert (made.retried(), made.tries) == ("b", 1)
    assert [turn.question for turn in made.now.turns] == ["a"]
    made.answered(Turn("b", "other"))
    assert (made.retried(), made.tries) == ("b", 2)
    with pytest.raises(UserError, match="nothing was asked"):
        Talk(Conversation()).retried()


def test_a_question_of_which_nothing_came_can_be_asked_again() -> None:
    made = talk("a")
    made.failed("b")
    assert (made.retried(), made.tries) == ("b", 0)
    assert [turn.question for turn in made.now.turns] == ["a"]


def test_undo_goes_back_a_step_at_a_time() -> None:
    made = talk("a", "b")
    made.change(Conversation("Be brief."))
    assert made.undo() is None
    assert made.undo() == Turn("b", "B")
    assert made.undo() == Turn("a", "A")
    with pytest.raises(UserError, match="nothing to take back"):
        made.undo()


@given(st.text(max_size=9), TURNS)
def test_what_is_kept_is_read_back(system: str, turns: list[Turn]) -> None:
    kept = Conversation(system, tuple(turns))
    assert conversation_of(kept.to_json()) == kept


@given(st.text(max_size=40) | JSON.map(json.dumps))
def test_a_file_has_a_conversation_or_is_refused(text: str) -> None:
    try:
        found: Conversation | str = conversation_of(text)
    except UserError as error:
        found = str(error)
    assert found or isinstance(found, Conversation)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "assistant", "content": "x"}], "message 1 is of assistant"),
        ([{"role": "user", "content": "x"}], "has no answer"),
        ([{"role": "tool", "content": "x"}], "neither system"),
        ([{"role": "user", "content": 3}], "no content"),
        ([{"role": "user", "content": "\ud800"}], "halves"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(messages: list[object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        conversation_of(json.dumps({"messages": messages}))


def test_a_file_is_private_and_never_overwritten_unasked(tmp_path: Path) -> None:
    file, first = tmp_path / "a b.json", talk("a").now
    assert save(first, str(file)) == file
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UserError, match="is there already"):
        save(talk("b").now, str(file))
    assert load(str(file)) == first
    save(talk("b").now, f"--replace {file}")
    assert load(str(file)) == talk("b").now


def test_what_is_no_file_of_ours_is_refused_in_a_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("none", ".", "pipe", "bytes"):
        with pytest.raises(UserError):
            load(str(tmp_path / name))
    with pytest.raises(UserError, match="cannot write"):
        save(Conversation(), str(tmp_path / "no" / "where"))


def test_the_history_is_private_bounded_and_newest_first(tmp_path: Path) -> None:
    path = tmp_path / "history"
    history = LineHistory(path, str.upper)
    for line in ("one", "two\nlines", "x" * (LONGEST + 1), " "):
        history.append_string(line)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(LineHistory(path, str).load_history_strings()) == ["TWO\nLINES", "ONE"]
    path.write_bytes(b'nonsense\n3\n"half' + b'\n"a"' * (MOST_ENTRIES + 5) + b"\xff\n")
    assert len(list(LineHistory(path, str).load_history_strings())) == MOST_ENTRIES // 2
    assert path.read_text().count("\n") == MOST_ENTRIES // 2


def test_a_history_that_cannot_be_kept_is_no_reason_to_stop(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in (".", "pipe", "no/where", "link"):
        history = LineHistory(tmp_path / name, str)
        history.append_string("said")
        assert list(history.load_history_strings()) == []
    assert not (tmp_path / "target").exists()
