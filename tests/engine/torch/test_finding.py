"""What the torch engine says where torch is not, and that nobody imports it unasked."""

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.engine.torch.finding import PACKAGES
from p2pnode.engine.torch.load import load_torch
from p2pnode.errors import EngineError
from p2pnode.installing import install_extra
from p2pnode.testing.tiny_gguf import write_tiny_gguf


@pytest.mark.parametrize("missing", PACKAGES)
def test_a_missing_package_is_one_clear_error(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    with GgufFile(path) as file:
        tree = hash_file(file)

    def find(name: str) -> ModuleSpec | None:
        return None if name == missing else ModuleSpec(name, None)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(EngineError, match=f"needs the package {missing}") as caught:
        load_torch(path, range(1), tree, kv_budget_bytes=1 << 20)
    assert caught.value.hint == install_extra("torch")


def test_no_one_imports_torch_before_it_loads_something() -> None:
    asked = "import p2pnode.engine.registry, p2pnode.engine.torch.load, sys; "
    asked += "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
