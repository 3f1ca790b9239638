"""Published centred states, read by a reader that knows nothing but what their page says."""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import cache
from itertools import accumulate
from math import floor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from p2pnode.testing.pages import Page

PAGES = Path(__file__).parents[2] / "docs/protocol"
STATES = Page(PAGES / "states.md")
VECTORS = json.loads((PAGES / "vectors.json").read_text("utf-8"))
FRAMES = {entry["name"]: entry for entry in VECTORS["frames"]}
FORMS = {int(row["code"]): row["form"] for row in STATES.table("forms")}
(ABOUT,) = VECTORS["calibrations"]
(DICTIONARY,) = VECTORS["dictionaries"]

Grid = list[list[int]]
Cut = dict[str, Any]


class RefusedError(Exception):
    """What "refuse" means here."""


def refuse_if(wrong: bool) -> None:
    if wrong:
        raise RefusedError


def read_calibration(data: bytes) -> dict[int, Cut]:
    head = STATES.layout("calibration-header", data)
    width, count = head.numbers("d", "cuts")
    assert (head.raw("magic"), head.raw("version")) == (b"PCAL", b"\1")
    assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
    at, cuts = head.size, {}
    for _ in range(count):
        fields = STATES.layout("calibration-cut", data[at:], {"2d": 2 * width, "d": width})
        (layer,) = fields.numbers("layer")
        cuts[layer] = {
            **{key: struct.unpack("<f", fields.raw(key))[0] for key in ("unit", "pull", "memory")},
            "means": struct.unpack(f"<{width}e", fields.raw("means")),
            "spreads": struct.unpack(f"<{width}b", fields.raw("spreads")),
            "fingerprint": zlib.crc32(data[at : at + fields.size]),
        }
        at += fields.size
    assert at == len(data) - 4
    return cuts


CUTS = read_calibration(bytes.fromhex(ABOUT["file"]))


def read_states(payload: bytes, shape: Sequence[int], cut: Cut) -> list[float]:
    tokens, width = shape
    k = int.from_bytes(payload[2:4], "little")
    refuse_if(8 + 6 * k > len(payload))
    sizes = {"4k": 4 * k, "2k": 2 * k, "body": len(payload) - 8 - 6 * k}
    fields = STATES.layout("centred", payload, sizes)
    code, fineness, fingerprint = fields.numbers("form", "fineness", "fingerprint")
    refuse_if(code not in FORMS or fingerprint != cut["fingerprint"])
    form, body = FORMS[code], fields.raw("body")
    codes = READERS[form](body, tokens, width, cut["spreads"], fineness)
    step = cut["unit"] * 2 ** (-fineness / 16)
    steps = [step * (2 ** (one / 32) if form == "FINE" else 1) for one in cut["spreads"]]
    rows = foretold(codes, cut) if form in {"BLOCKS", "LANES"} else codes
    values = [
        mean + number * step
        for row in rows
        for number, step, mean in zip(row, steps, cut["means"], strict=True)
    ]
    where = struct.unpack(f"<{k}I", fields.raw("where"))
    for index, exact in zip(where, struct.unpack(f"<{k}e", fields.raw("exact")), strict=True):
        refuse_if(index >= len(values))
        values[index] = exact
    return values


def foretold(codes: Grid, cut: Cut) -> list[list[float]]:
    gain = cut["memory"] * cut["pull"]
    fade = 1 - cut["memory"] + gain
    told = [0.0] * len(codes[0])
    rows = []
    for row in codes:
        rows.append([code + add for code, add in zip(row, told, strict=True)])
        told = [fade * add + gain * code for code, add in zip(row, told, strict=True)]
    return rows


def by_spread(spreads: Sequence[int]) -> list[int]:
    return sorted(range(len(spreads)), key=lambda channel: (-spreads[channel], channel))


def inflated(body: bytes, size: int, dictionary: bytes = b"") -> tuple[int, ...]:
    known = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    reader = zstandard.ZstdDecompressor(dict_data=known).decompressobj()
    try:
        plain = reader.decompress(bytes.fromhex("28b52ffd") + body)
    except zstandard.ZstdError as error:
        raise RefusedError from error
    refuse_if(not reader.eof or bool(reader.unused_data) or len(plain) != size)
    return struct.unpack(f"<{size}b", plain)


def fine(body: bytes, tokens: int, width: int, spreads: Sequence[int], fineness: int) -> Grid:
    del spreads, fineness
    flat = inflated(body, tokens * width, bytes.fromhex(DICTIONARY["bytes"]))
    return [list(flat[row * width :][:width]) for row in range(tokens)]


