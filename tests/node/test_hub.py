"""What a hub lists, which file of it is meant, and what it refuses, in words."""

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.node import hub as hubs, model_cache
from tests.node.local_hub import FILE, REPO, Always, Hub, content, on, pull, saying, tiny


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


def test_a_name_of_any_length_is_not_repeated(hub: Hub) -> None:
    hub.repos[REPO] = {"x" * 100_000 + ".gguf": b"", "y.gguf": b"", "z.gguf": b""}
    with pytest.raises(UserError) as caught:
        pull()
    assert "y.gguf" in caught.value.hint
    assert len(caught.value.hint) < 1000


@pytest.mark.parametrize("body", [b"<html>login</html>", b"[" * 100_000, b"\xff", b"{}", b"[3]"])
def test_a_listing_that_is_none_is_one_error(hub: Hub, body: bytes) -> None:
    hub.behaviours = [on("/api/", saying(200, body))]
    with pytest.raises(UserError) as caught:
        pull()
    assert caught.value.hint
