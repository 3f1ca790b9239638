"""What Tab completes: commands, names of settings, files."""

from collections.abc import Collection, Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from p2pnode.interfaces.chat.commands import COMMANDS


class CommandCompleter(Completer):
    """Completes a line that begins with a slash."""

    def __init__(self, settings: Collection[str]) -> None:
        self._settings = settings
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        name, space, rest = document.text_before_cursor.partition(" ")
        if not name.startswith("/") or "\n" in document.text_before_cursor:
            return
        if not space:
            yield from _beginning(name, [f"/{command}" for command in COMMANDS])
        elif name == "/set" and " " not in rest:
            yield from _beginning(rest, self._settings)
        elif name in {"/save", "/load"} or (name == "/system" and rest.startswith("@")):
            path = Document(rest.removeprefix("--replace ").removeprefix("@"))
            yield from self._paths.get_completions(path, complete_event)


def _beginning(typed: str, known: Iterable[str]) -> Iterable[Completion]:
    return (Completion(one, -len(typed)) for one in known if one.startswith(typed))
