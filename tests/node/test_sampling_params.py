"""What a face may say of sampling, and what is refused in words."""

from typing import Any

import pytest

from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import UserError
from p2pnode.node.handlers import _without_prompt
from p2pnode.node.sampling_params import sampling_of


def test_everything_is_read() -> None:
    params = {
        "temperature": 0.5,
        "top_k": 40,
        "top_p": 0.9,
        "seed": 3,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "penalty_last_n": 32,
    }
    assert sampling_of(params) == Sampling(0.5, 40, 0.9, 3, 0.1, 1.1, 1, -1, 32)
    assert sampling_of({}) == Sampling()


@pytest.mark.parametrize(
    "params",
    [
        {"min_p": 2},
        {"min_p": "much"},
        {"min_p": None},
        {"presence_penalty": float("nan")},
        {"repetition_penalty": 0},
        {"penalty_last_n": float("inf")},
        {"penalty_last_n": []},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_words(params: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        _without_prompt(params)
