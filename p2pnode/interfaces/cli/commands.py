"""The command and its subcommands, each imported only when called."""

import importlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import Any

import click
from click.shell_completion import CompletionItem

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.completions import COMPLETING
from p2pnode.interfaces.cli.failures import close_output, tell, tell_of_thread
from p2pnode.interfaces.cli.groups import PlainGroup
from p2pnode.interfaces.config.applied import apply_file, prepare, told_of_parameter
from p2pnode.node.places import CONFIG_VARIABLE

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "up": (
            "node_commands:up",
            "Start a node: join the swarm, hold layers, serve until Ctrl-C.",
        ),
        "join": ("node_commands:join", "Join the swarm of an invite code, and start a node in it."),
        "stop": ("node_commands:stop", "Stop the node that runs on this machine."),
        "service": (
            "service_commands:service",
            "Have the system start a node, and keep it running.",
        ),
        "invite": (
            "look_commands:invite",
            "Print a code that lets another machine join this swarm.",
        ),
        "peers": (
            "look_commands:peers",
            "List every peer: what it holds, and why it does no work.",
        ),
        "top": ("look_commands:top", "Watch peers and traffic live, in a terminal UI."),
        "generate": ("ask_commands:generate", "Answer a prompt, streaming the text as it comes."),
        "chat": ("ask_commands:chat", "Talk with the model; Ctrl-D ends the conversation."),
        "serve": (
            "serve_command:serve",
            "Serve the node's HTTP API: OpenAI's, Anthropic's and Ollama's.",
        ),
        "embed": ("embed_command:embed", "Turn texts into vectors, by which alike ones are found."),
        "models": ("model_commands:models", "Fetch and list models."),
        "demo": ("demo_command:demo", "Let three nodes on this machine answer a prompt together."),
        "doctor": (
            "doctor_command:doctor",
            "Find out what is wrong here, and what to do about it.",
        ),
        "config": (
            "config_commands:config",
            "Show the settings that are kept, and where each comes from.",
        ),
        "completion": (
            "completion_commands:completion",
            "Let the Tab key complete commands, options, models and peers.",
        ),
        "simulate": (
            "simulate_command:simulate",
            "Answer in a swarm of whole nodes on a virtual network.",
        ),
        "frame": ("frame_commands:frame", "Take V-Frames apart, and put them together."),
        "bench": (
            "bench_commands:bench",
            "Measure this machine: every figure of the documentation.",
        ),
    }
)
"""Where each command is, and its line in the help: so that help needs to import none of them."""


class _LazyGroup(PlainGroup):
    """Imports a subcommand when it is asked for: ``p2pnode frame`` needs no neural network."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:
        return [(name, summary) for name, (_, summary) in COMMANDS.items()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        where, _ = COMMANDS[cmd_name]
        module, name = where.split(":")
        found = getattr(importlib.import_module(f"p2pnode.interfaces.cli.{module}"), name)
        if not isinstance(found, click.Command):
            raise TypeError(f"{where} is no command")
        if cmd_name not in self._prepared:
            self._prepared.add(cmd_name)
            prepare(cmd_name, found)
        return found

    @cached_property
    def _prepared(self) -> set[str]:
        """The commands whose options can be set by file and environment."""
        return set()

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        with _kept_from_click():
            return super().make_context(info_name, args, parent, **extra)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Name commands from the table: click would import each to see whether it is hidden."""
        names = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        words = given[: given.index("--")] if "--" in given else given
        ctx.meta[_IS_JSON] = "--json" in words
        ctx.meta[_IS_HELP] = bool({"-h", "--help"} & set(words))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- as click has it
        with _kept_from_click():
            try:
                return super().invoke(ctx)
            except click.BadParameter as error:
                raise told_of_parameter(error) from error
            except click.NoSuchOption as error:
                if error.option_name != "--config":
                    raise
                words = f"p2pnode --config FILE {ctx.invoked_subcommand}"
                raise UsageError("--config stands before the command", hint=words) from error


class _ReaderGoneError(Exception):
    """Carries a broken pipe past click, which would exit with status 1 and not say why."""


@contextmanager
def _kept_from_click() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderGoneError from error


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with:  p2pnode demo    (three nodes on this machine answer together)",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, wanted: _show_version(context, wanted=wanted),
    help="Show the version, and those of the protocol, and exit.",
)
@click.option("--json", "as_json", is_flag=True, hidden=True)  # of --version, which ends first
@click.option(
    "--config",
    metavar="FILE",
    envvar=CONFIG_VARIABLE,
    help="Settings to go by.  [default: config.toml where p2pnode config path says]",
)
@click.pass_context
def cli(context: click.Context, config: str | None, as_json: bool) -> None:
    """Let ordinary machines run language models together, peer to peer."""
    if as_json:
        raise click.UsageError("--json goes behind the command, or with --version", context)
    apply_file(context, config, COMMANDS, is_help=context.meta[_IS_HELP])


def _show_version(context: click.Context, *, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from p2pnode.interfaces.cli.versions import say_version

    say_version(as_json=context.meta[_IS_JSON])
    context.exit()


def run() -> int:
    """Run the command line and return its exit status.

    Whatever ends a command is one line on standard error, never a traceback. 2: it was called in a
    way that cannot work; 1: it could not be done; 70: the fault is ours; 130: Ctrl-C.
    """
    threading.excepthook = tell_of_thread
    status: object
    try:
        status = cli(prog_name="p2pnode", standalone_mode=False)
    except click.exceptions.Abort:
        status = _INTERRUPTED
    except _ReaderGoneError as carrier:
        status = tell(carrier.__cause__ or carrier)
    except Exception as error:
        # Where a shell completes, an error would be printed into the line that is typed.
        status = 1 if COMPLETING in os.environ else tell(error)
    return close_output(status if isinstance(status, int) else 0)


_INTERRUPTED = 130
_IS_HELP = "p2pnode.help"
_IS_JSON = "p2pnode.json"
