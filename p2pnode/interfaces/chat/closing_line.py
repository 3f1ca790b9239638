"""What is said below an answer: how much, how fast, by whom, and whether it is whole."""

from collections.abc import Mapping
from typing import Any, Final

from p2pnode.interfaces.chat.reply import Reply
from p2pnode.interfaces.cli import repairs
from p2pnode.phrases import holding, listed, plural

_LONG_QUEUE: Final = 100.0  # milliseconds before one's turn that are worth a word


def closing_line(reply: Reply, params: Mapping[str, Any]) -> str:
    """Return the line below an answer to what was asked with ``params``."""
    facts = reply.facts
    parts = _of_partial(reply) if facts is None else _of_whole(facts)
    if who := _who(reply):
        parts.append(f"by {who}")
    return f"[{', '.join(parts)}; {_end(reply, params)}]"


def _of_whole(facts: Mapping[str, Any]) -> list[str]:
    count = len(facts["token_ids"])
    parts = [plural(count, "token")]
    if count > 1:
        parts.append(f"{facts['tokens_per_s']:.1f} tokens/s")
    if count:
        parts.append(f"the first after {facts['first_token_ms']:.0f} ms")
    if reused := facts.get("reused", 0):
        parts.append(f"{reused} of {plural(len(facts['prompt_ids']), 'prompt token')} known before")
    if (queued := facts.get("queued_ms", 0.0)) >= _LONG_QUEUE:
        parts.append(f"its turn after {queued:.0f} ms")
    return parts


def _of_partial(reply: Reply) -> list[str]:
    """Say what was seen of an answer whose facts never came: by the clock here."""
    parts = [plural(reply.tokens, "token")]
    if reply.first_at is None:
        return parts
    if reply.last_at > reply.first_at:
        speed = (reply.tokens - 1) / (reply.last_at - reply.first_at)
        parts.append(f"{speed:.1f} tokens/s")
    return [*parts, f"the first after {1e3 * (reply.first_at - reply.asked_at):.0f} ms"]


def _who(reply: Reply) -> str:
    """Name who computed: after a repair, those who did at the end."""
    repaired = reply.facts["repaired"] if reply.facts else ()
    stages = repaired[-1]["stages"] if repaired else (reply.plan or {}).get("stages", ())
    return listed(holding(stage["name"], range(*stage["layers"])) for stage in stages)


def _end(reply: Reply, params: Mapping[str, Any]) -> str:
    facts = reply.facts
    if facts is None:
        return "cut: it broke off" if reply.error else "cut: you stopped it"
    if facts["finish"] == "length":
        said = repairs.cut(len(facts["token_ids"]), params["max_tokens"], "/set max-tokens N")
        return f"cut{said[1:-1].partition(' was cut')[2]}"
    if facts.get("stopped_by"):
        return f"complete, up to the stop string {facts['stopped_by']!r}"
    return "complete"
