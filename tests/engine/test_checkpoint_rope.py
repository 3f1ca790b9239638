"""Numbers of a checkpoint's rotary embedding that would make answers of NaN are refused."""

from typing import Any

import pytest

from p2pnode.engine.checkpoint_config import read_checkpoint_config
from p2pnode.errors import ModelError
from tests.engine.published_configs import PUBLISHED, small
from tests.engine.small_checkpoint import LLAMA

SENSELESS: tuple[Any, ...] = (
    0,
    0.0,
    -1,
    -2.5,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e-30,
    1e30,
    10**400,
    True,
    "2",
    [2.0],
    [],
    {},
)
KINDS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 2},
    "yarn": {
        "factor": 2,
        "beta_fast": 32,
        "beta_slow": 1,
        "attention_factor": 1.1,
        "original_max_position_embeddings": 32,
    },
    "llama3": {
        "factor": 2,
        "low_freq_factor": 1,
        "high_freq_factor": 4,
        "original_max_position_embeddings": 32,
    },
    "longrope": {
        "short_factor": [1.0, 2.0],
        "long_factor": [1.5, 2.0],
        "factor": 2,
        "original_max_position_embeddings": 32,
    },
}
NUMBERS = [
    (kind, key) for kind, said in KINDS.items() for key in said if not isinstance(said[key], list)
]
PHI3 = small(PUBLISHED["Phi-4-mini-instruct"])


def read(key: str = "rope_scaling", **said: Any) -> None:
    read_checkpoint_config({**LLAMA, key: said}, "tiny")


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_with_sense_are_taken(kind: str, key: str) -> None:
    read(key, type=kind, **KINDS[kind])
    read(key, rope_type=kind, **KINDS[kind], rope_theta=10_000.0)


@pytest.mark.parametrize("value", SENSELESS, ids=lambda value: str(value)[:9])
@pytest.mark.parametrize(("kind", "key"), NUMBERS)
def test_a_number_without_sense_is_refused(kind: str, key: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"the rotary embedding by {key} =") as caught:
        read(type=kind, **{**KINDS[kind], key: value})
    assert len(str(caught.value)) < 200
    with pytest.raises(ModelError, match="the rotary embedding by rope_theta ="):
        read("rope_parameters", type=kind, **KINDS[kind], rope_theta=value)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("linear", "factor"),
        ("yarn", "factor"),
        *(("llama3", key) for key in ("factor", "low_freq_factor", "high_freq_factor")),
        *(("longrope", key) for key in ("short_factor", "long_factor")),
    ],
)
def test_a_number_that_is_missing_is_named(kind: str, key: str) -> None:
    for said in (
        {name: value for name, value in KINDS[kind].items() if name != key},
        {**KINDS[kind], key: None},
    ):
        with pytest.raises(ModelError, match=f"as {kind}, without {key}"):
            read(type=kind, **said)


def test_frequencies_between_equal_bounds_are_refused() -> None:
    for low in (4, 5):
        with pytest.raises(ModelError, match="by high_freq_factor = 4"):
            read(type="llama3", **{**KINDS["llama3"], "low_freq_factor": low})


@pytest.mark.parametrize("key", ["short_factor", "long_factor"])
def test_each_pair_that_turns_has_one_divisor(key: str) -> None:
    rope = PHI3["rope_scaling"]
    pairs = len(rope[key])
    assert pairs == 6  # three quarters of a head of 16
    read_checkpoint_config(PHI3, "tiny")
    wrongs: list[Any] = [[1.0] * size for size in (0, pairs - 1, pairs + 1, 9999)]
    for wrong in [*wrongs, 1.0, "1", {}]:
        with pytest.raises(ModelError, match=f"{key} of .*each of the 6 pairs"):
            read_checkpoint_config(PHI3 | {"rope_scaling": rope | {key: wrong}}, "tiny")
    for place in (0, pairs - 1):
        for value in SENSELESS:
            divisors = [*rope[key]]
            divisors[place] = value
            with pytest.raises(ModelError, match=f"the rotary embedding by {key} ="):
                read_checkpoint_config(PHI3 | {"rope_scaling": rope | {key: divisors}}, "tiny")


@pytest.mark.parametrize(
    "key",
    [
        "rope_theta",
        "rope_local_base_freq",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "query_pre_attn_scalar",
        "sliding_window",
        "sliding_window_pattern",
    ],
)
def test_what_transformers_would_divide_by_is_refused(key: str) -> None:
    for value in (0, 0.0, -1, 10**400, True, "2", [2.0]):
        with pytest.raises(ModelError, match=key):
            read_checkpoint_config(PHI3 | {key: value}, "tiny")


@pytest.mark.parametrize("kind", ["linear", "llama3", "dynamic", "default "])
def test_a_phi3_is_stretched_as_transformers_stretches_one(kind: str) -> None:
    with pytest.raises(ModelError, match="scaled as"):
        read_checkpoint_config(PHI3 | {"rope_scaling": {"type": kind, "factor": 2}}, "tiny")


@pytest.mark.parametrize("old", ["su", "yarn"])
def test_the_old_names_of_longrope_are_read_as_that(old: str) -> None:
    said = read_checkpoint_config(
        PHI3 | {"rope_scaling": PHI3["rope_scaling"] | {"type": old}}, "tiny"
    )
    assert said.settings == read_checkpoint_config(PHI3, "tiny").settings
    assert said.config == read_checkpoint_config(PHI3, "tiny").config


def test_a_stretch_for_each_type_of_layer_is_gemmas_alone() -> None:
    with pytest.raises(ModelError, match="by the type of a layer"):
        read("rope_parameters", full_attention={"type": "linear", "factor": 2})


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_what_nobody_reads_may_be_a_flag(kind: str) -> None:
    read(rope_type=kind, **KINDS[kind], finetuned=True)
