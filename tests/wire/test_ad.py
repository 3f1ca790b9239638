"""What a peer says of itself: both versions of the ad, and what of it may be skipped."""

import contextlib
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode import __version__
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.membership import records
from p2pnode.node.advert import DTYPES
from p2pnode.wire.ad import (
    MAX_AD,
    MAX_OFFERS,
    Ability,
    AdState,
    CapabilityAd,
    ModelOffer,
    numerics_hash32,
)
from p2pnode.wire.ad_v1 import MAX_AD_V1
from p2pnode.wire.dtypes import DType, dtype_mask
from p2pnode.wire.fields import decode_fields_untrusted, encode_fields, number_untrusted

NUMERICS = "ggml 0.26.0/sapphirerapids/kv-f16"
_FEW = {"n_layers": 4, "d_model": 8, "first_layer": 0, "layer_count": 4, "state": AdState.SERVING}
_COSTS = {"decode_fixed_us": 1, "decode_layer_us": 2, "head_us": 3, "prefill_layer_ns": 4}


def some_ad(**changes: Any) -> CapabilityAd:
    ad = CapabilityAd(
        name="büro",
        model="smollm2-135m",
        space_hash32=7,
        n_layers=30,
        d_model=576,
        first_layer=10,
        layer_count=20,
        state=AdState.SERVING,
        decode_fixed_us=100,
        decode_layer_us=400,
        head_us=900,
        prefill_layer_ns=80_000,
        kv_free_bytes=1 << 30,
        kv_total_bytes=1 << 33,
        device="cpu x2",
        dtypes=dtype_mask([DType.F16, DType.I8, DType.F32]),
    )
    return replace(ad, **changes)


def full_ad(**changes: Any) -> CapabilityAd:
    """Return an ad that says all that version 2 has room for."""
    said: dict[str, Any] = {
        "abilities": Ability.SAMPLING,
        "rows4_layer_us": 500,
        "rows8_layer_us": 700,
        "numerics": numerics_hash32(NUMERICS),
        "numerics_names": (NUMERICS,),
        "software": "0.1.0",
        "kv_bytes_per_token_layer": 768,
        "others": (an_offer(8), an_offer(9, model="other")),
    }
    return some_ad(**said | changes)


def an_offer(space: int, **changes: Any) -> ModelOffer:
    return ModelOffer(**{"space_hash32": space, "model": "m", **_FEW, **_COSTS, **changes})


def test_an_ad_survives_and_is_small() -> None:
    for ad in (some_ad(), full_ad()):
        assert CapabilityAd.decode_untrusted(ad.encode()) == ad
        assert CapabilityAd.decode_untrusted(memoryview(ad.encode())) == ad
    ad = some_ad()
    assert CapabilityAd.decode_untrusted(ad.encode(1)) == ad
    assert ad.layers == range(10, 30)
    assert ad.understands(DType.F32)
    assert not ad.understands(DType.Q4)
    assert ad.numerics_name == ""
    assert full_ad().numerics_name == NUMERICS
    assert full_ad(numerics_names=()).numerics_name == f"0x{numerics_hash32(NUMERICS):08x}"


def test_the_widest_ad_of_one_model_fits_a_record_and_a_datagram() -> None:
    wide = dict.fromkeys(("decode_fixed_us", "decode_layer_us", "head_us"), 2**32 - 1)
    widest = full_ad(
        **wide,
        name="é" * 16,
        model="m" * 64,
        device="d" * 48,
        numerics_names=("n" * 64,),
        software="s" * 24,
        numerics=numerics_hash32("n" * 64),
        kv_bytes_per_token_layer=2**32 - 1,
        kv_free_bytes=2**64 - 1,
        kv_total_bytes=2**64 - 1,
        others=(),
    )
    assert len(widest.encode()) < MAX_AD == records.MAX_AD
    assert len(widest.encode(1)) == 199 <= MAX_AD_V1


def test_a_usual_ad_takes_what_the_figures_say() -> None:
    usual = replace(
        full_ad(others=()),
        name="kitchen",
        model="SmolLM2-135M-Instruct Q4_K_M",
        space_hash32=0x9219C84A,
        first_layer=0,
        layer_count=15,
        decode_fixed_us=180,
        decode_layer_us=812,
        head_us=5_210,
        prefill_layer_ns=190_000,
        rows4_layer_us=1_490,
        rows8_layer_us=2_210,
        device="cuda:0 RTX 3060",
        kv_total_bytes=512 << 20,
        kv_free_bytes=512 << 20,
        dtypes=DTYPES,
        abilities=0,
    )
    assert (len(usual.encode(1)), len(usual.encode())) == (105, 169)
    assert len(replace(usual, numerics_names=()).encode()) == 134
    others = tuple(replace(usual.first_offer, space_hash32=1 << 31 | n) for n in range(5))
    assert len(replace(usual, others=others[:4]).encode()) == 509
    with pytest.raises(LocalProtocolError):
        replace(usual, others=others).encode()


