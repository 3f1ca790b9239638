"""Commands about model files."""

from pathlib import Path

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.output import progress, say, say_json, table
from p2pnode.interfaces.cli.settings import DEFAULT_MODEL, json_option, model_file
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


@models.command(
    epilog="Example:\n\n  p2pnode models calibrate smollm2-135m\n\n"
    "Both ends of a link must hold the same calibration to use it: give your peers the file."
)
@click.argument("model", default=DEFAULT_MODEL)
@click.option("--text", type=click.Path(path_type=Path), help="Measure on this text file.")
@click.option("--output", type=click.Path(path_type=Path), help="Write here, not in the cache.")
@json_option
def calibrate(model: str, text: Path | None, output: Path | None, as_json: bool) -> None:
    """Measure a model's hidden states, so that they can be sent in fewer bytes."""
    from p2pnode.engine.registry import load_engine
    from p2pnode.engine.state_calibration import calibrate_states, calibration_text
    from p2pnode.engine.tokenizer import Tokenizer

    path = model_file(model)
    tokens = Tokenizer.from_gguf(path).encode(_read(text) if text else calibration_text())
    info = store.describe_model(path)
    tokens = tokens[: info.context_length]
    with progress(f"calibrating {info.name}", show=not as_json) as bar:
        layers = range(info.n_layers)
        engine = load_engine(
            path, layers, progress=lambda part: bar(part / 2), signature=store.data_signature
        )
        measured = calibrate_states(engine, tokens, lambda part: bar((1 + part) / 2))
    target = output or store.calibration_path(info.space_hash32)
    store.keep_calibration(measured, target)
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


def _read(text: Path) -> str:
    try:
        return text.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {text} as text: {error}") from error
