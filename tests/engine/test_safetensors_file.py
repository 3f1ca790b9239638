"""Headers of safetensors files: what is read, and what is refused before it costs anything."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from p2pnode.engine.safetensors_file import SafetensorsFile
from p2pnode.errors import ModelError
from tests.engine.small_checkpoint import write_raw, write_shard


def test_tensors_are_read_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_shard(path, {"b": (2, 3), "a": (4,), "none": (0,), "scalar": ()}, "BF16")
    with SafetensorsFile(path) as file:
        assert {name: one.shape for name, one in file.tensors.items()} == {
            "b": (2, 3), "a": (4,), "none": (0,), "scalar": (),
        }  # fmt: skip
        assert file.read(file.tensors["a"]) == b"\x01" * 8
        assert file.read(file.tensors["scalar"]) == b"\x03\x03"


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


BROKEN: dict[str, Any] = {
    "no object": [1],
    "an entry that is none": {"a": 3},
    "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 8]}},
    "a shape of floats": {"a": entry(shape=[2.0])},
    "a negative shape": {"a": entry(shape=[-2])},
    "a huge shape": {"a": entry(shape=[1 << 50])},
    "too many dimensions": {"a": entry(shape=[1] * 9)},
    "a shape of another size": {"a": entry(shape=[3])},
    "offsets backwards": {"a": entry(data_offsets=[8, 0])},
    "offsets beyond the end": {"a": entry(data_offsets=[0, 16], shape=[4])},
    "negative offsets": {"a": entry(data_offsets=[-8, 0])},
    "tensors that overlap": {"a": entry(), "b": entry()},
    "bytes that belong to none": {"a": entry(shape=[1], data_offsets=[0, 4])},
    "a hole": {"a": entry(shape=[1], data_offsets=[4, 8])},
    "a name that cannot be shown": {"a\n": entry()},
    "an endless name": {"a" * 1000: entry()},
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_header_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_raw(path, json.dumps(BROKEN[what]).encode(), bytes(8))
    with pytest.raises(ModelError, match=r"x\.safetensors") as caught:
        SafetensorsFile(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(7)),
        lambda path: path.write_bytes(struct.pack("<Q", 2**63)),
        lambda path: path.write_bytes(struct.pack("<Q", 200_000_000) + bytes(100)),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),  # a pickle of torch's
        lambda path: write_raw(path, b"[" * 100_000, b""),
        lambda path: write_raw(path, b'{"a": NaN}', b""),
        lambda path: write_raw(path, b"\xff\xfe", b""),
        lambda path: write_raw(path, b'{"a": 1, "a": 2}', b""),
        lambda path: path.mkdir(),
    ],
)
def test_what_is_no_such_file_is_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write(path)
    with pytest.raises(ModelError, match=r"x\.safetensors"):
        SafetensorsFile(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_shard(path, {"a": (3,), "b": (2, 2)})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            SafetensorsFile(path)


def test_a_file_cut_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_shard(path, {"a": (3,)})
    with SafetensorsFile(path) as file:
        path.write_bytes(b"")
        with pytest.raises(ModelError, match="cut short"):
            file.read(file.tensors["a"])


@given(data=st.binary(max_size=200), has_length=st.booleans())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(data: bytes, has_length: bool, tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_bytes((struct.pack("<Q", len(data)) if has_length else b"") + data)
    try:
        with SafetensorsFile(path) as file:
            assert all(len(file.read(one)) == one.size for one in file.tensors.values())
    except ModelError as error:
        assert "\n" not in str(error)  # noqa: PT017