def test_the_offer_of_a_wanted_space_is_found_among_several() -> None:
    ad = full_ad()
    assert ad.spaces == (7, 8, 9)
    other = ad.of_space(9)
    assert (other.space_hash32, other.model, other.layers) == (9, "other", range(4))
    assert (other.name, other.kv_free_bytes) == (ad.name, ad.kv_free_bytes)
    assert other.spaces == (9, 7, 8)
    assert other.of_space(7).first_offer == ad.first_offer
    assert ad.of_space(1) == ad


@pytest.mark.parametrize(
    ("name", "at", "size"),
    [("state", 1, 1), ("space_hash32", 2, 4), ("n_layers", 6, 2), ("kv_total_bytes", 40, 8)],
)
def test_a_number_of_version_1_lies_where_nodes_before_look(name: str, at: int, size: int) -> None:
    before, after = some_ad(), some_ad(**{name: getattr(some_ad(), name) + 1})
    differing = [
        index
        for index, (one, other) in enumerate(zip(before.encode(1), after.encode(1), strict=True))
        if one != other
    ]
    assert differing
    assert set(differing) <= set(range(at, at + size))


def test_version_1_tells_by_bits_passed_over_what_its_sender_can() -> None:
    ad = some_ad(abilities=Ability.SAMPLING | Ability.KV_TRANSFER)
    data = ad.encode(1)
    [mask] = struct.unpack_from("<I", data, 48)
    assert mask == ad.dtypes | 0b101 << 24 | 1 << 31
    assert CapabilityAd.decode_untrusted(data) == ad
    plain = bytearray(data)
    plain[51] = 0  # as nodes before write it
    read = CapabilityAd.decode_untrusted(bytes(plain))
    assert (read.reads, read.abilities, read.dtypes) == (1, 0, ad.dtypes)
    assert read.encode(1) == plain


def test_unknown_fields_are_skipped_and_kept() -> None:
    inner = encode_fields([*decode_fields_untrusted(an_inner_offer()), (200, b"later")])
    fields = [one for one in decode_fields_untrusted(full_ad().encode()[1:], {7, 8}) if one[0] != 8]
    data = b"\2" + encode_fields([*fields, (8, inner), (90, b"\1"), (255, b"new")])
    read = CapabilityAd.decode_untrusted(data)
    assert read.encode() == data
    assert read.extra == ((90, b"\1"), (255, b"new"))
    assert read.offer_extra == ((200, b"later"),)
    assert read.name == "büro"
    assert read.of_space(5).encode() == data


def an_inner_offer() -> bytes:
    fields = decode_fields_untrusted(full_ad(others=()).encode()[1:], {7, 8})
    return dict(fields)[8]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "é" * 17},
        {"name": "a\x1b[2J"},
        {"software": "1\x1b[2J"},
        {"software": "1\n"},
        {"software": "1" * 25},
        {"model": "line\nbreak"},
        {"device": "x" * 49},
        {"name": "\ud800"},
        {"layer_count": 21},
        {"space_hash32": 0},
        {"kv_free_bytes": 1 << 34},
        {"d_model": 1 << 32},
        {"n_layers": 1 << 16},
        {"dtypes": -1},
        {"numerics": 1 << 32},
        {"rows4_layer_us": -1},
        {"numerics_names": ("\x07",)},
        {"numerics_names": ("",)},
        {"numerics_names": ("n" * 65,)},
        {"numerics_names": tuple(map(str, range(MAX_OFFERS + 1)))},
        {"others": (an_offer(7),)},
        {"others": (an_offer(8), an_offer(8))},
        {"others": (an_offer(0, layer_count=0),)},
        {"others": tuple(map(an_offer, range(10, 10 + MAX_OFFERS)))},
        {"extra": ((1, b"x"),)},
        {"extra": ((90, b""),)},
        {"extra": ((91, b"x"), (90, b"x"))},
        {"extra": ((256, b"x"),)},
        {"offer_extra": ((3, b"x"),)},
    ],
)
def test_an_impossible_ad_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        some_ad(**change)
    with pytest.raises(LocalProtocolError):
        some_ad(**change).encode()


def test_an_ad_that_is_too_long_is_not_written() -> None:
    names = tuple(f"{number}" * 64 for number in range(8))
    with pytest.raises(LocalProtocolError, match="an ad of"):
        full_ad(numerics_names=names).encode()


