"""The command that turns texts into vectors."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli.node_options import (
    FreshNodeOption,
    UpOptions,
    json_option,
    state_option,
)
from p2pnode.interfaces.cli.output import note, say, say_json
from p2pnode.interfaces.cli.own_node import some_node
from p2pnode.interfaces.cli.settings import pulled
from p2pnode.phrases import plural

if TYPE_CHECKING:
    from p2pnode.node.catalogue import KnownModel

_MODEL: Final = "minilm"
_AT_ONCE: Final = 32  # texts in a request to the swarm: vectors of any model fit its answer


@click.command(
    epilog='Examples:\n\n  p2pnode embed "The sky is blue"\n\n  p2pnode embed - --json < lines.txt'
)
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option(
    "--model",
    default=_MODEL,
    show_default=True,
    metavar="NAME",
    help="What reads them: a model made for it, or the one that the swarm serves.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=60.0,
    show_default=True,
    help="Seconds to wait for missing layers of the swarm's model.",
)
@click.option("--peer", cls=FreshNodeOption, multiple=True, metavar="HOST:PORT")
@state_option
@json_option
def embed(
    texts: tuple[str, ...],
    model: str,
    wait: float,
    peer: tuple[str, ...],
    state: Path | None,
    as_json: bool,
) -> None:
    """Turn each TEXT (or each line of standard input, for -) into a vector of length 1.

    Two texts are the more alike the larger the product of their vectors is. One line a text.
    """
    from p2pnode.node.embedding import embedder_called

    said, known = _read(texts), embedder_called(model)
    if known is not None:
        facts = _by_embedder(known, said)
    else:
        facts = _by_swarm(_fresh(model, state, peer), said, wait, quiet=as_json)
    if as_json:
        say_json(facts)
        return
    for vector in facts["embeddings"]:
        say(" ".join(map(str, vector)))
    _summarise(facts)


def _by_embedder(known: "KnownModel", texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the facts of ``texts``, computed in this process."""
    from p2pnode.engine.blas import limit_blas_threads
    from p2pnode.node.embedder import MOST_TEXTS, Embedder, joined
    from p2pnode.node.embedding import facts_of
    from p2pnode.node.model_cache import is_missing

    if is_missing(known.name):
        pulled(known.name)
    limit_blas_threads(1)
    embedder = Embedder.open(known)
    groups = (texts[first : first + MOST_TEXTS] for first in range(0, len(texts), MOST_TEXTS))
    made = joined([embedder.embed(group) for group in groups], embedder.dimensions)
    return facts_of(known.name, made)


def _by_swarm(
    options: UpOptions, texts: tuple[str, ...], wait: float, *, quiet: bool
) -> dict[str, Any]:
    """Return the facts of ``texts``, computed by the swarm of a running node, or a fresh one."""
    facts: dict[str, Any] = {}
    with some_node(options, quiet=quiet) as host, host.client() as client:
        for first in range(0, len(texts), _AT_ONCE):
            group = list(texts[first : first + _AT_ONCE])
            name = "" if host.is_fresh else options.model[0]  # a path may be given for a fresh one
            more = client.call("embed", {"model": name, "texts": group, "wait": wait})
            for key in ("embeddings", "tokens", "tokens_each", "truncated"):
                more[key] = facts[key] + more[key] if facts else more[key]
            facts = more
    return facts


def _fresh(model: str, state: Path | None, peer: tuple[str, ...]) -> UpOptions:
    """Return the options of the node to start where none runs."""
    return UpOptions(
        state=state,
        model=(model,),
        layers="auto",
        max_layers=None,
        listen="::",
        port=0,
        peer=peer,
        name=None,
        kv_memory=512,
        mdns=True,
    )


def _read(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return what was given, or the lines of standard input.

    Raises:
        UserError: It is no text, or there is none.
    """
    try:
        if texts == ("-",):
            texts = tuple(sys.stdin.buffer.read().decode("utf-8-sig").splitlines())
        for text in texts:
            text.encode()
    except UnicodeError as error:
        raise UserError(
            "a text is not in UTF-8", hint="convert it first, e.g. with iconv"
        ) from error
    if not texts:
        raise UsageError("there is no text", hint='for instance p2pnode embed "Hello"')
    return texts


def _summarise(facts: dict[str, Any]) -> None:
    texts, cut = facts["tokens_each"], sum(facts["truncated"])
    line = f"{plural(len(texts), 'text')}, {plural(facts['tokens'], 'token')}"
    note(f"{line}, {facts['dimensions']} numbers each, by {facts['model']}")
    if cut:
        most = max(texts)
        note(f"of {plural(cut, 'text')} only the first {most} tokens were read: the rest is not in")
