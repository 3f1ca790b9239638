"""The file that a simulation is written down in.

It is TOML; ``simulations/README.md`` lists every key. It is read strictly: a key nobody knows or a
value that cannot be is refused with the file's name and the key's.
"""

import itertools
from pathlib import Path

from p2pnode.testing import links
from p2pnode.testing.hostile import WAYS
from p2pnode.testing.hostile_member import HOSTILE, REKEYINGS
from p2pnode.testing.links import Bernoulli, GilbertElliott, Link, Loss
from p2pnode.testing.scenario import (
    HostileMembers,
    Kill,
    Member,
    ModelShape,
    Partition,
    Question,
    Resting,
    Scenario,
    Trouble,
    Weather,
)
from p2pnode.testing.toml_table import TomlTable

PRESETS: dict[str, Loss] = {
    "wifi": links.WIFI,
    "lossy-wifi": links.LOSSY_WIFI,
    "cellular": links.CELLULAR,
    "satellite": links.SATELLITE,
    "congested": links.CONGESTED,
    "bursts-of-four": links.BURSTS_OF_FOUR,
}
MOST_RUNS = 10_000


def read_scenario(path: Path) -> Scenario:
    """Read a scenario from a TOML file.

    Raises:
        ConfigError: It cannot be read, or says something unknown or impossible; the message names
            file and key.
    """
    top = TomlTable.read(path)
    model = _model(top.table("model"))
    question = _question(top.table("answer"))
    members = _members(top, model)
    weathers = [_weather(table) for table in top.tables("weather")]
    troubles = [_trouble(table, members, question) for table in top.tables("trouble")]
    scenario = Scenario(
        name=path.stem,
        title=top.text("title"),
        seeds=top.integers("seeds", 0, 2**31 - 1),
        model=model,
        question=question,
        members=members,
        link=_link(top.table("link")),
        weathers=tuple(weathers) or (Weather("no loss", Bernoulli()),),
        fec=top.flags("fec", (True,)),
        troubles=tuple(troubles),
        hostile=_hostile(top, model, members) if "hostile" in top else None,
    )
    if scenario.hostile is not None and troubles:
        top.refuse("trouble", "goes wrong in one answer; with hostile there are many")
    top.finish()
    _refuse_doubles(top, scenario)
    return scenario


def _model(table: TomlTable) -> ModelShape:
    shape = ModelShape(
        layers=table.integer("layers", 1, 64, 6),
        d_model=table.integer("d_model", 8, 4096, 32),
        heads=table.integer("heads", 1, 128, 4),
        kv_heads=table.integer("kv_heads", 1, 128, 2),
        layer_seconds=table.number("layer_ms", 0, 1000, 0.5) / 1000,
        kv_bytes=table.integer("kv_mib", 1, 1 << 20, 512) << 20,
    )
    if shape.d_model % (2 * shape.heads):
        table.refuse("heads", f"cut {shape.d_model} channels into even parts of one size")
    if shape.heads % shape.kv_heads:
        table.refuse("kv_heads", f"divide {shape.heads} heads")
    table.finish()
    return shape


def _question(table: TomlTable) -> Question:
    tokens = table.integer("tokens", 2, 400, 40)
    question = Question(
        prompt_tokens=table.integer("prompt_tokens", 1, 100, 40),
        tokens=tokens,
        warm_up=table.integer("warm_up", 1, tokens - 1, 1),
        seconds=table.number("limit_s", 1, 3600, 300),
    )
    table.finish()
    return question


def _members(top: TomlTable, model: ModelShape) -> tuple[Member, ...]:
    members = []
    for table in top.tables("node"):
        name = table.text("name")
        bounds = table.integers("layers", 0, model.layers)
        if len(bounds) != 2 or bounds[0] >= bounds[1]:
            table.refuse("layers", "is [first, end], as [0, 2] for layers 0 and 1")
        if len(name.encode()) > 32:
            table.refuse("name", "has at most 32 bytes")
        table.finish()
        members.append(Member(name, range(*bounds)))
    names = [member.name for member in members]
    if len(names) < 1 or len(set(names)) < len(names):
        top.refuse("node", "is a list of at least one node, each with a name of its own")
    held = set(itertools.chain.from_iterable(member.layers for member in members))
    if missing := sorted(set(range(model.layers)) - held):
        top.refuse("node", f"leaves layer {missing[0]} to nobody")
    return tuple(members)


