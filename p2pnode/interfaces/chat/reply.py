"""One answer: asked, shown as it comes, and what came of it whatever ended it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from p2pnode.errors import UserError
from p2pnode.interfaces.chat.quiet_terminal import interrupts_ignored
from p2pnode.interfaces.chat.screen import Words
from p2pnode.interfaces.cli.own_node import Host
from p2pnode.interfaces.cli.shown_answer import ShownAnswer
from p2pnode.terminal import whole


@dataclass(slots=True)
class Reply:
    """What came of a question.

    Attributes:
        text: The words, so far as they came.
        tokens: How many.
        plan: Who computes, once that is planned.
        first_at: When the first token came, of the monotonic clock; None before it.
        last_at: The same of the last.
        facts: What the node says of a whole answer; None for one that broke off.
        error: Why it broke off; None where it did not, and where a person stopped it.
    """

    text: str = ""
    tokens: int = 0
    plan: Mapping[str, Any] | None = None
    first_at: float | None = None
    last_at: float = 0.0
    facts: Mapping[str, Any] | None = None
    error: UserError | None = None
    asked_at: float = field(default_factory=time.monotonic)

    def take(self, event: Mapping[str, Any]) -> None:
        """Note one event."""
        match event.get("event"):
            case "plan":
                self.plan = event["plan"]
            case "token":
                self.tokens += 1
                self.last_at = time.monotonic()
                self.first_at = self.last_at if self.first_at is None else self.first_at
                self.text += event["text"]
            case "rest":
                self.text += event["text"]


def ask(host: Host, params: Mapping[str, Any], words: Words) -> Reply:
    """Ask, show the answer in ``words``, and return what came of it.

    However it ends, its peers' memory is free again, and its last line is ended.
    """
    reply = Reply()
    shown = ShownAnswer(params, write=words.write)

    def hear(event: dict[str, Any]) -> None:
        reply.take(event)
        shown.show(event)

    try:
        with host.client() as client:
            reply.facts = client.call("generate", params, hear)
    except UserError as error:
        reply.error = error
    except KeyboardInterrupt:
        pass
    with interrupts_ignored():
        words.finish()
        shown.break_line()
    if reply.facts is not None:
        reply.text = str(reply.facts["text"])
    reply.text = whole(reply.text)
    return reply
