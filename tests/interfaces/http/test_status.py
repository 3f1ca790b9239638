"""What of a node can be looked at over HTTP."""

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.limits import Reason, Refusals
from p2pnode.interfaces.http.metrics import metrics_text
from p2pnode.interfaces.http.node_link import NodeLink
from p2pnode.interfaces.http.status import FRESH, Status
from p2pnode.interfaces.tui.example import minute
from p2pnode.node.answering.stream import Answer
from p2pnode.node.answering.timings import SECONDS, Timings
from p2pnode.node.snapshot import ModelView
from tests.interfaces.http.fake_node import FakeNode, Hang

PICTURE: dict[str, Any] = json.loads(json.dumps(asdict(list(minute())[-1])))


def timings() -> Timings:
    made = Timings()
    made.take(Answer([1, 2, 3], first_token_ms=20.0, hops_ms=[0.4, 600_000.0], steps=[0.02]), 0.01)
    made.take(Answer(), 0.0)  # it said nothing
    return made


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_counter_and_peer_is_told() -> None:
    found = samples(metrics_text(PICTURE, timings().to_json(), Refusals()).decode())
    for what, count in PICTURE["counters"].items():
        assert found["p2pnode_events_total", (("what", what),)] == count
    for peer in PICTURE["peers"]:
        labels = (("name", peer["name"]), ("peer", peer["node_id"][:16]))
        assert found["p2pnode_peer_bytes_in_total", labels] == peer["bytes_in"]
        if peer["rtt_ms"] is not None:
            assert found["p2pnode_peer_rtt_seconds", labels] == pytest.approx(peer["rtt_ms"] / 1e3)


def test_times_are_histograms_that_add_up() -> None:
    found = samples(metrics_text(PICTURE, timings().to_json(), Refusals()).decode())
    assert found["p2pnode_first_token_seconds_count", ()] == 1
    assert found["p2pnode_first_token_seconds_sum", ()] == pytest.approx(0.03)
    assert found["p2pnode_first_token_seconds_bucket", (("le", "0.05"),)] == 1
    assert found["p2pnode_first_token_seconds_bucket", (("le", "0.025"),)] == 0
    assert found["p2pnode_hop_seconds_bucket", (("le", f"{SECONDS[-1]:g}"),)] == 1
    assert found["p2pnode_hop_seconds_bucket", (("le", "+Inf"),)] == 2
    assert found["p2pnode_token_seconds_count", ()] == 1


def test_what_the_api_refused_is_told() -> None:
    refusals = Refusals()
    refusals.add(Reason.ENDLESS)
    refusals.statuses.update((200, 401, 401))
    found = samples(metrics_text(PICTURE, timings().to_json(), refusals).decode())
    assert found["p2pnode_http_refused_total", (("why", str(Reason.ENDLESS)),)] == 1
    assert found["p2pnode_http_answers_total", (("status", "401"),)] == 2


def test_names_that_carry_quotes_and_lines_break_nothing() -> None:
    name = 'a"b\nc\\ # HELP x{y="z"} 1'
    picture = {**PICTURE, "peers": [{**PICTURE["peers"][0], "name": name}]}
    found = samples(metrics_text(picture, timings().to_json(), Refusals()).decode())
    assert [dict(labels)["name"] for what, labels in found if what == "p2pnode_peer_up"] == [name]


