"""Pulling from a hub: resumed, bounded, checked, and refused in words. The hub is on loopback."""

import fcntl
import json
import os
import shutil
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.node import catalogue, download, hub as hubs, model_cache, models, pulling, web
from p2pnode.node.catalogue import HubFile, KnownModel
from p2pnode.node.url import split_url
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from tests.node.local_hub import (
    Behaviour,
    Hub,
    Request,
    cutting,
    on,
    packed,
    running_hub,
    saying,
    sha,
)

REPO = "some/Tiny-GGUF"
FILE = "tiny-Q4_K_M.gguf"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    with running_hub() as one:
        monkeypatch.setenv("HF_ENDPOINT", one.url)
        one.repos[REPO] = {"README.md": b"read me", FILE: tiny(tmp_path)}
        yield one


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; without waiting."""
    heard: list[float] = []
    monkeypatch.setattr(pulling, "Pull", partial(pulling.Pull, sleep=heard.append))
    return heard


def tiny(tmp_path: Path, seed: int = 0) -> bytes:
    path = tmp_path / "made.gguf"
    write_tiny_gguf(path, n_layers=2, seed=seed)
    return path.read_bytes()


def content(hub: Hub) -> bytes:
    return hub.repos[REPO][FILE]


class Always(list[Behaviour]):
    """Behaviours that stay."""

    def pop(self, _: object = None) -> Behaviour:
        return self[0]


def pull(what: str = f"hf:{REPO}", **more: Any) -> Path:
    return model_cache.pull(what, **more)


def parts(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("cache/models/.parts/*"))


def test_a_model_is_pulled_checked_and_used_by_its_name(hub: Hub, tmp_path: Path) -> None:
    heard: list[float] = []
    path = model_cache.pull(f"hf:{REPO}:{FILE}", heard.append)
    assert path == tmp_path / "cache/models/tiny-Q4_K_M.gguf"
    assert path.read_bytes() == content(hub)
    assert path.stat().st_mode & 0o777 == 0o444
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert parts(tmp_path) == []
    (one,) = model_cache.installed()
    assert (one.name, one.size, one.problem) == ("tiny-Q4_K_M", len(content(hub)), "")
    assert (one.hash_from, one.source) == ("hub", f"hf:{REPO}:{FILE}")
    for name in ("tiny-Q4_K_M", "TINY-q4_k_m"):
        assert models.resolve(name) == path
    asked = len(hub.asked)
    assert pull(f"hf:{REPO}:{FILE}") == pull("tiny-Q4_K_M") == path  # a second time does nothing
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("files", "what", "chosen"),
    [
        (["a-Q8_0.gguf", "a-Q4_K_M.gguf"], "", "a-Q4_K_M.gguf"),
        (["a-Q8_0.gguf", "a-Q4_K_M.gguf"], ":Q8_0", "a-Q8_0.gguf"),
        (["a-Q8_0.gguf", "a.q4_k_m.gguf"], "", "a.q4_k_m.gguf"),
        (["only-Q2_K.gguf"], "", "only-Q2_K.gguf"),
        (["a-Q4_K_M.gguf", "mmproj-a-Q4_K_M.gguf"], "", "a-Q4_K_M.gguf"),
        (["a-Q4_K_M.gguf", "folder/b-Q8_0.gguf"], ":folder/b-Q8_0.gguf", "folder/b-Q8_0.gguf"),
    ],
)
def test_the_file_is_chosen_where_exactly_one_fits(
    hub: Hub, files: list[str], what: str, chosen: str, tmp_path: Path
) -> None:
    hub.repos[REPO] = {name: tiny(tmp_path, seed) for seed, name in enumerate(files)}
    assert pull(f"hf:{REPO}{what}").read_bytes() == hub.repos[REPO][chosen]


@pytest.mark.parametrize(
    ("files", "what", "told"),
    [
        (["a-Q8_0.gguf", "b-Q6_K.gguf"], "", "has no files that are Q4_K_M"),
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], "", "has 2 files that are Q4_K_M"),
        (["a-Q4_K_M.gguf"], ":Q5_K_M", "has no files that are Q5_K_M"),
        (["a-Q4_K_M.gguf"], ":other.gguf", "has no file other.gguf"),
    ],
)
def test_a_choice_that_is_none_lists_the_files(
    hub: Hub, files: list[str], what: str, told: str
) -> None:
    hub.repos[REPO] = dict.fromkeys([*files, "model.safetensors"], b"GGUF")
    with pytest.raises(UserError, match=told) as caught:
        pull(f"hf:{REPO}{what}")
    assert f"hf:{REPO}:FILE: {', '.join(files)}" in caught.value.hint


def test_a_repository_without_gguf_files_says_so(hub: Hub) -> None:
    hub.repos[REPO] = {"model.safetensors": b"..", "pytorch_model.bin": b".."}
    with pytest.raises(UserError, match="has no GGUF file") as caught:
        pull()
    assert caught.value.hint


def test_a_repository_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(UserError, match=r"the hub has no some/other at main \(404\)") as caught:
        pull("hf:some/other")
    assert hub.url in caught.value.hint


def test_a_file_that_went_since_it_was_listed(hub: Hub) -> None:
    hub.behaviours = [on("resolve", saying(404, b"", {"X-Error-Code": "EntryNotFound"}))]
    with pytest.raises(UserError, match=r"the hub has no .* \(404\)") as caught:
        pull()
    assert FILE in caught.value.hint


def test_a_split_model_comes_with_all_its_parts(hub: Hub, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "big.gguf", n_layers=2, split=9)
    names = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.repos[REPO] = {f"Q4/{name}": (tmp_path / name).read_bytes() for name in names}
    hub.behaviours = [
        on("resolve", lambda one: one.send(200, one.hub.repos[REPO][f"Q4/{names[0]}"]))
    ]
    path = pull(f"hf:{REPO}:Q4/{names[1]}")
    assert path.name == "big-00001-of-00003.gguf"
    (one,) = model_cache.installed()
    assert [found.name for found in one.paths] == names
    assert one.size == sum((tmp_path / name).stat().st_size for name in names)
    whole = tmp_path / "whole.gguf"
    write_tiny_gguf(whole, n_layers=2)
    assert models.describe_model(path) == models.describe_model(whole)
    del hub.repos[REPO][f"Q4/{names[2]}"]
    with pytest.raises(UserError, match="lacks 1 of the 3 parts of big"):
        pull(f"hf:{REPO}:Q4/{names[1]}", called="again")


def test_a_cut_connection_is_gone_on_with(hub: Hub, slept: list[float], tmp_path: Path) -> None:
    whole = content(hub)
    hub.behaviours = [on("cdn", cutting(whole, 1000)), on("cdn", cutting(whole, 500))]
    told: list[str] = []
    assert pull(tell=told.append).read_bytes() == whole
    assert [one.get("Range") for one in hub.asked_for("cdn")] == [
        None,
        "bytes=1000-",
        "bytes=1500-",
    ]
    assert hub.asked_for("cdn")[1]["If-Range"] == f'"{sha(whole)[:16]}"'
    assert "broke off after 1 KB" in told[0]
    assert parts(tmp_path) == []


def test_an_interrupted_pull_goes_on_where_it_stopped(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = content(hub)
    hub.behaviours = [on("cdn", cutting(whole, 7000))]

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pulling, "Pull", partial(pulling.Pull, sleep=interrupted))
        with pytest.raises(KeyboardInterrupt):
            pull()
    assert parts(tmp_path) == ["Tiny.gguf", "Tiny.gguf.json"]
    assert model_cache.installed() == []
    left = model_cache.find_unfinished("TINY")
    assert left is not None
    assert (left.name, left.size) == ("Tiny", 7000)
    assert pull().read_bytes() == whole
    assert hub.asked_for("cdn")[-1]["Range"] == "bytes=7000-"
    assert parts(tmp_path) == []


def test_what_an_interrupted_pull_left_can_be_removed(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "cache/models"
    (folder / ".parts").mkdir(parents=True)
    (folder / ".parts" / "Tiny.gguf").write_bytes(b"GGUF")
    left = model_cache.find_unfinished("tiny")
    assert left is not None
    with (folder / ".tiny.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as a pull that runs
        with pytest.raises(UserError, match="another process fetches Tiny"):
            model_cache.remove_unfinished(left)
    model_cache.remove_unfinished(left)
    assert parts(tmp_path) == []


def test_a_part_of_another_file_is_not_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "cache/models/.parts"
    folder.mkdir(parents=True)
    (folder / "Tiny.gguf").write_bytes(b"GGUF" + bytes(96))
    (folder / "Tiny.gguf.json").write_text(json.dumps({"url": "", "sha256": "0" * 64, "etag": ""}))
    assert pull().read_bytes() == content(hub)
    assert "Range" not in hub.asked_for("cdn")[0]


def whole_again(request: Request) -> None:
    """A server that knows no ranges."""
    request.send(200, content(request.hub))


def elsewhere(request: Request) -> None:
    body = content(request.hub)
    request.send(206, body, {"Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"})


@pytest.mark.parametrize(
    "then",
    [whole_again, elsewhere, saying(416), packed(b"GGUF"), saying(503), saying(206, b"GGUF")],
    ids=["no ranges", "another place", "416", "packed", "503", "206 of nothing said"],
)
def test_a_server_that_does_not_go_on_is_asked_from_the_start(
    hub: Hub, slept: list[float], then: Callable[[Request], None]
) -> None:
    whole = content(hub)
    hub.behaviours = [on("cdn", cutting(whole, 1000)), on("cdn", then)]
    assert pull().read_bytes() == whole


@pytest.mark.parametrize("headers", [{}, {"Content-Length": ""}])
def test_a_login_page_costs_nothing_of_what_is_here(
    hub: Hub, slept: list[float], tmp_path: Path, headers: dict[str, str]
) -> None:
    page = saying(200, b"<html>Please log in</html>", headers)
    hub.behaviours = [on("cdn", cutting(content(hub), 5000)), on("cdn", page)]
    with pytest.raises(UserError, match=r"announces 26 bytes|is a web page"):
        pull()
    assert (tmp_path / "cache/models/.parts/Tiny.gguf").stat().st_size == 5000
    assert pull().read_bytes() == content(hub)
    assert hub.asked_for("cdn")[-1]["Range"] == "bytes=5000-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(hub: Hub, slept: list[float]) -> None:
    whole = content(hub)
    hub.behaviours = [on("cdn", cutting(b"GGUF" + bytes(len(whole) - 4), 1000))]
    assert pull().read_bytes() == whole  # its entity tag is another one, so all of it comes


def test_a_server_that_always_cuts_is_given_up(
    hub: Hub, slept: list[float], tmp_path: Path
) -> None:
    length = str(len(content(hub)))
    hub.behaviours = Always([on("cdn", saying(200, b"", {"Content-Length": length}))])
    with pytest.raises(UserError, match=r"cannot be fetched now: .* broke off") as caught:
        pull()
    assert "goes on where it stopped" in caught.value.hint
    assert len(hub.asked_for("cdn")) == web.Limits().idle_tries
    assert slept == [1, 2, 4, 8]


def test_a_wrong_hash_is_refused_and_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    other = content(hub)[:-1] + b"!"
    hub.behaviours = [on("cdn", saying(200, other))]
    with pytest.raises(
        UserError, match=f"its SHA-256 is {sha(other)}, not .* as the hub said"
    ) as caught:
        pull()
    assert caught.value.hint
    assert parts(tmp_path) == []
    assert model_cache.installed() == []


@pytest.mark.parametrize("more", [1, 100_000])
def test_more_than_was_announced_is_refused(hub: Hub, tmp_path: Path, more: int) -> None:
    hub.behaviours = [on("cdn", saying(200, content(hub) + bytes(more), {"Content-Length": ""}))]
    with pytest.raises(UserError, match=r"sends more of .* than its"):
        pull()
    assert parts(tmp_path) == []


def test_another_length_is_refused_before_it_comes(hub: Hub) -> None:
    hub.behaviours = [on("cdn", saying(200, b"GGUF"))]
    with pytest.raises(UserError, match=r"announces 4 bytes of tiny-Q4_K_M.gguf, not \d+"):
        pull()


def test_a_missing_length_is_no_hindrance(hub: Hub) -> None:
    hub.behaviours = [on("cdn", saying(200, content(hub), {"Content-Length": ""}))]
    assert pull().read_bytes() == content(hub)


def test_what_a_server_packs_unasked_is_unpacked(hub: Hub) -> None:
    hub.behaviours = [on("cdn", packed(content(hub)))]
    assert pull().read_bytes() == content(hub)
    assert hub.asked_for("cdn")[0]["Accept-Encoding"] == "identity"


def test_a_packed_bomb_is_stopped_at_the_announced_size(hub: Hub, tmp_path: Path) -> None:
    hub.behaviours = [on("cdn", packed(b"GGUF" + bytes(30_000_000)))]
    with pytest.raises(UserError, match="sends more of"):
        pull()
    assert parts(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<!doctype html><p>Please log in", "is a web page, not a model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"PK\x03\x04checkpoint", "pickled Python"),
        (b"\x80\x02\x8a\x0a", "pickled Python"),
        (struct.pack("<Q", 40) + b'{"weight":', "safetensors"),
        (b"nonsense", "is not a GGUF file"),
    ],
)
def test_what_is_no_model_is_refused_at_its_first_bytes(
    hub: Hub, tmp_path: Path, body: bytes, told: str
) -> None:
    hub.behaviours = [on("cdn", saying(200, body + bytes(len(content(hub)) - len(body))))]
    with pytest.raises(UserError, match=told) as caught:
        pull()
    assert caught.value.hint
    assert parts(tmp_path) == []


def test_a_model_that_is_broken_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO][FILE] = content(hub)[:5000]
    with pytest.raises(UserError, match="truncated"):
        pull()
    assert parts(tmp_path) == []
    assert model_cache.installed() == []


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


def in_chunks(request: Request) -> None:
    request.send(200, b"", {"Content-Length": "", "Transfer-Encoding": "chunked"})
    body = content(request.hub)
    for start in range(0, len(body), 10_000):
        piece = body[start : start + 10_000]
        request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    request.wfile.write(b"0\r\n\r\n")


def cut_chunks(request: Request) -> None:
    request.send(200, b"", {"Content-Length": "", "Transfer-Encoding": "chunked"})
    request.wfile.write(b"3e8\r\n" + content(request.hub)[:900])


def test_a_body_in_chunks_is_taken_and_one_that_breaks_off_too(
    hub: Hub, slept: list[float]
) -> None:
    hub.behaviours = [on("cdn", cut_chunks), on("cdn", in_chunks)]
    assert pull().read_bytes() == content(hub)
    assert len(hub.asked_for("cdn")) == 2


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


@pytest.mark.parametrize("where", ["/api/", "resolve"])
@pytest.mark.parametrize(
    ("status", "token", "told", "advice"),
    [
        (401, "", "only for people who accepted its licence", "set HF_TOKEN"),
        (403, "", "only for people who accepted its licence", "set HF_TOKEN"),
        (401, "hf_secret", "does not accept your token", "set HF_TOKEN"),
        (403, "hf_secret", "your account may not fetch", "accept the licence"),
    ],
)
def test_a_gated_model_is_explained(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    status: int,
    token: str,
    told: str,
    advice: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.behaviours = [on(where, saying(status, b"", {"X-Error-Code": "GatedRepo"}))]
    with pytest.raises(UserError, match=told) as caught:
        pull()
    assert advice in caught.value.hint
    assert token == "" or token not in f"{caught.value}{caught.value.hint}"


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


def test_a_hub_that_lists_nothing_is_asked_for_the_file(hub: Hub) -> None:
    hub.behaviours = [on("/api/", saying(404)), on("/api/", saying(404))]
    assert pull(f"hf:{REPO}:{FILE}").read_bytes() == content(hub)
    assert model_cache.installed()[0].hash_from == "hub"
    assert len(hub.asked_for("resolve")) == 2  # for its headers, and for itself


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example", "http://", "http://a b"])
def test_an_endpoint_that_is_none_is_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(UserError, match="HF_ENDPOINT is no address") as caught:
        pull()
    assert "https://huggingface.co" in caught.value.hint


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda one: (
        st.lists(one, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "size", "lfs", "oid", "type"]), one, max_size=5)
    ),
    max_leaves=12,
)


@given(ANYTHING)
def test_whatever_a_hub_lists_is_taken_or_refused(listed: object) -> None:
    try:
        found = hubs._read_listing(json.dumps(listed).encode(), "hub.example")
    except UserError:
        return
    for entry in found:
        assert entry.size is None or entry.size >= 0
        assert len(entry.sha256) in (0, 64)


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


def test_a_long_listing_comes_in_pages_up_to_a_bound(hub: Hub) -> None:
    link = {"Link": f'<{hub.url}/api/models/{REPO}/tree/main?cursor=2>; rel="next"'}
    hub.behaviours = [on("/api/", saying(200, b"[]", link))]
    assert pull(f"hf:{REPO}:{FILE}").read_bytes() == content(hub)
    assert len(hub.asked_for("/api/")) == 2
    hub.asked.clear()
    hub.behaviours = Always([on("/api/", saying(200, b"[]", link))])
    with pytest.raises(UserError, match="has no file"):
        pull(f"hf:{REPO}:{FILE}", called="again")
    assert len(hub.asked_for("/api/")) == 10


def test_a_token_that_may_not_be_sent_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.delenv("no_proxy", raising=False)
    hub.behaviours = [on("/api/", saying(401))]
    with pytest.raises(UserError, match="not sent over plain HTTP") as caught:
        pull()
    assert "https://" in caught.value.hint


@pytest.mark.parametrize("body", [b"<html>login</html>", b"[" * 100_000, b"\xff", b"{}", b"[3]"])
def test_a_listing_that_is_none_is_one_error(hub: Hub, body: bytes) -> None:
    hub.behaviours = [on("/api/", saying(200, body))]
    with pytest.raises(UserError) as caught:
        pull()
    assert caught.value.hint


def test_a_server_that_is_not_there_is_told_with_what_to_do(
    hub: Hub, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match="cannot be reached: Connection refused") as caught:
        pull()
    assert "get online" in caught.value.hint


def test_a_server_that_dribbles_is_not_waited_for(
    hub: Hub, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock runs for it: each look is a minute later."""
    minutes = iter(range(0, 100_000, 60))

    class Ticking(download.Download):
        def __init__(self, *arguments: object, **more: object) -> None:
            super().__init__(*arguments, **more, clock=lambda: next(minutes))  # type: ignore[arg-type]

    monkeypatch.setattr(pulling, "Download", Ticking)
    hub.behaviours = Always([on("cdn", cutting(content(hub), 1))])
    told: list[str] = []
    with pytest.raises(UserError, match="breaks again and again"):
        pull(tell=told.append)
    assert "sends next to nothing" in told[0]
    assert len(hub.asked_for("cdn")) == web.Limits().tries


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


