"""How answers are made, as ``/set`` shows and changes it: the options of the command by name."""

import shlex
from collections.abc import Mapping
from typing import Any, Final

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.chat.commands import nearest
from p2pnode.interfaces.cli.asking_options import answer_options

_SHOWN: Final = 40  # letters of a name that is none
_DEFAULT: Final = "default"
_FLAGS: Final = {"on": True, "off": False, "true": True, "false": False, "yes": True, "no": False}
_LONG: Final = 60  # letters of a value that a line shows


@click.command("set")
@answer_options
def _answer(**_: Any) -> None:
    """Stand for the options: it is never called."""


OPTIONS: Final[Mapping[str, click.Option]] = {
    str(option.name).replace("_", "-"): option
    for option in _answer.params
    if isinstance(option, click.Option)
}
"""By the name that a person types."""


class AnswerSettings:
    """What was chosen; read and changed by name.

    Attributes:
        chosen: Each option's value, by the option's own name.
    """

    def __init__(self, chosen: Mapping[str, Any]) -> None:
        self.chosen = {str(option.name): chosen[str(option.name)] for option in OPTIONS.values()}

    def change(self, text: str) -> str:
        """Take ``NAME VALUE`` as the command line does; return the line that shows it.

        Raises:
            UserError: There is no such setting, or it cannot have that value.
        """
        typed, _, value = text.partition(" ")
        name = typed.lstrip("-").replace("_", "-").lower()
        option = OPTIONS.get(name)
        if option is None:
            near = nearest(name, OPTIONS)
            hint = f"/set {near}" if near else "/set lists them"
            raise UserError(f"there is no setting {typed[:_SHOWN]}", hint=hint)
        if value.strip():
            self._set(name, option, value.strip())
        return self._line(name, option)

    def lines(self) -> list[str]:
        """Return each setting with its value, in lines."""
        return [self._line(name, option) for name, option in OPTIONS.items()]

    def _set(self, name: str, option: click.Option, value: str) -> None:
        changed = {**self.chosen, str(option.name): _read(name, option, value)}
        if changed["schema"] and changed["json_mode"]:
            other = "json-mode" if name == "schema" else "schema"
            raise UserError(
                "schema and json-mode do not go together", hint=f"/set {other} {_DEFAULT}"
            )
        self.chosen = changed

    def _line(self, name: str, option: click.Option) -> str:
        value = self.chosen[str(option.name)]
        return f"  {name:<{_WIDTH}}  {_shown(value)}"


def _read(name: str, option: click.Option, value: str) -> object:
    """Read a value by the option's own rules.

    Raises:
        UserError: It cannot be.
    """
    try:
        with _answer.make_context("/set", _words(name, option, value)) as context:
            return context.params[str(option.name)]
    except click.ClickException as error:
        raise UserError(error.format_message(), hint=f"/set {name} {_DEFAULT}") from error


def _words(name: str, option: click.Option, value: str) -> list[str]:
    """Return a setting as the command line has it.

    Raises:
        UserError: It is no list, or neither on nor off.
    """
    if value == _DEFAULT:
        return []
    if option.is_flag:
        if value.lower() not in _FLAGS:
            raise UserError(f"{name} is on or off", hint=f"/set {name} on")
        return [f"--{name}"] if _FLAGS[value.lower()] else []
    if not option.multiple:
        return [f"--{name}={value}"]
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise UserError(f"a quote is not closed in {value[:_SHOWN]}") from error
    return [f"--{name}={_unescaped(word)}" for word in words]


def _unescaped(word: str) -> str:
    """Return a word with the line's end that it may spell: nobody can type one here."""
    return word.replace("\\n", "\n").replace("\\t", "\t")


def _shown(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    text = " ".join(map(repr, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


_WIDTH: Final = max(map(len, OPTIONS))
