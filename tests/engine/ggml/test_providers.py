"""Libraries are found by their files' names, without loading or importing anything."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode.engine.ggml.providers import PACKAGES, Provider, in_directory, providers

# Releases of llama.cpp, wheels, and packages of distributions, by their files.
LAYOUTS = {
    "linux": (
        ["libggml.so", "libggml-base.so", "libggml-cpu-haswell.so", "libggml-cpu-zen4.so",
         "libggml-cuda.so", "libggml-rpc.so", "libllama.so", "llama-cli"],
        ["libggml-base.so", "libggml.so"],
        ["libggml-cpu-haswell.so", "libggml-cpu-zen4.so"],
        ["libggml-cuda.so"],
    ),
    "linux with versions": (
        ["libggml.so.0.20.2", "libggml.so", "libggml.so.0", "libggml-base.so.0",
         "libggml-base.so.0.20.2", "libggml-cpu.so.0"],
        ["libggml-base.so.0", "libggml-cpu.so.0", "libggml.so"],
        ["libggml-cpu.so.0"],
        [],
    ),
    "mac": (
        ["libggml.dylib", "libggml.0.dylib", "libggml-base.dylib", "libggml-cpu.dylib",
         "libggml-metal.dylib", "libggml-blas.0.20.2.dylib"],
        ["libggml-base.dylib", "libggml-cpu.dylib", "libggml.dylib"],
        ["libggml-cpu.dylib"],
        ["libggml-blas.0.20.2.dylib", "libggml-metal.dylib"],
    ),
    "windows": (
        ["ggml.dll", "ggml-base.dll", "ggml-cpu-x64.dll", "ggml-vulkan.dll", "llama.dll"],
        ["ggml-base.dll", "ggml.dll"],
        ["ggml-cpu-x64.dll"],
        ["ggml-vulkan.dll"],
    ),
    "all in one": (["xllamacpp.abi3.so", "__init__.py"], ["xllamacpp.abi3.so"], [], []),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("below", ["", "lib", "build/bin"])
def test_a_folder_of_any_system(tmp_path: Path, layout: str, below: str) -> None:
    files, libraries, cpu_modules, gpu_modules = LAYOUTS[layout]
    directory = tmp_path / below
    directory.mkdir(parents=True, exist_ok=True)
    for name in files:
        (directory / name).touch()
    found = in_directory(tmp_path, "a folder")
    assert found == Provider(
        "a folder",
        tuple(directory / name for name in libraries),
        tuple(directory / name for name in cpu_modules),
        tuple(directory / name for name in gpu_modules),
    )


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["libggml.so"],
        ["libggml-base.so", "libggml-cpu.so"],
        ["xlibggml.so", "libggml-base.so.txt", "libggml-base.so"],
        ["ggml.py", "ggml-base.py"],
    ],
)
def test_a_folder_without_a_whole_library(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert in_directory(tmp_path, "a folder") is None
    assert in_directory(tmp_path / "nothing", "a folder") is None
    if names:
        assert in_directory(tmp_path / names[0], "a file") is None


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
def test_what_is_no_file_is_no_library(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "libggml.so")
    (tmp_path / "libggml-base.so").symlink_to("libggml-base.so")
    assert in_directory(tmp_path, "x") is None


def test_a_folder_that_is_named_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    folder = tmp_path / "named"
    environment = {"P2PNODE_GGML_DIR": str(folder)}
    assert providers(environment) == [Provider(f"the folder {folder}", (), is_named=True)]
    files = ["libggml.so", "libggml-base.so"]
    _install(tmp_path, "libggml-python", "9.1", "libggml", files)
    named, installed = providers(environment)
    assert named == Provider(f"the folder {folder}", (), is_named=True)
    assert [installed] == providers({})
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    named, other = providers(environment)
    assert named.is_named
    assert [path.name for path in named.libraries] == ["libggml-base.so", "libggml.so"]
    assert other == installed
    (same,) = providers({"P2PNODE_GGML_DIR": str(tmp_path / "libggml")})
    assert same == replace(installed, name=same.name, is_named=True)


def test_packages_are_found_by_what_pip_wrote_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, "libggml-python", "9.1", "libggml/lib64", ["libggml.so", "libggml-base.so"])
    _install(tmp_path, "xllamacpp", "7.2", "xllamacpp", ["xllamacpp.abi3.so"])
    _install(
        tmp_path,
        "transcribe-cpp-native",
        "5",
        "transcribe_cpp_native/_native",
        ["libggml.so", "libggml-base.so", "libggml-cpu-x64.so", "libggml-vulkan.so"],
    )
    (tmp_path / "libggml" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = providers({})
    assert [one.name.split()[0] for one in found] == list(PACKAGES)
    for one in found:
        for path in (*one.libraries, *one.cpu_modules, *one.gpu_modules):
            assert path.is_file()
    assert found[0].name == "transcribe-cpp-native 5"


def test_nothing_installed_is_nothing_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert providers({}) == []
    _install(tmp_path, "libggml-python", "9.1", "libggml", ["ggml.h"])
    assert providers({}) == []


def _install(site: Path, package: str, version: str, below: str, names: list[str]) -> None:
    information = site / f"{package.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
    (site / below).mkdir(parents=True)
    for name in names:
        (site / below / name).touch()
    (information / "RECORD").write_text("".join(f"{below}/{name},,\n" for name in names))
