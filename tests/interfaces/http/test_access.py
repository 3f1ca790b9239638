"""Who may ask: hosts, keys, and pages of other sites; by requests that no client sends."""

import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.http_options import KEY_VARIABLE, HttpOptions
from p2pnode.interfaces.http.access import Access
from p2pnode.interfaces.http.app import make_app
from p2pnode.interfaces.http.body import MOST_BYTES
from p2pnode.interfaces.http.key_file import key_of
from p2pnode.interfaces.http.listening import Where
from p2pnode.interfaces.http.node_link import NodeLink
from tests.interfaces.http.conftest import Serving
from tests.interfaces.http.fake_node import FakeNode

KEY = "a-key-of-some-length"


def ask(
    port: int, path: str = "/v1/models", method: str = "GET", body: bytes = b"", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return status, body and headers of a request that says just what it is told to say."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host="host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.putheader("content-length", f"{len(body)}")
    connection.endheaders(body)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    told = {name.lower(): value for name, value in answer.getheaders()}
    is_json = told.get("content-type", "").startswith("application/json")
    return answer.status, json.loads(data) if is_json else {}, told


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("LOCALHOST.:80", 200),
        ("app.localhost:1", 200),
        ("[::1]:8080", 200),
        ("192.168.1.20", 200),  # an address is resolved by nobody
        ("known.example", 200),
        ("evil.example", 421),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("a@localhost", 421),
        ("[::1", 421),
        ("localhost:port", 421),
    ],
)
def test_a_name_that_another_site_had_resolved_to_us_is_refused(
    serving: Serving, node: FakeNode, host: str, status: int
) -> None:
    access = Access(hosts=("Known.example",))
    with serving(make_app(NodeLink(node.path), access)) as served:
        found, body, _ = ask(served.port, host=host)
        assert found == status
        assert status == 200 or body["error"]["code"] == "unknown_host"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://chat.example", 200),
        ("http://127.0.0.1:{port}", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:1", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_sites_may_not_ask_unless_named(
    serving: Serving, node: FakeNode, origin: str, status: int
) -> None:
    access = Access(origins=("https://chat.example",))
    with serving(make_app(NodeLink(node.path), access)) as served:
        said = origin.format(port=served.port)
        found, _, headers = ask(served.port, origin=said)
        assert found == status
        assert headers.get("access-control-allow-origin") == (
            "https://chat.example" if said == "https://chat.example" else None
        )


def test_a_named_site_s_preflight_needs_no_key(serving: Serving, node: FakeNode) -> None:
    access = Access(KEY, origins=("https://chat.example",))
    with serving(make_app(NodeLink(node.path), access)) as served:
        status, _, headers = ask(
            served.port,
            "/v1/chat/completions",
            "OPTIONS",
            origin="https://chat.example",
            access_control_request_method="POST",
            access_control_request_headers="authorization,content-type",
        )
        assert status == 200
        assert "authorization" in headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer  {KEY} "}, 200),
        ({"x_api_key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}x"}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": "Bearer \xe9"}, 401),
        ({"x_api_key": ""}, 401),
    ],
    ids=str,
)
def test_a_key_is_needed_where_there_is_one(
    serving: Serving, node: FakeNode, said: dict[str, str], status: int
) -> None:
    with serving(make_app(NodeLink(node.path), Access(KEY))) as served:
        found, body, headers = ask(served.port, "/v1/models", "GET", b"", **said)
        assert found == status
        if status == 401:
            assert body["error"]["code"] == "invalid_api_key"
            assert headers["www-authenticate"] == "Bearer"
            assert KEY not in json.dumps(body)
        assert ask(served.port, "/")[0] == 200
        assert ask(served.port, "/snapshot")[0] == 401


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "/pages/../app.py", "/%2e%2e/%2e%2e/etc/passwd", "//etc", "/chat/.."]
)
def test_no_path_leads_to_files(serving: Serving, node: FakeNode, path: str) -> None:
    with serving(make_app(NodeLink(node.path), Access())) as served:
        assert ask(served.port, path)[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b"[1]", 400, "malformed_json"),
        (b'{"a": NaN}', 400, "malformed_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", 400, "malformed_json"),
        (b"[" * 50_000, 400, "malformed_json"),
        (b'{"a": "\xff"}', 400, "malformed_json"),
        (b" " * (MOST_BYTES + 1), 413, "request_too_large"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_body_that_is_no_json_object_is_refused_in_words(
    serving: Serving, node: FakeNode, body: bytes, status: int, code: str
) -> None:
    with serving(make_app(NodeLink(node.path), Access())) as served:
        found, told, _ = ask(served.port, "/v1/chat/completions", "POST", body)
        assert (found, told["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (b'{"type": "text", "text": ""}', "more than 65,536 objects, lists and names"),
        (b"[]", "more than 65,536 objects"),
        (b"1.5", "more than 262,144 values"),
        (b"9" * 500, "not JSON"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_a_body_that_would_take_long_to_read_is_refused_in_words(
    serving: Serving, node: FakeNode, unit: bytes, said: str, path: str
) -> None:
    count = (MOST_BYTES - 100) // (len(unit) + 1)
    body = b'{"model": "tiny", "messages": [' + b",".join([unit] * count) + b"]}"
    with serving(make_app(NodeLink(node.path), Access())) as served:
        headers = {"anthropic_version": "2023-06-01"}
        found, told, _ = ask(served.port, path, "POST", body, **headers)
        assert found == (400 if said == "not JSON" else 413)
        assert said in json.dumps(told)


def test_a_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    file = tmp_path / "key"
    key = key_of(file)
    assert len(key) >= 40
    assert file.stat().st_mode & 0o777 == 0o600
    assert key_of(file) == key
    file.chmod(0o644)
    with pytest.raises(UserError, match="others can read"):
        key_of(file)


@pytest.mark.parametrize("text", ["", "short", "two words here are none", "\x00" * 20])
def test_a_file_without_a_key_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(UserError, match="holds no key"):
        key_of(file)
    with pytest.raises(UserError, match="cannot make a key"):
        key_of(tmp_path / "nowhere" / "key")
    with pytest.raises(UserError, match=r"holds no key|cannot read"):
        key_of(tmp_path)


@pytest.mark.parametrize(
    "said", ["hush", "\udcff\udcfe-no-key-of-text-at-all", "two words " * 3, " "]
)
def test_a_key_of_the_environment_is_one_that_clients_can_say(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    options, here = HttpOptions(None, (), (), None, None), Where("127.0.0.1", 8080)
    monkeypatch.setenv(KEY_VARIABLE, f"  {KEY}\n")
    assert options.access(here).key == KEY
    monkeypatch.setenv(KEY_VARIABLE, said)
    with pytest.raises(UserError, match="holds no key"):
        options.access(here)
