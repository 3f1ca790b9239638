"""What an owner lets a node have of a machine: options of ``up`` and ``join``."""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2pnode.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from p2pnode.node.quiet_hours import QuietHours
    from p2pnode.node.resting import RestConfig

MOST_NICE: Final = 19
_SIZE: Final = re.compile(r"([0-9]{1,12})([MG]?)")
_SHOWN: Final = 40  # letters of what was typed


class Size(click.ParamType[int]):
    """Bytes, written as MiB (``512``, ``512M``) or GiB (``4G``)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401 -- as click has it
        match = _SIZE.fullmatch(str(value).strip().upper())
        size = int(match[1]) << (30 if match[2] == "G" else 20) if match else 0
        if not size:
            shown = str(value)[:_SHOWN]
            self.fail(f"no size: {shown!r}; for instance 512 (MiB) or 4G", param, ctx)
        return size


class Hours(click.ParamType["QuietHours"]):
    """Hours of the day: ``22:00-07:00``."""

    name = "hours"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 -- as click has it
        from p2pnode.node.quiet_hours import QuietHours

        if isinstance(value, QuietHours):
            return value
        try:
            return QuietHours.parse(str(value))
        except ConfigError as error:
            self.fail(f"{error}; {error.hint}" if error.hint else str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class Care:
    """What was said of it.

    Attributes:
        max_memory: The most bytes of the main memory for weights, KV caches and retained batches.
        max_vram: The most bytes of a GPU's memory.
        nice: How far the node gives way to others, 0 to 19; None to leave it as it is.
        when: ``always``, or ``idle``: it steps back while its owner uses the machine.
        quiet_hours: Hours of the day in which it does in any case.
    """

    max_memory: int | None = None
    max_vram: int | None = None
    nice: int | None = None
    when: str = "always"
    quiet_hours: "tuple[QuietHours, ...]" = ()


def care_options() -> tuple[Callable[[Any], Any], ...]:
    """Return the options, in the order in which ``--help`` lists them."""
    return (
        click.option(
            "--max-memory",
            type=Size(),
            metavar="SIZE",
            help="All that it may take for weights and KV caches: 800 (MiB), 4G.",
        ),
        click.option("--max-vram", type=Size(), metavar="SIZE", help="The same of a GPU's memory."),
        click.option(
            "--nice",
            type=click.IntRange(0, MOST_NICE),
            help="Give way to other programs: 19 the most.  [default: as it is started]",
        ),
        click.option(
            "--when",
            type=click.Choice(("always", "idle")),
            default="always",
            show_default=True,
            help="When to compute for others; idle: not while you use the machine.",
        ),
        click.option(
            "--quiet-hours",
            type=Hours(),
            multiple=True,
            metavar="22:00-07:00",
            help="Hours in which it computes for nobody else; may be repeated.",
        ),
    )


def rest_of(care: Care) -> "RestConfig":
    """Return when the node rests."""
    from p2pnode.node.resting import RestConfig

    return RestConfig(when_idle=care.when == "idle", quiet_hours=care.quiet_hours)


def kv_bytes_of(mebibytes: int, care: Care, *, is_chosen: bool) -> int:
    """Return the bytes for KV caches; where nobody chose, at most half of what may be taken.

    Raises:
        UsageError: They leave nothing for weights.
    """
    size, most = mebibytes << 20, care.max_memory
    if most is None:
        return size
    if not is_chosen:
        return min(size, most // 2)
    if size >= most:
        raise UsageError(
            f"--kv-memory {mebibytes} leaves nothing of --max-memory {most >> 20} for weights",
            hint="allow more memory, or less for KV caches",
        )
    return size


def limits_of(care: Care, threads: int | None) -> tuple[str, ...]:
    """Return what was said, for people."""
    said = (
        ("memory", care.max_memory and _binary(care.max_memory)),
        ("GPU memory", care.max_vram and _binary(care.max_vram)),
        ("threads", threads),
        ("nice", care.nice),
        ("when", "idle" if care.when == "idle" else None),
        *(("quiet", hours) for hours in care.quiet_hours),
    )
    return tuple(f"{name} {value}" for name, value in said if value is not None)


def give_way(nice: int | None) -> None:
    """Let other programs go first: this process, its threads, and all that they start.

    Raises:
        UsageError: This system has no such thing, or the process gives way more than that already.
    """
    if nice is None:
        return
    if sys.platform == "win32" or not hasattr(os, "setpriority"):
        raise UsageError(
            "--nice: this system has no nice value", hint="leave it out; --threads bounds the load"
        )
    now = os.getpriority(os.PRIO_PROCESS, 0)
    if nice < now:
        raise UsageError(
            f"--nice {nice}: it was started with {now} already, and only root may take less",
            hint=f"leave it out, or say --nice {now}",
        )
    for thread in _threads():  # Linux keeps one value a thread: BLAS may have started some
        os.setpriority(os.PRIO_PROCESS, thread, nice)


def _threads() -> list[int]:
    """Return the threads of this process that have a value of their own; 0 is this one."""
    try:
        return [0, *(int(entry.name) for entry in Path("/proc/self/task").iterdir())]
    except OSError:
        return [0]


def _binary(size: int) -> str:
    return f"{size / 2**30:g} GiB" if size % 2**30 == 0 else f"{size >> 20} MiB"
