"""Where to listen: every form people write, and what is said where it cannot be."""

import socket
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.interfaces.http.listening import Where, listen, parse_where


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", Where("127.0.0.1", 8080)),
        (":8080", Where("127.0.0.1", 8080)),
        ("0", Where("127.0.0.1", 0)),
        (" 0.0.0.0:80 ", Where("0.0.0.0", 80)),
        ("kitchen.local:65535", Where("kitchen.local", 65535)),
        ("[::1]:8080", Where("::1", 8080)),
        ("[fe80::1%eth0]:1", Where("fe80::1%eth0", 1)),
    ],
)
def test_every_form_is_read(text: str, expected: Where) -> None:
    assert parse_where(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no port"),
        ("localhost", "no port"),
        ("localhost:", "no port"),
        ("localhost:http", "no port"),
        ("::1", "not an address"),
        ("::1:8080", "not an address"),
        ("[::1]", "not an address"),
        ("[localhost]:80", "not an address"),
        ("[]:80", "not an address"),
        ("http://localhost:80", "not an address"),
        ("a b:80", "not an address"),
        ("a\x00b:80", "not an address"),
        ("x" * 300 + ":80", "not an address"),
        ("65536", "no such port"),
        ("9" * 5000, "no such port"),
        ("-1", "no port"),
        ("٣", "no port"),
    ],
)
def test_what_is_none_of_these_is_refused_with_an_example(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_where(text)
    assert caught.value.hint
    assert len(str(caught.value)) < 200


@given(st.text(max_size=40) | st.from_regex(r"\[?[0-9a-z:.%]*\]?:?[0-9]*", fullmatch=True))
def test_any_text_is_a_place_or_a_clear_refusal(text: str) -> None:
    with suppress(UserError):
        where = parse_where(text)
        assert 0 <= where.port < 65536
        assert where.host.isprintable()
        assert where.host
        assert parse_where(str(where)) == where


def test_it_listens_on_any_free_port_without_delaying_small_packets() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1]
        assert listener.proto == socket.IPPROTO_TCP
        with socket.create_connection(listener.getsockname(), timeout=5):
            pass


def test_a_port_that_is_taken_is_said_to_be_so() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port} is taken") as caught:
            listen("127.0.0.1", port)
        listener.setblocking(True)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            listener.accept()[0].close()  # we first: the kernel remembers for a minute
    assert "another port" in caught.value.hint
    listen("127.0.0.1", port).close()  # at once, not when the kernel has forgotten


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("no-such-host.invalid", "unknown host"),
        ("x" * 70, "unknown host"),
        ("192.0.2.1", "this machine has no address"),
    ],
)
def test_a_host_that_is_not_here_is_said_to_be_so(host: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        listen(host, 0)
    assert caught.value.hint


def test_localhost_is_the_address_that_everybody_tries() -> None:
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("number", "port", "words"),
    [("EACCES", 80, "below 1024"), ("EACCES", 8080, "cannot listen"), ("EMFILE", 80, "cannot")],
)
def test_what_the_system_forbids_is_said(
    monkeypatch: pytest.MonkeyPatch, number: str, port: int, words: str
) -> None:
    import errno

    def bind(_self: socket.socket, _address: object) -> None:
        raise OSError(getattr(errno, number), "not now")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(UserError, match=words) as caught:
        listen("127.0.0.1", port)
    assert caught.value.hint