def test_a_node_that_is_away_is_told_and_comes_back_by_itself(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        away = client.get("/health")  # the fake node takes no picture of itself
        assert away.status_code == 503
        assert away.json()["status"] == "unavailable"
        assert client.get("/v1/models").status_code == 200


async def test_many_who_look_cost_the_node_one_picture() -> None:
    """``/health`` needs no key: whoever may not ask could have kept the node busy with itself."""
    asked: list[str] = []

    class Counted(NodeLink):
        async def call(self, method: str, *_: Any, **__: Any) -> Any:
            asked.append(method)
            await asyncio.sleep(0)
            if len(asked) == 1:
                raise ApiError(503, "away", code="node_unavailable")
            return PICTURE

    async def look() -> None:
        status, request = Status(Counted(Path())), Request({"type": "http"})
        early = await asyncio.gather(*(status.health(request) for _ in range(50)))
        assert {answer.status_code for answer in early} == {503}
        status._asked_at -= 2 * FRESH
        late = await asyncio.gather(*(status.health(request) for _ in range(50)))
        assert {answer.status_code for answer in late} == {200}
        status._asked_at -= 2 * FRESH
        gone = asyncio.create_task(status.health(request))
        await asyncio.sleep(0)
        gone.cancel()  # one that goes away takes the picture from nobody
        assert (await status.snapshot(request)).status_code == 200

    await trio.to_thread.run_sync(lambda: asyncio.run(look()))
    assert asked == ["snapshot"] * 3


@pytest.mark.parametrize("path", ["/", "/swarm", "/chat"])
def test_pages_load_nothing_from_elsewhere(url: str, path: str) -> None:
    page = httpx.get(url + path)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_a_node_that_says_nothing_is_not_waited_for_for_ever(node: FakeNode) -> None:
    node.says(Hang())

    async def ask() -> None:
        with pytest.raises(ApiError, match="did not answer for") as caught:
            await NodeLink(node.path).call("generate", seconds=0.2)
        assert (caught.value.status, caught.value.code) == (503, "node_unavailable")

    await trio.to_thread.run_sync(lambda: asyncio.run(ask()))
    assert node.gone.get(timeout=5) == "gone"


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/v1/models", {}), ("/v1/models", {"anthropic-version": "2023-06-01"}), ("/api/tags", {})],
)
def test_a_fault_of_ours_is_json_too(
    url: str, path: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: NodeLink) -> None:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(NodeLink, "models", broken)
    answer = httpx.get(url + path, headers=headers)
    assert answer.status_code == 500
    assert "error" in answer.json()
    assert "secret" not in answer.text


def model(name: str, missing: tuple[tuple[int, int], ...] = ()) -> dict[str, Any]:
    view = ModelView(name, "ab" * 32, 7, 18, (0, 9), "serving", "", 12_000, sessions=2)
    return json.loads(json.dumps(asdict(replace(view, missing_layers=missing))))  # type: ignore[no-any-return]


async def health_of(picture: dict[str, Any]) -> dict[str, Any]:
    class Link(NodeLink):
        async def call(self, method: str, *_: Any, **__: Any) -> Any:
            return picture

    async def ask() -> bytes:
        answer = await Status(Link(Path())).health(Request({"type": "http"}))
        return bytes(answer.body)

    told = await trio.to_thread.run_sync(lambda: asyncio.run(ask()))
    return json.loads(told)  # type: ignore[no-any-return]


async def test_health_names_the_model_that_is_not_complete() -> None:
    whole, lacking = model("tiny"), model("other@abababab", ((3, 5), (9, 18)))
    picture = {**PICTURE, "missing_layers": []}
    assert await health_of({**picture, "models": [whole]}) == {"status": "ok"}
    assert await health_of({**picture, "models": [whole, lacking]}) == {
        "status": "degraded",
        "reason": "nobody serves layers 3 to 4, 9 to 17 of other@abababab",
    }
    assert (await health_of({**picture, "models": [lacking]}))["reason"].endswith("9 to 17")
    assert await health_of({**picture, "model": ""}) == {
        "status": "degraded",
        "reason": "the node has no model",
    }


def test_each_model_is_told_by_its_name() -> None:
    picture = {**PICTURE, "models": [model("tiny"), model("other", ((9, 18),))]}
    found = samples(metrics_text(picture, timings().to_json(), Refusals()).decode())
    assert found["p2pnode_model_layers_held", (("model", "tiny"),)] == 9
    assert found["p2pnode_model_layers_missing", (("model", "other"),)] == 9
    assert found["p2pnode_model_sessions", (("model", "tiny"),)] == 2
    assert found["p2pnode_model_token_seconds", (("model", "other"),)] == pytest.approx(0.012)
