"""Commands about model files."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from p2pnode.errors import ModelError, UserError
from p2pnode.interfaces.cli.completions import complete_model
from p2pnode.interfaces.cli.groups import PlainGroup
from p2pnode.interfaces.cli.node_options import DEFAULT_MODEL, json_option
from p2pnode.interfaces.cli.output import note, progress, say, say_json, table
from p2pnode.interfaces.cli.pull_display import pulling, remark, twin_of
from p2pnode.interfaces.cli.running_models import load, running, unload
from p2pnode.interfaces.cli.settings import model_file
from p2pnode.interfaces.cli.values import HomePath
from p2pnode.node import model_cache as cache
from p2pnode.node.catalogue import KNOWN_MODELS, KnownModel, known_model
from p2pnode.node.disk import size_in_words
from p2pnode.node.model_list import InstalledModel, unfinished

TEXT_PER_TOKEN: Final = 64
"""Characters read of a text for each position of the context: what goes beyond is not measured,
and nobody can interrupt a tokenizer. Ordinary text has 2 to 5; long runs of spaces have more."""


@click.group(cls=PlainGroup, epilog="Example:\n\n  p2pnode models pull smollm2-135m")
def models() -> None:
    """Fetch, list, look at and remove models; load and unload those of the running node."""


models.add_command(load)
models.add_command(unload)
models.add_command(running)


@models.command(
    epilog="Examples:\n\n  p2pnode models pull qwen3-4b\n\n"
    "  p2pnode models pull hf:OWNER/REPO:FILE.gguf\n\n"
    "  p2pnode models pull https://example.org/model.gguf#sha256=...\n\n"
    "  p2pnode models pull ./mine.gguf --name mine"
)
@click.argument(
    "name",
    default=DEFAULT_MODEL,
    metavar="NAME|hf:OWNER/REPO[:FILE]|URL|PATH",
    shell_complete=complete_model,
)
@click.option("--name", "called", default="", help="What to call it here.")
@click.option("--copy", is_flag=True, help="Copy a PATH into the cache; without, it is linked.")
@json_option
def pull(name: str, called: str, copy: bool, as_json: bool) -> None:
    """Fetch a model into the cache and check it; a second time does nothing."""
    with pulling(name, show=not as_json) as report:
        path = cache.pull(name, report, tell=note, called=called, copy=copy)
    found = _pulled(path, called or name)
    if as_json:
        say_json({"name": name, **_as_json(found), "path": str(path), "bytes": _size(found, path)})
        return
    if found is not None and found.linked:
        say(f"{found.name} is linked to {path}, which stays where it is")
    else:
        say(f"{found.name if found else name} is at {path}")
    if found is not None and (twin := twin_of(found)):
        note(f"it is {twin}, which is known by that name")
    if said := remark(path):
        note(said)


@models.command(name="list", epilog="Example:\n\n  p2pnode models list --json")
@json_option
def list_models(as_json: bool) -> None:
    """List the models known and those in the cache."""
    installed = cache.installed()
    here = {one.name for one in installed}
    rows = [_as_json(one) for one in installed]
    rows += [_missing(model) for model in KNOWN_MODELS.values() if model.name not in here]
    parts = {one.name: one.size for one in unfinished(cache.models_dir())}
    rows += [_begun(name) for name in parts if name not in {str(row["name"]) for row in rows}]
    rows = [{**row, "part_bytes": parts.get(str(row["name"]), 0)} for row in rows]
    rows.sort(key=lambda row: str(row["name"]).casefold())
    if as_json:
        say_json({"models": rows})
        return
    headings = ("MODEL", "ALSO", "SIZE", "MEMORY", "LAYERS", "CONTEXT", "LICENCE", "HASH", "FILE")
    say(table(headings, [_row(row) for row in rows], right="  rrrr"))


@models.command(epilog="Example:\n\n  p2pnode models show smollm2-135m")
@click.argument("model", default=DEFAULT_MODEL, metavar="NAME|PATH", shell_complete=complete_model)
@json_option
def show(model: str, as_json: bool) -> None:
    """Say what a model is and what it takes of this machine."""
    from p2pnode.interfaces.cli.model_card import card_of, lines_of

    known = known_model(model)
    found = cache.find_installed(model) if known is not None else None
    if known is not None and found is None:
        card = _missing(known)
    elif known is not None and known.is_embedder:
        card = _as_json(found)
    else:
        with progress(f"hashing {model}", show=not as_json and sys.stderr.isatty()) as bar:
            card = card_of(model, bar)
    if as_json:
        say_json(card)
    else:
        for line in lines_of(card):
            say(line)


@models.command(epilog="Example:\n\n  p2pnode models rm qwen3-4b")
@click.argument("name", metavar="NAME", shell_complete=complete_model)
@click.option("--yes", is_flag=True, help="Ask nothing.")
@json_option
def rm(name: str, yes: bool, as_json: bool) -> None:
    """Remove a model from the cache; of a linked one, only what is noted of it."""
    left = cache.find_unfinished(name)
    if left is not None and cache.find_installed(name) is None:
        _agree(f"remove the part of {left.name} that is here?", left.name, yes)
        cache.remove_unfinished(left)
        gone, linked, paths = left.name, False, left.paths
        end = "is gone, as far as it was here"
    else:
        one = cache.find_removable(name)
        what = f"{one.name} ({size_in_words(max(1, one.size))}, {one.path})"
        _agree(f"forget {what}?" if one.linked else f"remove {what}?", one.name, yes)
        cache.remove(name)
        gone, linked, paths = one.name, one.linked, () if one.linked else one.paths
        end = f"is forgotten; {one.path} stays" if linked else "is gone"
    if as_json:
        say_json({"name": gone, "linked": linked, "removed": [str(path) for path in paths]})
    else:
        say(f"{gone} {end}")


@models.command(
    epilog="Example:\n\n  p2pnode models calibrate smollm2-135m\n\n"
    "Both ends of a link must hold the same calibration to use it: give your peers the file."
)
@click.argument("model", default=DEFAULT_MODEL, shell_complete=complete_model)
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
    tokens = Tokenizer.from_model(path).encode(words)[: info.context_length]
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


def _pulled(path: Path, name: str) -> InstalledModel | None:
    """Return the model at ``path``; of several that are linked there, the one that was named."""
    there = [one for one in cache.installed() if path in one.paths]
    named = (one for one in there if one.name.casefold() == name.casefold())
    return next(named, there[0] if there else None)


def _as_json(one: InstalledModel | None) -> dict[str, object]:
    """Return what is known of a model in the cache."""
    if one is None:
        return {}
    known = known_model(one.name)
    return {
        "name": one.name,
        "installed": True,
        "path": str(one.path),
        "files": [str(path) for path in one.paths],
        "size": one.size,
        "licence": (known.licence if known else one.licence) or None,
        "source": (known.origin if known else one.source) or None,
        "hash_from": one.hash_from,
        "verified": one.hash_from != "none",
        "linked": one.linked,
        "whole": not one.problem,
        "problem": one.problem or None,
        "in_use": one.in_use,
        **_known_facts(known),
        **({} if known is not None and known.verified else _measured_facts(one)),
    }


def _missing(model: KnownModel) -> dict[str, object]:
    """Return what is known of a model that is not here."""
    return {
        "name": model.name,
        "installed": False,
        "path": None,
        "files": [],
        "size": model.size,
        "licence": model.licence,
        "source": model.origin,
        "hash_from": "catalogue" if model.verified else "hub",
        "verified": model.verified,
        "linked": False,
        "whole": False,
        "problem": None,
        "in_use": False,
        **_known_facts(model),
    }


def _begun(name: str) -> dict[str, object]:
    """Return what is known of a model of which only a part is here."""
    nothing = ("path", "size", "licence", "source", "problem")
    return {
        "name": name,
        "installed": False,
        "files": [],
        **dict.fromkeys(nothing),
        "hash_from": "none",
        **dict.fromkeys(("verified", "linked", "whole", "in_use"), False),
        **_known_facts(None),
    }


def _known_facts(model: KnownModel | None) -> dict[str, object]:
    return {
        "aliases": list(model.aliases) if model else [],
        "layers": model.layers if model else None,
        "context": model.context if model else None,
        "memory": model.memory if model else None,
        "embeds": bool(model and model.is_embedder),
        "remark": (model.remark if model else "") or None,
    }


def _measured_facts(one: InstalledModel) -> dict[str, object]:
    """Return what the header of a model's file says; nothing of one that cannot be read."""
    from p2pnode.node.model_facts import facts_of

    try:
        facts = facts_of(one.path, with_words=False)
    except ModelError:
        return {}
    return {"layers": facts.layers, "context": facts.context, "memory": facts.memory}


