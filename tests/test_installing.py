"""The advice to install names the pip of this environment, and where p2pnode came from."""

import shlex
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from p2pnode.engine.registry import EngineOptions, check_device
from p2pnode.errors import EngineError
from p2pnode.installing import install_extra, pip_install, upgrade


class Installed:
    """A distribution whose ``direct_url.json`` is ``text``."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.text


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "executable", "/home/a b/.venv/bin/python")
    return "'/home/a b/.venv/bin/python' -m pip install"


def told(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: Installed(text))


def test_the_pip_is_that_of_this_environment(python: str) -> None:
    assert pip_install("llguidance") == f"{python} llguidance"


@pytest.mark.parametrize(("info", "option"), [("{}", []), ('{"editable": true}', ["-e"])])
def test_an_installation_from_a_folder_names_the_folder(
    info: str, option: list[str], python: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "my clone"
    folder.mkdir()
    told(monkeypatch, f'{{"dir_info": {info}, "url": "{folder.as_uri()}"}}')
    assert install_extra("torch") == f"{python} {shlex.join([*option, f'{folder}[torch]'])}"
    assert upgrade() == f"{python} --upgrade {shlex.join([*option, str(folder)])}"
    folder.rmdir()
    assert install_extra("torch") == f"{python} 'p2pnode[torch]'"


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "{", "[]", "{}", '{"url": 1, "dir_info": {}}', '{"url": "", "dir_info": []}'),
        '{"url": "https://example.org/p.whl", "archive_info": {}}',
        '{"url": "https://example.org/", "dir_info": {}}',
        '{"url": "file://[", "dir_info": {}}',
    ],
)
def test_any_other_installation_names_the_package(
    text: str | None, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, text)
    assert install_extra("jax") == f"{python} 'p2pnode[jax]'"


def test_no_installation_at_all_names_the_package(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    assert install_extra("jax") == f"{python} 'p2pnode[jax]'"


@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_an_engine_that_is_missing_is_advised_so(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pnode.engine.registry.find_spec", lambda _: None)
    with pytest.raises(EngineError) as caught:
        check_device(EngineOptions(engine))
    assert caught.value.hint == install_extra(engine)
