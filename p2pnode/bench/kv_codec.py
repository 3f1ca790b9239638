"""What a coded KV cache costs: bytes, time, and how far the answers move."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from p2pnode.errors import ModelError, RemoteProtocolError
from p2pnode.quantiles import quantile

if TYPE_CHECKING:
    from p2pnode.engine.kv_importance import Case
    from p2pnode.engine.numpy.weights import TokenIds
    from p2pnode.wire.kv_calibration import KvCalibration
    from p2pnode.wire.kv_codec import KvSpan

CACHED, ANSWERED = 256, 128
"""Tokens of a text whose cache is coded, and tokens after it that are answered."""

FINENESS = (0, 4, 8)  # of the coded rows of the table

ASKED = (
    "Describe a market in an old town on a rainy morning.",
    "Give me a recipe for lentil soup and say why each step matters.",
    "What caused the industrial revolution?",
    "Write a long, friendly email to a colleague about a delayed project.",
    "Write a C program that counts words in a file and explain each line.",
    "List ten facts about the ocean with an explanation for each.",
)
"""What the model answers for its own calibration: half of what it will be used for is chat."""


def measure(path: Path, calibration: Path, *, tell: Callable[[float], None]) -> dict[str, Any]:
    """Measure on texts that no calibration saw; ``tell`` hears which part is done.

    Args:
        path: The model.
        calibration: Its calibration; made first where there is no such file.
        tell: Hears which part is done.

    Raises:
        ModelError: The calibration is of another model, or no file of one.
    """
    from p2pnode.engine.kv_importance import Case
    from p2pnode.engine.kv_probe import KvProbe

    probe = KvProbe.load(path)
    known = read_calibration(path, calibration) or make_calibration(path, calibration, tell)
    cases = [Case(probe, text, ANSWERED) for text in _held_out(path)]
    rows = [_row("int8 groups", cases, None, 0)]
    for number, fineness in enumerate(FINENESS):
        tell((number + 1) / (len(FINENESS) + 1))
        rows.append(_row(f"coded, fineness {fineness}", cases, known, fineness))
    return {
        "texts": len(cases),
        "positions": CACHED,
        "calibration_bytes": calibration.stat().st_size,
        "rows": rows,
    }


def read_calibration(path: Path, calibration: Path) -> KvCalibration | None:
    """Return a model's calibration from its file, or None where there is none.

    Raises:
        ModelError: It is not one, or of another model.
    """
    from p2pnode.node.models import describe_model
    from p2pnode.wire.kv_calibration import KvCalibration

    if not calibration.exists():
        return None
    space = describe_model(path).space_hash32
    try:
        return KvCalibration.from_bytes_untrusted(calibration.read_bytes(), space_hash32=space)
    except (OSError, RemoteProtocolError) as error:
        raise ModelError(f"{calibration}: {error}") from error


def make_calibration(path: Path, calibration: Path, tell: Callable[[float], None]) -> KvCalibration:
    """Calibrate a model on prose and code that come with Python, and on its own answers."""
    from p2pnode.engine.kv_calibration import calibrate_kv
    from p2pnode.engine.kv_probe import KvProbe
    from p2pnode.node.models import describe_model

    texts = [*_of_python(path), *_of_the_model(path)]
    space = describe_model(path).space_hash32
    found = calibrate_kv(KvProbe.load(path), texts, space, tell=tell)
    calibration.parent.mkdir(parents=True, exist_ok=True)
    unfinished = calibration.with_name(calibration.name + ".part")
    unfinished.write_bytes(found.to_bytes())
    unfinished.replace(calibration)
    return found


def _row(
    scheme: str, cases: list[Case], calibration: KvCalibration | None, fineness: int
) -> dict[str, Any]:
    """Code each case's cache, decode it, and let the model answer on the result."""
    from p2pnode.engine.kv_probe import KvCache, divergence
    from p2pnode.wire.kv_codec import KvSpan, decode_span_untrusted, encode_span

    sizes, costs, same, worse, coding, decoding = [], [], [], [], [], []
    for case in cases:
        seen = case.seen
        span = KvSpan(range(len(seen.keys)), 0, seen.keys, seen.values)
        started = time.perf_counter()
        data = encode_span(span, case.rotation, calibration, fineness=fineness)
        between = time.perf_counter()
        found = decode_span_untrusted(
            data,
            case.rotation,
            calibration,
            layers=span.layers,
            shape=span.shape,
            positions=span.positions,
        )
        coding.append(between - started)
        decoding.append(time.perf_counter() - between)
        answer = case.answer(KvCache(found.keys, found.values))
        sizes.append(len(data) / CACHED)
        costs.append(divergence(case.clean, answer))
        same.append(float((answer.argmax(axis=-1) == case.clean.argmax(axis=-1)).mean()))
        worse.append(_surprise(case, answer) - _surprise(case, case.clean))
    size = float(np.mean(sizes))
    return {
        "scheme": scheme,
        "bytes_per_token": round(size),
        "ratio": round(_f16_bytes(span) / size, 2),
        "kl": round(float(np.mean(costs)), 5),
        "kl_worst": round(max(costs), 5),
        "top1": round(float(np.mean(same)), 4),
        "dppl": round(float(np.expm1(np.mean(worse))), 4),
        "encode_ms": round(1e3 * quantile(coding, 0.5), 1),
        "decode_ms": round(1e3 * quantile(decoding, 0.5), 1),
    }


