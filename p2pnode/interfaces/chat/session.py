"""A conversation: what is said is asked or obeyed, until it ends."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.chat import composing
from p2pnode.interfaces.chat.answer_settings import AnswerSettings
from p2pnode.interfaces.chat.closing_line import closing_line
from p2pnode.interfaces.chat.commands import Command, help_text, parse_command
from p2pnode.interfaces.chat.conversation import Conversation, Turn
from p2pnode.interfaces.chat.listening import Listener
from p2pnode.interfaces.chat.reply import Reply, ask
from p2pnode.interfaces.chat.saved import load, save
from p2pnode.interfaces.chat.screen import Words
from p2pnode.interfaces.chat.talk import Talk
from p2pnode.interfaces.cli.asking_options import asked_params
from p2pnode.interfaces.cli.logprob_lines import logprob_lines
from p2pnode.interfaces.cli.output import complain, note
from p2pnode.interfaces.cli.own_node import Host
from p2pnode.interfaces.cli.shown_answer import tell_plan
from p2pnode.interfaces.cli.values import SystemPrompt
from p2pnode.phrases import plural

_FINAL: Final = ("this model has no chat template", "this node has no model")
"""How a node begins to say what it will say to each message."""

_SEEDS: Final = 2**64


class ChatSession:
    """Talks with one listener about what one node answers."""

    def __init__(
        self,
        host: Host,
        listener: Listener,
        settings: AnswerSettings,
        system: str,
        words: Callable[[], Words],
    ) -> None:
        """``words`` makes what shows an answer's words."""
        self._host = host
        self._listener = listener
        self._settings = settings
        self._words = words
        self._talk = Talk(Conversation(system))
        self._plan: Mapping[str, Any] | None = None
        self._status = 0
        self._last_word: UserError | None = None  # an error after which nothing more is asked
        self._obey: Mapping[str, Callable[[str], None]] = MappingProxyType(
            {
                "help": lambda _: note(help_text()),
                "retry": lambda _: self._ask(self._talk.retried(), is_again=True),
                "undo": lambda _: self._undo(),
                "reset": lambda _: self._reset(),
                "system": self._system,
                "set": self._set,
                "plan": lambda _: self._tell_plan(),
                "peers": lambda _: self._tell_peers(),
                "save": self._save,
                "load": self._load,
            }
        )

    def run(self) -> int:
        """Talk until the end; return the exit status.

        Raises:
            UserError: No further message would fare better.
            KeyboardInterrupt: Ctrl-C where nobody sits.
        """
        while True:
            try:
                said = self._listener.listen()
                if said is None or not self._take(said):
                    return self._status
            except UserError as error:
                if error is self._last_word:
                    raise
                self._complain(error)
            except KeyboardInterrupt:
                if not self._listener.is_person:
                    raise
                note("nothing to stop here; Ctrl-D or /bye ends the conversation")

    def _take(self, said: str) -> bool:
        """Obey or ask; tell whether the conversation goes on."""
        if not said.strip():
            return True
        command = parse_command(said) if self._listener.is_person else None
        if command is None:
            self._ask(composing.said(said) if self._listener.is_person else said)
            return True
        if command.name != "bye":
            self._do(command)
        return command.name != "bye"

    def _do(self, command: Command) -> None:
        self._obey[command.name](command.rest)

    def _ask(self, question: str, *, is_again: bool = False) -> None:
        if not question.strip():
            return
        if not is_again:
            self._talk.asks_anew()
        params = {"messages": self._talk.now.asking(question), **self._params()}
        with self._listener.ahead():
            reply = ask(self._host, params, self._words())
        self._plan = reply.plan or self._plan
        self._keep(question, reply)
        if reply.error is not None:
            self._tell_error(reply)
        elif reply.facts is None:
            self._stop()
        self._close(reply, params)

    def _params(self) -> dict[str, Any]:
        """Return how to answer; asked again, a draw is another one."""
        host = self._host
        params = asked_params(self._settings.chosen, is_fresh=host.is_fresh, model=host.model)
        if params["temperature"]:
            params["seed"] = (params["seed"] + self._talk.tries) % _SEEDS
        elif self._talk.tries:
            note("[a greedy answer is always the same: /set temperature 0.8 for others]")
        return params

    def _keep(self, question: str, reply: Reply) -> None:
        """Keep what was said: a question of which nothing came is as if it had not been."""
        if reply.facts is not None:
            self._talk.answered(Turn(question, reply.text), reply.facts["left_out"])
        elif reply.text:
            self._talk.answered(Turn(question, reply.text, is_cut=True))
        else:
            self._talk.failed(question)

    def _tell_error(self, reply: Reply) -> None:
        """Tell why an answer broke off.

        Raises:
            UserError: No further message would fare better.
        """
        if reply.error is None:
            return
        is_over = self._host.has_ended() and (self._host.is_fresh or not self._listener.is_person)
        if str(reply.error).startswith(_FINAL) or is_over:
            self._last_word = reply.error
            raise reply.error
        self._complain(reply.error)
        if self._listener.is_person and not reply.text:
            note("[nothing came of the question; /retry asks it again]")

    def _stop(self) -> None:
        """Go on after a Ctrl-C.

        Raises:
            KeyboardInterrupt: There is nothing to go on with.
        """
        if self._listener.is_all:
            raise KeyboardInterrupt
        self._listener.forget()
        note("[stopped]")

    def _close(self, reply: Reply, params: Mapping[str, Any]) -> None:
        if reply.facts is not None and "logprobs" in reply.facts:
            note("\n".join(logprob_lines(reply.facts["logprobs"])))
        is_cut = reply.facts is not None and reply.facts["finish"] == "length"
        is_told = self._listener.is_person and (reply.facts is not None or bool(reply.text))
        if is_told or is_cut:
            note(closing_line(reply, params))

    def _complain(self, error: UserError) -> None:
        self._status = self._status if self._listener.is_person else error.exit_status
        complain(error)

    # What a person can ask of the chat itself

    def _undo(self) -> None:
        gone = self._talk.undo()
        what = "what was changed last" if gone is None else _brief(gone.question)
        note(f"[taken back: {what}; {self._length()}]")

    def _reset(self) -> None:
        self._talk.change(Conversation(self._talk.now.system))
        note("[the conversation begins anew; /undo brings the old one back]")

    def _system(self, text: str) -> None:
        if not text:
            note(self._talk.now.system or "[there is no system prompt]")
            return
        system = "" if text in {'""', "''"} else _system_prompt(composing.said(text))
        self._talk.change(Conversation(system, self._talk.now.turns))
        note("[the system prompt is set]" if system else "[the system prompt is removed]")

    def _set(self, text: str) -> None:
        lines = [self._settings.change(text)] if text else self._settings.lines()
        note("\n".join(lines))

    def _tell_plan(self) -> None:
        if self._plan is None:
            raise UserError("nothing was planned yet", hint="ask something first")
        tell_plan(self._plan)

    def _tell_peers(self) -> None:
        from p2pnode.interfaces.cli.look_commands import tell_peers
        from p2pnode.net.local_nodes import local_nodes
        from p2pnode.node.snapshot_json import from_json

        with self._host.client() as client:
            picture = from_json(client.call("snapshot"))
        tell_peers(picture, {node.node_id: node.pid for node in local_nodes()})

    def _save(self, target: str) -> None:
        path = save(self._talk.now, target)
        note(f"[saved in {path}: {self._length()}]")

    def _load(self, source: str) -> None:
        self._talk.change(load(source))
        note(f"[loaded: {self._length()}; /undo brings back what was here]")

    def _length(self) -> str:
        return plural(len(self._talk.now.turns), "turn")


def _system_prompt(text: str) -> str:
    """Return a system prompt: the text, or what its file has.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        return SystemPrompt().convert(text, None, None)
    except click.ClickException as error:
        raise UserError(error.format_message()) from error


def _brief(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 40 else f"{words[:40]}..."
