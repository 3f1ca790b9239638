"""Where files lie: ``~`` is expanded everywhere, and without a home there is one clear error."""

import os
from pathlib import Path

import pytest

from p2pnode.errors import UserError
from p2pnode.node.places import cache_directory, expanded, state_directory


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_where_the_directories_lie(tmp_path: Path) -> None:
    explicit, own = tmp_path / "explicit", str(tmp_path / "own")
    assert state_directory(explicit, {"P2PNODE_HOME": own}) == explicit
    assert state_directory(None, {"P2PNODE_HOME": own}) == tmp_path / "own"
    assert cache_directory({"P2PNODE_CACHE": own}) == tmp_path / "own"
    assert state_directory(None, {}).name == cache_directory({}).name == "p2pnode"


@pytest.mark.parametrize("given", ["~/mine", "mine"])
def test_a_tilde_and_a_relative_path_are_made_absolute(tmp_path: Path, given: str) -> None:
    wanted = tmp_path / given.replace("~", "home")
    assert state_directory(Path(given), {}) == wanted
    assert state_directory(None, {"P2PNODE_HOME": given}) == wanted
    assert cache_directory({"P2PNODE_CACHE": given}) == wanted


def test_a_tilde_in_the_variables_of_the_desktop_is_expanded(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert state_directory(None, {"XDG_STATE_HOME": "~/s"}) == home / "s" / "p2pnode"
    assert cache_directory({"XDG_CACHE_HOME": "~/c"}) == home / "c" / "p2pnode"


def test_without_a_home_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: str) -> str:
        return path

    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", homeless)  # as for an account without an entry
    with pytest.raises(UserError, match="no home directory"):
        state_directory(None, {})
    with pytest.raises(UserError, match="no home directory") as caught:
        cache_directory({})
    assert "set HOME, or both P2PNODE_HOME and P2PNODE_CACHE" in caught.value.hint
    with pytest.raises(UserError, match="no home directory"):
        expanded(Path("~/x"))
    assert cache_directory({"P2PNODE_CACHE": "/srv/cache"}) == Path("/srv/cache")


def test_another_account_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match="no account called no-such-account-7"):
        expanded(Path("~no-such-account-7/x"))


def test_a_directory_that_was_removed_under_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UserError, match="current directory cannot be used"):
        expanded(Path("x"))
