"""The whole product of :mod:`tests.inference.test_kills`: nothing takes turns with anything."""

import pytest

from tests.inference.kills import MODELS, PROMPTS, STAGES, TOKENS, Loss, Machine, check

NUMPY, ONE, TWO = Machine("numpy"), Machine(), Machine(threads=2)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("machine", [NUMPY, ONE], ids=["numpy", "ggml"])
def test_a_kill_anywhere_changes_no_bit(
    machine: Machine, model: str, prompt: str, stage: str, beside: bool
) -> None:
    for token in range(TOKENS - 1):
        check(model, machine, prompt, Loss(stage, token), beside=beside)
    if prompt != "below 512":
        for batch in range(1, 9):
            check(model, machine, prompt, Loss(stage, batch=batch), beside=beside)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("lost", "found"), [(ONE, TWO), (TWO, ONE)])
def test_no_number_of_threads_changes_a_bit(
    lost: Machine, found: Machine, model: str, prompt: str, stage: str
) -> None:
    for token in (0, TOKENS - 2):  # two threads are slow where others compute
        check(model, ONE, prompt, Loss(stage, token, lost=lost, found=found))
