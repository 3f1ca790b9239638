"""What ``up`` does for the process that is a node."""

import gc
from collections.abc import Iterator
from typing import Any, cast

import pytest

from p2pnode.interfaces.cli.node_commands import _settled


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """Leave the garbage collector as it was."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_came_with_an_engine_is_out_of_the_collectors_way() -> None:
    engine = cast(Any, object())
    weights = [object() for _ in range(1000)]
    assert any(each is weights for each in gc.get_objects())
    assert _settled(engine) is engine
    assert not any(each is weights for each in gc.get_objects())
    assert gc.get_freeze_count() > 0
