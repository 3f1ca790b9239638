"""Small whole numbers around zero to as few bytes as their spread allows, and back.

An interleaved coder by asymmetric numeral systems (J. Duda, arXiv 1311.2540, 2013; many
lanes that share one run of 16-bit words as in F. Giesen, "Interleaved entropy coders", 2014):
symbol ``i`` belongs to lane ``i mod lanes``, and one step codes a symbol of every lane in a few
numpy calls. Each number comes with a *class*, which says how widely such numbers spread; both
ends know it beforehand. All of it is integer arithmetic, and the tables come from decimal
arithmetic, which rounds correctly everywhere: any machine reads what any other wrote.

Block: count of escapes u32, the escapes i32, a state u32 for each lane, then words u16;
little-endian. An escape is a number too far from zero for the alphabet.
"""

import struct
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.errors import LocalProtocolError, RemoteProtocolError

Numbers: TypeAlias = npt.NDArray[np.int32]
Classes: TypeAlias = npt.NDArray[np.uint8]

CLASSES: Final = 40
"""How many spreads there are; four classes up, numbers deviate twice as far."""

UNIT_CLASS: Final = 12
"""The class whose numbers deviate by 1. So class 0 deviates by 1/8 and class 39 by 108."""

_REACH: Final = 127  # numbers beyond it escape, in narrow classes many before it
_ESCAPE: Final = 2 * _REACH + 1  # the symbol that says so
_SYMBOLS: Final = _ESCAPE + 1
_BITS: Final = 14
_TOTAL: Final = 1 << _BITS  # frequencies of a class add up to it
_LOW: Final = 1 << 16  # a lane's state stays in [2^16, 2^32)
_PER_LANE: Final = 1024  # symbols that pay for a lane's four bytes: 1 % where each has 3 bits
_MAX_LANES: Final = 4096  # what one step handles still lies in the processor's nearest cache
_COUNT: Final = struct.Struct("<I")
_EXACT: Final = Context(prec=28)  # sqrt, exp, times and over round correctly on every machine
_PI_OVER_ROOT_3: Final = Decimal("1.813799364234217850594078257")  # slope of a logistic of width 1


def encode(numbers: Numbers, classes: Classes) -> bytes:
    """Return the block that holds ``numbers``.

    Args:
        numbers: [count]
        classes: [count], each below :data:`CLASSES`.

    Raises:
        LocalProtocolError: The two differ in shape, or there is no such class.
    """
    if numbers.shape != classes.shape or numbers.ndim != 1:
        raise LocalProtocolError("each number has one class")
    if numbers.size and classes.max() >= CLASSES:
        raise LocalProtocolError(f"there are {CLASSES} classes")
    near = np.abs(numbers.astype(np.int64)) <= _tables().reach[classes]  # [count]
    symbols = np.where(near, numbers + np.int32(_REACH), np.int32(_ESCAPE))  # [count]
    escapes = numbers[~near].astype("<i4")
    states, words = _push(symbols, classes)
    return b"".join(
        [
            _COUNT.pack(len(escapes)),
            escapes.tobytes(),
            states.astype("<u4").tobytes(),
            words.astype("<u2").tobytes(),
        ]
    )


def decode_untrusted(block: bytes | memoryview, classes: Classes) -> Numbers:
    """Return the numbers of a block, as many as there are classes.

    What is allocated follows from ``classes``, never from the block.

    Args:
        block: What :func:`encode` returned for these classes, and nothing after it.
        classes: [count], each below :data:`CLASSES`.

    Raises:
        RemoteProtocolError: The block does not hold exactly that many numbers.
    """
    count, lanes = len(classes), _lanes(len(classes))
    if len(block) < _COUNT.size:
        raise RemoteProtocolError("a coded block is cut short")
    (n_escapes,) = _COUNT.unpack_from(block)
    states_at = _COUNT.size + 4 * n_escapes
    words_at = states_at + 4 * lanes
    if n_escapes > count or len(block) < words_at or (len(block) - words_at) % 2:
        raise RemoteProtocolError("a coded block of a wrong length")
    escapes = np.frombuffer(block, "<i4", n_escapes, _COUNT.size)
    states = np.frombuffer(block, "<u4", lanes, states_at).astype(np.uint32)
    words = np.frombuffer(block, "<u2", offset=words_at).astype(np.uint32)
    numbers = _pop_untrusted(states, words, classes).astype(np.int32) - np.int32(_REACH)
    far = numbers > _REACH  # [count]
    if np.count_nonzero(far) != n_escapes:
        raise RemoteProtocolError("a coded block with other escapes than it says")
    numbers[far] = escapes
    return numbers


def best_classes(numbers: Numbers) -> Classes:
    """Return the class that codes each column of numbers [count, columns] in the fewest bits."""
    columns = numbers.shape[1]
    symbols = np.clip(numbers, -_REACH, _REACH) + _REACH  # [count, columns]
    cells = (symbols * columns + np.arange(columns)).reshape(-1)
    counts = np.bincount(cells, minlength=_ESCAPE * columns).reshape(_ESCAPE, columns)
    widths = _tables().widths.reshape(CLASSES, _SYMBOLS)[:, :_ESCAPE]
    escape_bits = 32.0 + _BITS
    bits = np.where(widths > 0, _BITS - np.log2(np.maximum(widths, 1)), escape_bits)
    classes: Classes = (bits @ counts).argmin(axis=0).astype(np.uint8)  # [columns]
    return classes


