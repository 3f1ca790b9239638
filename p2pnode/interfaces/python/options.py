"""The options of a node in a program: keyword arguments, read by the code that reads ``up``'s."""

from collections.abc import Iterator, Mapping, Sequence

import click

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.node_options import UpOptions, node_options


def up_options(given: Mapping[str, object]) -> UpOptions:
    """Return what was said about a node, with the defaults of ``p2pnode up``; None is not said.

    Raises:
        UsageError: A value is out of range, or none that the option takes.
    """
    try:
        with _COMMAND.make_context("p2pnode.Node", list(_words(given))) as context:
            return UpOptions(**context.params)
    except click.UsageError as error:
        option = error.param.name if isinstance(error, click.BadParameter) and error.param else None
        known = "" if option is None else f"{option}: "
        raise UsageError(f"{known}{error.message}", hint="p2pnode up --help says more") from error


@click.command()
@node_options
def _command() -> None:
    """Take the options of ``up``; never invoked."""


_COMMAND: click.Command = _command


def _words(given: Mapping[str, object]) -> Iterator[str]:
    """Yield the words by which a command line would say the same."""
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if isinstance(value, bool):
            yield option if value else f"--no-{option[2:]}"
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield from (f"{option}={one}" for one in value)
        else:
            yield f"{option}={value}"
