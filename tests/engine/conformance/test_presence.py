"""Which engines the suite ran for."""

import pytest

from tests.engine.conformance.engines import ENGINES, EngineCase, why_absent


@pytest.mark.parametrize("case", ENGINES, ids=lambda case: case.name)
def test_the_suite_runs_for(case: EngineCase) -> None:
    if reason := why_absent(case):
        pytest.skip(reason)