# Lanes


def _lanes(count: int) -> int:
    return min(max(1, count // _PER_LANE), _MAX_LANES, count)


def _push(symbols: Numbers, classes: Classes) -> tuple[npt.NDArray[np.uint32], Numbers]:
    """Code from the last symbol to the first, so that reading goes forward.

    Returns:
        The states [lanes], and the words in the order in which a reader wants them.
    """
    lanes = _lanes(len(symbols))
    tables = _tables()
    rows = classes.astype(np.int32) * _SYMBOLS + symbols  # [count]
    states = np.full(lanes, _LOW, np.uint32)  # [lanes]
    words = [np.zeros(0, np.uint32)]
    for start in reversed(range(0, len(symbols), lanes or 1)):
        row = rows[start : start + lanes]  # [<= lanes]
        state = states[: len(row)]
        width = tables.widths[row]
        full = state >= width << np.uint32(32 - _BITS)
        words.append(state[full] & np.uint32(0xFFFF))
        state[full] >>= np.uint32(16)
        quotient, rest = np.divmod(state, width)
        state[:] = (quotient << np.uint32(_BITS)) + rest + tables.starts[row]
    return states, np.concatenate(words[::-1]).astype(np.int32)


def _pop_untrusted(
    states: npt.NDArray[np.uint32], words: npt.NDArray[np.uint32], classes: Classes
) -> npt.NDArray[np.uint8]:
    """Undo :func:`_push`: the symbols [count], once states and words came out even."""
    lanes = len(states)
    tables = _tables()
    symbols = np.empty(len(classes), np.uint8)  # [count]
    taken = 0
    for start in range(0, len(classes), lanes or 1):
        group = classes[start : start + lanes].astype(np.int32)  # [<= lanes]
        state = states[: len(group)]
        slot = state & np.uint32(_TOTAL - 1)
        symbol = tables.symbols[(group << _BITS) + slot.astype(np.int32)]
        row = group * _SYMBOLS + symbol
        state[:] = tables.widths[row] * (state >> np.uint32(_BITS)) + slot - tables.starts[row]
        low = np.flatnonzero(state < _LOW)
        if taken + len(low) > len(words):
            raise RemoteProtocolError("a coded block is cut short")
        state[low] = (state[low] << np.uint32(16)) | words[taken : taken + len(low)]
        taken += len(low)
        symbols[start : start + lanes] = symbol
    if taken != len(words) or (states != _LOW).any():
        raise RemoteProtocolError("a coded block that does not come out even")
    return symbols


# Tables


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """What share of the 2^14 slots each symbol has, a class after another.

    Attributes:
        reach: [classes], the largest number that does not escape.
        widths: [classes * symbols], slots of each symbol.
        starts: [classes * symbols], its first slot.
        symbols: [classes * slots], whose slot it is.
    """

    reach: npt.NDArray[np.int64]
    widths: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.uint32]
    symbols: npt.NDArray[np.uint8]


@cache
def _tables() -> _Tables:
    with localcontext(_EXACT):
        deviations = _deviations()
        reach = [min(_REACH, 2 + int(8 * deviation)) for deviation in deviations]
        rows = [_widths(deviation, far) for deviation, far in zip(deviations, reach, strict=True)]
    widths = np.array(rows, np.uint32)  # [classes, symbols]
    starts = np.cumsum(widths, axis=1, dtype=np.uint32) - widths  # [classes, symbols]
    every = np.arange(_SYMBOLS, dtype=np.uint8)
    symbols = np.concatenate([np.repeat(every, row) for row in rows])  # [classes * slots]
    return _Tables(np.array(reach), widths.reshape(-1), starts.reshape(-1), symbols)


def _deviations() -> list[Decimal]:
    """Return how far the numbers of each class deviate."""
    step = Decimal(2).sqrt().sqrt()
    deviations = [Decimal(1) / 2 ** (UNIT_CLASS // 4)]
    while len(deviations) < CLASSES:
        deviations.append(deviations[-1] * step)
    return deviations


def _widths(deviation: Decimal, reach: int) -> list[int]:
    """Return the slots of each symbol of a class: a logistic distribution in bins of one.

    Its tails lie between a Gaussian's and a Laplacian's, as those of transformed keys and values
    do. Every symbol within reach has at least one slot.
    """
    slope = _PI_OVER_ROOT_3 / deviation
    edges = [(slope * (2 * k + 1) / 2).exp() for k in range(reach + 1)]
    above = [1 / (1 + edge) for edge in edges]  # the chance of lying above k + 1/2
    spare = _TOTAL - 2 * reach - 2  # what is left when each symbol has its one
    side = [1 + int(spare * (above[k - 1] - above[k])) for k in range(1, reach + 1)]
    escape = 1 + int(spare * 2 * above[reach])
    middle = _TOTAL - 2 * sum(side) - escape
    unreached = [0] * (_REACH - reach)
    return [*unreached, *reversed(side), middle, *side, *unreached, escape]