def test_room_is_looked_for_before_anything_comes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"no space left in .*needs .* KB, 1 KB are free"):
        pull()
    assert hub.asked_for("resolve") == []


def test_a_known_model_of_a_hub_is_pulled_by_its_names(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownModel(
        name="tiny-2l",
        source=HubFile(REPO, FILE),
        file=FILE,
        size=100_000,
        licence="MIT",
        layers=2,
        kv_width=32,
        context=256,
        aliases=("tiny",),
    )
    monkeypatch.setitem(catalogue.KNOWN_MODELS, known.name, known)
    assert model_cache.is_missing("Tiny")
    path = pull("TINY")
    assert models.resolve("tiny:2l") == models.resolve("tiny") == path
    assert [one.name for one in model_cache.installed()] == ["tiny-2l"]
    assert not model_cache.is_missing("tiny")
    path.chmod(0o644)
    os.truncate(path, 1000)
    with pytest.raises(UserError, match="broken") as caught:
        models.resolve("tiny")
    assert "p2pnode models pull tiny-2l" in caught.value.hint
    assert pull("tiny").read_bytes() == content(hub)


def test_two_models_do_not_share_a_name(hub: Hub, tmp_path: Path) -> None:
    hub.repos["other/Tiny-GGUF"] = {FILE: tiny(tmp_path, 1)}
    pull()
    with pytest.raises(UserError, match="another model called Tiny already") as caught:
        pull("hf:other/Tiny-GGUF")
    assert "--name" in caught.value.hint
    path = pull("hf:other/Tiny-GGUF", called="second")
    assert path.name == "second.gguf"
    assert {one.name for one in model_cache.installed()} == {"Tiny", "second"}
    with pytest.raises(UserError, match="is the name of a known model"):
        pull("hf:other/Tiny-GGUF", called="qwen3")
    with pytest.raises(UserError, match="qwen3-4b keeps its name"):
        pull("qwen3", called="mine")
    with pytest.raises(UserError, match="--copy is for a file of this machine"):
        pull("hf:other/Tiny-GGUF", copy=True)


def test_an_address_is_fetched_with_the_hash_that_is_given(hub: Hub, slept: list[float]) -> None:
    url = f"{hub.url}/cdn/{sha(content(hub))}"
    path = pull(f"{url}#sha256={sha(content(hub)).upper()}", called="mine")
    assert path.read_bytes() == content(hub)
    assert model_cache.installed()[0].hash_from == "given"
    with pytest.raises(UserError, match="as you said"):
        pull(f"{url}#sha256={'0' * 64}", called="wrong")


def test_an_address_without_a_hash_is_resumed_by_its_entity_tag(
    hub: Hub, slept: list[float]
) -> None:
    whole = content(hub)
    hub.behaviours = [on("cdn", cutting(whole, 1000))]
    path = pull(f"{hub.url}/cdn/{sha(whole)}", called="mine")
    assert path.read_bytes() == whole
    assert hub.asked_for("cdn")[1]["If-Range"] == f'"{sha(whole)[:16]}"'
    assert model_cache.installed()[0].hash_from == "none"


def test_an_address_of_the_hub_is_a_file_of_the_hub(hub: Hub) -> None:
    pull(f"{hub.url}/{REPO}/resolve/main/{FILE}")
    assert model_cache.installed()[0].hash_from == "server"


def test_an_endless_body_stops_before_the_disk_is_full(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30 + 5000))
    hub.behaviours = [on("cdn", saying(200, content(hub), {"Content-Length": ""}))]
    with pytest.raises(UserError, match="than this disk holds"):
        pull(f"{hub.url}/cdn/x", called="mine")
    assert parts(tmp_path) == []
