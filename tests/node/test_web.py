"""Asking servers: waits, redirects, proxies, TLS, and where a token goes."""

import ssl
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.client import HTTPConnection, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.node import web
from p2pnode.node.url import split_url
from tests.node.local_hub import Hub, Request, content, on, pull, running_hub, saying, sha


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_waited_for_as_it_asks(hub: Hub, slept: list[float], status: int) -> None:
    hub.behaviours = [on("cdn", saying(status, b"", {"Retry-After": "7"}))]
    told: list[str] = []
    pull(tell=told.append)
    assert slept == [7]
    assert f"is busy ({status}" in told[0]
    assert "going on in 7 s" in told[0]


def test_nobody_waits_for_an_hour(hub: Hub, slept: list[float]) -> None:
    hub.behaviours = [on("cdn", saying(429, b"", {"Retry-After": "3600"}))]
    with pytest.raises(UserError, match=r"asks to wait 3600 seconds \(429"):
        pull()
    assert slept == []


def test_a_busy_listing_is_asked_for_again(hub: Hub, slept: list[float]) -> None:
    hub.behaviours = [on("/api/", saying(503)), on("/api/", saying(429))]
    assert pull().read_bytes() == content(hub)
    assert slept == [1, 2]


def test_a_wait_may_be_a_date(hub: Hub, slept: list[float]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    late = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    hub.behaviours = [
        on("/api/", saying(429, b"", {"Retry-After": soon})),
        on("cdn", saying(503, b"", {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"})),
        on("cdn", saying(503, b"", {"Retry-After": "whenever"})),
    ]
    pull()
    assert 40 <= slept[0] <= 50
    assert len(slept) == 2  # none for what is past
    hub.behaviours = [on("/api/", saying(429, b"", {"Retry-After": late}))]
    with pytest.raises(UserError, match="asks to wait"):
        pull(called="again")


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 2020 00:00:00 +9999999999999999",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan -9223372036854775808 00:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:99999999999999999999 GMT",
        "9" * 5000,
        "Mon, 01 Jan 2020 00:00:00 -0000",
    ],
)
def test_a_date_that_is_none_is_no_wait(hub: Hub, slept: list[float], date: str) -> None:
    hub.behaviours = [on("/api/", saying(503, b"", {"Retry-After": date}))]
    assert pull().read_bytes() == content(hub)
    assert slept == [1]


WORDS = ["Mon,", "1", "-1", "Jan", "2020", "9999", "0001", "00:00:00", "25:61:99", "GMT", "+9999"]


@given(st.lists(st.sampled_from(WORDS) | st.text() | st.integers().map(str)).map(" ".join))
def test_whatever_asks_to_wait_is_a_wait_or_none(text: str) -> None:
    response = cast("HTTPResponse", SimpleNamespace(status=503, headers={"Retry-After": text}))
    wait = web.Answer("http://a", HTTPConnection("a"), response, web.Limits()).wait()
    assert wait is None or wait >= 0


@pytest.mark.parametrize("to", ["http://[", "//[::1", "http://[x]/y"])
@pytest.mark.parametrize("how", ["redirect", "next page"])
def test_an_address_that_is_none_is_one_error(hub: Hub, how: str, to: str) -> None:
    if how == "redirect":
        hub.behaviours = [on("cdn", saying(302, b"", {"Location": to}))]
    else:
        hub.behaviours = [on("/api/", saying(200, b"[]", {"Link": f'<{to}>; rel="next"'}))]
    with pytest.raises(UserError, match="address"):
        pull()


def test_a_server_that_dribbles_a_listing_is_not_waited_for(hub: Hub) -> None:
    minutes = iter(range(0, 1000, 60))
    hub.behaviours = [on("/x", saying(200, b"[]"))]
    with (
        web.Web().get(f"{hub.url}/x") as answer,
        pytest.raises(web.InterruptedTransferError, match="next to nothing"),
    ):
        answer.read_all(1000, clock=lambda: next(minutes))


def test_what_a_server_says_of_itself_is_one_short_line(hub: Hub) -> None:
    def shout(request: Request) -> None:
        request.close_connection = True
        request.wfile.write(b"\x1b[2Jno\rHTTP" + b"y" * 30_000 + b"\n\n")

    hub.behaviours = [on("/x", shout)]
    with pytest.raises(web.InterruptedTransferError) as caught, web.Web().get(f"{hub.url}/x"):
        pass
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_proxy_of_the_environment_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("http_proxy", hub.url.replace("//", "//me:pass@"))
    monkeypatch.delenv("no_proxy", raising=False)
    assert pull().read_bytes() == content(hub)
    path, headers = hub.asked[0]
    assert path.startswith("http://hub.example/api/models/")
    assert headers["Host"] == "hub.example"
    assert headers["Proxy-Authorization"] == "Basic bWU6cGFzcw=="
    assert not any("Authorization" in one for _, one in hub.asked)


def test_the_token_goes_to_the_hub_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running_hub() as other:
        other.repos = hub.repos
        target = f"{other.url}/cdn/{sha(content(hub))}"
        hub.behaviours = [on("resolve", saying(302, b"", {"Location": target}))]
        pull()
        assert hub.asked_for("/api/")[0]["Authorization"] == "Bearer hf_secret"
        assert hub.asked_for("resolve")[0]["Authorization"] == "Bearer hf_secret"
        assert "Authorization" not in other.asked_for("cdn")[0]


def test_the_token_crosses_no_network_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = web.Web(token=web.Token("hf_secret", "http://hub.example"))
    assert asking._authorisation(split_url("http://hub.example/x")) == {}
    asking = web.Web(token=web.Token("hf_secret", "https://hub.example"))
    assert asking._authorisation(split_url("https://hub.example:443/x"))
    for other in ("http://hub.example/x", "https://hub.example:444/x", "https://cdn.example/x"):
        assert asking._authorisation(split_url(other)) == {}


def test_redirects_are_bounded_and_stay_in_https(hub: Hub) -> None:
    circle = saying(302, b"", {"Location": "/cdn/round"})
    hub.behaviours = [on("resolve", circle), *[on("/cdn/round", circle)] * 6]
    with pytest.raises(UserError, match="redirects more than 5 times"):
        pull()
    with pytest.raises(UserError, match="redirects from https to http"):
        web._redirected("https://hub.example/x", "http://hub.example/x")
    for target in ("", "ftp://hub.example/x", "file:///etc/passwd"):
        with pytest.raises(UserError):
            web._redirected("https://hub.example/x", target)


def certified(folder: Path) -> Path:
    """Write a certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "hub.pem"
    form = serialization.Encoding.PEM
    secret = key.private_bytes(
        form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(form) + secret)
    return path


def test_a_hub_behind_tls(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = certified(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    plain = hub.url
    hub.socket = context.wrap_socket(hub.socket, server_side=True)
    monkeypatch.setenv("HF_ENDPOINT", plain.replace("http:", "https:"))
    with pytest.raises(UserError, match=r"certificate of 127\.0\.0\.1 cannot be trusted") as caught:
        pull()
    assert "SSL_CERT_FILE" in caught.value.hint
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert pull().read_bytes() == content(hub)
    hub.behaviours = [on("resolve", saying(302, b"", {"Location": f"{plain}/cdn/x"}))]
    with pytest.raises(UserError, match="redirects from https to http"):
        pull(called="again")


def test_a_server_that_is_not_there_is_told_with_what_to_do(
    hub: Hub, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match="cannot be reached: Connection refused") as caught:
        pull()
    assert "get online" in caught.value.hint


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_silent_server_is_left(hub: Hub, where: str) -> None:
    def silent(request: Request) -> None:
        if where == "body":
            request.send(200, b"", {"Content-Length": "100"})
            request.wfile.flush()
        hub_ended.wait(10)

    hub_ended = threading.Event()
    hub.behaviours = [on("/x", silent)]
    asking = web.Web(web.Limits(answer=0.05, silence=0.05))
    with pytest.raises(web.InterruptedTransferError), asking.get(f"{hub.url}/x") as answer:
        answer.read()
    hub_ended.set()
