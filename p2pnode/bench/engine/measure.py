"""The rounds: everyone in turns, so that a noisy minute hits all alike."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from p2pnode.bench.engine.contestants import LLAMA_CPP, Contestant
from p2pnode.bench.engine.process import Process
from p2pnode.errors import ModelError, UserError
from p2pnode.node.capacity import SPARE
from p2pnode.node.free_memory import free_memory
from p2pnode.node.model_facts import facts_of
from p2pnode.quantiles import quantile
from p2pnode.text.tokenizer import Tokenizer

PREFILLS: Final = (64, 128, 512)
"""Tokens of the prompts: what chains send at once, a question's, a page's."""

QUALITY_TOKENS: Final = 1024
DECODE_FROM: Final = 128
"""Positions before the tokens that are decoded."""

_PYTHON_CALLS: Final = 40
_WARM: Final = 2  # tokens before those that count
_TEXTS: Final = (("texts", "prose.txt"), ("kv_texts", "story.txt"), ("kv_texts", "letter.txt"))

_REFERENCE: Final = Contestant("numpy", "", 1, "auto")


@dataclass(slots=True)
class Measured:
    """A contestant and what was measured of it.

    Attributes:
        spent: Seconds of clock and of CPU a token, of each round, by ``decode`` or ``prefill128``.
        failure: Why there is no more of it.
    """

    contestant: Contestant
    process: Process | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    spent: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured of everyone.

    Attributes:
        path: The model.
        ids: An English text.
        positions: Of a session.
        start: Positions before the tokens that are decoded.
        tokens: That are decoded in a round.
        prefills: The prompts' lengths.
    """

    path: Path
    ids: list[int]
    positions: int
    start: int
    tokens: int
    prefills: tuple[int, ...]


def measure(
    path: Path,
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    tokens: int,
    quality: bool,
    tell: Callable[[float], None],
) -> dict[str, Any]:
    """Let everyone decode and compute prompts ``rounds`` times in turns.

    Args:
        path: The model.
        contestants: Who takes part.
        rounds: Turns of each; every other round goes through them backwards.
        tokens: Decoded in a turn.
        quality: Whether logits are compared with numpy's in float32.
        tell: Hears which part is done.

    Returns:
        ``rows``, one of each contestant, with figures or ``failed`` and the reason; ``ratios`` of
        their speeds; and ``reference``, why nothing was compared, or empty.

    Raises:
        ModelError: The model cannot be used at all.
    """
    plan = _plan(path, tokens)
    everyone = [Measured(one, failure=one.unusable) for one in contestants]
    steps = rounds + 2
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="p2pnode-bench-") as folder:
        known, missing = _reference(plan, Path(folder)) if quality else (None, "not asked for")
        tell(1 / steps)
        for measured in everyone:
            stack.callback(_close, measured)
            _attempt(measured, lambda one: _start(one, plan))
        for number in range(rounds):
            for measured in everyone[:: -1 if number % 2 else 1]:
                _attempt(measured, lambda one: _turn(one, plan))
            tell((number + 2) / steps)
        for measured in everyone:
            _attempt(measured, lambda one: _finish(one, plan, known))
        tell(1.0)
    return {
        "model": path.name,
        "rounds": rounds,
        "decoded_tokens": tokens,
        "compared_tokens": len(plan.ids) if known else 0,
        "reference": missing,
        "rows": [_row(one, path.name) for one in everyone],
        "ratios": ratios(everyone),
    }


