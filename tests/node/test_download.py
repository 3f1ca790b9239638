"""One file from a server: resumed, bounded, and checked before anybody uses it."""

import json
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from p2pnode.errors import UserError
from p2pnode.node import download, model_cache, pulling, web
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from tests.node.local_hub import (
    FILE,
    REPO,
    Always,
    Hub,
    Request,
    content,
    cutting,
    on,
    packed,
    parts,
    pull,
    saying,
    sha,
)


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


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def leave_whole(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Pull until all has come, and end before it is in its place."""
    with monkeypatch.context() as patch:
        patch.setattr(pulling, "GgufFile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pull(what, called="mine")


@pytest.mark.parametrize("hashed", ["", "#sha256="])
def test_a_part_that_is_whole_is_not_fetched_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, hashed: str
) -> None:
    what = f"{hub.url}/cdn/{sha(content(hub))}" + (hashed and hashed + sha(content(hub)))
    leave_whole(monkeypatch, what)
    told: list[float] = []
    assert pull(what, called="mine", progress=told.append).read_bytes() == content(hub)
    asked = hub.asked_for("cdn")
    assert [one.get("Range") for one in asked] == [None, f"bytes={len(content(hub))}-"]
    assert told[-1] == 1.0


def of_another_length(request: Request) -> None:
    request.send(416, b"", {"Content-Range": "bytes */1000"})


def of_another_file(request: Request) -> None:
    length = len(content(request.hub))
    request.send(416, b"", {"Content-Range": f"bytes */{length}", "ETag": '"another"'})


@pytest.mark.parametrize("then", [of_another_length, of_another_file, saying(416)])
def test_a_part_that_is_whole_of_another_file_is_fetched_anew(
    hub: Hub,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
    then: Callable[[Request], None],
) -> None:
    what = f"{hub.url}/cdn/{sha(content(hub))}"
    leave_whole(monkeypatch, what)
    hub.behaviours = [on("cdn", then)]
    assert pull(what, called="mine").read_bytes() == content(hub)
    assert [one.get("Range") is None for one in hub.asked_for("cdn")] == [True, False, True]


def test_what_a_server_says_of_another_file_begins_anew(
    hub: Hub, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    what = f"{hub.url}/{REPO}/resolve/main/{FILE}"
    leave_whole(monkeypatch, what)
    hub.repos[REPO][FILE] = other = content(hub)[:-1] + b"!"
    assert pull(what, called="mine").read_bytes() == other


def test_a_split_model_by_its_address_goes_on_with_the_part_that_broke(
    hub: Hub, tmp_path: Path
) -> None:
    write_tiny_gguf(tmp_path / "big.gguf", n_layers=2, split=9)
    names = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.repos[REPO] = {name: (tmp_path / name).read_bytes() for name in names}
    what = f"{hub.url}/{REPO}/resolve/main/{names[0]}"
    last = hub.repos[REPO].pop(names[2])
    with pytest.raises(UserError, match=r"does not give big-00003-of-00003\.gguf: 404"):
        pull(what)
    hub.repos[REPO][names[2]] = last
    hub.asked.clear()
    path = pull(what)
    ranges = [one.get("Range") for one in hub.asked_for("cdn")]
    assert ranges == [*(f"bytes={len(hub.repos[REPO][name])}-" for name in names[:2]), None]
    assert path.with_name(names[2]).read_bytes() == last


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
    assert caught.value.hint.endswith("run the same command again")  # nothing came
    assert len(hub.asked_for("cdn")) == web.Limits().idle_tries
    assert slept == [1, 2, 4, 8]


def test_what_came_of_a_file_that_is_given_up_is_said_to_be_kept(
    hub: Hub, slept: list[float]
) -> None:
    hub.behaviours = [on("cdn", cutting(content(hub), 5000))]
    hub.behaviours += [on("cdn", saying(503, b"", {}))] * 9
    with pytest.raises(UserError, match=r"cannot be fetched now: .* is busy .* are here") as caught:
        pull()
    assert caught.value.hint.endswith("it goes on where it stopped")


def test_an_address_without_a_hash_is_resumed_by_its_entity_tag(
    hub: Hub, slept: list[float]
) -> None:
    whole = content(hub)
    hub.behaviours = [on("cdn", cutting(whole, 1000))]
    path = pull(f"{hub.url}/cdn/{sha(whole)}", called="mine")
    assert path.read_bytes() == whole
    assert hub.asked_for("cdn")[1]["If-Range"] == f'"{sha(whole)[:16]}"'
    assert model_cache.installed()[0].hash_from == "none"


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


def endless_trailers(request: Request) -> None:
    in_chunks(request, end=b"0\r\n")
    with suppress(OSError):
        while True:
            request.wfile.write(b"X: y\r\n" * 1000)


def test_what_follows_the_last_chunk_is_not_waited_for(hub: Hub) -> None:
    hub.behaviours = [on("cdn", endless_trailers)]
    assert pull().read_bytes() == content(hub)


def in_chunks(request: Request, end: bytes = b"0\r\n\r\n") -> None:
    request.send(200, b"", {"Content-Length": "", "Transfer-Encoding": "chunked"})
    body = content(request.hub)
    for start in range(0, len(body), 10_000):
        piece = body[start : start + 10_000]
        request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    request.wfile.write(end)


def cut_chunks(request: Request) -> None:
    request.send(200, b"", {"Content-Length": "", "Transfer-Encoding": "chunked"})
    request.wfile.write(b"3e8\r\n" + content(request.hub)[:900])


def test_a_body_in_chunks_is_taken_and_one_that_breaks_off_too(
    hub: Hub, slept: list[float]
) -> None:
    hub.behaviours = [on("cdn", cut_chunks), on("cdn", in_chunks)]
    assert pull().read_bytes() == content(hub)
    assert len(hub.asked_for("cdn")) == 2


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


def test_an_endless_body_stops_before_the_disk_is_full(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30 + 5000))
    hub.behaviours = [on("cdn", saying(200, content(hub), {"Content-Length": ""}))]
    with pytest.raises(UserError, match="than this disk holds"):
        pull(f"{hub.url}/cdn/x", called="mine")
    assert parts(tmp_path) == []
