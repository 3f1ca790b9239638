"""What peers offer and agree on."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.capability import Capability, negotiate, space_hash32, space_mismatch
from p2pnode.wire.dtypes import DType, dtype_mask, dtypes_of_mask
from p2pnode.wire.messages import SyncError, parse_sync_untrusted, sync_frame
from p2pnode.wire.vframe import decode_frame_untrusted, encode_frame

VECTORS = json.loads(
    Path(__file__).parent.parent.joinpath("vectors", "vframe.json").read_text("utf-8")
)
OURS = Capability(576, "smollm2-135m", 0x9219C84A)


@pytest.mark.parametrize("entry", VECTORS["space_hash32"], ids=lambda entry: entry["space_id"])
def test_a_space_hashes_as_published(entry: dict[str, Any]) -> None:
    hashed = space_hash32(entry["space_id"], entry["arch"], entry["data_sig"])
    assert hashed == entry["space_hash32"]


def test_the_published_capability_is_read_and_written() -> None:
    entry = next(each for each in VECTORS["frames"] if each["name"] == "sync-capability")
    data = bytes.fromhex(entry["frame"])
    frame = decode_frame_untrusted(data)
    capability = Capability.from_body_untrusted(parse_sync_untrusted(frame))
    assert capability == OURS
    again = sync_frame(
        capability.to_body(),
        stream_id=frame.stream_id,
        frame_seq=frame.frame_seq,
        space_hash32=frame.space_hash32,
    )
    assert encode_frame(again) == data


def test_unknown_keys_are_kept() -> None:
    body = {**OURS.to_body(), "new": [1], "modality": ["text", "image"]}
    body["supports"] = {"critique": False, "dtype": ["f16"], "x-fast": 2}
    capability = Capability.from_body_untrusted(body)
    assert capability.extra == {"new": [1]}
    assert capability.extra_supports == {"x-fast": 2}
    assert capability.to_body() == body


def test_an_unsupported_proposal_is_answered_with_the_reduced_set() -> None:
    theirs = replace(
        OURS, compress=(), dtypes=("bf16", "i8", "f16"), critique=False, agreed_proto=9
    )
    agreed = negotiate(OURS, theirs)
    assert agreed == replace(OURS, compress=(), dtypes=("f16", "i8"), critique=False)


names = st.lists(st.sampled_from(["f16", "i8", "q4", "zstd", "x"]), unique=True).map(tuple)
capabilities = st.builds(
    Capability,
    st.just(576),
    st.just("s"),
    st.just(1),
    names,
    names,
    names,
    st.booleans(),
    names,
    st.integers(1, 3),
)


@given(capabilities, capabilities)
def test_both_sides_agree_on_the_same_set(ours: Capability, theirs: Capability) -> None:
    here, there = negotiate(ours, theirs), negotiate(theirs, ours)
    assert isinstance(here, Capability)
    assert isinstance(there, Capability)
    assert set(here.dtypes) == set(there.dtypes) == set(ours.dtypes) & set(theirs.dtypes)
    assert (here.critique, here.agreed_proto) == (there.critique, there.agreed_proto)
    assert negotiate(here, theirs) == here


def test_another_space_is_refused_and_both_are_named() -> None:
    answer = negotiate(OURS, replace(OURS, space_hash32=5))
    assert answer == space_mismatch(0x9219C84A, 5)
    assert isinstance(answer, SyncError)
    assert answer.to_body()["code"] == "SPACE_MISMATCH"
    assert "0x9219c84a" in answer.message
    assert "0x00000005" in answer.message
    assert isinstance(negotiate(OURS, replace(OURS, d_model=1)), SyncError)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "ping"},
        {"supports": 5},
        {"d_model": "576"},
        {"d_model": -1},
        {"d_model": True},
        {"space_hash32": 2**32},
        {"compress": 5},
        {"compress": [5]},
        {"compress": ["x"] * 100},
        {"compress": ["x" * 1000]},
        {"embedding_space_id": None},
        {"supports": {"dtype": {}}},
    ],
)
def test_a_capability_of_wrong_types_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        Capability.from_body_untrusted({**OURS.to_body(), **change})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(OURS.to_body())), json_values))
def test_any_body_is_a_capability_or_refused(body: dict[str, object]) -> None:
    with contextlib.suppress(RemoteProtocolError):
        Capability.from_body_untrusted({**body, "method": "capability"})


@given(st.sets(st.sampled_from(DType)))
def test_a_mask_names_its_types(dtypes: set[DType]) -> None:
    assert dtypes_of_mask(dtype_mask(dtypes) | 1 << 31) == dtypes - {DType.COO}