def ratios(everyone: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return how fast ggml is against numpy, and against llama.cpp with the same library.

    Medians of the rounds' own; by the clock, and by the CPU's time.
    """
    found = []
    whole = [one for one in everyone if one.spent and not one.failure]
    for one in whole:
        for other in whole:
            first, second = one.contestant, other.contestant
            is_pair = second.engine == "numpy" or (
                second.engine == LLAMA_CPP and first.provider == second.provider
            )
            if first.engine == "ggml" and is_pair and first.threads == second.threads:
                row: dict[str, Any] = {
                    "engine": first.name,
                    "against": second.engine,
                    "threads": first.threads,
                }
                for what, mine in one.spent.items():
                    pairs = list(zip(mine, other.spent[what], strict=True))
                    for index, suffix in enumerate(("", "_cpu")):
                        each = [theirs[index] / ours[index] for ours, theirs in pairs]
                        row[what + suffix] = round(quantile(each, 0.5), 3)
                found.append(row)
    return found


def _plan(path: Path, tokens: int) -> Plan:
    facts = facts_of(path)
    if facts.problem:
        raise ModelError(f"{path.name} cannot be measured: {facts.problem}", hint=facts.hint)
    context = facts.context or QUALITY_TOKENS
    start = min(DECODE_FROM, context // 4)
    most = min(QUALITY_TOKENS, context)
    needed = start + _WARM + max(tokens, _PYTHON_CALLS)
    if needed > most:
        raise UserError(
            f"{path.name} has {context} positions, too few to decode {tokens} tokens",
            hint="Give fewer --tokens.",
        )
    tokenizer = Tokenizer.from_model(path)
    ids = tokenizer.encode(_text())[:most]
    if len(ids) < needed:
        raise ModelError(f"{path.name} makes {len(ids)} tokens of the text, not {needed}")
    prefills = tuple(one for one in PREFILLS if one <= len(ids))
    return Plan(path, ids, most, start, tokens, prefills)


def _text() -> str:
    root = resources.files("p2pnode.bench")
    return "\n\n".join((root / room / name).read_text("utf-8") for room, name in _TEXTS)


def _reference(plan: Plan, folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Return where the logits of numpy are; None and why where there are none."""
    lacking = too_large(plan.path)
    if lacking:
        return None, lacking
    file = folder / "logits"
    try:
        with Process(_REFERENCE) as process:
            process.load(plan.path, plan.ids, plan.positions)
            vocab = process.ask("reference", file=str(file))["vocab"]
    except UserError as error:
        return None, str(error)
    return {"file": str(file), "vocab": vocab}, ""


def too_large(path: Path) -> str:
    """Say why numpy cannot hold the model in float32 now; empty where it can."""
    needed, free = facts_of(path).memory_as_floats + SPARE, free_memory()
    if needed <= free:
        return ""
    return f"float32 takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"


def _attempt(measured: Measured, step: Callable[[Measured], None]) -> None:
    """Do a step of one contestant; what goes wrong is its failure, and nobody else's."""
    if measured.failure:
        return
    try:
        step(measured)
    except UserError as error:
        measured.failure = str(error)
        _close(measured)


def _start(measured: Measured, plan: Plan) -> None:
    if measured.contestant.engine == "numpy" and (lacking := too_large(plan.path)):
        raise UserError(lacking)
    process = measured.process = Process(measured.contestant)
    measured.facts = process.load(plan.path, plan.ids, plan.positions)
    process.ask("decode", start=plan.start, tokens=plan.tokens)  # warms up
    measured.facts |= process.ask("memory")
    for tokens in plan.prefills:
        process.ask("prefill", tokens=tokens)


def _turn(measured: Measured, plan: Plan) -> None:
    process = _process(measured)
    found = {"decode": process.ask("decode", start=plan.start, tokens=plan.tokens)}
    for tokens in plan.prefills:
        found[f"prefill{tokens}"] = process.ask("prefill", tokens=tokens)
    for what, spent in found.items():
        measured.spent.setdefault(what, []).append((spent["s"], spent["cpu_s"]))


def _finish(measured: Measured, plan: Plan, known: dict[str, Any] | None) -> None:
    process = _process(measured)
    measured.facts |= process.ask("python", start=plan.start, tokens=_PYTHON_CALLS)
    if known is not None:
        found = process.ask("quality", **known)
        measured.facts |= {"kl": float(f"{found['kl']:.3g}"), "argmax": round(found["argmax"], 4)}
    _close(measured)


def _process(measured: Measured) -> Process:
    if measured.process is None:
        raise UserError("it was never started")
    return measured.process


def _close(measured: Measured) -> None:
    process, measured.process = measured.process, None
    if process is not None:
        process.close()


def _row(measured: Measured, model: str) -> dict[str, Any]:
    one = measured.contestant
    row: dict[str, Any] = {
        "engine": one.engine,
        "library": one.provider,
        "numerics": None,
        "model": model,
        "threads": one.threads,
    }
    if measured.failure:
        return {**row, "failed": measured.failure}
    row |= dict.fromkeys(("kl", "argmax", "python_us", "python_layer_us")) | measured.facts
    for what in ("decode", *(f"prefill{tokens}" for tokens in PREFILLS)):
        turns = measured.spent.get(what)
        row[f"{what}_tok_s"] = turns and round(quantile([1 / one for one, _ in turns], 0.5), 1)
        row[f"{what}_cpu_ms"] = turns and round(1e3 * quantile([cpu for _, cpu in turns], 0.5), 3)
    return row
