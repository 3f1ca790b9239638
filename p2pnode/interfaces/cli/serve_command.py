"""The HTTP API beside a running node."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import click

from p2pnode.interfaces.cli.http_options import HttpOptions, http_options, listening
from p2pnode.interfaces.cli.node_options import json_option, state_option
from p2pnode.interfaces.cli.output import note, say, say_json
from p2pnode.interfaces.cli.settings import state_of

DEFAULT_HTTP = "8080"


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
@http_options
@state_option
@json_option
@click.option("--with-parent", is_flag=True, hidden=True, help="Stop when standard input closes.")
@click.option("--fd", type=int, hidden=True, help="A socket that listens, from our parent.")
def serve(
    where: str,
    state: Path | None,
    as_json: bool,
    with_parent: bool,
    fd: int | None,
    **chosen: Any,
) -> None:
    """Serve the HTTP API of the running node: OpenAI's, Anthropic's and Ollama's.

    It is a process of its own: the node lives on whatever becomes of it, and it waits for a node
    that is not there.
    """
    from p2pnode.interfaces.http.app import make_app
    from p2pnode.interfaces.http.listening import Where
    from p2pnode.interfaces.http.node_link import NodeLink
    from p2pnode.interfaces.http.server import HttpServer, run
    from p2pnode.net.control_lines import find_control_path

    options = HttpOptions.taken_from(chosen)
    listener = listening(where, options) if fd is None else socket.socket(fileno=fd)
    place, directory = Where(*listener.getsockname()[:2]), state_of(state)
    link = NodeLink(find_control_path(directory))
    server = HttpServer(make_app(link, options.access(place)), listener, tls=options.tls())
    url = options.url(listener)

    def ready() -> None:
        if with_parent:
            return  # the parent has told where
        if as_json:
            say_json({"url": url, "host": place.host, "port": place.port, "state": str(directory)})
            return
        say(f"{url} answers for the node of {directory}")
        for line in options.reaching(listener):
            note(line)
        note(f"for programs that speak OpenAI's API: {url}/v1; Ctrl-C ends it")

    run(server, ready, with_parent=with_parent)
