"""The documents as a whole: links lead somewhere, settings and state machines are the code's."""

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

import pytest

from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.phase import TRANSITIONS as GENERATION
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.health import TRANSITIONS as HEALTH, Evidence, Health
from p2pnode.membership.limits import Limits
from p2pnode.testing.pages import Page
from p2pnode.transport.config import TransportConfig
from p2pnode.wire import bounded_json, vstream

DOCS = Path(__file__).parents[2] / "docs"
PROTOCOL = DOCS / "protocol"
MEMBERSHIP = Page(PROTOCOL / "membership.md")

StateT = TypeVar("StateT", bound=Enum)
EvidenceT = TypeVar("EvidenceT", bound=Enum)


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        where = (path.parent / file).resolve() if file else path
        assert where.exists(), f"{path.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", where.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{path.name}: {target}"


def test_every_page_of_the_protocol_is_in_its_index() -> None:
    index = (PROTOCOL / "README.md").read_text("utf-8")
    for page in PROTOCOL.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


@pytest.mark.parametrize(
    ("page", "name", "settings"),
    [
        ("session-control.md", "times", InferenceConfig()),
        ("transport.md", "config", TransportConfig.lan()),
        ("transport.md", "limits", TransportConfig.lan()),
        ("membership.md", "config", MembershipConfig()),
        ("membership.md", "limits", Limits()),
        ("vstream.md", "limits", vstream),
        ("messages.md", "json-limits", bounded_json),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_are_those_of_the_code(page: str, name: str, settings: object) -> None:
    for row in Page(PROTOCOL / page).table(name):
        key = row.get("name") or row["limit"]
        now = repr(getattr(settings, key))
        assert now == row["value"], f"docs/protocol/{page}: {key} is {now} in the code"


def test_state_machines_are_those_of_the_code() -> None:
    assert listed("session-control.md", "generation-states") == names(GENERATION)
    assert listed("membership.md", "health-states") == names(HEALTH)
    evidence = [row["evidence"] for row in MEMBERSHIP.table("evidence")]
    assert evidence == [kind.name for kind in Evidence]
    codes = {row["health"]: int(row["code"]) for row in MEMBERSHIP.table("health-codes")}
    assert codes == {health.name: health.value for health in Health}


def listed(page: str, name: str) -> dict[tuple[str, str], str]:
    rows = Page(PROTOCOL / page).table(name)
    return {(row["state"], row["evidence"]): row["next"] for row in rows}


def names(
    transitions: Mapping[tuple[StateT, EvidenceT], StateT],
) -> dict[tuple[str, str], str]:
    return {(state.name, why.name): after.name for (state, why), after in transitions.items()}
