"""``p2pnode bench``: the figures in the documentation, measured on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.bench_api_command import api
from p2pnode.interfaces.cli.bench_report import measured, model_option, report, report_table
from p2pnode.interfaces.cli.bench_serve_command import serve
from p2pnode.interfaces.cli.groups import PlainGroup
from p2pnode.interfaces.cli.hop_command import hop
from p2pnode.interfaces.cli.http_servers_command import http_servers
from p2pnode.interfaces.cli.node_options import DEFAULT_MODEL, ENGINES, json_option
from p2pnode.interfaces.cli.output import progress, say, say_json, table
from p2pnode.interfaces.cli.settings import model_file
from p2pnode.interfaces.cli.values import HomePath


@click.group(cls=PlainGroup, epilog="Example:\n\n  p2pnode bench chain --json")
def bench() -> None:
    """Measure this machine; every figure in the documentation comes from here."""


@bench.command(
    epilog="Examples:\n\n  p2pnode bench chain --rounds 10 --json\n\n"
    "  p2pnode bench chain --bare --compute sleep"
)
@click.option("--rounds", type=click.IntRange(1), default=6, show_default=True)
@click.option("--tokens", type=click.IntRange(2), default=48, show_default=True)
@click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option(
    "--compute",
    type=click.Choice(("engine", "sleep")),
    default="engine",
    show_default=True,
    help="With sleep, each stage sleeps for as long as its arithmetic takes, and the engine alone "
    "as long as all: cores are free, and what is left is the network.",
)
@click.option(
    "--bare",
    is_flag=True,
    help="Let engines joined by bare UDP sockets take a turn too: what no protocol could better.",
)
@model_option
@json_option
def chain(
    rounds: int,
    tokens: int,
    engine: str,
    threads: int,
    compute: str,
    bare: bool,
    model: str,
    as_json: bool,
) -> None:
    """Decode over three processes against one engine alone, in turns."""
    from p2pnode.bench import chain as measurement

    path = model_file(model)
    with progress("chain and solo in turns", show=not as_json) as bar:
        figures = measured(
            measurement.measure,
            path,
            rounds=rounds,
            tokens=tokens,
            tell=bar,
            engine=engine,
            threads=threads,
            compute=compute,
            bare=bare,
        )
    report(figures, as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench device --engine torch --device cuda:0 --json")
@click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:0|vulkan:0")
@click.option("--tokens", type=click.IntRange(2), default=64, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@json_option
def device(engine: str, device: str, tokens: int, rounds: int, as_json: bool) -> None:
    """Answer with a billion random weights on one device, whole and then as three stages."""
    from p2pnode.bench import device as measurement

    with progress("whole, and then as three stages", show=not as_json) as bar:
        figures = measured(
            measurement.measure,
            engine=engine,
            device=device,
            tokens=tokens,
            rounds=rounds,
            tell=bar,
        )
    report(figures, as_json)


bench.add_command(api)
bench.add_command(hop)
bench.add_command(http_servers)
bench.add_command(serve)


@bench.command(epilog="Example:\n\n  p2pnode bench idle --seconds 60 --json")
@click.option("--seconds", type=click.FloatRange(1), default=30.0, show_default=True)
@click.option(
    "--when",
    type=click.Choice(("always", "idle")),
    default="always",
    show_default=True,
    help="As up has it; idle: they look at what else runs. Wants a quiet machine.",
)
@model_option
@json_option
def idle(seconds: float, when: str, model: str, as_json: bool) -> None:
    """Measure what three idle nodes cost: CPU, and bytes a second."""
    from p2pnode.bench import idle as measurement

    path = model_file(model)
    report(measured(measurement.measure, path, seconds=seconds, when=when), as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench failover --rounds 5 --json")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--tokens", type=click.IntRange(4), default=40, show_default=True)
@model_option
@json_option
def failover(rounds: int, tokens: int, model: str, as_json: bool) -> None:
    """Kill a peer in mid-answer: time until noticed, and until the answer goes on."""
    from p2pnode.bench import failover as measurement

    path = model_file(model)
    with progress("killing peers", show=not as_json) as bar:
        figures = measured(measurement.measure, path, rounds=rounds, tokens=tokens, tell=bar)
    report(figures, as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench plan --offers 1000 --json")
@click.option("--offers", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--layers", type=click.IntRange(2), default=30, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@json_option
def plan(offers: int, layers: int, rounds: int, as_json: bool) -> None:
    """Plan chains and settle claims among hundreds of made-up peers."""
    from p2pnode.bench import plan as measurement

    figures = measured(measurement.measure, offers=offers, layers=layers, rounds=rounds)
    report(figures, as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench think --only p2pnode --only udp --json")
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Leave out all others; repeatable. Short names do: grpc, udp, http-raw.",
)
@click.option(
    "--cores",
    type=click.IntRange(1, 2),
    help="Keep both sides on one core, or each on one of two.  [default: as the system likes]",
)
@json_option
def think(rounds: int, only: tuple[str, ...], cores: int | None, as_json: bool) -> None:
    """Send one hidden state to another process and back, in all the ways one might.

    Whoever fails, or hangs for half a minute, is a line with the reason; the others go on. Exits
    with 1 if nobody was measured.
    """
    from p2pnode.bench.think import measure as measurement
    from p2pnode.bench.think.roster import choose
    from p2pnode.interfaces.cli.think_table import as_table

    contestants = choose(only)
    with progress("everyone in turns", show=not as_json) as bar:
        figures = measurement.measure(contestants, rounds=rounds, tell=bar, cores=cores)
    report_table(figures, as_json, as_table)
    if not any("repetitions" in row for row in figures["rows"]):
        raise UserError("nobody could be measured", hint="the reason stands beside each name")


@bench.command(epilog="Example:\n\n  p2pnode bench kv --json")
@click.option(
    "--calibration",
    type=HomePath(dir_okay=False, path_type=Path),
    help="Its file; made first where it is missing, which takes minutes.  [default: the cache]",
)
@model_option
@json_option
def kv(calibration: Path | None, model: str, as_json: bool) -> None:
    """Code KV caches: bytes, time, and how far the answers move."""
    from p2pnode.bench import kv_codec as measurement
    from p2pnode.node import model_cache, models

    path = model_file(model)
    space = models.describe_model(path).space_hash32
    file = calibration or model_cache.cache_dir() / "calibrations" / f"{space:08x}.kv"
    with progress("coding KV caches", show=not as_json) as bar:
        figures = measured(measurement.measure, path, file, tell=bar)
    report(figures, as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench codec --tokens 2400 --json")
@click.option("--tokens", type=click.IntRange(60), default=2400, show_default=True)
@model_option
@json_option
def codec(tokens: int, model: str, as_json: bool) -> None:
    """Measure the codings of hidden states: bytes, what they change, and time."""
    from p2pnode.bench import codec as measurement
    from p2pnode.bench.machine import in_words

    path = model_file(model)
    with progress("evaluating codings", show=not as_json) as bar:
        figures = measured(measurement.measure, path, tokens=tokens, tell=bar)
    if as_json:
        say_json(figures)
        return
    headings, cells = measurement.table_cells(figures)
    say(table([heading.upper() for heading in headings], cells, right="lrrrrrrrrrrr"))
    say(in_words(figures["conditions"]))


@bench.command(epilog="Example:\n\n  p2pnode bench engine --threads 1 --threads 2 --json")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME",
    help="numpy, ggml, llama.cpp, or part of a library's name; repeatable.  [default: all]",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), multiple=True, default=[1], show_default=True
)
@click.option("--device", default="cpu", show_default=True, help="What computes: cpu, cuda:0.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--tokens", type=click.IntRange(1, 512), default=32, show_default=True)
@click.option(
    "--quality/--no-quality",
    default=True,
    show_default=True,
    help="Compare the logits of an English text with numpy's in float32.",
)
@model_option
@json_option
def engine(
    engines: tuple[str, ...],
    threads: tuple[int, ...],
    device: str,
    rounds: int,
    tokens: int,
    quality: bool,
    model: str,
    as_json: bool,
) -> None:
    """Run one model on every engine and library here, in turns.

    Speed, memory, and how far the answers lie from float32; llama.cpp takes part where xllamacpp is
    installed. A library that fails is a row with the reason; exits with 1 if nobody was measured.
    """
    from p2pnode.bench.engine import measure as measurement
    from p2pnode.bench.engine.contestants import choose
    from p2pnode.engine.ggml.placing import check_device_name
    from p2pnode.interfaces.cli.engine_table import as_table
    from p2pnode.node.model_cache import cache_dir

    check_device_name(device)
    path = model_file(model)
    contestants = choose(engines, threads, device, cache_dir())
    with progress("every engine in turns", show=not as_json) as bar:
        figures = measured(
            measurement.measure,
            path,
            contestants,
            rounds=rounds,
            tokens=tokens,
            quality=quality,
            tell=bar,
        )
    report_table(figures, as_json, as_table)
    if all("failed" in row for row in figures["rows"]):
        raise UserError("no engine could be measured", hint="the reason stands beside each name")


@bench.command(epilog="Example:\n\n  p2pnode bench products --json")
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True)
@json_option
def products(rounds: int, as_json: bool) -> None:
    """Multiply a matrix of every GGUF type with 64, 128 and 512 rows, in every way, in turns."""
    from p2pnode.bench import products as measurement
    from p2pnode.node.model_cache import cache_dir

    with progress("products in turns", show=not as_json) as bar:
        figures = measured(measurement.measure, cache_dir(), rounds=rounds, tell=bar)
    report(figures, as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench load --rounds 9 --json")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@model_option
@json_option
def load(rounds: int, model: str, as_json: bool) -> None:
    """Load a third of the layers with every tensor checked, and unchecked, in turns."""
    from p2pnode.bench import load as measurement

    path = model_file(model)
    with progress("loading both ways", show=not as_json) as bar:
        figures = measured(measurement.measure, path, rounds=rounds, tell=bar)
    report(figures, as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench text --json")
@click.option("--rounds", type=click.IntRange(1), default=200, show_default=True)
@model_option
@json_option
def text(rounds: int, model: str, as_json: bool) -> None:
    """Render and tokenise an ordinary chat, and spell the tokens of an answer."""
    from p2pnode.bench import text as measurement

    path = model_file(model)
    report(measured(measurement.measure, path, rounds=rounds), as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench start --json")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Of the node.")
@json_option
def start(rounds: int, model: str, as_json: bool) -> None:
    """Start and end commands that do next to nothing, and a node: seconds for each, in turns."""
    from p2pnode.bench import start as measurement

    if model != "none":
        model_file(model)  # what is fetched is not measured
    with progress("starting commands", show=not as_json) as bar:
        figures = measured(measurement.measure, rounds=rounds, model=model, tell=bar)
    report(figures, as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench compiled --json")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@json_option
def compiled(rounds: int, as_json: bool) -> None:
    """Run compiled cores and pure ones in turns: a Think, a swarm, an import."""
    from p2pnode.bench import compiled as measurement

    with progress("compiled and pure in turns", show=not as_json) as bar:
        figures = measured(measurement.measure, rounds=rounds, tell=bar)
    report(figures, as_json)


@bench.command(epilog="Example:\n\n  p2pnode bench forged --json")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
@click.option("--datagrams", type=click.IntRange(1), default=5000, show_default=True)
@json_option
def forged(rounds: int, datagrams: int, as_json: bool) -> None:
    """Show what forged datagrams cost a node: microseconds for each, in memory.

    Exits with 1 if one was not refused, or the open session carries nothing afterwards.
    """
    from p2pnode.bench import forged as measurement
    from p2pnode.interfaces.cli.forged_table import as_table as forged_table

    with progress("forging", show=not as_json) as bar:
        figures = measured(measurement.measure, rounds=rounds, datagrams=datagrams, tell=bar)
    report_table(figures, as_json, forged_table)
    taken = [row["kind"] for row in figures["rows"] if row["refused"] != datagrams]
    if taken:
        raise UserError(f"not all of these were refused: {'; '.join(taken)}")
    if not figures["session_works"]:
        raise UserError("the open session carried nothing afterwards")


@bench.command(epilog="Example:\n\n  p2pnode bench soak --minutes 9 --json")
@click.option("--minutes", type=click.FloatRange(0.2), default=9.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@model_option
@json_option
def soak(minutes: float, seed: int, model: str, as_json: bool) -> None:
    """Answer for minutes while peers are killed, leave and join.

    Exits with 1 if a token is wrong, an answer fails, the requester ends, its memory grows by more
    than 5 % once it has settled (minute 3), or a descriptor or a process is left.
    """
    from p2pnode.bench import soak as measurement

    path = model_file(model)
    with progress("killing and joining", show=not as_json) as bar:
        figures = measured(measurement.measure, path, minutes=minutes, seed=seed, tell=bar)
    report(figures, as_json)
    if figures["broken"]:
        raise UserError(f"the soak was not clean: {'; '.join(figures['broken'])}")
