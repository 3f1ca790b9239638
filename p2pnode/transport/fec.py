"""Erasure coding: systematic Reed-Solomon over GF(256), byte for byte what reedsolo computes.

Every message uses the one code with 32 parity symbols and sends as many of them as seem needed
(leaving some out keeps every square submatrix invertible), so the number sent need not be told. In
a systematic code the parity of a symbol depends only on how many symbols follow it, so a single
table, read off reedsolo by encoding ``1, 0, 0, ...``, serves messages of any shard count.

reedsolo itself is two orders too slow in a hot loop: here a data shard is one gather from a table
whose 64-bit entry ``v`` holds ``v`` times eight parity coefficients, xored onto eight parities at
once.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TypeAlias, cast

import numpy as np
import reedsolo

MAX_PARITY = 32
MAX_DATA = 255 - MAX_PARITY

Bytes1D: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint8]]
Bytes2D: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
Table: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]

_LANES = 8  # bytes in a table's entry


def encode(shards: Sequence[bytes], first: int, count: int) -> list[bytes]:
    """Return the parity shards ``first`` to ``first + count`` of equally long data shards."""
    coefficients = _parities()[: len(shards)][::-1, first : first + count]  # [shards, count]
    tables = [
        [
            _table(coefficients[position, lane : lane + _LANES].tobytes())
            for position in range(len(shards))
        ]
        for lane in range(0, count, _LANES)
    ]
    return _apply(tables, shards, count)


def recover(shards: Mapping[int, bytes], count: int) -> list[bytes]:
    """Return all ``count`` data shards from any ``count`` shards, all equally long.

    Args:
        shards: By index: data below ``count``, parity from there on.
        count: The number of data shards; ``shards`` holds exactly as many.
    """
    chosen = tuple(sorted(shards))
    missing = tuple(index for index in range(count) if index not in shards)
    if missing:
        tables = _decode_plan(chosen, missing, count)
        rebuilt = _apply(tables, [shards[index] for index in chosen], len(missing))
        shards = {**shards, **dict(zip(missing, rebuilt, strict=True))}
    return [shards[index] for index in range(count)]


def _apply(tables: Sequence[Sequence[Table]], shards: Sequence[bytes], count: int) -> list[bytes]:
    """Multiply a matrix, given as tables [lane group][shard], with the shards."""
    size = len(shards[0])
    rows = [np.frombuffer(shard, np.uint8) for shard in shards]
    results: list[bytes] = []
    for group in tables:
        total = np.zeros(size, np.uint64)  # [size], eight bytes wide
        for table, row in zip(group, rows, strict=True):
            total ^= table[row]
        lanes = total.view(np.uint8).reshape(size, _LANES)  # [size, lanes]
        results += [lanes[:, lane].tobytes() for lane in range(min(_LANES, count - len(results)))]
    return results


@cache
def _parities() -> Bytes2D:
    """Row n: the 32 parity symbols of a 1 with n zeros behind it.

    Row 0 is read off reedsolo; each further zero multiplies the remainder by x.
    """
    unit = np.frombuffer(bytes(reedsolo.RSCodec(MAX_PARITY).encode(b"\1")[1:]), np.uint8)
    rows = [unit]
    for _ in range(MAX_DATA - 1):
        before = rows[-1]
        rows.append(np.append(before[1:], np.uint8(0)) ^ _products()[before[0], unit])
    return np.stack(rows)  # [MAX_DATA, MAX_PARITY]


@lru_cache(maxsize=4096)  # 2 KiB each
def _table(coefficients: bytes) -> Table:
    """Entry v holds v times each of up to eight coefficients."""
    lanes = np.zeros((256, _LANES), np.uint8)
    lanes[:, : len(coefficients)] = _products()[:, np.frombuffer(coefficients, np.uint8)]
    return lanes.view(np.uint64).reshape(256)


@lru_cache(maxsize=512)
def _decode_plan(
    chosen: tuple[int, ...], missing: tuple[int, ...], count: int
) -> list[list[Table]]:
    """Tables that turn the shards ``chosen`` into the data shards ``missing``.

    The parities chosen are ``A x + B y = p`` with x the missing and y the present data shards, so
    ``x = A^-1 p + (A^-1 B) y`` (minus is plus here).
    """
    full = _parities()[:count][::-1].T  # [MAX_PARITY, count]
    parities = [index - count for index in chosen if index >= count]
    present = [index for index in chosen if index < count]
    inverse = _invert(full[np.ix_(parities, missing)])  # [missing, parities]
    onto_present = _multiply(inverse, full[np.ix_(parities, present)])  # [missing, present]
    matrix = np.concatenate([onto_present, inverse], axis=1)  # [missing, chosen]
    return [
        [_table(matrix[lane : lane + _LANES, column].tobytes()) for column in range(count)]
        for lane in range(0, len(missing), _LANES)
    ]


def _invert(matrix: Bytes2D) -> Bytes2D:
    """Gauss-Jordan; every matrix it is given is invertible (the code is MDS)."""
    size = len(matrix)
    products, inverses = _products(), _inverses()
    work = np.concatenate([matrix, np.eye(size, dtype=np.uint8)], axis=1)  # [size, 2 size]
    for column in range(size):
        pivot = column + int(np.flatnonzero(work[column:, column])[0])
        work[[column, pivot]] = work[[pivot, column]]
        work[column] = products[inverses[work[column, column]], work[column]]
        factors = work[:, column].copy()
        factors[column] = 0
        work ^= products[factors[:, None], work[column][None, :]]
    return cast(Bytes2D, work[:, size:])


def _multiply(left: Bytes2D, right: Bytes2D) -> Bytes2D:
    terms = _products()[left[:, :, None], right[None, :, :]]  # [rows, inner, columns]
    return cast(Bytes2D, np.bitwise_xor.reduce(terms, axis=1))


@cache
def _products() -> Bytes2D:
    """The multiplication table of reedsolo's field: polynomial 0x11d, generator 2."""
    exponents = np.zeros(510, np.uint8)
    logarithms = np.zeros(256, np.int64)
    power = 1
    for exponent in range(255):
        exponents[exponent] = exponents[exponent + 255] = power
        logarithms[power] = exponent
        power = power << 1 ^ (0x11D if power & 0x80 else 0)
    table = exponents[logarithms[:, None] + logarithms[None, :]]  # [256, 256]
    table[0, :] = table[:, 0] = 0
    return cast(Bytes2D, table)


@cache
def _inverses() -> Bytes1D:
    return cast(Bytes1D, np.argmax(_products() == 1, axis=1).astype(np.uint8))