def blocks(body: bytes, tokens: int, width: int, spreads: Sequence[int], fineness: int) -> Grid:
    del fineness
    numbers = iter(inflated(body, tokens * width))
    order = by_spread(spreads)
    codes = [[0] * width for _ in range(tokens)]
    for group in range(3):
        for row in codes:
            for channel in order[width * group // 3 : width * (group + 1) // 3]:
                row[channel] = next(numbers)
    return codes


def rice(body: bytes, tokens: int, width: int, spreads: Sequence[int], fineness: int) -> Grid:
    order = by_spread(spreads)
    low = [min(7, max(0, (spreads[channel] + fineness + 10) // 16)) for channel in order]
    bits = iter([byte >> shift & 1 for byte in body for shift in range(7, -1, -1)])
    folded = [[0] * width for _ in range(tokens)]
    for plane in range(max(low)):
        for row in folded:
            for index in range(sum(one > plane for one in low)):
                row[index] += next_bit(bits) << plane
    for row in folded:
        for index in range(width):
            while not next_bit(bits):
                row[index] += 1 << low[index]
            refuse_if(row[index] > 255)
    rest = list(bits)
    refuse_if(len(rest) > 7 or any(rest))
    codes = [[0] * width for _ in range(tokens)]
    for row, sent in zip(codes, folded, strict=True):
        for channel, u in zip(order, sent, strict=True):
            row[channel] = -(u + 1) // 2 if u % 2 else u // 2
    return codes


def next_bit(bits: Iterator[int]) -> int:
    bit = next(bits, None)
    if bit is None:
        raise RefusedError
    return bit


def lanes(body: bytes, tokens: int, width: int, spreads: Sequence[int], fineness: int) -> Grid:
    refuse_if(len(body) < tokens)
    wider = struct.unpack(f"<{tokens}b", body[:tokens])
    classes = [
        min(39, max(0, 12 + (w + spread + fineness + 2) // 4)) for w in wider for spread in spreads
    ]
    flat = decode(body[tokens:], classes)
    refuse_if(any(abs(number) > 127 for number in flat))
    return [flat[row * width :][:width] for row in range(tokens)]


READERS = {"FINE": fine, "ROWS": rice, "BLOCKS": blocks, "LANES": lanes}


# The entropy coder


def decode(block: bytes, classes: Sequence[int]) -> list[int]:
    count = len(classes)
    n_lanes = min(max(1, count // 1024), 4096, count)
    e = int.from_bytes(block[:4], "little")
    sizes = {"4e": 4 * e, "4L": 4 * n_lanes, "words": len(block) - 4 - 4 * e - 4 * n_lanes}
    refuse_if(len(block) < 4 or e > count or sizes["words"] < 0 or sizes["words"] % 2 != 0)
    fields = STATES.layout("block", block, sizes)
    far = list(struct.unpack(f"<{e}i", fields.raw("far")))
    states = list(struct.unpack(f"<{n_lanes}I", fields.raw("states")))
    words = list(struct.unpack(f"<{sizes['words'] // 2}H", fields.raw("words")))
    numbers = []
    for i, which in enumerate(classes):
        symbols, widths, starts = table(which)
        x = states[i % n_lanes]
        s = symbols[x % 16384]
        x = widths[s] * (x // 16384) + x % 16384 - starts[s]
        if x < 65536:
            refuse_if(not words)
            x = 65536 * x + words.pop(0)
        states[i % n_lanes] = x
        refuse_if(s == 255 and not far)
        numbers.append(far.pop(0) if s == 255 else s - 127)
    refuse_if(bool(words) or bool(far) or any(x != 65536 for x in states))
    return numbers


@cache
def table(which: int) -> tuple[list[int], list[int], list[int]]:
    """Return whose each slot is, and of each symbol its width and its start."""
    with localcontext(Context(prec=28, rounding=ROUND_HALF_EVEN)):
        deviation, root = Decimal(1) / 8, Decimal(2).sqrt().sqrt()
        for _ in range(which):
            deviation *= root
        reach = min(127, 2 + floor(8 * deviation))
        slope = Decimal("1.813799364234217850594078257") / deviation
        above = [1 / (1 + (slope * (2 * k + 1) / 2).exp()) for k in range(reach + 1)]
        spare = 16384 - 2 * reach - 2
        widths = [0] * 256
        for k in range(1, reach + 1):
            widths[127 + k] = widths[127 - k] = 1 + floor(spare * (above[k - 1] - above[k]))
        widths[255] = 1 + floor(spare * 2 * above[reach])
    widths[127] = 16384 - sum(widths)
    starts = [0, *accumulate(widths[:-1])]
    symbols = [s for s, width in enumerate(widths) for _ in range(width)]
    return symbols, widths, starts


# The vectors


def test_fingerprints_are_as_the_page_says() -> None:
    assert {str(layer): cut["fingerprint"] for layer, cut in CUTS.items()} == ABOUT["cuts"]
    joined = b"".join(struct.pack("<I", cut["fingerprint"]) for _, cut in sorted(CUTS.items()))
    assert (zlib.crc32(joined) or 1) == ABOUT["fingerprint"]


@pytest.mark.parametrize("entry", VECTORS["states"], ids=lambda entry: entry["frame"])
def test_states_are_read_by_the_page_alone(entry: dict[str, Any]) -> None:
    (piece,) = FRAMES[entry["frame"]]["slices"]
    payload, cut = bytes.fromhex(piece["payload"]), CUTS[entry["cut"]]
    if "refused" in entry:
        with pytest.raises(RefusedError):
            read_states(payload, piece["shape"], cut)
        return
    assert piece["shape"] == entry["shape"]
    values = [value for (value,) in struct.iter_unpack("<f", bytes.fromhex(entry["values"]))]
    # A reader may compute in float32, whose steps here are below this.
    assert read_states(payload, piece["shape"], cut) == pytest.approx(values, rel=1e-5, abs=1e-5)


def test_every_form_is_read() -> None:
    read = [FRAMES[one["frame"]]["slices"][0] for one in VECTORS["states"] if "values" in one]
    assert {int(piece["payload"][:2], 16) for piece in read} == set(FORMS)
    assert any(prod >= 2048 for prod in (a * b for a, b in (piece["shape"] for piece in read)))