_HASHES: Final = {
    "catalogue": "checked",
    "hub": "checked by the hub's",
    "given": "checked by yours",
    "server": "checked by the server's",
    "none": "not checked",
}
_UNVERIFIED: Final = "hash from the hub, not verified here"


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    memory = row["memory"]
    about = "" if row["verified"] or row["installed"] else "~"
    hashed = _HASHES[row["hash_from"]]
    if row["size"] is None:
        return (row["name"], *[""] * 7, _whereabouts(row))
    if not row["installed"]:
        hashed = "known" if row["verified"] else _UNVERIFIED
    elif row["linked"]:
        hashed = "your own file"
    return (
        row["name"],
        ", ".join(row["aliases"]),
        about + size_in_words(max(1, row["size"])),
        size_in_words(memory) if memory else "",
        "vectors" if row.get("embeds") else str(row["layers"] or ""),
        f"{row['context']:,}" if row["context"] else "",
        row["licence"] or "",
        hashed,
        _whereabouts(row),
    )


def _whereabouts(row: Mapping[str, Any]) -> str:
    if row["part_bytes"] and not row["installed"]:
        return f"{size_in_words(row['part_bytes'])} of it are here: pull it again, or rm it"
    if not row["installed"]:
        return f"not here: p2pnode models pull {row['name']}"
    problem = f"   ({row['problem']})" if row["problem"] else ""
    return f"{row['path']}{'   (in use)' if row['in_use'] else ''}{problem}"


def _size(found: InstalledModel | None, path: Path) -> int:
    return found.size if found else path.stat().st_size


def _agree(question: str, name: str, yes: bool) -> None:
    """Ask; nobody who cannot be asked has agreed.

    Raises:
        UserError: Nobody agreed.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(
            f"{name} was not removed: it takes a yes, and standard input is no terminal to ask on",
            hint="say --yes to remove it unasked",
        )
    if not click.confirm(question, err=True):
        raise UserError(f"{name} was not removed, as you said")


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
