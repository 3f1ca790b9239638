"""What several files of this room start from."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from p2pnode.node import pulling
from tests.node.local_hub import FILE, REPO, Hub, running_hub, tiny


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


@pytest.fixture(autouse=True)
def _numpy_warns_as_before() -> Iterator[None]:
    """An engine's jobs have numpy not warn in their thread: in the next test it does again."""
    with np.errstate():
        yield
