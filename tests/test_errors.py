"""The tree of errors, and groups of them."""

from p2pnode.errors import UserError, first_in


def test_the_first_error_of_a_kind_is_found_anywhere_in_a_group() -> None:
    inner = BaseExceptionGroup("inner", [KeyError("x"), UserError("first")])
    group = BaseExceptionGroup("outer", [ValueError("y"), inner, UserError("second")])
    assert str(first_in(group, UserError)) == "first"
    assert isinstance(first_in(group, LookupError), KeyError)
    assert first_in(group, KeyboardInterrupt) is None
