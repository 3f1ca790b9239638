"""Which model a name means."""

from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UnknownModelError
from p2pnode.node.model_names import LEAST_DIGITS, ModelName, labels, meant

ROOTS = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.text(min_size=1, max_size=12)
MODELS = st.lists(
    st.builds(ModelName, NAMES, ROOTS), min_size=1, max_size=8, unique_by=lambda one: one.root
)

A = ModelName("tiny", "aa" * 32, ("smol", "/models/tiny.gguf"))
B = ModelName("Tiny", "aa" * 31 + "bb")
C = ModelName("other", "cc" * 32, ("tiny",))


def test_a_name_alone_is_its_label() -> None:
    assert labels([A, C]) == ("tiny", "other")
    assert labels([]) == ()


def test_two_of_one_name_are_told_apart_by_their_roots() -> None:
    assert labels([A, B, C]) == (f"tiny@{A.root[:63]}", f"Tiny@{B.root[:63]}", "other")
    other = ModelName("tiny", "bb" * 32)
    assert labels([A, other]) == ("tiny@aaaaaaaa", "tiny@bbbbbbbb")


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        ("", 0),
        ("tiny", 0),
        ("TINY", 0),
        ("tiny:latest", 0),
        ("smol", 0),
        ("/models/tiny.gguf", 0),
        ("other", 1),
        ("other@cccccccc", 1),
        ("OTHER@CCCCCCCCCC:latest", 1),
    ],
)
def test_a_name_finds_its_model(asked: str, number: int) -> None:
    assert meant(asked, [A, C]) == number


@pytest.mark.parametrize("asked", ["nope", "tiny@bbbbbbbb", "tiny@aaaaaaa", "@aaaaaaaa", "@"])
def test_a_name_that_means_none_names_those_that_there_are(asked: str) -> None:
    with pytest.raises(UnknownModelError, match="there is: tiny, other"):
        meant(asked, [A, C])


def test_a_name_that_means_several_names_them() -> None:
    other = ModelName("tiny", "bb" * 32)
    with pytest.raises(UnknownModelError, match="could be tiny@aaaaaaaa or tiny@bbbbbbbb"):
        meant("tiny", [A, other, C])
    assert meant("tiny@bbbbbbbb", [A, other, C]) == 1


def test_without_models_nothing_is_meant() -> None:
    for asked in ("", "tiny"):
        with pytest.raises(UnknownModelError, match="no model"):
            meant(asked, [])


@given(MODELS)
def test_each_label_means_its_model(models: Sequence[ModelName]) -> None:
    shown = labels(models)
    taken = [one.name.casefold() for one in models]
    for number, label in enumerate(shown):
        if label.casefold() not in taken or label == models[number].name:
            assert meant(label, models) == number


@given(MODELS, st.text(max_size=80))
def test_any_name_means_a_model_or_is_refused(models: Sequence[ModelName], asked: str) -> None:
    with suppress(UnknownModelError):
        assert meant(asked, models) in range(len(models))


@given(ROOTS, ROOTS, NAMES)
def test_labels_have_as_many_digits_as_tell_them_apart(one: str, two: str, name: str) -> None:
    first, second = labels([ModelName(name, one), ModelName(name, two)])
    if one != two:
        assert first != second
        assert len(first.rpartition("@")[2]) >= LEAST_DIGITS
