"""Commands about model files."""

import click

from p2pnode.interfaces.cli.output import progress, say, say_json, table
from p2pnode.interfaces.cli.settings import json_option
from p2pnode.node import models as store


@click.group(epilog="Example:\n\n  p2pnode models pull smollm2-135m")
def models() -> None:
    """Fetch and list models."""


@models.command(epilog="Example:\n\n  p2pnode models pull smollm2-135m")
@click.argument("name", default="smollm2-135m")
@json_option
def pull(name: str, as_json: bool) -> None:
    """Fetch a known model into the cache and check it; a second time does nothing."""
    before = {one.name for one in store.installed()}
    with progress(f"pulling {name}", show=not as_json and name not in before) as bar:
        path = store.pull(name, bar)
    if as_json:
        say_json({"name": name, "path": str(path), "bytes": path.stat().st_size})
    else:
        say(f"{name} is at {path}")


@models.command(name="list", epilog="Example:\n\n  p2pnode models list --json")
@json_option
def list_models(as_json: bool) -> None:
    """List the models known and those in the cache."""
    installed = {one.name: one for one in store.installed()}
    rows = [
        {
            "name": name,
            "installed": name in installed,
            "path": str(installed[name].path) if name in installed else None,
        }
        for name in sorted({*store.KNOWN_MODELS, *installed})
    ]
    if as_json:
        say_json({"models": rows})
        return
    cells = [
        (str(row["name"]), str(row["path"] or "not here: p2pnode models pull")) for row in rows
    ]
    say(table(("MODEL", "FILE"), cells))
