"""``p2pnode doctor``: what is wrong on this machine and in this swarm, and what to do about it."""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pnode.interfaces.cli.completions import complete_model
from p2pnode.interfaces.cli.model_choices import NONE, ModelWord, wanted
from p2pnode.interfaces.cli.node_options import (
    DEFAULT_MODEL,
    DEFAULT_PORT,
    json_option,
    kv_memory_option,
    state_option,
)
from p2pnode.interfaces.cli.output import say, say_json
from p2pnode.interfaces.cli.settings import state_of
from p2pnode.interfaces.config.settings import OneOrSeveral
from p2pnode.phrases import plural

if TYPE_CHECKING:
    from p2pnode.interfaces.doctor.findings import Finding

_MARKS = {"ok": ("ok", "green"), "warn": ("!!", "yellow"), "fail": ("FAIL", "red")}
_TOPIC, _WIDTH = 11, 100


@click.command(epilog="Examples:\n\n  p2pnode doctor\n\n  p2pnode doctor --json")
@click.option(
    "--model",
    cls=OneOrSeveral,
    type=ModelWord(),
    multiple=True,
    default=(DEFAULT_MODEL,),
    show_default=True,
    metavar="NAME|PATH",
    help="Name or GGUF file; may be repeated.",
    shell_complete=complete_model,
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="UDP port that should be free.  "
    f"[default: {DEFAULT_PORT}, or that of the node that runs on the state directory]",
)
@kv_memory_option("MiB of memory for KV caches, where no node runs.")
@state_option
@json_option
def doctor(
    model: tuple[str, ...], port: int | None, kv_memory: int, state: Path | None, as_json: bool
) -> int:
    """Find out what is wrong here, and why a peer that is seen does no work.

    Sends nothing beyond this machine. Exits with 0 when nothing has failed.
    """
    from p2pnode.interfaces.doctor.checkup import Subject, run_checks
    from p2pnode.interfaces.doctor.findings import is_well

    logging.getLogger("p2pnode").addHandler(logging.NullHandler())  # warnings are findings too
    models = tuple(one.name for one in wanted(model, "auto", None)) or (NONE,)
    subject = Subject(state_of(state), models, port, kv_memory << 20, _check_settings)
    findings = []
    for finding in run_checks(subject):
        findings.append(finding)
        if not as_json:
            _show(finding)
    well = is_well(findings)
    if as_json:
        say_json({"findings": [asdict(finding) for finding in findings], "ok": well})
    else:
        _sum_up(findings)
    return 0 if well else 1


def _check_settings() -> Iterable[Finding]:
    """Look at the file that this call goes by."""
    from p2pnode.interfaces.config.applied import chosen
    from p2pnode.interfaces.config.config_file import choose
    from p2pnode.interfaces.doctor.settings import check_settings

    context = click.get_current_context()
    root = context.find_root().command
    if not isinstance(root, click.Group):  # called by itself, as tests do
        return ()
    return check_settings(choose(chosen(context), os.environ), root)


def _show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.verdict]
    margin = " " * (6 + _TOPIC)
    text = textwrap.wrap(finding.what, _WIDTH - len(margin)) or [""]
    what = f"\n{margin}".join(text)
    say(f"  {finding.topic:<{_TOPIC}}{what}", mark=f"{mark:>4}", colour=colour)
    if finding.advice and finding.verdict != "ok":
        lines = textwrap.wrap(
            f"-> {finding.advice}",
            _WIDTH - len(margin),
            subsequent_indent="   ",
            break_long_words=False,  # a path of a command is to be copied
            break_on_hyphens=False,
        )
        say("\n".join(margin + line for line in lines))


def _sum_up(findings: list[Finding]) -> None:
    failed = [finding for finding in findings if finding.verdict == "fail"]
    warned = [finding for finding in findings if finding.verdict == "warn"]
    if failed:
        say(f"\n{plural(len(failed), 'problem')} to solve first: {failed[0].what}")
        say(f"do this next: {failed[0].advice}" if failed[0].advice else "")
    elif missing := [finding for finding in warned if finding.topic == "layers"]:
        say(f"\nnobody can answer now: {missing[0].what}")
        say(f"do this next: {missing[0].advice}")
    elif warned:
        say(f"\na node can work here; {plural(len(warned), 'thing')} could be better")
    else:
        say("\nall is well")
