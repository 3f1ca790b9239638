"""Commands that ask the swarm: one prompt, or a conversation."""

import sys
from pathlib import Path
from typing import Any

import click

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli import repairs
from p2pnode.interfaces.cli.asking_options import asked_params, asking_options
from p2pnode.interfaces.cli.logprob_lines import logprob_lines
from p2pnode.interfaces.cli.node_options import UpOptions, json_option
from p2pnode.interfaces.cli.output import note, say, say_json
from p2pnode.interfaces.cli.own_node import some_node
from p2pnode.interfaces.cli.piped_input import (
    MOST_BYTES,
    checked_text,
    decoded,
    text_beside_prompt,
)
from p2pnode.interfaces.cli.settings import state_of
from p2pnode.interfaces.cli.shown_answer import ShownAnswer, tell_off
from p2pnode.net.control_client import ControlClient
from p2pnode.phrases import plural


@click.command(
    epilog='Examples:\n\n  p2pnode generate "Why is the sky blue?"\n\n'
    '  p2pnode generate "Write a haiku" --temperature 0.8 --seed 7 --plan\n\n'
    "  echo 'What is 2+2?' | p2pnode generate - --json\n\n"
    '  cat notes.txt | p2pnode generate "Summarise this." --system "Be brief." --stop "###"\n\n'
    '  p2pnode generate "Invent a person." --json-schema person.json'
)
@click.argument("prompt")
@click.option("--raw", is_flag=True, help="Continue the prompt instead of answering it.")
@click.option("--plan", "show_plan", is_flag=True, help="Show who runs which layers, and why.")
@click.option(
    "--stdin/--no-stdin",
    "stdin",
    default=None,
    help="Put all of standard input before PROMPT, or none of it.  [default: a file from its "
    "beginning, or a pipe in which something comes within 3 s]",
)
@asking_options
@json_option
def generate(
    prompt: str, raw: bool, show_plan: bool, stdin: bool | None, as_json: bool, **chosen: Any
) -> None:
    """Answer PROMPT (or standard input, for -), streaming the text as it comes.

    What a file or a pipe has on standard input stands before PROMPT.
    """
    text = _prompt(prompt, stdin)
    if not text.strip():
        raise UsageError("the prompt is empty", hint='for instance p2pnode generate "Hello"')
    question = _question(text, chosen["system"], raw=raw)
    with some_node(_fresh(chosen), quiet=as_json, chats=not raw) as host, host.client() as client:
        params = {**question, **asked_params(chosen, is_fresh=host.is_fresh, model=host.model)}
        result = _stream(client, params, quiet=as_json, show_plan=show_plan)
    if as_json:
        say_json(result)
        return
    _summarise(result, chosen["activations"])
    if show_plan:
        tell_off(result)


@click.command(
    epilog="Examples:\n\n  p2pnode chat\n\n  p2pnode chat --temperature 0.7 --system @persona.txt"
    "\n\n  cat question.txt | p2pnode chat\n\n  printf 'Hello\\nAnd now?\\n' | p2pnode chat --lines"
)
@click.option("--plain", is_flag=True, help="Show answers as they come, not as Markdown.")
@click.option("--no-history", is_flag=True, help="Keep nothing of what is said for later chats.")
@click.option(
    "--lines",
    is_flag=True,
    help="Where standard input is no terminal, each line is a message; else all of it is one.",
)
@asking_options
def chat(plain: bool, no_history: bool, lines: bool, **chosen: Any) -> int:
    """Talk with the model; Ctrl-C stops an answer, Ctrl-D ends the conversation, /help is help."""
    from p2pnode.interfaces.chat.start import ChatOptions, talk

    options = ChatOptions(
        system=chosen["system"] or "",
        is_plain=plain,
        keeps_history=not no_history,
        each_line=lines,
        state=state_of(chosen["state"]),
        answers=chosen,
    )
    return talk(options, lambda: some_node(_fresh(chosen), quiet=False, chats=True))


def _prompt(prompt: str, stdin: bool | None) -> str:
    """Return what is asked: the prompt, behind what standard input has.

    The question is last, where a model that has read a long text still knows it.

    Raises:
        UserError: It is no text, or too long.
    """
    if prompt == "-":
        return decoded(sys.stdin.buffer.read(MOST_BYTES + 1))
    checked_text(prompt)
    given = text_beside_prompt(stdin) if prompt.strip() else ""
    return f"{given}\n\n{prompt}" if given.strip() else prompt


def _question(text: str, system: str | None, *, raw: bool) -> dict[str, Any]:
    """Return what is asked as a node takes it.

    Raises:
        UsageError: There is a system prompt, and no template to put it in.
    """
    if not system:
        return {"prompt": text, "raw": raw}
    if raw:
        raise UsageError(
            "--raw goes on with a text, and has no place for --system",
            hint="put it at the prompt's beginning",
        )
    head = {"role": "system", "content": system}
    return {"messages": [head, {"role": "user", "content": text}]}


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


def _fresh(chosen: dict[str, Any]) -> UpOptions:
    """Return the options of the node to start where none runs."""
    state: Path | None = chosen["state"]
    return UpOptions(
        state=state,
        model=(chosen["model"],),
        layers="auto",
        max_layers=None,
        listen=chosen["listen"],
        port=0,
        peer=chosen["peer"],
        name=None,
        kv_memory=512,
        mdns=True,
    )
