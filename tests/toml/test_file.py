"""Files that are no TOML, too large, or no files: each is one line with its place."""

import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ConfigError
from p2pnode.toml.file import MOST_BYTES, read_toml


def test_a_file_is_read_with_the_line_of_each_key(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbf[up]\nport = 1\n")
    file = read_toml(path)
    assert file.values == {"up": {"port": 1}}
    assert file.lines.line_of("up.port") == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a = 1\nb = = 2", ":2:5: not TOML: Invalid value"),
        (b"a = 1\nb = [1,", ":2: not TOML: "),
        (b"[up]\n[up]", ":2:4: not TOML: Cannot declare ('up',) twice"),
        (b"[up]\nport = 1\nport = 2\n", ":3:9: not TOML: Cannot overwrite a value"),
        (b"a = 1\nb = '\xff'", ":2: not TOML: no text in UTF-8"),
        (b"\0", ":1:1: not TOML: "),
        (b"a = " + b"[" * 100_000, ": nested too deeply"),
        (b"\n" + b".".join([b"a"] * 101) + b".b = 1", ":2: more than 100 dots in one key"),
        (b"\na = " + b"9" * 5000, ":2: a number has more than 4300 digits"),
        (b"#" * (MOST_BYTES + 1), ": more than 1048576 bytes"),
    ],
)
def test_what_is_no_toml_is_said_with_its_place(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert str(caught.value).startswith(f"{path}{told}")
    assert "\n" not in str(caught.value)


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"#" * MOST_BYTES)
    assert read_toml(path).values == {}


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    closed = tmp_path / "closed"
    closed.touch(0)
    for path, told in [
        (tmp_path, "Is a directory"),
        (tmp_path / "fifo", "neither a file nor a device"),
        (tmp_path / "absent", "No such file"),
        (tmp_path / "closed" / "x", "Not a directory"),
        (Path("/dev/zero"), "more than"),
        (Path("a\0b"), "null"),
        (Path("x" * 300), "too long"),
    ]:
        with pytest.raises(ConfigError, match=told):
            read_toml(path)
    assert read_toml(Path(os.devnull)).values == {}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    told = str(path)
    try:
        read_toml(path)
    except ConfigError as error:
        told = str(error)
    assert told.startswith(str(path))
