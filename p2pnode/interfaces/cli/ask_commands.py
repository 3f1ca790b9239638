"""Commands that ask the swarm: one prompt, or a conversation."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli import repairs
from p2pnode.interfaces.cli.completions import complete_model, complete_peer
from p2pnode.interfaces.cli.logprob_lines import logprob_lines
from p2pnode.interfaces.cli.output import complain, note, say, say_json
from p2pnode.interfaces.cli.own_node import Host, some_node
from p2pnode.interfaces.cli.sampling_options import sampling_options, sampling_params
from p2pnode.interfaces.cli.settings import (
    DEFAULT_MODEL,
    FreshNodeOption,
    UpOptions,
    activations_option,
    json_option,
    state_option,
)
from p2pnode.interfaces.cli.shown_answer import ShownAnswer
from p2pnode.net.control_client import ControlClient
from p2pnode.phrases import plural

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
_FRESH_WAIT = 60.0  # seconds a fresh node may need to meet the others and load
_FINAL = ("this model has no chat template", "this node has no model")
"""How a node begins to say what it will say to each message."""

_WAIT = 20.0  # seconds for a swarm that is there already: one of its nodes may be loading


def _asking_options(command: CommandT) -> CommandT:
    options = (
        click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True),
        _peer_option("--prefer", "Use this peer if possible."),
        _peer_option("--avoid", "Spare this peer if possible."),
        click.option(
            "--wait",
            type=click.FloatRange(0, 3600),
            help="Seconds to wait for missing layers, before an answer and in the middle of it.  "
            "[default: 20 before it and 30 in the middle, 60 where a node is started for it]",
        ),
        activations_option("How this answer travels between peers; else as the node is set.", None),
        click.option(
            "--model",
            cls=FreshNodeOption,
            default=DEFAULT_MODEL,
            show_default=True,
            shell_complete=complete_model,
        ),
        click.option("--peer", cls=FreshNodeOption, multiple=True, metavar="HOST:PORT"),
        click.option("--listen", cls=FreshNodeOption, default="::", show_default=True),
        state_option,
    )
    for option in reversed(options):
        command = option(command)
    return sampling_options(command)


def _peer_option(flag: str, purpose: str) -> Callable[[CommandT], CommandT]:
    return click.option(
        flag, multiple=True, metavar="PEER", help=purpose, shell_complete=complete_peer
    )


@click.command(
    epilog='Examples:\n\n  p2pnode generate "Why is the sky blue?"\n\n'
    '  p2pnode generate "Write a haiku" --temperature 0.8 --seed 7 --plan\n\n'
    "  echo 'What is 2+2?' | p2pnode generate - --json"
)
@click.argument("prompt")
@click.option("--raw", is_flag=True, help="Continue the prompt instead of answering it.")
@click.option("--plan", "show_plan", is_flag=True, help="Show who runs which layers, and why.")
@_asking_options
@json_option
def generate(prompt: str, raw: bool, show_plan: bool, as_json: bool, **chosen: Any) -> None:
    """Answer PROMPT (or standard input, for -), streaming the text as it comes."""
    text = _read_stdin() if prompt == "-" else _checked(prompt)
    if not text.strip():
        raise UsageError("the prompt is empty", hint='for instance p2pnode generate "Hello"')
    question = {"prompt": text, "raw": raw}
    with some_node(_fresh(chosen), quiet=as_json, chats=not raw) as host, host.client() as client:
        params = {**question, **_params(chosen, host)}
        result = _stream(client, params, quiet=as_json, show_plan=show_plan)
    if as_json:
        say_json(result)
        return
    _summarise(result, chosen["activations"])


@click.command(epilog="Examples:\n\n  p2pnode chat\n\n  p2pnode chat --temperature 0.7")
@_asking_options
def chat(**chosen: Any) -> None:
    """Talk with the model; Ctrl-C stops an answer, Ctrl-D ends the conversation."""
    messages: list[dict[str, str]] = []
    with some_node(_fresh(chosen), quiet=False, chats=True) as host:
        note("Ctrl-C stops an answer, Ctrl-D ends the conversation")
        while (said := _listen()) is not None:
            if not said.strip():
                continue
            messages.append({"role": "user", "content": said})
            result = _reply(host, {"messages": messages, **_params(chosen, host)})
            if result is None:
                messages.pop()  # as if it had not been said
            else:
                del messages[: result["left_out"]]  # said once: they do not come back
                messages.append({"role": "assistant", "content": str(result["text"])})


def _reply(host: Host, params: dict[str, Any]) -> dict[str, Any] | None:
    """Stream one answer and return its facts, or None where it failed or was stopped.

    Either frees its peers' memory.

    Raises:
        UserError: No further message would fare better.
    """
    try:
        with host.client() as client:
            result = _stream(client, params)
    except UserError as error:
        if str(error).startswith(_FINAL) or host.has_ended():
            raise
        complain(error)
        return None
    except KeyboardInterrupt:
        note("\n[stopped]")
        return None
    say()
    return result


def _listen() -> str | None:
    """Return what is said next, nothing for what is no text, None at the end."""
    try:
        return _checked(input("> "))
    except EOFError:
        say()
        return None
    except KeyboardInterrupt:
        note("\nnothing to stop here; Ctrl-D ends the conversation")
    except UnicodeDecodeError:
        complain(_not_text())
    except UserError as error:
        complain(error)
    return ""


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")  # editors put a mark at the start
    except UnicodeDecodeError as error:
        raise _not_text() from error


def _checked(text: str) -> str:
    """Refuse stray bytes here, where the person who typed them can be told."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _not_text() from error
    return text


