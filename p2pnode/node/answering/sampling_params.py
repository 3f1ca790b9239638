"""The parameters of a question that say how its tokens are drawn."""

import json
from collections.abc import Mapping
from typing import Any

from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.schema_text import ANY_OBJECT, compact_schema


def sampling_of(params: Mapping[str, Any]) -> Sampling:
    """Return how to draw; what is not there is as :class:`Sampling` has it.

    Raises:
        ConfigError: A value is out of range.
        TypeError: A value is of another kind.
        ValueError: Likewise.
        OverflowError: A number is beyond all range.
        RecursionError: A schema is nested too deep.
    """
    return Sampling(
        temperature=float(params.get("temperature", 0.0)),
        top_k=int(params.get("top_k", 0)),
        top_p=float(params.get("top_p", 1.0)),
        seed=int(params.get("seed", 0)),
        min_p=float(params.get("min_p", 0.0)),
        repetition_penalty=float(params.get("repetition_penalty", 1.0)),
        presence_penalty=float(params.get("presence_penalty", 0.0)),
        frequency_penalty=float(params.get("frequency_penalty", 0.0)),
        penalty_last_n=int(params.get("penalty_last_n", 64)),
        logprobs=None if (asked := params.get("logprobs")) is None else int(asked),
        schema=_schema(params),
    )


def _schema(params: Mapping[str, Any]) -> str:
    """Return the schema's text: given as that, as an object, or as ``json_mode`` for any object."""
    schema = params.get("schema")
    if schema is None:
        return ANY_OBJECT if params.get("json_mode") else ""
    return compact_schema(schema if isinstance(schema, str) else json.dumps(schema))
