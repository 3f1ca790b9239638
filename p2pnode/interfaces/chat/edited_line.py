"""A line that is edited: several lines, whole pastes, what was said before, completion."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.input.typeahead import clear_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style

from p2pnode.interfaces.chat import composing
from p2pnode.interfaces.chat.line_history import LineHistory
from p2pnode.interfaces.chat.pastes import Pastes
from p2pnode.interfaces.chat.typed_ahead import TypedAhead
from p2pnode.interfaces.cli.piped_input import checked_text

PROMPT = "> "
_STYLE = Style.from_dict({"prompt": "ansicyan"})
"""With a colour its space is written too: whoever drives a terminal waits for the whole of it."""


class EditedLine:
    """Hears a person at a terminal that can move its cursor."""

    is_person = True
    is_all = False

    def __init__(self, history: Path | None, completer: Completer) -> None:
        """``history`` is the file to keep what was said in; None for none."""
        self._pastes = Pastes()
        self._ahead = None if sys.platform == "win32" else TypedAhead(sys.stdin.fileno())
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", PROMPT)],
            style=_STYLE,
            multiline=True,
            prompt_continuation=" " * len(PROMPT),
            history=LineHistory(history, self._pastes.expanded),
            key_bindings=_keys(self._pastes),
            completer=completer,
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,
            enable_suspend=True,
            input=_input(),
            output=_output(),
        )

    def listen(self) -> str | None:
        if self._ahead is not None:
            store_typeahead(self._session.input, _keys_ahead(self._session.input, self._ahead))
        try:
            line = self._session.prompt()
        except EOFError:
            return None
        said = checked_text(self._pastes.expanded(line))
        self._pastes.clear()
        return said

    def ahead(self) -> AbstractContextManager[None]:
        return nullcontext() if self._ahead is None else self._ahead.reading()

    def forget(self) -> None:
        clear_typeahead(self._session.input)
        if self._ahead is not None:
            self._ahead.clear()


def _keys(pastes: Pastes) -> KeyBindings:
    keys = KeyBindings()
    is_line = has_focus(DEFAULT_BUFFER)

    @keys.add("enter", filter=is_line)
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.is_cursor_at_the_end and composing.is_open(buffer.text):
            text = composing.next_line(buffer.text)
            buffer.document = Document(text, len(text))
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=is_line)
    @keys.add("escape", "c-j", filter=is_line)
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=is_line)
    def clear(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
            pastes.clear()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    @keys.add(Keys.BracketedPaste, filter=is_line)
    def paste(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(pastes.take(event.data))

    return keys


def _input() -> Input:
    made = create_input()
    if sys.platform != "win32":
        from prompt_toolkit.input.vt100 import Vt100Input

        from p2pnode.interfaces.chat.line_reader import BurstReader

        if isinstance(made, Vt100Input):
            made.stdin_reader = BurstReader(made.fileno())
    return made


def _keys_ahead(made: Input, ahead: TypedAhead) -> list[KeyPress]:
    """Take the keys that were typed ahead, each burst read as :class:`BurstReader` does."""
    if sys.platform == "win32":
        return []
    from prompt_toolkit.input.vt100 import Vt100Input

    from p2pnode.interfaces.chat.line_reader import BurstReader

    if not isinstance(made, Vt100Input) or not isinstance(made.stdin_reader, BurstReader):
        return []
    while (data := ahead.take()) is not None:
        made.vt100_parser.feed(made.stdin_reader.marked(data))
    return made.flush_keys()


def _output() -> Output:
    """Draw on standard output, or on standard error where that is none; ask no cursor's place.

    A terminal that does not answer is waited for, and one that answers late does so in the line.
    """
    if sys.platform == "win32":
        return create_output(always_prefer_tty=True)
    from prompt_toolkit.output.vt100 import Vt100_Output

    stream = sys.stdout if sys.stdout.isatty() else sys.stderr
    made = Vt100_Output.from_pty(stream, term=os.environ.get("TERM"))
    made.enable_cpr = False
    return made