def _not_text() -> UserError:
    return UserError("the prompt is not text in UTF-8", hint="convert it first, e.g. with iconv")


def _stream(
    client: ControlClient, params: dict[str, Any], *, quiet: bool = False, show_plan: bool = False
) -> dict[str, Any]:
    shown = ShownAnswer(params, show_plan=show_plan)
    try:
        result: dict[str, Any] = client.call("generate", params, None if quiet else shown.show)
    except UserError:
        shown.break_line()
        raise
    if not quiet and result["finish"] == "length":
        note(f"\n{repairs.cut(len(result['token_ids']), params['max_tokens'])}")
    if not quiet and "logprobs" in result:
        note("\n" + "\n".join(logprob_lines(result["logprobs"])))
    return result


def _summarise(result: dict[str, Any], asked: str | None) -> None:
    say()
    stages = len(result["plan"]["stages"]) if result["plan"] else 0
    speed = f"{result['tokens_per_s']:.1f} tokens/s"
    note(f"{plural(len(result['token_ids']), 'token')}, {speed}, {plural(stages, 'stage')}")
    if not result.get("bit_reproducible", True):
        note(repairs.changed(result))
    sent = result["activations"]
    if sent["codings"] == ["f16"] and asked not in (None, "f16"):
        note("sent between peers as f16: no link asked for less")
    if sent["codings"] not in (["f32"], ["f16"]):
        note(
            f"sent between peers as {', '.join(sent['codings'])}: an estimated "
            f"{sent['kl_per_token']:.4f} nats a token from the exact answer's probabilities"
        )


def _params(chosen: dict[str, Any], host: Host) -> dict[str, Any]:
    usual = _FRESH_WAIT if host.is_fresh else _WAIT
    return {
        "max_tokens": chosen["max_tokens"],
        **sampling_params(chosen),
        "prefer": list(chosen["prefer"]),
        "avoid": list(chosen["avoid"]),
        "activations": chosen["activations"],
        "wait": usual if chosen["wait"] is None else chosen["wait"],
        "lost_wait": chosen["wait"],
    }


def _fresh(chosen: dict[str, Any]) -> UpOptions:
    """Return the options of the node to start where none runs."""
    state: Path | None = chosen["state"]
    return UpOptions(
        state=state,
        model=chosen["model"],
        layers="auto",
        max_layers=None,
        listen=chosen["listen"],
        port=0,
        peer=chosen["peer"],
        name=None,
        kv_memory=512,
        mdns=True,
    )
