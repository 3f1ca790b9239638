"""JSON and text that peers, local clients and people hand in."""

import json
from collections.abc import Iterator
from dataclasses import replace

from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.errors import LocalProtocolError, RemoteProtocolError, UserError
from p2pnode.inference.messages import (
    Close,
    Control,
    Edge,
    Failed,
    Open,
    Opened,
    Refused,
    Resume,
    from_body_untrusted,
    to_body,
)
from p2pnode.inference.prefix_body import Names
from p2pnode.net.announcement import Announcement, parse_announcement_untrusted
from p2pnode.net.control_lines import LineBuffer, encode_line, parse_request_untrusted
from p2pnode.node.invite import Invite, decode_invite, encode_invite
from p2pnode.sansio import NodeId
from p2pnode.testing.offers import an_offer
from p2pnode.wire.ad import CapabilityAd, numerics_hash32
from p2pnode.wire.agreement import answer_proposal_untrusted, proposal_frame
from p2pnode.wire.bounded_json import dump_json, load_json_untrusted
from p2pnode.wire.capability import Capability, negotiate, space_mismatch
from p2pnode.wire.messages import SyncError, parse_sync_untrusted
from p2pnode.wire.vframe import decode_frame_untrusted, encode_frame
from tests.fuzz.target import Script, Target, blob, surely, with_crc

_OURS = Capability(576, "smol", 7, modality=("text",), extra={"x-a": 1})
_PEER = NodeId(bytes(range(32)))
_HOSTS = ("192.0.2.1", "2001:db8::1", "fe80::1%eth0", "224.0.0.1", "0.0.0.0", "nowhere", "")
_INVITE_PAD = b"p2p1-"


def bounded_json(data: bytes) -> None:
    body = load_json_untrusted(data)
    try:
        written = dump_json(body)
    except LocalProtocolError:
        return  # the writer puts spaces between, and then it may be too long
    assert surely(load_json_untrusted, written) == body


def capability(data: bytes) -> None:
    read = Capability.from_body_untrusted(load_json_untrusted(data))
    assert surely(Capability.from_body_untrusted, read.to_body()) == read
    agreed = negotiate(_OURS, read)
    assert agreed == negotiate(_OURS, read)
    dump_json(agreed.to_body())


def proposal(data: bytes) -> None:
    """A capability in its frame, and our answer to it."""
    answer = answer_proposal_untrusted(decode_frame_untrusted(with_crc(data)), _OURS)
    parse_sync_untrusted(answer)


def sync_error(data: bytes) -> None:
    read = SyncError.from_body_untrusted(load_json_untrusted(data))
    assert surely(SyncError.from_body_untrusted, read.to_body()) == read


def control(data: bytes) -> None:
    read = from_body_untrusted(load_json_untrusted(data))
    if read is None:
        raise RemoteProtocolError("no control message")
    if isinstance(read, Open):
        read = replace(read, unknown="")  # a later version's word: named, and never written
    assert surely(from_body_untrusted, to_body(read)) == read


def ad(data: bytes) -> None:
    read = CapabilityAd.decode_untrusted(data)
    assert read.encode(data[0]) == data
    again = surely(CapabilityAd.decode_untrusted, read.encode(1))
    assert (again.first_offer.layers, again.reads) == (read.layers, read.reads)
    for space in read.spaces:
        assert read.of_space(space).space_hash32 == space


def announcement(data: bytes) -> None:
    """A TXT record, then a port, then which hosts it came with."""
    script = Script(data)
    text = script.blob()
    port = int.from_bytes(script.take(2), "little")
    hosts: list[str] = []
    while script and len(hosts) < 64:
        hosts.append(_HOSTS[script.byte() % len(_HOSTS)])
    read = parse_announcement_untrusted(text, hosts, port)
    again = surely(lambda text: parse_announcement_untrusted(text, read.hosts, port), read.text())
    assert again == read


def control_lines(data: bytes) -> None:
    """What a local client writes, in pieces of the length that the first byte says."""
    size = 1 + (data[0] if data else 0)
    buffer, lines = LineBuffer(), []
    for at in range(1, len(data), size):
        lines += buffer.feed_untrusted(data[at : at + size])
    assert lines == data[1:].split(b"\n")[:-1]
    for line in lines:
        try:
            request = parse_request_untrusted(line)
        except RemoteProtocolError:
            continue
        encode_line({"id": request.id, "result": request.params})


def invite(data: bytes) -> None:
    """A code as somebody typed it, and one with a checksum that is right."""
    for text in (data.decode("utf-8", "replace"), _with_checksum(data)):
        try:
            read = decode_invite(text)
        except UserError:
            continue
        assert surely(decode_invite, encode_invite(read)).secret == read.secret


def _with_checksum(body: bytes) -> str:
    # The module's own words for what no mutator would guess.
    from p2pnode.node.invite import PREFIX, _base32, _checksum

    return PREFIX + _base32(body + _checksum(body))


