"""The published vectors, read by a reader that knows nothing but what the pages say.

It takes layouts, codes and sizes from the pages' tables, and cryptography from the libraries that
the pages name; of this package it uses nothing.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest
import xxhash
import zstandard
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError

from p2pnode.testing.pages import Layout, Page

PAGES = Path(__file__).parents[2] / "docs/protocol"
VFRAME, VSTREAM, MESSAGES = (
    Page(PAGES / f"{name}.md") for name in ("vframe", "vstream", "messages")
)
VECTORS = json.loads((PAGES / "vectors.json").read_text("utf-8"))
BY_NAME = {entry["name"]: entry for entry in VECTORS["frames"]}
FLAGS = {row["flag"]: 1 << int(row["bit"]) for row in VFRAME.table("flags")}
DTYPES = {int(row["code"], 16): row for row in VFRAME.table("dtypes")}
TYPES, MODALITIES = (
    {int(row["code"]) for row in VFRAME.table(name)} for name in ("types", "modalities")
)
ZSTD_MAGIC = bytes.fromhex("28b52ffd")


class RefusedError(Exception):
    """What "refuse" means here."""


def refuse_if(wrong: bool) -> None:
    if wrong:
        raise RefusedError


def read_frame(data: bytes, key: bytes | None = None, salt: bytes = b"") -> dict[str, Any]:
    """Read a frame as docs/protocol/vframe.md says, with its numbered checks in order."""
    refuse_if(not 33 <= len(data) <= 65536)  # 1
    version, kind = data[0], data[1]
    flags, count = int.from_bytes(data[2:4], "little"), int.from_bytes(data[16:24], "little")
    refuse_if(version != 1 or kind not in TYPES or bool(flags & ~sum(FLAGS.values())))  # 2
    refuse_if(29 + 4 * count + 4 > len(data))  # 3
    fields = VFRAME.layout("header", data, {"4n": 4 * count, "body": len(data) - 33 - 4 * count})
    refuse_if(zlib.crc32(data[:-4]) != fields.numbers("crc32")[0])  # 4
    refuse_if(fields.numbers("modality")[0] not in MODALITIES)  # 5
    lengths = struct.unpack(f"<{count}I", fields.raw("slice_len"))
    body = fields.raw("body")
    sealed = bool(flags & FLAGS["XCHACHA"])
    refuse_if(sealed != (key is not None))  # 6
    if key is not None:
        body = opened(body, data[: 29 + 4 * count], fields, key, salt)
    if flags & FLAGS["ZSTD"]:  # 7
        refuse_if(sealed and body[:4] != ZSTD_MAGIC)
        body = inflated(body, lengths) if body[:4] == ZSTD_MAGIC else body
    slices = read_slices(body, lengths)  # 8
    if flags & FLAGS["STRONG_TAIL"]:
        refuse_if([(one["dtype"], len(one["payload"])) for one in slices] != [(2, 16)])  # 9
    names = ("type", "flags", "stream_id", "frame_seq", "space_hash32", "modality")
    return {**dict(zip(names, fields.numbers(*names), strict=True)), "slices": slices}


def opened(body: bytes, header: bytes, fields: Layout, key: bytes, salt: bytes) -> bytes:
    nonce = b"".join(
        salt if row["field"] == "salt" else fields.raw(row["field"])
        for row in VFRAME.table("nonce")
    )
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(body, header, nonce, key)
    except (CryptoError, ValueError) as error:
        raise RefusedError from error


def inflated(body: bytes, lengths: Sequence[int]) -> bytes:
    at_least = sum(lengths) + 2 * len(lengths)
    at_most = min(1_048_576, at_least + 1020 * len(lengths))
    reader = zstandard.ZstdDecompressor().decompressobj()
    try:
        result = reader.decompress(body)
    except zstandard.ZstdError as error:
        raise RefusedError from error
    refuse_if(not reader.eof or bool(reader.unused_data))
    refuse_if(not at_least <= len(result) <= at_most)
    return result


def read_slices(body: bytes, lengths: Sequence[int]) -> list[dict[str, Any]]:
    slices = []
    for length in lengths:
        refuse_if(len(body) < 2)
        try:
            fields = VFRAME.layout("slice", body, {"4 ndim": 4 * body[1], "slice_len": length})
        except ValueError as error:
            raise RefusedError from error
        shape = list(struct.unpack(f"<{body[1]}I", fields.raw("shape")))
        dtype = fields.numbers("dtype")[0]
        refuse_if(dtype not in DTYPES)
        if DTYPES[dtype]["name"] == "sparse":
            refuse_if(length % 2 != 0 or length // 2 > prod(shape))
        elif DTYPES[dtype]["name"] == "centred":
            refuse_if(len(shape) != 2 or not 8 < length < 2 * prod(shape))
        else:
            refuse_if(length != -(-prod(shape) * int(DTYPES[dtype]["bits"]) // 8))
        slices.append({"dtype": dtype, "shape": shape, "payload": fields.raw("payload").hex()})
        body = body[fields.size :]
    refuse_if(bool(body))
    return slices


def secret(entry: dict[str, Any]) -> tuple[bytes | None, bytes]:
    key = bytes.fromhex(entry["key"]) if "key" in entry else None
    return key, bytes.fromhex(entry.get("salt", ""))


@pytest.mark.parametrize("entry", VECTORS["frames"], ids=lambda entry: entry["name"])
def test_a_vector_is_read_by_the_pages_alone(entry: dict[str, Any]) -> None:
    read = read_frame(bytes.fromhex(entry["frame"]), *secret(entry))
    assert read == {key: entry[key] for key in read}


@pytest.mark.parametrize("entry", VECTORS["refused"], ids=lambda entry: entry["name"])
def test_a_refused_one_is_refused_by_the_pages_alone(entry: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        read_frame(bytes.fromhex(entry["frame"]), *secret(entry))


# Tensors


def read_tensor(slices: Sequence[dict[str, Any]]) -> list[float]:
    """Return a tensor's values as the page's section on tensors says."""
    main, *rest = slices
    raw, count = bytes.fromhex(main["payload"]), prod(main["shape"])
    name = DTYPES[main["dtype"]]["name"]
    if name == "f16":
        return list(struct.unpack(f"<{count}e", raw))
    if name == "f32":
        return list(struct.unpack(f"<{count}f", raw))
    if name == "bf16":
        halves = struct.unpack(f"<{count}H", raw)
        return [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in halves]
    if name == "sparse":
        values = struct.unpack(f"<{len(raw) // 2}e", raw)
        where = struct.unpack(f"<{len(values)}I", bytes.fromhex(rest[0]["payload"]))
        assert list(where) == sorted(set(where))
        dense = [0.0] * count
        for index, value in zip(where, values, strict=True):
            dense[index] = value
        return dense
    return scaled(codes(name, raw, count, centred=len(rest) < 2), main["shape"], rest)


def codes(name: str, raw: bytes, count: int, *, centred: bool) -> list[int]:
    if name == "i8":
        return list(struct.unpack(f"<{count}b", raw))
    bits = {"q4": 4, "q2": 2}[name]
    mask = (1 << bits) - 1
    unsigned = [byte >> shift & mask for byte in raw for shift in range(8 - bits, -1, -bits)]
    return [code - (1 << (bits - 1)) * centred for code in unsigned[:count]]


def scaled(
    values: Sequence[int], shape: Sequence[int], rest: Sequence[dict[str, Any]]
) -> list[float]:
    auxiliary = [read_tensor([piece]) for piece in rest]
    groups = rest[0]["shape"][-1] if rest else 1
    last = shape[-1]
    length = -(-last // groups)
    result = []
    for index, code in enumerate(values):
        group = index // last * groups + index % last // length
        scale = auxiliary[0][group] if auxiliary else 1.0
        minimum = auxiliary[1][group] if len(auxiliary) > 1 else 0.0
        result.append(code * scale + minimum)
    return result


@pytest.mark.parametrize("entry", VECTORS["tensors"], ids=lambda entry: entry["frame"])
def test_a_tensor_has_the_published_values(entry: dict[str, Any]) -> None:
    slices = BY_NAME[entry["frame"]]["slices"]
    assert slices[0]["shape"] == entry["shape"]
    # A reader may compute in float32, whose steps here are below this.
    assert read_tensor(slices) == pytest.approx(entry["values"], rel=1e-6, abs=1e-6)


# Streams, spaces


@pytest.mark.parametrize("entry", VECTORS["streams"], ids=lambda entry: entry["name"])
def test_a_stream_is_read_by_the_page_alone(entry: dict[str, Any]) -> None:
    frames = [BY_NAME[name] for name in entry["frames"]]
    assert [frame["frame_seq"] for frame in frames] == list(range(len(frames)))
    head, *between, tail = ([bytes.fromhex(one["payload"]) for one in f["slices"]] for f in frames)
    payload = b"".join(b"".join(batch) for batch in between)
    promised = VSTREAM.layout("head", head[0])
    assert promised.size == len(head[0])
    assert promised.numbers("length", "direction") == [len(payload), entry["direction"]]
    assert promised.raw("md5") == hashlib.md5(payload, usedforsecurity=False).digest()
    digest = xxhash.xxh3_64_intdigest(payload, seed=0)
    assert promised.numbers("xxh3_64") == [digest] == [entry["xxh3_64"]]
    assert frames[-1]["flags"] == FLAGS["STRONG_TAIL"]
    repeated = VSTREAM.layout("tail", tail[0]).numbers("xxh3_64") == [digest]
    assert repeated is not entry["refused"]
    assert (payload.hex(), promised.raw("md5").hex()) == (entry["payload"], entry["md5"])


@pytest.mark.parametrize("entry", VECTORS["space_hash32"], ids=lambda entry: entry["space_id"])
def test_a_space_is_hashed_by_the_page_alone(entry: dict[str, Any]) -> None:
    text = f"{entry['space_id']}:{entry['arch']}:{entry['data_sig']}"
    digest = hashlib.sha256(text.encode()).digest()
    assert int.from_bytes(digest[:4], "little") == entry["space_hash32"]


@pytest.mark.parametrize("entry", VECTORS["negotiations"], ids=lambda entry: entry["name"])
def test_a_negotiation_follows_the_page_alone(entry: dict[str, Any]) -> None:
    ours, theirs, answer = entry["ours"], entry["theirs"], entry["answer"]
    assert (answer["method"] == "error") is entry["refused"]
    if entry["refused"]:
        same = ours["space_hash32"] == theirs["space_hash32"]
        field, code = ("d_model", "D_MODEL") if same else ("space_hash32", "SPACE")
        assert answer["code"] == f"{code}_MISMATCH"
        assert (answer["expected"], answer["got"]) == (ours[field], theirs[field])
        return
    for key in ("compress", "crypto"):
        assert answer[key] == [name for name in ours[key] if name in theirs[key]]
    mine, other, agreed = (body["supports"] for body in (ours, theirs, answer))
    assert agreed["dtype"] == [name for name in mine["dtype"] if name in other["dtype"]]
    assert agreed["critique"] is (mine["critique"] and other["critique"])


def test_a_proposal_and_its_answer_in_frames() -> None:
    for entry in VECTORS["negotiations"]:
        proposal, answer = (BY_NAME[f"{what}-{entry['name']}"] for what in ("proposal", "answer"))
        assert (proposal["frame_seq"], answer["frame_seq"]) == (0, 1)
        assert proposal["stream_id"] == answer["stream_id"]
        assert (answer["space_hash32"] == 0) is entry["refused"]
        said = [
            json.loads(bytes.fromhex(frame["slices"][0]["payload"])) for frame in (proposal, answer)
        ]
        assert said == [entry["theirs"], entry["answer"]]
