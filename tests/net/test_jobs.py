"""What comes of a job."""

import pytest

from p2pnode.net.jobs import Failed, Finished, outcome_of


def test_an_outcome_gives_back_what_was_returned_or_raised() -> None:
    assert outcome_of(lambda: 6 * 7) == Finished(42)
    assert outcome_of(lambda: 6 * 7).unwrap() == 42
    failed = outcome_of(lambda: 1 / 0)
    assert isinstance(failed, Failed)
    with pytest.raises(ZeroDivisionError):
        failed.unwrap()
