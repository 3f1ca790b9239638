"""The command that turns texts into vectors."""

import sys
from typing import Any, Final

import click

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli.output import note, say, say_json
from p2pnode.interfaces.cli.settings import json_option, pulled
from p2pnode.phrases import plural

_MODEL: Final = "minilm"


@click.command(
    epilog='Examples:\n\n  p2pnode embed "The sky is blue"\n\n  p2pnode embed - --json < lines.txt'
)
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--model", default=_MODEL, show_default=True, metavar="NAME", help="What reads them.")
@json_option
def embed(texts: tuple[str, ...], model: str, as_json: bool) -> None:
    """Turn each TEXT (or each line of standard input, for -) into a vector of length 1.

    Two texts are the more alike the larger the product of their vectors is. One line a text.
    """
    facts = _by_embedder(model, _read(texts))
    if as_json:
        say_json(facts)
        return
    for vector in facts["embeddings"]:
        say(" ".join(map(str, vector)))
    _summarise(facts)


def _by_embedder(name: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the facts of ``texts``, computed in this process."""
    from p2pnode.engine.blas import limit_blas_threads
    from p2pnode.node.embedder import MOST_TEXTS, Embedder, joined
    from p2pnode.node.embedding import embedder_called, facts_of, no_embedder
    from p2pnode.node.model_cache import is_missing

    known = embedder_called(name)
    if known is None:
        raise no_embedder(name)
    if is_missing(known.name):
        pulled(known.name)
    limit_blas_threads(1)
    embedder = Embedder.open(known)
    groups = (texts[first : first + MOST_TEXTS] for first in range(0, len(texts), MOST_TEXTS))
    made = joined([embedder.embed(group) for group in groups], embedder.dimensions)
    return facts_of(known.name, made)


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
