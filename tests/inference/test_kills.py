"""A stage is lost at every token and boundary: no token changes, and no bit that is sent.

Below and above 512 positions, where ggml's attention takes other paths; with 1 and 2 threads,
before the loss and after it; alone and beside others; with ggml and numpy. Two models, and being
alone or beside others, take turns here. Two threads are slow where others compute, so they compute
one stage. :mod:`tests.engines.test_kills` runs it all.
"""

import pytest

from tests.inference.kills import K_TYPE, MODELS, STAGES, TOKENS, Loss, Machine, check

PROMPTS = ("below 512", "across 512", "above 512")
NUMPY, ONE, TWO = Machine("numpy"), Machine(), Machine(threads=2)
MACHINES = pytest.mark.parametrize("machine", [NUMPY, ONE], ids=["numpy", "ggml"])
GROUPED, PLAIN = MODELS


@pytest.mark.parametrize("token", range(TOKENS - 1))  # after the last, nothing is repaired
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("prompt", PROMPTS[:2])
@MACHINES
def test_a_kill_at_any_token_and_boundary_changes_no_bit(
    machine: Machine, prompt: str, stage: str, token: int
) -> None:
    model = PLAIN if token % 2 else GROUPED
    check(model, machine, prompt, Loss(stage, token), beside=token % 3 == 2)


@pytest.mark.parametrize(("stage", "token"), [("first", 1), ("middle", 3), ("last", 0)])
@MACHINES
def test_a_kill_beyond_512_positions_changes_no_bit(
    machine: Machine, stage: str, token: int
) -> None:
    check(GROUPED, machine, "above 512", Loss(stage, token), beside=stage == "last")


@pytest.mark.parametrize("batch", [1, 5, 9])
@pytest.mark.parametrize("stage", STAGES)
@MACHINES
def test_a_kill_while_the_prompt_is_on_its_way_changes_no_bit(
    machine: Machine, stage: str, batch: int
) -> None:
    model = PLAIN if batch == 5 else GROUPED
    check(model, machine, "above 512", Loss(stage, batch=batch), beside=batch == 1)


@pytest.mark.parametrize(
    ("model", "prompt", "stage"),
    [
        (GROUPED, "below 512", "middle"),
        (GROUPED, "across 512", "first"),
        (PLAIN, "across 512", "middle"),
    ],
)
@pytest.mark.parametrize(("lost", "found", "token"), [(ONE, TWO, 0), (TWO, ONE, 4)])
def test_a_successor_with_other_threads_changes_no_bit(
    lost: Machine, found: Machine, token: int, model: str, prompt: str, stage: str
) -> None:
    check(model, ONE, prompt, Loss(stage, token, lost=lost, found=found))


@pytest.mark.parametrize(
    ("stage", "token", "found", "beside"),
    [("first", 0, ONE, True), ("middle", 3, TWO, False), ("middle", 1, ONE, True)],
)
@pytest.mark.parametrize("prompt", PROMPTS[:2])
def test_a_kill_changes_no_bit_where_products_depend_on_the_rows_beside(
    prompt: str, stage: str, token: int, found: Machine, beside: bool
) -> None:
    check(K_TYPE, ONE, prompt, Loss(stage, token, found=found), beside=beside)
