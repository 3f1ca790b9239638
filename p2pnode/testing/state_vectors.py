"""Vectors of centred states: calibrations, a frame of every form, and the numbers they stand for.

Everything follows from formulas, and the spreads of the *fine* cut are such that no machine rounds
its steps otherwise. What zstd compresses may differ in its bytes from one version to the next.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from p2pnode.errors import LocalProtocolError
from p2pnode.wire.calibration import OCTAVE, Calibration, CalibrationSet
from p2pnode.wire.centred import Form, decode_centred_untrusted, encode_centred
from p2pnode.wire.dtypes import DType
from p2pnode.wire.tensor import F32Array
from p2pnode.wire.vframe import Slice
from p2pnode.wire.zstd_codes import FINE_DICTIONARY

WIDTH = 64
FINE_CUT, CUT = 1, 2


@dataclass(frozen=True, slots=True)
class StateVector:
    """A slice to publish; ``why`` where it is to be refused."""

    name: str
    cut: int
    piece: Slice
    note: str
    why: str = ""


def calibration_entry(space_hash32: int) -> dict[str, Any]:
    """Return the file that both ends hold, and what each cut's fingerprint is."""
    known = _calibrations(space_hash32)
    return {
        "space_hash32": space_hash32,
        "file": known.to_bytes().hex(),
        "fingerprint": known.fingerprint,
        "cuts": {str(cut): one.fingerprint for cut, one in known.cuts.items()},
    }


def dictionary_entry() -> dict[str, str]:
    """Return the dictionary of the form FINE."""
    return {"name": "fine", "bytes": FINE_DICTIONARY.hex()}


def state_vectors(space_hash32: int) -> Iterator[StateVector]:
    """Yield a slice of every form, and some that must be refused."""
    known = _calibrations(space_hash32)

    def vector(name: str, form: Form, fineness: int, rows: F32Array, note: str) -> StateVector:
        cut = FINE_CUT if form is Form.FINE else CUT
        piece = encode_centred(rows, known.cuts[cut], fineness, form)
        if piece is None:
            raise LocalProtocolError(f"{name} is not smaller than F16")
        return StateVector(name, cut, piece, note)

    far = _rows(3)
    far[1, 5] = 2000
    rows = vector("states-rows", Form.ROWS, 36, _rows(3), "Rice codes, each row by itself")
    yield vector("states-zstd-fine", Form.FINE, 77, _rows(1), "a byte a channel, one table for all")
    yield vector("states-zstd-blocks", Form.BLOCKS, 36, _rows(9), "three groups of channels")
    yield rows
    yield vector("states-outlier", Form.ROWS, 24, far, "one value beside the codes")
    yield vector("states-lanes", Form.LANES, 12, _rows(9), "one lane")
    yield vector("states-lanes-many", Form.LANES, 24, _rows(32), "2,048 codes: two lanes")
    yield from _refused(rows)


def state_entry(vector: StateVector, space_hash32: int) -> dict[str, Any]:
    """Return what a reader makes of a slice, its float32 values in hex."""
    about = {"frame": vector.name, "cut": vector.cut}
    if vector.why:
        return {**about, "refused": vector.why}
    rows = decode_centred_untrusted(vector.piece, _calibrations(space_hash32).cuts[vector.cut])
    values = rows.astype("<f4").tobytes().hex()
    return {**about, "shape": list(rows.shape), "values": values}


def _calibrations(space_hash32: int) -> CalibrationSet:
    channels = np.arange(WIDTH)  # [d]
    mean = ((channels * 29 % 41 - 20) / 8).astype(np.float32)  # [d], which f16 holds exactly
    # Every second octave: so the steps of fine codes are whole powers of two.
    coarse = ((channels * 7 % 3 - 1) * 2 * OCTAVE).astype(np.int8)  # [d]
    spread = (channels * 23 % 61 - 30).astype(np.int8)  # [d]
    cuts = {
        FINE_CUT: Calibration(space_hash32, FINE_CUT, 0.5, mean, coarse),
        CUT: Calibration(space_hash32, CUT, 0.75, mean, spread, 0.625, 0.25),
    }
    return CalibrationSet(space_hash32, WIDTH, cuts)


def _rows(tokens: int) -> F32Array:
    """[tokens, d], in eighths: around the means, and each row a little like the one before."""
    at = np.arange(tokens * WIDTH).reshape(tokens, WIDTH)  # [tokens, d]
    channels = at % WIDTH  # [tokens, d]
    strayed = (at * at % 17 + at * 5 % 13 - 14) / 8 + (channels * 11 % 7 - 3) / 8
    return (strayed + (channels * 29 % 41 - 20) / 8).astype(np.float32)


def _refused(good: StateVector) -> Iterator[StateVector]:
    whole = bytes(good.piece.payload)
    (fingerprint,) = struct.unpack_from("<I", whole, 4)
    other = struct.pack("<I", fingerprint ^ 1)
    beyond = struct.pack("<Ie", 3 * WIDTH, 0.0)
    for name, payload, why in (
        ("calibration", whole[:4] + other + whole[8:], "another calibration's fingerprint"),
        ("form", b"\x04" + whole[1:], "form 4"),
        ("short", whole[:-1], "the last byte is missing"),
        ("long", whole + b"\0", "a byte too many"),
        ("outlier", whole[:2] + b"\1\0" + whole[4:8] + beyond + whole[8:], "an index too large"),
    ):
        piece = Slice(DType.CENTRED, good.piece.shape, payload)
        yield StateVector(f"states-refused-{name}", good.cut, piece, why, why)
