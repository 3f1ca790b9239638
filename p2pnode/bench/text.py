"""What words cost: a prompt in the process for it, and an answer's tokens on the node's loop."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import trio

from p2pnode.inference.events import TokenProduced
from p2pnode.net.control_lines import encode_line
from p2pnode.node.answering.calls import Calls
from p2pnode.node.answering.words import Words
from p2pnode.node.models import describe_model
from p2pnode.node.text_worker import Prompt, TextWorker
from p2pnode.quantiles import quantile
from p2pnode.text.detokenizer import Detokenizer
from p2pnode.text.tool_calls.formats import ToolFormat

_TIMES: Final = 200
_STOPS: Final = ("</s>", "Question:", "\n\n\n", "<|end|>")
_NO_PROMPT: Final = Prompt((), 0, frozenset())

_SAID: Final = (
    {"role": "system", "content": "Answer in a sentence or two."},
    {"role": "user", "content": "Why is the sky blue?"},
    {"role": "assistant", "content": "Air scatters blue light more than red light."},
    {"role": "user", "content": "And why is it red in the evening?"},
)


def measure(path: Path, *, rounds: int) -> dict[str, Any]:
    """Make an ordinary chat's prompt ``rounds`` times, after one that starts the process."""
    return trio.run(_measured, path, rounds)


async def _measured(path: Path, rounds: int) -> dict[str, Any]:
    model = describe_model(path)
    worker = TextWorker(path, model.name, model.context_length)
    asked = {"messages": list(_SAID), "max_tokens": 256}
    try:
        began = time.perf_counter()
        prompt = await worker.prompt(asked)
        first = time.perf_counter() - began
        steps = [await _step(worker, asked) for _ in range(rounds)]
        children = psutil.Process().children()
        return {
            "model": model.name,
            "rounds": rounds,
            "prompt_tokens": len(prompt.ids),
            "first_ms": round(1e3 * first, 1),
            "prompt_ms": {"p50": _ms(steps, 0.5), "p99": _ms(steps, 0.99)},
            "token_us": _of_answers(await worker.detokenizer(), prompt.ids),
            "process_mib": round(sum(one.memory_info().rss for one in children) / 2**20, 1),
        }
    finally:
        await worker.close()


async def _step(worker: TextWorker, asked: dict[str, Any]) -> float:
    began = time.perf_counter()
    await worker.prompt(asked)
    return time.perf_counter() - began


def _of_answers(detokenizer: Detokenizer, ids: Sequence[int]) -> dict[str, float]:
    """Return microseconds a token: spelled, told to a face, with stop strings, with calls sought.

    The answer is the prompt, many times; no stop string and no call is in it.
    """
    tokens = [*ids] * _TIMES
    kinds = {
        "spelled": Words(detokenizer, _NO_PROMPT, ()),
        "with 4 stop strings": Words(detokenizer, _NO_PROMPT, _STOPS),
        "with calls of tools": Words(
            detokenizer, _NO_PROMPT, (), Calls(ToolFormat.HERMES, is_forced=False)
        ),
    }
    spent = {name: _microseconds(tokens, words.take) for name, words in kinds.items()}
    told = {"event": "token", "token": 1234, "position": 567, "text": " word"}
    spent["as a line of JSON"] = _microseconds(tokens, lambda _: encode_line(told))
    return spent


def _microseconds(tokens: Sequence[int], take: Callable[[TokenProduced], object]) -> float:
    events = [TokenProduced(1, token, 0, 0.1, 0.05, 1, 0.0, 0, None) for token in tokens]
    began = time.perf_counter()
    for event in events:
        take(event)
    return round(1e6 * (time.perf_counter() - began) / len(events), 2)


def _ms(steps: Sequence[float], share: float) -> float:
    return round(1e3 * quantile(steps, share), 3)