# Seeds


def _json_seeds() -> Iterator[bytes]:
    yield dump_json(_OURS.to_body())
    yield dump_json({"a": [1, -2.5, None, True, {"b": "\u00e9\U0001f600"}]})
    yield rb'{"a": "\ud83d\ude00 \u0000 \\ \""}'


def _control_seeds() -> Iterator[bytes]:
    sampling = Sampling(temperature=0.7, top_k=40, top_p=0.9, seed=1)
    edge = Edge(_PEER, 5)
    names = Names(((64, bytes(16)), (81, bytes(range(16)))))
    messages: tuple[Control, ...] = (
        Open(1, 0, 2, range(3), 200, edge, edge, "f16", None, 0),
        Open(1, 0, 2, range(3), 200, edge, edge, "f32", sampling, 9),
        replace(
            Open(1, 0, 2, range(3), 200, edge, edge, "f16", None, 9),
            sampling=replace(
                sampling, min_p=0.1, repetition_penalty=1.1, logprobs=2, schema="{}", ends=(2,)
            ),
            past=Past(7, 9, (1, 2, 3)),
        ),
        Opened(1, 0, 2, 17),
        Refused(1, 0, 2, "memory", "no room"),
        Resume(1, 0, 2, 17),
        Failed(1, 0, 2, _PEER, "silent"),
        Close(1, 0),
        replace(Open(1, 0, 2, range(3), 200, edge, edge, "f32", None, 0), prefix=names),
        Close(1, 0, ((2, names), (3, Names((), is_shared=True)))),
    )
    yield from (dump_json(to_body(one)) for one in messages)


def _ad_seeds() -> Iterator[bytes]:
    some = an_offer(1, 0, 10, rows4_layer_us=7, kv_bytes_per_token_layer=768, abilities=1).ad
    several = replace(
        some,
        numerics=numerics_hash32("numpy"),
        numerics_names=("numpy", "ggml"),
        others=(an_offer(2, 3, 5, space_hash32=8).ad.first_offer,),
        extra=((90, b"later"),),
        offer_extra=((99, b"x"),),
    )
    for ad in (some, several):
        yield from (ad.encode(), ad.encode(1))


def _announcement_seeds() -> Iterator[bytes]:
    ours = Announcement(_PEER, bytes(8), "name", (("192.0.2.1", 4747),))
    yield blob(ours.text()) + (4747).to_bytes(2, "little") + bytes((0, 1, 2, 3, 4))
    yield blob(ours.text()) + (4747).to_bytes(2, "little") + bytes((0,))


def _line_seeds() -> Iterator[bytes]:
    lines = encode_line({"id": 1, "method": "status"}) + encode_line(
        {"id": 2, "method": "generate", "params": {"prompt": "hi"}}
    )
    yield from (bytes((size,)) + lines for size in (0, 15, 255))


def _invite_seeds() -> Iterator[bytes]:
    whole = Invite(bytes(range(32)), (("192.0.2.1", 4747), ("2001:db8::1", 1), ("a.example", 9)))
    yield encode_invite(whole).encode()
    yield encode_invite(Invite(bytes(32))).encode()
    yield bytes((1, *range(32), 1, 4, 192, 0, 2, 1, 18, 139))
    yield bytes((1, *range(32), 1, 19)) + b"a.b" + bytes((18, 139))


_JSON_WORDS = (b'"\\ud800"', b"1e999", b"-0", b"NaN", b"[[[[[[[[", b'{"":', b"18446744073709551616")

TARGETS = (
    Target("json", bounded_json, _json_seeds, words=_JSON_WORDS),
    Target(
        "capability",
        capability,
        lambda: (dump_json(_OURS.to_body()), dump_json({"method": "capability"})),
        words=(*_JSON_WORDS, b'"supports"', b'"agreed_proto"', b'"dtype"'),
    ),
    Target(
        "proposal",
        proposal,
        lambda: (encode_frame(proposal_frame(_OURS, stream_id=3))[:-4],),
        words=_JSON_WORDS,
    ),
    Target(
        "sync-error",
        sync_error,
        lambda: (dump_json(space_mismatch(1, 2).to_body()),),
        words=_JSON_WORDS,
    ),
    Target("control", control, _control_seeds, words=(*_JSON_WORDS, b" ", b"0x")),
    Target("ad", ad, _ad_seeds, max_len=560),
    Target("announcement", announcement, _announcement_seeds, max_len=1200),
    Target(
        "control-lines",
        control_lines,
        _line_seeds,
        words=(*_JSON_WORDS, b"\n", b'"id"', b'"params"', json.dumps({"id": 1}).encode()),
    ),
    Target("invite", invite, _invite_seeds, refusals=(UserError,), words=(_INVITE_PAD,)),
)
