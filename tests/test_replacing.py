"""Small files are replaced whole, or not at all."""

from pathlib import Path

import pytest

from p2pnode.replacing import replace_file


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    for content, mode in ((b"one", 0o600), (b"two", 0o644)):
        replace_file(path, content, mode)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == mode
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["chmod", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_cannot_be_written_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    path = tmp_path / "note.json"
    replace_file(path, b"old")

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, step, failing)
    with pytest.raises(error):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
