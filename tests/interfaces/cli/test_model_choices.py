"""Several models of a node, and which layers of each, as a person writes it."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.model_choices import MOST_MODELS, ModelWord, Wanted, wanted
from p2pnode.node.own_models import MOST_MODELS as MOST_OF_A_NODE


def test_a_model_alone_takes_the_layers_that_are_asked_for() -> None:
    assert wanted(("a",), "auto", None) == (Wanted("a"),)
    assert wanted(("a",), "none", None) == (Wanted("a"),)
    assert wanted(("a",), "0:10", None) == (Wanted("a", range(10)),)
    assert wanted(("none",), "auto", None) == ()


def test_each_of_several_may_have_its_layers_pinned() -> None:
    assert wanted(("a", "b=0:10"), "auto", 5) == (Wanted("a"), Wanted("b", range(10)))
    assert wanted(("hf:o/r=3:4", "a=b.gguf"), "auto", None) == (
        Wanted("hf:o/r", range(3, 4)),
        Wanted("a=b.gguf"),
    )


def test_what_is_given_twice_is_one() -> None:
    assert wanted(("a", "a"), "auto", None) == (Wanted("a"),)


@pytest.mark.parametrize(
    ("models", "layers", "most", "problem", "hint"),
    [
        (("a", "b"), "0:10", None, "does not say of which of 2 models", "--model a=0:10"),
        (("a=0:1",), "0:10", None, "--layers 0:10 and --model a=0:1 both", "leave one"),
        (("a=0:1",), "none", None, "--layers none and --model a=0:1 both", "leave one"),
        (("a=0:1",), "auto", 4, "no model whose layers are not pinned", "leave it out"),
        (("a=0:1", "a=1:2"), "auto", None, "a was given with different layers", "once"),
        (("a", "a=1:2"), "auto", None, "a was given with different layers", "once"),
        (("a=2:2",), "auto", None, "not a model with a run of layers", "NAME=0:10"),
        (("a=",), "auto", None, "not a model with a run of layers", "NAME=0:10"),
        (("=0:1",), "auto", None, "not a model with a run of layers", "NAME=0:10"),
        (("none", "a"), "auto", None, "goes with no other model", "leave one"),
        (("none",), "0:10", None, "has no layers to hold", "leave one"),
        (("none=0:10",), "auto", None, "has no layers to hold", "leave one"),
        (("a",), "0:10", 4, "--max-layers goes with --layers auto", "leave one"),
        (tuple("abcdefghi"), "auto", None, "9 models are more than the 8", ""),
    ],
)
def test_what_contradicts_itself_is_refused(
    models: tuple[str, ...], layers: str, most: int | None, problem: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        wanted(models, layers, most)
    assert hint in caught.value.hint


def test_as_many_are_taken_as_a_node_takes() -> None:
    assert MOST_MODELS == MOST_OF_A_NODE


@given(st.lists(st.text(max_size=20), max_size=10), st.text(max_size=8))
def test_any_words_are_read_or_refused(models: list[str], layers: str) -> None:
    try:
        found = wanted(models, layers, None) if models else ()
    except UsageError:
        return
    assert len(found) <= MOST_MODELS


def test_a_variable_has_several_names_or_one_path(tmp_path: Path) -> None:
    spaced = tmp_path / "my models.gguf"
    spaced.touch()
    split = ModelWord().split_envvar_value
    assert list(split("a b=0:1")) == ["a", "b=0:1"]
    assert list(split(str(spaced))) == [str(spaced)]
