"""Commands about model files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.groups import PlainGroup
from p2pnode.interfaces.cli.output import note, progress, say, say_json, table
from p2pnode.interfaces.cli.settings import DEFAULT_MODEL, json_option, model_file
from p2pnode.interfaces.cli.values import HomePath
from p2pnode.node import model_cache as cache
from p2pnode.node.catalogue import KNOWN_MODELS

TEXT_PER_TOKEN: Final = 64
"""Characters read of a text for each position of the context: what goes beyond is not measured,
and nobody can interrupt a tokenizer. Ordinary text has 2 to 5; long runs of spaces have more."""


@click.group(cls=PlainGroup, epilog="Example:\n\n  p2pnode models pull smollm2-135m")
def models() -> None:
    """Fetch and list models."""


@models.command(epilog="Example:\n\n  p2pnode models pull smollm2-135m")
@click.argument("name", default="smollm2-135m")
@json_option
def pull(name: str, as_json: bool) -> None:
    """Fetch a known model into the cache and check it; a second time does nothing."""
    is_shown = not as_json and cache.is_missing(name)
    with progress(f"pulling {name}", show=is_shown) as bar:
        path = cache.pull(name, bar, tell=note)
    if as_json:
        say_json({"name": name, "path": str(path), "bytes": path.stat().st_size})
    else:
        say(f"{name} is at {path}")


@models.command(name="list", epilog="Example:\n\n  p2pnode models list --json")
@json_option
def list_models(as_json: bool) -> None:
    """List the models known and those in the cache."""
    installed = cache.installed()
    missing = sorted({*KNOWN_MODELS} - {one.name for one in installed})
    rows = [
        {"name": one.name, "installed": True, "path": str(one.path), "problem": one.problem or None}
        for one in installed
    ] + [{"name": name, "installed": False, "path": None, "problem": None} for name in missing]
    rows.sort(key=lambda row: str(row["name"]))
    if as_json:
        say_json({"models": rows})
        return
    say(table(("MODEL", "FILE"), [(str(row["name"]), _whereabouts(row)) for row in rows]))


@models.command(
    epilog="Example:\n\n  p2pnode models calibrate smollm2-135m\n\n"
    "Both ends of a link must hold the same calibration to use it: give your peers the file."
)
@click.argument("model", default=DEFAULT_MODEL)
@click.option(
    "--text",
    type=HomePath(path_type=Path, exists=True, dir_okay=False),
    help="Measure on this text file, as far as the model's context reaches.",
)
@click.option(
    "--output",
    type=HomePath(path_type=Path, dir_okay=False),
    help="Write here, not in the cache.",
)
@json_option
def calibrate(model: str, text: Path | None, output: Path | None, as_json: bool) -> None:
    """Measure a model's hidden states, so that they can be sent in fewer bytes."""
    from p2pnode.engine.registry import load_engine
    from p2pnode.engine.state_calibration import (
        calibrate_states,
        calibration_text,
        refuse_too_short,
    )
    from p2pnode.node.models import open_model
    from p2pnode.text.tokenizer import Tokenizer

    path = model_file(model)
    known = open_model(path)
    info = known.info
    target = output or cache.calibration_path(info.space_hash32)
    _prepare(target)
    words = _read(text, info.context_length) if text else calibration_text()
    tokens = Tokenizer.from_gguf(path).encode(words)[: info.context_length]
    refuse_too_short(tokens)
    with progress(f"calibrating {info.name}", show=not as_json) as bar:
        layers = range(info.n_layers)
        engine = load_engine(path, layers, progress=lambda part: bar(part / 2), tree=known.tree)
        measured = calibrate_states(engine, tokens, lambda part: bar((1 + part) / 2))
    cache.keep_calibration(measured, target)
    if as_json:
        say_json(
            {
                "model": info.name,
                "path": str(target),
                "space_hash32": f"{info.space_hash32:08x}",
                "fingerprint": f"{measured.fingerprint:08x}",
                "tokens": len(tokens),
                "cuts": len(measured.cuts),
                "bytes": target.stat().st_size,
            }
        )
    else:
        say(f"{len(measured.cuts)} cuts of {info.name}, measured on {len(tokens)} tokens: {target}")


def _whereabouts(row: Mapping[str, object]) -> str:
    if not row["installed"]:
        return f"not here: p2pnode models pull {row['name']}"
    problem = f"   ({row['problem']})" if row["problem"] else ""
    return f"{row['path']}{problem}"


def _prepare(target: Path) -> None:
    """Make sure, before minutes of measuring, that the result can be written.

    Raises:
        UserError: It cannot.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(target.parent, os.W_OK) else "no permission"
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        hint = "choose a file of your own with --output"
        raise UserError(f"cannot write {target}: {problem}", hint=hint)


def _read(text: Path, positions: int) -> str:
    """Read what fits the context, and a little more.

    Raises:
        UserError: It cannot be read, or is no text.
    """
    try:
        with text.open(encoding="utf-8") as file:
            return file.read(positions * TEXT_PER_TOKEN)
    except OSError as error:
        problem = error.strerror or str(error)
        raise UserError(
            f"cannot read {text}: {problem}", hint="name a text file of yours with --text"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{text} is no text in UTF-8", hint="name a plain text file with --text"
        ) from error
