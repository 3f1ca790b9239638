"""A calibration found on some texts makes other caches small, and keeps what they answer."""

import numpy as np
import pytest

from p2pnode.engine.kv_calibration import calibrate_kv
from p2pnode.engine.kv_importance import ANSWER, Case
from p2pnode.engine.kv_probe import KvCache, KvProbe, divergence, without_rope
from p2pnode.engine.numpy.weights import TokenIds
from p2pnode.engine.random_model import random_model
from p2pnode.errors import ModelError
from p2pnode.wire.kv_calibration import KvCalibration
from p2pnode.wire.kv_codec import KvSpan, decode_span_untrusted, encode_span

TARGET = 0.002


def some_probe() -> KvProbe:
    engine = random_model(3, n_layers=3)
    return KvProbe(engine._config, engine._weights)


def some_texts(count: int, tokens: int = 220, seed: int = 0) -> list[TokenIds]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 256, tokens) for _ in range(count)]


@pytest.fixture(scope="module")
def calibration() -> KvCalibration:
    return calibrate_kv(some_probe(), some_texts(12), 7, target_kl=TARGET)


def through(case: Case, calibration: KvCalibration | None) -> tuple[int, float]:
    """Return the bytes of a case's cache, and the KL of what is answered on its decoded form."""
    seen, turns = case.seen, case.rotation
    span = KvSpan(range(len(seen.keys)), 0, seen.keys, seen.values)
    data = encode_span(span, turns, calibration)
    found = decode_span_untrusted(
        data, turns, calibration, layers=span.layers, shape=span.shape, positions=span.positions
    )
    answer = case.answer(KvCache(found.keys, found.values))
    return len(data), divergence(case.clean, answer)


def test_other_texts_cost_about_what_was_aimed_at_and_less_than_groups(
    calibration: KvCalibration,
) -> None:
    case = Case(some_probe(), some_texts(1, seed=1)[0])
    size, cost = through(case, calibration)
    plain, _ = through(case, None)
    assert TARGET / 4 < cost < 3 * TARGET
    assert size < plain


def test_the_same_texts_give_the_same_calibration(calibration: KvCalibration) -> None:
    again = calibrate_kv(some_probe(), some_texts(12), 7, target_kl=TARGET)
    assert again.digest == calibration.digest


def test_a_file_of_it_serves_as_well(calibration: KvCalibration) -> None:
    case = Case(some_probe(), some_texts(1, seed=2)[0])
    read = KvCalibration.from_bytes_untrusted(calibration.to_bytes(), space_hash32=7)
    assert through(case, read) == through(case, calibration)


def test_too_little_text_is_refused() -> None:
    for texts in (some_texts(1), some_texts(3, tokens=2 * ANSWER - 1), []):
        with pytest.raises(ModelError, match="calibrating needs"):
            calibrate_kv(some_probe(), texts, 7)


def test_a_probe_answers_as_the_engine_does() -> None:
    engine, probe = random_model(3, n_layers=3), some_probe()
    text = some_texts(1)[0]
    (hidden,) = engine.forward(b"s", engine.layers, [text], 0)
    case = Case(probe, text)
    logits = engine.logits(hidden[-1:])[0]
    expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    assert case.clean[-1] == pytest.approx(expected, abs=1e-4)


def test_keys_without_rope_do_not_depend_on_where_they_stand() -> None:
    probe = some_probe()
    keys = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    turns = probe.rotation(5)
    turned = (keys.view(np.complex64) * turns).view(np.float32)
    assert without_rope(turned, turns) == pytest.approx(keys, abs=1e-6)
