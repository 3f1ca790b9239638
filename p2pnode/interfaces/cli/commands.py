"""The command and its subcommands, each imported only when called."""

import importlib
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

import click

from p2pnode import __version__
from p2pnode.errors import UserError
from p2pnode.interfaces.cli.output import complain

_COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "up": "node_commands:up",
        "join": "node_commands:join",
        "stop": "node_commands:stop",
        "invite": "look_commands:invite",
        "peers": "look_commands:peers",
        "top": "look_commands:top",
        "generate": "ask_commands:generate",
        "chat": "ask_commands:chat",
        "models": "model_commands:models",
        "demo": "demo_command:demo",
        "doctor": "doctor_command:doctor",
        "simulate": "simulate_command:simulate",
        "frame": "frame_commands:frame",
        "bench": "bench_commands:bench",
    }
)


class _LazyGroup(click.Group):
    """Imports a subcommand when it is asked for: ``p2pnode frame`` needs no neural network."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, name = where.split(":")
        found = getattr(importlib.import_module(f"p2pnode.interfaces.cli.{module}"), name)
        if not isinstance(found, click.Command):
            raise TypeError(f"{where} is no command")
        return found


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with:  p2pnode demo    (three nodes on this machine answer a prompt together)",
)
@click.version_option(__version__, prog_name="p2pnode")
def cli() -> None:
    """Let ordinary machines run language models together, peer to peer."""


def run() -> int:
    """Run the command line and return its exit status.

    A user's mistake is one line and exit status 1, never a traceback.
    """
    try:
        code = cli(standalone_mode=False)
    except UserError as error:
        return complain(error)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone, as in "p2pnode peers | head -1": not our failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0