def test_an_ad_cut_or_of_another_version_is_refused() -> None:
    for version in (1, 2):
        data = full_ad().encode(version)
        for changed in (b"\3" + data[1:], b"\0" + data[1:], data * 5, data + bytes(MAX_AD)):
            with pytest.raises(RemoteProtocolError):
                CapabilityAd.decode_untrusted(changed)
    data = some_ad().encode(1)
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            CapabilityAd.decode_untrusted(data[:size])
    with pytest.raises(RemoteProtocolError):
        CapabilityAd.decode_untrusted(data + b"\0")


def with_offer(*fields: tuple[int, bytes]) -> bytes:
    return b"\2" + encode_fields([(1, b"n"), (8, encode_fields(fields))])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\2\1",
        b"\2\1\2n",
        b"\2\1\0",
        b"\2\1\1n\1\1n",  # twice
        b"\2\2\1d\1\1n",  # out of order
        b"\2\3\2\1\0",  # a number not in the fewest bytes
        b"\2\3\5\1\1\1\1\1",  # wider than its field
        b"\2\1\1\xff",
        b"\2\1\1\x07",
        with_offer((7, b"\3")),  # no such state
        with_offer((1, b"\7"), (6, b"\1")),  # layers beyond the model's
        with_offer((3, b"\1"), (6, b"\1")),  # layers of no model
        with_offer((2, b"m" * 65)),
        with_offer((1, b"\7")) + with_offer((1, b"\7"))[4:],  # a space twice
        b"\2" + encode_fields([(7, b"n")] * 9),
        b"\2" + encode_fields((8, encode_fields([(1, bytes([space]))])) for space in range(1, 10)),
    ],
)
def test_an_absurd_ad_of_version_2_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        CapabilityAd.decode_untrusted(data)


@given(st.binary(max_size=330), st.sampled_from((b"", b"\1", b"\2")))
def test_any_bytes_are_an_ad_or_refused(data: bytes, version: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        CapabilityAd.decode_untrusted(version + data)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from((1, 2)),
)
def test_a_mutated_ad_says_what_it_says_or_is_refused(
    changes: list[tuple[int, int]], version: int
) -> None:
    data = bytearray(full_ad().encode(version))
    for at, value in changes:
        data[at % len(data)] = value
    with contextlib.suppress(RemoteProtocolError):
        assert CapabilityAd.decode_untrusted(bytes(data)).encode(data[0]) == data


fields = st.lists(
    st.tuples(st.integers(1, 255), st.binary(min_size=1, max_size=9)), unique_by=lambda one: one[0]
)


@given(fields)
def test_fields_survive_whatever_they_are(some: list[tuple[int, bytes]]) -> None:
    data = encode_fields(some)
    assert decode_fields_untrusted(data) == sorted(some)
    assert encode_fields(decode_fields_untrusted(data)) == data


@given(st.binary(max_size=300))
def test_any_bytes_are_fields_or_refused(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert encode_fields(decode_fields_untrusted(data)) == data


def test_a_field_of_number_0_or_too_long_has_no_place() -> None:
    with pytest.raises(LocalProtocolError):
        encode_fields([(1, bytes(256))])
    with pytest.raises(RemoteProtocolError):
        number_untrusted(b"\1\0", 32)
    assert number_untrusted(b"", 8) == 0


def test_a_hash_of_an_arithmetic_is_never_that_of_none() -> None:
    assert numerics_hash32("") == 0
    assert numerics_hash32("numpy") != numerics_hash32("ggml")


def test_a_version_that_would_steer_a_terminal_never_gets_in() -> None:
    data = some_ad(software="9.9.9").encode()
    for hostile in (b"9\x1b[2J", b"9\n9.9", b"\xff9.9.", b"9\xe2\x80\xae9"):
        with pytest.raises(RemoteProtocolError):
            CapabilityAd.decode_untrusted(data.replace(b"9.9.9", hostile))
    with pytest.raises(RemoteProtocolError):
        CapabilityAd.decode_untrusted(data[:-7] + b"\x0a\x19" + b"1" * 25)


def test_a_reader_from_before_the_version_passes_over_it() -> None:
    ad = some_ad(software="9.9.9")
    fields = decode_fields_untrusted(ad.encode()[1:], frozenset({8}))
    assert fields[-1] == (10, b"9.9.9")
    assert CapabilityAd.decode_untrusted(ad.encode(1)) == replace(ad, software="")
    unknown = some_ad(extra=((11, b"later"),))
    assert CapabilityAd.decode_untrusted(unknown.encode()).extra == ((11, b"later"),)


def test_this_versions_name_fits() -> None:
    ad = some_ad(software=__version__)
    assert CapabilityAd.decode_untrusted(ad.encode()) == ad
