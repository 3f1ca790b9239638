"""What is said of where the HTTP API listens."""

import socket
from pathlib import Path

import pytest

from p2pnode.errors import UserError
from p2pnode.interfaces.cli import node_commands
from p2pnode.interfaces.cli.http_options import KEY_VARIABLE, HttpOptions
from p2pnode.interfaces.http.listening import Where

KEY, CERT = Path("/home/ada/p2p.key"), Path("/home/ada/tls.crt")
HERE = Where("127.0.0.1", 8080)


def said(host: str, *, key_file: Path | None = None, tls_cert: Path | None = None) -> list[str]:
    options = HttpOptions(key_file, (), (), tls_cert, tls_cert)
    with socket.create_server((host, 0)) as listener:
        port = f":{listener.getsockname()[1]}"
        return [line.replace(port, ":PORT") for line in options.reaching(listener)]


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "attic")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def test_loopback_without_a_key_needs_no_more_words() -> None:
    assert said("127.0.0.1") == []


def test_other_machines_are_told_a_name_and_the_key() -> None:
    assert said("0.0.0.0", key_file=KEY) == [
        "for other machines: http://attic:PORT, or an address of this one",
        f"clients send the key in {KEY}",
    ]


def test_with_tls_it_is_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "0123456789abcdef")
    assert said("0.0.0.0", tls_cert=CERT) == [
        "for other machines: https://attic:PORT, or an address of this one",
        f"clients send the key in ${KEY_VARIABLE}",
    ]


def test_a_second_node_with_an_api_is_told_that_the_first_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pnode.interfaces.cli.node_commands.answers", lambda path: True)
    with pytest.raises(UserError, match="a node of yours runs on") as caught:
        node_commands._face("8080", HttpOptions(None, (), (), None, None), tmp_path)
    assert "p2pnode stop" in caught.value.hint


def test_sites_and_hosts_are_named_as_requests_have_them() -> None:
    right = ("https://chat.example", "http://localhost:3000", "*", "null", "app://obsidian.md")
    access = HttpOptions(None, ("chat.example",), right, None, None).access(HERE)
    assert (access.hosts, access.origins) == (("chat.example",), right)


@pytest.mark.parametrize(
    ("hosts", "origins", "words"),
    [
        ((), ("nonsense",), "--cors: 'nonsense' is no site"),
        ((), ("https://chat.example/",), "no site"),
        ((), ("https://Chat.example",), "no site"),
        ((), ("",), "no site"),
        (("a b",), (), "--allow-host: 'a b' is no host's name"),
        (("chat.example:8080",), (), "no host's name"),
        (("",), (), "no host's name"),
    ],
)
def test_what_no_request_could_have_is_refused(
    hosts: tuple[str, ...], origins: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        HttpOptions(None, hosts, origins, None, None).access(HERE)
    assert caught.value.hint
