"""The pages: nothing from elsewhere, and whatever a model or a peer says is text."""

import re
from importlib.resources import files

import httpx
import pytest

from p2pnode.interfaces import http

PAGES = {"/": "about.html", "/swarm": "swarm.html", "/chat": "chat.html"}
_FOREIGN = re.compile(
    r"""(?:src|href|action)\s*=\s*(?!["']/[a-z"'])|https?:|//[a-z]+\.|@import|url\("""
)
_MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|srcdoc|\bon\w+\s*="
)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_served_with_a_policy_that_lets_nothing_else_in(url: str, path: str) -> None:
    answer = httpx.get(f"{url}{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", PAGES.values())
def test_a_page_asks_nobody_else_and_writes_no_markup(name: str) -> None:
    page = files(http).joinpath("pages", name).read_text("utf-8")
    assert not _FOREIGN.findall(page)
    assert not _MARKUP.findall(page)
    assert "textContent" in page


@pytest.mark.parametrize("name", PAGES.values())
def test_a_page_is_for_a_phone_a_keyboard_and_the_dark(name: str) -> None:
    page = files(http).joinpath("pages", name).read_text("utf-8")
    assert '<html lang="en">' in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert ":focus-visible" in page
    for other in PAGES:
        assert f'href="{other}"' in page


@pytest.mark.parametrize(
    "words",
    [
        '<img src="x">',
        "<script src=//a.b>",
        "el.innerHTML = x",
        "fetch('https://a.b')",
        "url(a.png)",
    ],
)
def test_what_is_looked_for_would_be_found(words: str) -> None:
    assert _FOREIGN.search(words) or _MARKUP.search(words)
