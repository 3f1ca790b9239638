"""A model in several files is the model in one; parts that do not belong together are named."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from p2pnode.engine.gguf import read_model_info
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_split import MAX_PARTS, part_name, part_paths
from p2pnode.engine.hash_tree import hash_file
from p2pnode.engine.registry import load_engine
from p2pnode.errors import ModelError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

Edit: TypeAlias = Callable[[gguf.GGUFWriter], object]


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path / "tiny.gguf")


def write_parts(path: Path, seed: int = 0, edit: Edit | None = None, split: int = 9) -> list[Path]:
    write_tiny_gguf(path, n_layers=2, seed=seed, edit=edit, split=split)
    return sorted(path.parent.glob(f"{path.stem}-*-of-*.gguf"))


def test_the_parts_are_one_model_whichever_is_opened(parts: list[Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    write_tiny_gguf(whole, n_layers=2)
    assert [path.name for path in parts] == [part_name("tiny", number, 3) for number in (1, 2, 3)]
    with GgufFile(whole) as one:
        tree = hash_file(one)
        for given_path in parts:
            with GgufFile(given_path) as many:
                assert many.paths == tuple(parts)
                assert many.path == parts[0]
                assert {tensor.part for tensor in many.tensors.values()} == {0, 1, 2}
                assert hash_file(many) == tree  # the root, and each tensor
                assert [*many.tensors] == [*one.tensors]
                for name, tensor in many.tensors.items():
                    data = many.tensor_bytes(tensor)
                    assert data == one.tensor_bytes(one.tensors[name])
                    held = many.paths[tensor.part].read_bytes()
                    assert held[tensor.offset : tensor.offset + tensor.size] == data
                assert {*many.metadata} - {*one.metadata} == {
                    "split.no",
                    "split.count",
                    "split.tensors.count",
                }
    assert read_model_info(parts[1]) == read_model_info(whole)


def test_a_split_model_computes_what_the_merged_one_does(parts: list[Path], tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "whole.gguf", n_layers=2)
    found = []
    for path in (tmp_path / "whole.gguf", parts[0]):
        engine = load_engine(path, range(2))
        found.append(engine.forward(b"s", range(2), [np.array([1, 2, 3])], 0)[0])
    np.testing.assert_array_equal(found[0], found[1])


def test_a_first_part_may_hold_no_tensor(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "whole.gguf", n_layers=2)
    writer = gguf.GGUFWriter(
        tmp_path / "late.gguf", "llama", split_max_tensors=9, small_first_shard=True
    )
    for pair in gguf.GGUFReader(tmp_path / "whole.gguf").fields.values():
        if pair.name.startswith("llama."):
            writer.add_key_value(pair.name, pair.contents(), pair.types[0])
    for tensor in gguf.GGUFReader(tmp_path / "whole.gguf").tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GgufFile(tmp_path / "late-00002-of-00004.gguf") as many:
        late = hash_file(many)
        assert {tensor.part for tensor in many.tensors.values()} == {1, 2, 3}
    with GgufFile(tmp_path / "whole.gguf") as one:
        assert hash_file(one) == late


def test_a_missing_part_is_named(parts: list[Path]) -> None:
    parts[1].unlink()
    with pytest.raises(ModelError, match=r"part 2 of 3 of tiny is missing: .*00002") as caught:
        GgufFile(parts[2])
    assert "beside the others" in caught.value.hint


def test_the_part_given_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        GgufFile(tmp_path / part_name("tiny", 1, 3))


@pytest.mark.parametrize(
    ("number", "of", "words"),
    [
        (2, 1, r"tiny-00002.* says that it is part 1 of 3"),
        (1, 2, r"part 2 of 3 of a split model, and its name does not"),
        (3, 2, r"tiny-00003.* says that it is part 2 of 3"),
    ],
)
def test_a_part_under_the_name_of_another_is_refused(
    parts: list[Path], number: int, of: int, words: str
) -> None:
    shutil.copy(parts[of - 1], parts[number - 1])
    with pytest.raises(ModelError, match=words) as caught:
        GgufFile(parts[0])
    assert caught.value.hint


def test_a_part_that_was_renamed_is_refused(parts: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / "odd.gguf"
    shutil.copy(parts[1], odd)
    with pytest.raises(ModelError, match=r"odd.gguf is part 2 of 3") as caught:
        GgufFile(odd)
    assert "odd-00002-of-00003.gguf" in caught.value.hint


def swap(parts: list[Path], other: list[Path]) -> None:
    shutil.copy(other[1], parts[1])


def test_parts_of_other_models_are_refused(parts: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()

    write_tiny_gguf(parts[1], n_layers=1, arch="mamba", edit=claim_the_second_of_three)
    with pytest.raises(ModelError, match=r"00002.*of another model.*general.architecture"):
        GgufFile(parts[0])

    more = write_parts(folder / "tiny.gguf", edit=lambda writer: another(writer, "more"))
    swap(parts, more)
    with pytest.raises(ModelError, match=r"00002.*differ in split.tensors.count"):
        GgufFile(parts[0])

    parts[1].unlink()
    write_tiny_gguf(parts[1], n_layers=2)
    with pytest.raises(ModelError, match=r"00002.*is no part of a model in 3 parts"):
        GgufFile(parts[0])


def claim_the_second_of_three(writer: gguf.GGUFWriter) -> None:
    writer.add_uint16("split.no", 1)
    writer.add_uint16("split.count", 3)


def another(writer: gguf.GGUFWriter, name: str) -> None:
    writer.add_tensor(name, np.zeros(32, np.float32))


def edited(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))


def test_a_tensor_in_two_parts_is_refused(parts: list[Path]) -> None:
    with GgufFile(parts[0]) as file:
        first = [name for name, one in file.tensors.items() if one.part == 0]
        second = [name for name, one in file.tensors.items() if one.part == 1]
    old, new = next((a, b) for a in second for b in first if len(a) == len(b))
    edited(parts[1], old.encode(), new.encode())
    with pytest.raises(ModelError, match=r"is in tiny-00001.* and again in tiny-00002"):
        GgufFile(parts[0])


def test_a_tensor_that_is_in_no_part_is_missed(parts: list[Path]) -> None:
    for path in parts:
        key = b"split.tensors.count" + bytes([5, 0, 0, 0])
        edited(path, key + bytes([21, 0, 0, 0]), key + bytes([22, 0, 0, 0]))
    with pytest.raises(ModelError, match="have 21 tensors together, and should have 22"):
        GgufFile(parts[0])


@pytest.mark.parametrize(("number", "words"), [(7, "part 7"), (65535, "part 65535")])
def test_an_impossible_number_is_refused(parts: list[Path], number: int, words: str) -> None:
    key = b"split.no" + bytes([2, 0, 0, 0])
    edited(parts[1], key + bytes([1, 0]), key + number.to_bytes(2, "little"))
    for path in parts[:2]:
        with pytest.raises(ModelError, match=rf"00002.*says that it is {words}"):
            GgufFile(path)


def test_too_many_parts_are_refused_before_they_are_opened(parts: list[Path]) -> None:
    key = b"split.count" + bytes([2, 0, 0, 0])
    edited(parts[0], key + bytes([3, 0]), key + (MAX_PARTS + 1).to_bytes(2, "little"))
    with pytest.raises(ModelError, match=f"one of {MAX_PARTS + 1} parts"):
        GgufFile(parts[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_a_part_that_was_cut_is_refused_wherever(parts: list[Path], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(parts))
    with GgufFile(parts[0]) as file:
        own = [one for one in file.tensors.values() if file.paths[one.part] == path]
    whole = path.read_bytes()
    try:
        path.write_bytes(
            whole[: data.draw(st.integers(0, max(t.offset + t.size for t in own) - 1))]
        )
        with pytest.raises(ModelError, match=path.name):
            GgufFile(parts[0])
    finally:
        path.write_bytes(whole)


def test_a_name_alone_makes_no_part(tmp_path: Path) -> None:
    """A file that was merged and kept the name of its first part is whole."""
    path = tmp_path / part_name("merged", 1, 3)
    write_tiny_gguf(path, n_layers=1)
    with GgufFile(path) as file:
        assert file.paths == (path,)


@pytest.mark.parametrize(
    "name",
    [
        "x.gguf",
        "x-00000-of-00003.gguf",
        "x-00004-of-00003.gguf",
        "x-1-of-3.gguf",
        "x-00001-of-00003",
    ],
)
def test_a_name_that_is_of_no_part(name: str, tmp_path: Path) -> None:
    assert part_paths(tmp_path / name) == (tmp_path / name,)


def test_the_names_of_parts_are_in_order(tmp_path: Path) -> None:
    found = part_paths(tmp_path / part_name("x", 7, 12))
    assert len(found) == 12
    assert all(one.name < other.name for one, other in pairwise(found))


def test_files_are_closed_whatever_happens(parts: list[Path]) -> None:
    def opened() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    before = opened()
    with GgufFile(parts[0]):
        assert opened() == before + 3
    parts[2].write_bytes(b"GGUF")
    with pytest.raises(ModelError):
        GgufFile(parts[0])
    assert opened() == before
