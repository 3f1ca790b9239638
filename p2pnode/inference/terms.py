"""How hidden states may be coded in a session: what its requester allows, and both ends read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from p2pnode.errors import LocalProtocolError
from p2pnode.wire.calibration import CalibrationSet
from p2pnode.wire.dtypes import DType, dtype_mask
from p2pnode.wire.states import Rung

LADDER: Final = (Rung.F16, Rung.I8, Rung.Q5, Rung.Q4, Rung.Q3, Rung.Q2)
"""From the finest to the coarsest. f32, the default, is no rung of it: a session sends f32 and
nothing else, or what is here, with f32 for values beyond half precision."""

DTYPES: Final[Mapping[Rung, DType]] = {
    Rung.F16: DType.F16,
    Rung.I8: DType.I8,
    Rung.Q5: DType.CENTRED,
    Rung.Q4: DType.Q4,
    Rung.Q3: DType.CENTRED,
    Rung.Q2: DType.Q2,
}
"""The element type that a reader of a rung understands, beside f16 and f32. With a calibration
all below f16 are sent as CENTRED, which who shares one reads."""

PLAIN: Final = frozenset(rung for rung in LADDER if DTYPES[rung] is not DType.CENTRED)
"""The rungs that exist without a calibration."""

AUTO: Final = "auto"
ACTIVATIONS: Final = (str(Rung.F32), *(str(rung) for rung in LADDER if rung in PLAIN), AUTO)
"""What a person may ask for."""

CODING_BITS: Final[Mapping[Rung, int]] = {
    Rung.F32: 3,
    Rung.F16: 0,
    Rung.I8: 1,
    Rung.Q5: 16,
    Rung.Q4: 2,
    Rung.Q3: 17,
    Rung.Q2: 5,
}
"""The bit of each rung in a mask of codings; of those with an element type of their own, as in an
ad."""

_BASE = dtype_mask((DType.F16, DType.F32))


@dataclass(frozen=True, slots=True)
class Terms:
    """What one stage may send on, in one session.

    Attributes:
        mode: A rung that is asked for whatever the link, or ``auto``.
        rungs: Those that both ends of the edge read; f16 is always one. What is not in
            :data:`PLAIN` is for cuts whose calibration both have.
        kl: Nats of KL divergence that the coding of one batch may cost here: the answer's budget,
            shared among its cuts. A pinned rung has no budget.
        calibration: Names the calibrations that all of the chain has; 0 for none.

    Raises:
        LocalProtocolError: They are no terms.
    """

    mode: str
    rungs: frozenset[Rung]
    kl: float
    calibration: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ACTIVATIONS or self.mode == Rung.F32:
            raise LocalProtocolError(f"no way to code hidden states: {self.mode!r}")
        if Rung.F16 not in self.rungs or not self.rungs <= set(LADDER):
            raise LocalProtocolError("f16 and coarser are the codings of a session")
        if not 0 <= self.kl <= 1e3 or not 0 <= self.calibration < 1 << 32:
            raise LocalProtocolError("a budget or a calibration out of range")

    @property
    def pinned(self) -> Rung | None:
        return None if self.mode == AUTO else Rung(self.mode)


def out_dtype(activations: str) -> str:
    """Return how a cut of the first chain is sent where nothing coarser is: ``f32`` or ``f16``."""
    return str(Rung.F32 if activations == Rung.F32 else Rung.F16)


def rungs_of_mask(mask: int) -> frozenset[Rung]:
    """Return the rungs that a reader of these element types understands; f16 always."""
    if mask & _BASE != _BASE:
        return frozenset({Rung.F16})
    return frozenset(rung for rung in LADDER if mask & dtype_mask((DTYPES[rung],)))


def fingerprint(calibrations: CalibrationSet | None) -> int:
    """Return 32 bits that name ``calibrations``; 0 for none."""
    return 0 if calibrations is None else calibrations.fingerprint or 1


def mask_of(rung: Rung) -> int:
    """Return the mask that names ``rung`` alone."""
    return 1 << CODING_BITS[rung]


def names_of_mask(mask: int) -> tuple[str, ...]:
    """Return the names of the codings in a mask, the finest first."""
    return tuple(str(rung) for rung, bit in CODING_BITS.items() if mask >> bit & 1)


def wanted(mode: str) -> frozenset[Rung]:
    """Return the rungs that ``mode`` may use; f16 always."""
    return frozenset(LADDER if mode == AUTO else (Rung.F16, Rung(mode)))


def nearest(rung: Rung, terms: Terms) -> Rung:
    """Return ``rung``, or the next finer one that the terms allow."""
    at = LADDER.index(rung)
    return next(one for one in reversed(LADDER[: at + 1]) if one in terms.rungs)
