"""Starts a conversation: with whom, heard how, and shown how."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.interfaces.chat.answer_settings import OPTIONS, AnswerSettings
from p2pnode.interfaces.chat.line_history import history_path
from p2pnode.interfaces.chat.listening import EachLine, Listener, WholeInput
from p2pnode.interfaces.chat.quiet_terminal import has_editing, is_echoing, quiet_terminal
from p2pnode.interfaces.chat.screen import PaintedWords, PlainWords, has_colours
from p2pnode.interfaces.chat.session import ChatSession
from p2pnode.interfaces.cli.output import note
from p2pnode.interfaces.cli.own_node import Host


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What a person said about a conversation.

    Attributes:
        system: The system prompt; empty for none.
        is_plain: Whether answers are shown as they come.
        keeps_history: Whether what is said is kept for later chats.
        each_line: Whether each line is a message where standard input is no terminal.
        state: The state directory, which has the history.
        answers: How answers are made, by the options' names.
    """

    system: str
    is_plain: bool
    keeps_history: bool
    each_line: bool
    state: Path
    answers: Mapping[str, Any]


def talk(options: ChatOptions, some_node: Callable[[], AbstractContextManager[Host]]) -> int:
    """Talk until the end, with the node that ``some_node`` yields; return the exit status.

    Raises:
        UserError: No message would be answered.
    """
    echo = sys.stdin.isatty() and is_echoing()
    with quiet_terminal(), some_node() as host:
        listener = _listener(options, echo=echo)
        if listener.is_person:
            note("Ctrl-C stops an answer, Ctrl-D ends the conversation, /help says more")
        settings = AnswerSettings(options.answers)
        words = PlainWords if options.is_plain or not has_colours() else PaintedWords
        return ChatSession(host, listener, settings, options.system, words).run()


def _listener(options: ChatOptions, *, echo: bool) -> Listener:
    """Return what hears standard input, as that is."""
    if not sys.stdin.isatty():
        return EachLine() if options.each_line else WholeInput()
    if not has_editing() or not (sys.stdout.isatty() or sys.stderr.isatty()):
        from p2pnode.interfaces.chat.dumb_line import DumbLine

        return DumbLine(echo=echo)
    from p2pnode.interfaces.chat.completing import CommandCompleter
    from p2pnode.interfaces.chat.edited_line import EditedLine

    history = history_path(options.state) if options.keeps_history else None
    return EditedLine(history, CommandCompleter(OPTIONS))
