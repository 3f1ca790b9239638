"""How an ``x-open`` says what is to be drawn, and what the drawing depends on.

Temperature, top-k, top-p and seed travel as ``sampling``, which every stage reads. All else travels
as ``draw``. A stage that is older than that would pass over it and draw otherwise, so its layers
end where nobody's do: that stage refuses, for it does not hold them. What a later revision adds
to ``draw`` this one refuses by name.
"""

import base64
import binascii
from typing import Final

from p2pnode.engine.sampling.options import (
    MOST_ENDS,
    MOST_PAST,
    MOST_TOP_K,
    MOST_TOP_LOGPROBS,
    Sampling,
)
from p2pnode.engine.sampling.past import Past
from p2pnode.engine.sampling.schema_text import MOST_SCHEMA
from p2pnode.errors import ConfigError, RemoteProtocolError
from p2pnode.inference.fields import Fields, whole_number
from p2pnode.terminal import label
from p2pnode.values import value

NOBODYS_LAYER: Final = (1 << 16) - 1
"""Where the layers of an order with ``draw`` end, for stages that do not know the key."""

_ID_BYTES: Final = 3  # of a token's id: vocabularies have some 260,000 at the most
_SHOWN = 60  # letters of a key that nobody knows


@value
class Draw:
    """How to draw.

    Attributes:
        sampling: Of the answer.
        past: The tokens so far, where the sampling depends on them.
        unknown: A key that this node does not know; "" where it knows all.
    """

    sampling: Sampling
    past: Past | None = None
    unknown: str = ""


def plain_body(sampling: Sampling) -> dict[str, object]:
    """Return what every stage can read."""
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }


def plain_untrusted(fields: Fields) -> Sampling:
    """Read what :func:`plain_body` wrote."""
    try:
        return Sampling(
            temperature=fields.real("temperature"),
            top_k=fields.number("top_k", MOST_TOP_K + 1),
            top_p=fields.real("top_p"),
            seed=fields.number("seed", 1 << 64),
        )
    except ConfigError as error:
        raise RemoteProtocolError(f"impossible sampling: {error}") from error


def draw_body(draw: Draw, end: int) -> dict[str, object]:
    """Return all of it; ``end`` is the layer after the last."""
    sampling = draw.sampling
    body = plain_body(sampling) | {
        "end": end,
        "min_p": sampling.min_p,
        "repetition": sampling.repetition_penalty,
        "presence": sampling.presence_penalty,
        "frequency": sampling.frequency_penalty,
        "last_n": sampling.penalty_last_n,
    }
    if sampling.logprobs is not None:
        body["logprobs"] = sampling.logprobs
    if sampling.schema:
        body |= {"schema": sampling.schema, "ends": list(sampling.ends)}
    if sampling.mean:
        body["mean"] = True
    if draw.past is not None:
        packed = b"".join(token.to_bytes(_ID_BYTES, "little") for token in draw.past.tokens)
        body |= {"begins": draw.past.begins, "past": base64.b64encode(packed).decode()}
    return body


_KEYS: Final = frozenset(
    {
        *("temperature", "top_k", "top_p", "seed", "end", "min_p", "repetition", "presence"),
        *("frequency", "last_n", "logprobs", "schema", "ends", "mean", "begins", "past"),
    }
)


def draw_untrusted(fields: Fields, sample_from: int) -> tuple[int, Draw]:
    """Read what :func:`draw_body` wrote, for tokens from position ``sample_from`` on.

    Raises:
        RemoteProtocolError: It is no way to draw.
    """
    end = fields.number("end", NOBODYS_LAYER)
    unknown = [key for key in fields.names() if key not in _KEYS]
    if unknown:
        return end, Draw(Sampling(), None, label(unknown[0][:_SHOWN]) or "a key without a name")
    try:
        sampling = Sampling(
            temperature=fields.real("temperature"),
            top_k=fields.number("top_k", MOST_TOP_K + 1),
            top_p=fields.real("top_p"),
            seed=fields.number("seed", 1 << 64),
            min_p=fields.real("min_p"),
            repetition_penalty=fields.real("repetition"),
            presence_penalty=fields.real("presence"),
            frequency_penalty=fields.real("frequency"),
            penalty_last_n=fields.number("last_n", MOST_PAST + 1),
            logprobs=fields.optional_number("logprobs", MOST_TOP_LOGPROBS + 1),
            schema=_schema_untrusted(fields),
            ends=_ends_untrusted(fields),
            mean=_mean_untrusted(fields),
        )
    except ConfigError as error:
        raise RemoteProtocolError(f"impossible sampling: {error}") from error
    if "past" not in fields:
        return end, Draw(sampling)
    return end, Draw(sampling, _past_untrusted(fields, sample_from))


def _schema_untrusted(fields: Fields) -> str:
    schema = fields.value("schema") if "schema" in fields else ""
    if not isinstance(schema, str) or len(schema) > MOST_SCHEMA:
        raise RemoteProtocolError("the schema is no text, or too long")
    return schema


def _ends_untrusted(fields: Fields) -> tuple[int, ...]:
    ends = fields.value("ends") if "ends" in fields else []
    if not isinstance(ends, list) or len(ends) > MOST_ENDS:
        raise RemoteProtocolError("the ends are no short list")
    return tuple(whole_number(end, "ends", 1 << 8 * _ID_BYTES) for end in ends)


def _mean_untrusted(fields: Fields) -> bool:
    mean = fields.value("mean") if "mean" in fields else False
    if not isinstance(mean, bool):
        raise RemoteProtocolError("mean is neither true nor false")
    return mean


def _past_untrusted(fields: Fields, sample_from: int) -> Past:
    begins, text = fields.number("begins", sample_from + 1), fields.value("past")
    if not isinstance(text, str) or len(text) > MOST_PAST * 4 * _ID_BYTES // 3:
        raise RemoteProtocolError("the past is no text, or too long")
    try:
        packed = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise RemoteProtocolError("the past is not base64") from error
    count, rest = divmod(len(packed), _ID_BYTES)
    if rest or count > sample_from:
        raise RemoteProtocolError("the past has a part of a token, or more than there are")
    tokens = tuple(
        int.from_bytes(packed[at : at + _ID_BYTES], "little")
        for at in range(0, len(packed), _ID_BYTES)
    )
    return Past(begins, sample_from, tokens)
