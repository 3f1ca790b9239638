"""Whole numbers survive the coder in nearly as few bits as they are worth; junk is refused."""

import contextlib
import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire import entropy
from p2pnode.wire.entropy import (
    CLASSES,
    UNIT_CLASS,
    Classes,
    Numbers,
    best_classes,
    decode_untrusted,
    encode,
)

TABLES = "a43691c23868134cb447002134fda8b122c11655a5667d4c828a520dcff72f82"
PAIRS = st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, CLASSES - 1)))


def deviation(number: int) -> float:
    return float(2 ** ((number - UNIT_CLASS) / 4))


def some(count: int, number: int, seed: int = 0) -> tuple[Numbers, Classes]:
    drawn = np.random.default_rng(seed).normal(scale=deviation(number), size=count)
    return np.rint(drawn).astype(np.int32), np.full(count, number, np.uint8)


@given(PAIRS)
def test_any_numbers_come_back_from_any_classes(pairs: list[tuple[int, int]]) -> None:
    numbers = np.array([number for number, _ in pairs], np.int32)
    classes = np.array([number for _, number in pairs], np.uint8)
    assert (decode_untrusted(encode(numbers, classes), classes) == numbers).all()


@pytest.mark.parametrize("count", [1, 1023, 1024, 5000, 3 * 4096 * 1024 // 1000])
def test_lanes_that_do_not_part_evenly(count: int) -> None:
    rng = np.random.default_rng(count)
    classes = rng.integers(0, CLASSES, count).astype(np.uint8)
    numbers = np.rint(rng.normal(size=count) * 2.0 ** ((classes - 12.0) / 4)).astype(np.int32)
    assert (decode_untrusted(encode(numbers, classes), classes) == numbers).all()


@pytest.mark.parametrize("number", [UNIT_CLASS, UNIT_CLASS + 8, UNIT_CLASS + 16])
def test_a_gaussian_costs_at_most_a_twentieth_more_than_its_entropy(number: int) -> None:
    numbers, classes = some(200_000, number)
    entropy_bits = math.log2(deviation(number) * math.sqrt(2 * math.pi * math.e))
    assert 8 * len(encode(numbers, classes)) / len(numbers) < 1.05 * entropy_bits


def test_what_is_nearly_always_zero_costs_nearly_nothing() -> None:
    assert len(encode(np.zeros(100_000, np.int32), np.zeros(100_000, np.uint8))) < 800


def test_the_tables_are_the_same_on_every_machine() -> None:
    tables = entropy._tables()
    every = np.concatenate([tables.reach, tables.widths, tables.starts]).astype("<i8")
    assert hashlib.sha256(every.tobytes()).hexdigest() == TABLES
    widths = tables.widths.reshape(CLASSES, -1)
    assert (widths.sum(axis=1) == 1 << 14).all()


def test_the_best_class_is_the_one_that_the_numbers_were_drawn_for() -> None:
    drawn = [some(4000, number, seed=number)[0] for number in range(8, 36, 3)]
    found = best_classes(np.stack(drawn, axis=1))
    assert np.abs(found.astype(int) - range(8, 36, 3)).max() <= 1


def test_numbers_without_classes_are_our_own_mistake() -> None:
    numbers, classes = some(10, 3)
    with pytest.raises(LocalProtocolError, match="each number"):
        encode(numbers, classes[:9])
    with pytest.raises(LocalProtocolError, match="40 classes"):
        encode(numbers, np.full(10, CLASSES, np.uint8))


@given(st.binary(max_size=200), st.integers(0, 60), st.integers(0, CLASSES - 1))
def test_junk_is_refused_or_is_numbers(junk: bytes, count: int, number: int) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert len(decode_untrusted(junk, np.full(count, number, np.uint8))) == count


@given(st.integers(0, 10**9), st.integers(1, 255))
def test_a_changed_byte_never_passes_for_the_same_numbers(where: int, change: int) -> None:
    numbers, classes = some(500, 16)
    numbers[7] = 5000  # an escape
    block = bytearray(encode(numbers, classes))
    block[where % len(block)] ^= change
    with contextlib.suppress(RemoteProtocolError):
        assert (decode_untrusted(bytes(block), classes) != numbers).any()


@pytest.mark.parametrize("cut", [0, 3, 4, 11, 100, -2, -1])
def test_a_block_cut_short_is_refused(cut: int) -> None:
    numbers, classes = some(3000, 16)
    with pytest.raises(RemoteProtocolError):
        decode_untrusted(encode(numbers, classes)[:cut], classes)


def test_more_after_the_block_is_refused() -> None:
    numbers, classes = some(3000, 16)
    with pytest.raises(RemoteProtocolError, match="even"):
        decode_untrusted(encode(numbers, classes) + bytes(2), classes)
