"""What a prompt costs: rendered and tokenised in the process for it, and the way there and back."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import trio

from p2pnode.node.models import describe_model
from p2pnode.node.text_worker import TextWorker
from p2pnode.quantiles import quantile

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
            "process_mib": round(sum(one.memory_info().rss for one in children) / 2**20, 1),
        }
    finally:
        await worker.close()


async def _step(worker: TextWorker, asked: dict[str, Any]) -> float:
    began = time.perf_counter()
    await worker.prompt(asked)
    return time.perf_counter() - began


def _ms(steps: Sequence[float], share: float) -> float:
    return round(1e3 * quantile(steps, share), 3)
