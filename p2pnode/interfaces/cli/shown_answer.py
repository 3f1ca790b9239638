"""What a person sees of an answer while it comes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from p2pnode.interfaces.cli import repairs
from p2pnode.interfaces.cli.output import note, say
from p2pnode.phrases import plural

_LONG_PROMPT = 512  # tokens; a machine of the default kind reads some hundreds a second


class ShownAnswer:
    """Shows the events of one answer as they come."""

    def __init__(
        self,
        params: Mapping[str, Any],
        *,
        show_plan: bool = False,
        write: Callable[[str], None] | None = None,
    ) -> None:
        """``params`` are those of what was asked; ``write`` takes the answer's words."""
        self._write = write or _say
        self._params = params
        self._show_plan = show_plan
        self._is_in_line = False
        self._lost: set[tuple[str, int, int]] = set()

    def show(self, event: Mapping[str, Any]) -> None:
        match event.get("event"):
            case "plan" if self._show_plan:
                if self._params.get("model"):
                    note(f"by {event['model']}:")
                tell_plan(event["plan"])
            case "plan" if (left := _to_read(event)) >= _LONG_PROMPT:
                note(f"[reads the prompt first: {left} tokens]")
            case "note" if not self._show_plan:  # a plan has it among its reasons
                note(f"[{event['text']}]")
            case "queued":
                note(f"[waits for its turn: {plural(event['ahead'], 'question')} before it]")
            case "history":
                gone = plural(_turns(self._params["messages"], event["left_out"]), "turn")
                note(f"[the oldest {gone} left the conversation: the model's context is full]")
            case "token" | "rest":
                self._say(event["text"])
            case "broken":
                self._tell_loss(event)
            case "repaired":
                self._lost.clear()
                self._note(repairs.mended(event))
            case "waiting":
                self._note(repairs.waiting(event))

    def break_line(self) -> None:
        """End the line of the answer, if it is in one: what follows is none of its words."""
        if self._is_in_line:
            say()
        self._is_in_line = False

    def _say(self, text: str) -> None:
        if text:
            self._write(text)
            self._is_in_line = not text.endswith("\n")

    def _note(self, line: str) -> None:
        note(f"\n{line}" if self._is_in_line else line)
        self._is_in_line = False

    def _tell_loss(self, event: Mapping[str, Any]) -> None:
        """Tell it once: who was lost may be asked again in vain before anybody takes over."""
        pairs = zip(event["names"], event["layers"], strict=True)
        lost = {(name, *layers) for name, layers in pairs}
        if not lost or not lost <= self._lost:
            self._note(repairs.lost(event))
        self._lost |= lost


def tell_plan(plan: Mapping[str, Any]) -> None:
    """Tell who computes which layers, at what cost, and why."""
    for stage in plan["stages"]:
        first, stop = stage["layers"]
        note(
            f"{stage['name']:>20}  [{first}, {stop})  {stage['cost_ms']:.1f} ms  {stage['reason']}"
        )
    if (expected := plan.get("expected")) is not None:
        note(f"  {_expectation(expected)}")
    for reason in plan["reasons"]:
        note(f"  {reason}")


def tell_off(facts: Mapping[str, Any]) -> None:
    """Tell what was expected of an answer, and what it took."""
    plan, off = facts["plan"], facts.get("off")
    if not plan or not off:
        return
    expected = plan["expected"]
    took = [f"the first token after {facts['first_token_ms'] / 1e3:.2f} s"]
    took[0] += f" for {expected['first_token_ms'] / 1e3:.2f} s ({_percent(off['first_token'])})"
    if off["tokens_per_s"] is not None:
        took.append(
            f"{facts['tokens_per_s']:.1f} tokens/s for {expected['tokens_per_s']:.1f} "
            f"({_percent(off['tokens_per_s'])})"
        )
    note(f"against what was expected: {', '.join(took)}")


def _expectation(expected: Mapping[str, Any]) -> str:
    others = expected["others"]
    beside = f", beside {plural(others, 'other answer')}" if others else ""
    first, speed = expected["first_token_ms"] / 1e3, expected["tokens_per_s"]
    return f"expected: the first token after {first:.2f} s, then {speed:.1f} tokens/s{beside}"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.0f} %"


def _say(text: str) -> None:
    say(text, end="")


def _turns(messages: Sequence[Mapping[str, str]], left_out: int) -> int:
    """Count the exchanges that left: what was said, with its answer if there was one.

    What stands at the head for the whole conversation stays.
    """
    said = [message for message in messages if message["role"] not in {"system", "developer"}]
    return sum(message["role"] == "user" for message in said[:left_out])


def _to_read(event: Mapping[str, Any]) -> int:
    """Return how many tokens of the prompt are to be computed."""
    return int(event["prompt_tokens"]) - int(event.get("reused", 0))
