"""Options of a node, and those of them that several commands share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from p2pnode.interfaces.cli.care_options import Care, care_options
from p2pnode.interfaces.cli.completions import complete_model
from p2pnode.interfaces.cli.model_choices import ModelWord
from p2pnode.interfaces.cli.values import HomePath
from p2pnode.interfaces.config.settings import OneOrSeveral

if TYPE_CHECKING:
    from p2pnode.node.quiet_hours import QuietHours

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

ENGINES = ("auto", "ggml", "numpy", "torch", "jax")
"""As the engines' registry has them, which takes long to import; a test holds the two together."""

DEFAULT_PORT = 4747
DEFAULT_KV = 512
"""MiB; where less than twice that may be taken in all, half of it."""

_MOST_WORD = 200  # letters of a word that nodes agree on
_SHOWN = 60  # letters of what was typed

DEFAULT_MODEL = "smollm2-135m"

ACTIVATION_COSTS: Mapping[str, str] = MappingProxyType(
    {
        "f32": "the very tokens of one machine",
        "f16": "half the bytes; the same tokens of the numpy engine, and of ggml, which rounds to "
        "int8, one in 23 is another",
        "i8": "less than half the bytes, and one token in 160 is another",
        "q4": "a quarter of the bytes, and one token in 27 is another",
        "auto": "f16, and coarser only where a link is too slow for it, by an estimated 0.04 nats "
        "a token at most",
    }
)
"""What each coding costs with the default model, as ``bench codec`` measures it in docs/figures.md.
The guides use the same words."""

state_option = click.option(
    "--state",
    type=HomePath(path_type=Path, file_okay=False),
    help="The node's state directory.  [default: $P2PNODE_HOME or the usual place]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")


class FreshNodeOption(click.Option):
    """An option for the node that a command starts where none runs; one that runs ignores it."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **{**attributes, "help": "For a fresh node."})


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What a person said about the node to start."""

    state: Path | None
    model: tuple[str, ...]
    layers: str
    max_layers: int | None
    listen: str
    port: int
    peer: tuple[str, ...]
    name: str | None
    kv_memory: int
    mdns: bool
    activations: str = "f32"
    batching: str = "on"
    reuse: str = "own"
    engine: str = "auto"
    device: str = "auto"
    threads: int | None = None
    max_memory: int | None = None
    max_vram: int | None = None
    nice: int | None = None
    when: str = "always"
    quiet_hours: "tuple[QuietHours, ...]" = ()

    @property
    def care(self) -> Care:
        """What the node may have of the machine."""
        return Care(self.max_memory, self.max_vram, self.nice, self.when, self.quiet_hours)


def activations_option(purpose: str, default: str | None = "f32") -> Callable[[CommandT], CommandT]:
    """Return the option that says how stages send each other hidden states."""
    costs = ". ".join(f"{name}: {cost}" for name, cost in ACTIVATION_COSTS.items())
    return click.option(
        "--activations",
        type=click.Choice(tuple(ACTIVATION_COSTS)),
        default=default,
        show_default=default is not None,
        help=f"{purpose} {costs}.",
    )


def kv_memory_option(purpose: str) -> Callable[[CommandT], CommandT]:
    """Return the option for KV memory, which refuses more than the machine has."""
    return click.option(
        "--kv-memory",
        type=click.IntRange(1),
        callback=_within_memory,
        default=DEFAULT_KV,
        show_default=True,
        help=purpose,
    )


def engine_options() -> tuple[Callable[[Any], Any], ...]:
    """Return the options that say what computes."""
    return (
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            default="auto",
            show_default=True,
            help="What computes; auto takes ggml wherever a library of it loads.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            metavar="auto|cpu|cuda:0|vulkan:0|metal",
            help="Where; a GPU holds as many of the layers as fit, the CPU the others.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, 1024),
            help="Of the CPU.  [default: what is measured to be fastest, once]",
        ),
    )


def _within_memory(context: click.Context, parameter: click.Parameter, mebibytes: int) -> int:
    if context.get_parameter_source("kv_memory") is ParameterSource.DEFAULT:
        return mebibytes
    from p2pnode.node.free_memory import total_memory

    total = total_memory() >> 20
    if mebibytes > total:
        shown = f"{mebibytes}" if mebibytes < 10**12 else "that many"
        raise click.BadParameter(f"{shown} MiB is more than this machine has: {total} MiB")
    return mebibytes


def _reuse(context: click.Context, parameter: click.Parameter, said: str) -> str:
    word = said.removeprefix("with:")
    if said in ("own", "off") or (word != said and 0 < len(word) <= _MOST_WORD):
        return said
    raise click.BadParameter(f"{said[:_SHOWN]!r} is none of own, off and with:WORD")


def node_options(command: CommandT) -> CommandT:
    """Add the options of ``up`` to a command."""
    options = (
        click.option(
            "--model",
            cls=OneOrSeveral,
            type=ModelWord(),
            multiple=True,
            default=(DEFAULT_MODEL,),
            show_default=True,
            metavar="NAME[=A:B]|PATH|hf:OWNER/REPO|none",
            shell_complete=complete_model,
            help="Name, GGUF file, folder of a checkpoint or its id of the hub, or none; may be "
            "repeated, and =A:B pins the layers to hold of it.",
        ),
        click.option(
            "--layers",
            default="auto",
            show_default=True,
            metavar="auto|A:B|none",
            help="Layers to hold: what the swarm needs, A up to but not B, or none.",
        ),
        click.option("--max-layers", type=click.IntRange(1), help="Most layers to hold with auto."),
        click.option("--listen", default="::", show_default=True, help="Address to bind."),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=DEFAULT_PORT,
            show_default=True,
            help="UDP port to bind; 0 for any free one.",
        ),
        click.option(
            "--peer",
            multiple=True,
            metavar="HOST:PORT",
            help="A member to call; may be repeated.",
        ),
        click.option(
            "--name",
            help="What to call this node.  [default: the host's name; a second one's, with a 2]",
        ),
        kv_memory_option("MiB of memory for KV caches."),
        activations_option("How the answers that you ask for here travel between peers."),
        *engine_options(),
        *_engine_use_options(),
        *care_options(),
        click.option("--mdns/--no-mdns", default=True, help="Look for peers on the local network."),
        state_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _engine_use_options() -> tuple[Callable[[CommandT], CommandT], ...]:
    """Return the options of how sessions share an engine, and what it computed before."""
    return (
        click.option(
            "--batching",
            type=click.Choice(("on", "off")),
            default="on",
            show_default=True,
            help="Compute tokens of several answers together; off is for measurements.",
        ),
        click.option(
            "--reuse",
            default="own",
            show_default=True,
            metavar="own|off|with:WORD",
            callback=_reuse,
            help="Begin answers with what was computed before: for this node, never, or also for"
            " nodes that were told the same WORD, who can then tell what others asked.",
        ),
    )
