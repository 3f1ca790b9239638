"""The HTTP API beside a running node."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.output import note, say, say_json
from p2pnode.interfaces.cli.settings import json_option, state_of, state_option
from p2pnode.interfaces.cli.values import HomePath

if TYPE_CHECKING:
    import ssl

    from p2pnode.interfaces.http.access import Access
    from p2pnode.interfaces.http.listening import Where

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

DEFAULT_HTTP = "8080"
KEY_VARIABLE = "P2PNODE_HTTP_KEY"


def access_options(command: CommandT) -> CommandT:
    """Add the options that say who may ask."""
    options = (
        click.option(
            "--key-file",
            type=HomePath(path_type=Path, dir_okay=False),
            help="Clients must know the key in this file; it is made where there is none.  "
            f"[else: ${KEY_VARIABLE}]",
        ),
        click.option(
            "--allow-host",
            multiple=True,
            metavar="NAME",
            help="A name that requests may be for, besides this machine's own and addresses.",
        ),
        click.option(
            "--cors", multiple=True, metavar="ORIGIN", help="A site whose pages may ask; * for any."
        ),
        click.option(
            "--tls-cert",
            type=HomePath(path_type=Path),
            help="Speak TLS, with this certificate (PEM).",
        ),
        click.option("--tls-key", type=HomePath(path_type=Path), help="Its private key (PEM)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    epilog="Examples:\n\n  p2pnode serve\n\n  p2pnode serve --http 0.0.0.0:8080 --key-file ~/key"
    "\n\n  curl http://127.0.0.1:8080/v1/models"
)
@click.option(
    "--http",
    "where",
    default=DEFAULT_HTTP,
    show_default=True,
    metavar="[HOST:]PORT",
    help="Where to listen; without a host, for this machine alone.",
)
@access_options
@state_option
@json_option
@click.option("--with-parent", is_flag=True, hidden=True, help="Stop when standard input closes.")
def serve(where: str, state: Path | None, as_json: bool, with_parent: bool, **chosen: Any) -> None:
    """Serve the HTTP API of the running node: OpenAI's, Anthropic's and Ollama's.

    It is a process of its own: the node lives on whatever becomes of it, and it waits for a node
    that is not there.
    """
    from p2pnode.interfaces.http.app import make_app
    from p2pnode.interfaces.http.asking import NodeLink
    from p2pnode.interfaces.http.listening import listen, parse_where
    from p2pnode.interfaces.http.server import HttpServer, run
    from p2pnode.net.control_lines import find_control_path

    place = parse_where(where)
    access, tls = _access(place, **chosen), _tls(chosen["tls_cert"], chosen["tls_key"])
    listener = listen(place.host, place.port)
    host, port = listener.getsockname()[:2]
    directory = state_of(state)
    app = make_app(NodeLink(find_control_path(directory)), access)
    server = HttpServer(app, listener, tls=tls)

    def ready() -> None:
        scheme = "https" if tls else "http"
        shown = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{shown}:{port}"
        if as_json:
            say_json({"url": url, "host": host, "port": port, "state": str(directory)})
            return
        say(f"{url} answers for the node of {directory}")
        note(f"for programs that speak OpenAI's API: {url}/v1; Ctrl-C ends it")

    run(server, ready, with_parent=with_parent)


def _access(
    place: Where,
    *,
    key_file: Path | None,
    allow_host: tuple[str, ...],
    cors: tuple[str, ...],
    **_: Any,
) -> Access:
    """Return who may ask.

    Raises:
        UserError: The key cannot be read, or others than this machine might ask without one.
    """
    from p2pnode.interfaces.http.access import Access
    from p2pnode.interfaces.http.key_file import key_of
    from p2pnode.net.addresses import is_loopback

    key = key_of(key_file) if key_file is not None else os.environ.get(KEY_VARIABLE, "")
    is_local = place.host == "localhost" or is_loopback((place.host, place.port))
    if not key and not is_local:
        raise UsageError(
            f"others than this machine could ask at {place}, so a key is needed",
            hint="--key-file FILE makes one; or listen on this machine alone: --http 8080",
        )
    return Access(key, allow_host, cors)


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    from p2pnode.interfaces.http.tls import tls_context

    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key go together", hint="name both files")
    if certificate is None or key is None:
        return None
    return tls_context(certificate, key)
