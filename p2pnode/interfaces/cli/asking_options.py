"""The options of a command that asks: how an answer is made, and where it is asked for."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.completions import complete_model, complete_peer
from p2pnode.interfaces.cli.node_options import (
    DEFAULT_MODEL,
    FreshNodeOption,
    activations_option,
    state_option,
)
from p2pnode.interfaces.cli.sampling_options import sampling_options, sampling_params
from p2pnode.interfaces.cli.values import StopString, SystemPrompt
from p2pnode.text.stops import LONGEST_STOP, MOST_STOPS, checked_stops

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_FRESH_WAIT: Final = 60.0  # seconds a fresh node may need to meet the others and load
_WAIT: Final = 20.0  # seconds for a swarm that is there already: one of its nodes may be loading


def asking_options(command: CommandT) -> CommandT:
    """Give ``command`` all options of one that asks."""
    options = (
        click.option(
            "--system",
            type=SystemPrompt(),
            metavar="TEXT|@FILE",
            help="What the model is told before all else.",
        ),
        click.option(
            "--model",
            default=DEFAULT_MODEL,
            show_default="the node's first; where none runs, " + DEFAULT_MODEL,
            metavar="NAME[@ROOT]",
            shell_complete=complete_model,
            help="Which of the node's models is asked; where none runs, what a fresh node has.",
        ),
        click.option("--peer", cls=FreshNodeOption, multiple=True, metavar="HOST:PORT"),
        click.option("--listen", cls=FreshNodeOption, default="::", show_default=True),
        state_option,
    )
    for option in reversed(options):
        command = option(command)
    return answer_options(command)


def answer_options(command: CommandT) -> CommandT:
    """Give ``command`` the options that :func:`asked_params` reads: how an answer is made."""
    options = (
        click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True),
        click.option(
            "--stop",
            type=StopString(),
            multiple=True,
            callback=_checked_stops,
            help=f"End the answer before this text; up to {MOST_STOPS} of them, each up to "
            f"{LONGEST_STOP} characters.",
        ),
        _peer_option("--prefer", "Use this peer if possible."),
        _peer_option("--avoid", "Spare this peer if possible."),
        click.option(
            "--wait",
            type=click.FloatRange(0, 3600),
            help="Seconds to wait for missing layers, before an answer and in the middle of it.  "
            "[default: 20 before it and 30 in the middle, 60 where a node is started for it]",
        ),
        activations_option("How this answer travels between peers; else as the node is set.", None),
    )
    for option in reversed(options):
        command = option(command)
    return sampling_options(command)


def _peer_option(flag: str, purpose: str) -> Callable[[CommandT], CommandT]:
    return click.option(
        flag, multiple=True, metavar="PEER", help=purpose, shell_complete=complete_peer
    )


def asked_params(chosen: Mapping[str, Any], *, is_fresh: bool, model: str = "") -> dict[str, Any]:
    """Return what was chosen, as a node takes it; ``is_fresh`` is one started for this command.

    ``model`` is asked; empty for the node's first.
    """
    usual = _FRESH_WAIT if is_fresh else _WAIT
    return {
        "max_tokens": chosen["max_tokens"],
        **sampling_params(chosen),
        "stop": list(chosen["stop"]),
        "prefer": list(chosen["prefer"]),
        "avoid": list(chosen["avoid"]),
        "activations": chosen["activations"],
        "wait": usual if chosen["wait"] is None else chosen["wait"],
        "lost_wait": chosen["wait"],
        **({"model": model} if model else {}),
    }


def _checked_stops(
    context: click.Context, parameter: click.Parameter, stops: tuple[str, ...]
) -> tuple[str, ...]:
    try:
        return checked_stops(stops)
    except UserError as error:
        raise click.BadParameter(f"{error} ({error.hint})") from error
