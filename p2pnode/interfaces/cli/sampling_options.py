"""The options of ``generate`` and ``chat`` that say how tokens are drawn."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from p2pnode.engine.sampling.options import MOST_PAST, MOST_TOP_LOGPROBS
from p2pnode.interfaces.cli.values import NumberRange, Schema

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_NAMES = (
    *("temperature", "top_k", "top_p", "min_p", "seed", "repetition_penalty", "penalty_last_n"),
    *("presence_penalty", "frequency_penalty", "logprobs", "schema", "json_mode"),
)


_NEAREST = (
    *(ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT),
    *(ParameterSource.DEFAULT_MAP, ParameterSource.DEFAULT),
)
"""Where values come from; what stands before beats what stands behind."""


def sampling_options(command: CommandT) -> CommandT:
    """Give ``command`` the options that :func:`sampling_params` reads."""
    options = (*_draws(), *_penalties(), *_forms())
    for option in reversed(options):
        command = option(command)
    return command


def _draws() -> tuple[Callable[[Any], Any], ...]:
    return (
        click.option(
            "--temperature",
            type=NumberRange(0, 100),
            default=0.0,
            show_default=True,
            help="0 is greedy.",
        ),
        click.option(
            "--top-k", type=click.IntRange(0), default=0, help="Draw among the k likeliest; 0: all."
        ),
        click.option(
            "--top-p",
            type=NumberRange(0, 1, min_open=True),
            default=1.0,
            help="Draw among this share; 1: all.",
        ),
        click.option(
            "--min-p",
            type=NumberRange(0, 1),
            default=0.0,
            help="Draw among those at least so likely as this share of the likeliest; 0: all.",
        ),
        click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True),
    )


def _penalties() -> tuple[Callable[[Any], Any], ...]:
    penalty = NumberRange(-2, 2)
    return (
        click.option(
            "--repetition-penalty",
            type=NumberRange(0.1, 10),
            default=1.0,
            help="Above 1 discourages recent tokens of prompt and answer; 1.1 is usual.",
        ),
        click.option(
            "--penalty-last-n",
            type=click.IntRange(1, MOST_PAST),
            default=64,
            show_default=True,
            help="How many tokens back --repetition-penalty looks.",
        ),
        click.option(
            "--presence-penalty",
            type=penalty,
            default=0.0,
            help="Taken off the logit of each token that the answer has.",
        ),
        click.option(
            "--frequency-penalty",
            type=penalty,
            default=0.0,
            help="Taken off it for each time that the answer has it.",
        ),
    )


def _forms() -> tuple[Callable[[Any], Any], ...]:
    """What is shown of an answer, and what it must look like."""
    return (
        click.option(
            "--logprobs",
            type=click.IntRange(0, MOST_TOP_LOGPROBS),
            help="Show how likely each token was, and so many of the likeliest.",
        ),
        click.option(
            "--schema",
            "--json-schema",
            "schema",
            type=Schema(),
            metavar="FILE|JSON",
            callback=_alone,
            help="The answer is JSON that follows this JSON schema.",
        ),
        click.option(
            "--json-mode",
            is_flag=True,
            callback=_alone,
            help="The answer is a JSON object; not with --schema.",
        ),
    )


def _alone(context: click.Context, parameter: click.Parameter, value: Any) -> Any:  # noqa: ANN401 -- as click has it
    """Refuse ``--schema`` with ``--json-mode``: of two forms, one would be ignored.

    One that was given beats another that the environment or a file has, without a word.
    """
    other = "json_mode" if parameter.name == "schema" else "schema"
    if not value or not context.params.get(other):  # of what was said, the second finds the first
        return value
    ours = context.get_parameter_source(str(parameter.name))
    theirs = context.get_parameter_source(other)
    if ours not in _NEAREST or theirs not in _NEAREST or ours is theirs:
        raise click.UsageError(
            "--schema and --json-mode do not go together: say in the schema what JSON is wanted"
        )
    if _NEAREST.index(theirs) < _NEAREST.index(ours):  # the other was said closer to the call
        return None if parameter.name == "schema" else False
    context.params[other] = None if other == "schema" else False
    return value


def sampling_params(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was chosen, as a node takes it."""
    return {name: chosen[name] for name in _NAMES}
