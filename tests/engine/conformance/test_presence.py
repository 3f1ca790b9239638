"""Which engines the suite ran for."""

from pathlib import Path

import pytest

from tests.engine.conformance.engines import ENGINES, EngineCase, why_absent


@pytest.mark.parametrize("case", ENGINES, ids=lambda case: case.name)
def test_the_suite_runs_for(case: EngineCase) -> None:
    if reason := why_absent(case):
        pytest.skip(reason)


def test_those_that_make_test_has_not_are_run_by_make_test_engines() -> None:
    makefile = (Path(__file__).parents[3] / "Makefile").read_text().splitlines()
    (command,) = [line for line in makefile if "tests/engine/conformance" in line]
    heavy = [case.name for case in ENGINES if case.name not in ("numpy", "ggml")]
    assert command.endswith(f'-k "{" or ".join(heavy)}"')