def _link(table: TomlTable) -> Link:
    latency = table.numbers("latency_ms", 0, 10_000, (1.0, 1.0))
    if len(latency) != 2 or latency[0] > latency[1]:
        table.refuse("latency_ms", "is [shortest, longest]")
    rate = table.number("rate_mbit", 0.01, 1e5) * 1e6 / 8 if "rate_mbit" in table else None
    link = Link(
        latency=(latency[0] / 1000, latency[1] / 1000),
        reorder=table.number("reorder", 0, 1, 0.0),
        reorder_by=table.number("reorder_by_ms", 0, 10_000, 20.0) / 1000,
        duplicate=table.number("duplicate", 0, 1, 0.0),
        corrupt=table.number("corrupt", 0, 1, 0.0),
        rate=rate,
        queue=table.integer("queue_kib", 1, 1 << 20, 256) * 1024,
        mtu=table.integer("mtu", 1228, 65535, 1500),
    )
    table.finish()
    return link


def _weather(table: TomlTable) -> Weather:
    if sum(key in table for key in ("loss", "bursts", "preset")) != 1:
        table.refuse("loss", "or bursts or preset is needed, and only one of them")
    loss: Loss
    if "loss" in table:
        loss = Bernoulli(table.number("loss", 0, 0.99))
    elif "bursts" in table:
        loss = _bursts(table.table("bursts"))
    else:
        preset = table.text("preset")
        if preset not in PRESETS:
            table.refuse("preset", f"is one of {', '.join(PRESETS)}, not {preset!r}")
        loss = PRESETS[preset]
    weather = Weather(table.text("name", f"{loss.mean_loss:.3g} lost"), loss)
    table.finish()
    return weather


def _bursts(table: TomlTable) -> Loss:
    loss = GilbertElliott(
        p=table.number("p", 1e-6, 0.99),
        r=table.number("r", 0.001, 1),
        good_loss=table.number("good_loss", 0, 1, 0.0),
        bad_loss=table.number("bad_loss", 0, 1, 1.0),
    )
    table.finish()
    return loss


def _trouble(table: TomlTable, members: tuple[Member, ...], question: Question) -> Trouble:
    kind = table.text("kind")
    last = question.tokens - 1
    after = table.integers("after_tokens", 1, last, tuple(range(1, last + 1)))
    delay = table.number("delay_ms", 0, 60_000, 0.0) / 1000
    trouble: Trouble
    if kind == "kill":
        nodes = _names(table, "nodes", members[1:])
        trouble = Kill(table.text("name", f"{nodes[0]} dies"), nodes, after, delay)
    elif kind == "rest":
        nodes = _names(table, "nodes", members)
        seconds = table.number("seconds", 0.001, 3600)
        name = table.text("name", f"{nodes[0]} rests")
        trouble = Resting(name, nodes, after, delay, seconds)
    elif kind == "partition":
        sides = (_names(table, "side", members), _names(table, "other_side", members))
        if set(sides[0]) & set(sides[1]):
            table.refuse("other_side", "shares no node with side")
        seconds = table.number("seconds", 0.001, 3600)
        name = table.text("name", f"cut for {seconds:g} s")
        trouble = Partition(name, sides, after, delay, seconds, table.flag("one_way", False))
    else:
        table.refuse("kind", f"is kill, rest or partition, not {kind!r}")
    table.finish()
    return trouble


def _hostile(top: TomlTable, model: ModelShape, nodes: tuple[Member, ...]) -> HostileMembers:
    table = top.table("hostile")
    if model.layers % 3:
        table.refuse("members", f"share out layers in thirds, and model.layers is {model.layers}")
    ways = table.words("ways", tuple(WAYS))
    hostile = HostileMembers(
        members=table.integer("members", 1, len(ways), 3),
        ways=ways,
        rekeying=table.words("rekeying", REKEYINGS),
        answers=table.integer("answers", 1, 1000, 10),
        further=table.integer("further", 0, 1000, 2),
        pause=table.number("pause_s", 0, 600, 3.0),
    )
    if any(member.name.startswith(HOSTILE) for member in nodes):
        top.refuse("node", f"may hold no name that begins with {HOSTILE}")
    table.finish()
    return hostile


def _names(table: TomlTable, key: str, members: tuple[Member, ...]) -> tuple[str, ...]:
    names = table.texts(key)
    known = [member.name for member in members]
    for name in names:
        if name not in known:
            table.refuse(key, f"may hold {', '.join(known) or 'nobody'}, not {name!r}")
    return names


def _refuse_doubles(top: TomlTable, scenario: Scenario) -> None:
    """Rows of the report are told apart by name, and runs by their seed."""
    lists: dict[str, list[object]] = {
        "seeds": list(scenario.seeds),
        "fec": list(scenario.fec),
        "weather": [weather.name for weather in scenario.weathers],
        "trouble": [trouble.name for trouble in scenario.troubles],
    }
    for key, values in lists.items():
        if len(set(values)) < len(values):
            top.refuse(key, "holds one thing twice (names tell rows apart)")
    if len(scenario.runs) > MOST_RUNS:
        top.refuse("seeds", f"make {len(scenario.runs)} runs in all; at most {MOST_RUNS}")