def _surprise(case: Case, answer: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Return the mean negative log probability of the tokens that really follow."""
    following = case.tokens[-ANSWERED + 1 :]
    return -float(answer[np.arange(len(following)), following].mean())


def _f16_bytes(span: KvSpan) -> int:
    return 2 * len(span.layers) * span.shape.width


# Texts


def _held_out(path: Path) -> Iterator[TokenIds]:
    from p2pnode.text.marked import template_text
    from p2pnode.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_model(path)
    folder = resources.files("p2pnode.bench") / "kv_texts"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        text = template_text(file.read_text("utf-8"))  # ours: its control tokens are meant
        yield _cut(tokenizer.encode(text), file.name)


def _cut(ids: list[int], name: str) -> TokenIds:
    if len(ids) < CACHED + ANSWERED:
        raise ModelError(f"{name} has {len(ids)} tokens, not {CACHED + ANSWERED}")
    return np.array(ids[: CACHED + ANSWERED], np.int64)


def _of_python(path: Path) -> Iterator[TokenIds]:
    """Prose from Python's own handbook and code from its library: no file of ours to ship."""
    import argparse
    import heapq
    import inspect
    import statistics
    import tarfile
    import textwrap
    from pydoc_data.topics import topics

    from p2pnode.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_model(path)
    sources = [inspect.getsource(one) for one in (argparse, heapq, statistics, tarfile, textwrap)]
    prose = [topics[name] for name in ("objects", "exceptions", "strings", "customization", "with")]
    for number, text in enumerate([*prose, *sources]):
        ids = tokenizer.encode(text[len(text) // 3 :][:8000])
        if len(ids) >= CACHED + ANSWERED:
            yield _cut(ids, f"text {number}")


def _of_the_model(path: Path) -> Iterator[TokenIds]:
    from p2pnode.engine.registry import load_engine
    from p2pnode.engine.sampling.options import Sampling
    from p2pnode.engine.solo import answer_alone
    from p2pnode.node.models import open_model
    from p2pnode.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_model(path)
    known = open_model(path)
    engine = load_engine(path, range(known.info.n_layers), tree=known.tree)
    for seed, question in enumerate(ASKED):
        ids = tokenizer.encode(tokenizer.chat([{"role": "user", "content": question}]))
        drawn = Sampling(temperature=0.7, seed=seed)
        answer = answer_alone(engine, ids, CACHED + ANSWERED - len(ids), sampling=drawn)
        yield _cut([*ids, *answer.token_ids], question)
