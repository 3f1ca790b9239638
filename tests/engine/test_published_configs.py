"""The config.json of every published checkpoint that the torch engine serves is read as it is."""

from pathlib import Path
from typing import Any

import pytest

import p2pnode
from p2pnode.engine.checkpoint import Checkpoint
from p2pnode.engine.checkpoint_config import read_checkpoint_config
from p2pnode.engine.model_config import RopeKind
from p2pnode.errors import ModelError
from tests.engine.published_configs import PUBLISHED, small
from tests.engine.small_checkpoint import write_published

LONG_ROPES = {name for name in PUBLISHED if "128k" in name or "3.5" in name or "Phi-4" in name}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_read_at_its_full_size(name: str) -> None:
    said: dict[str, Any] = dict(PUBLISHED[name])
    found = read_checkpoint_config(said, name)
    text = said.get("text_config", said)
    assert found.config.n_layers == text["num_hidden_layers"]
    assert found.config.d_model == text["hidden_size"]
    assert found.dtype == "BF16"
    expected = (RopeKind.LONGROPE, 4096) if name in LONG_ROPES else (RopeKind.NONE, 0)
    assert (found.config.rope.kind, found.config.rope.original_context) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_small_checkpoint_with_its_keys_is_opened(name: str, tmp_path: Path) -> None:
    said = small(PUBLISHED[name])
    assert said.keys() == PUBLISHED[name].keys()
    write_published(tmp_path, said)
    with Checkpoint(tmp_path) as checkpoint:
        assert len(checkpoint.tensor_bytes()[0]) == checkpoint.model.config.n_layers
        assert checkpoint.eos_ids


@pytest.mark.parametrize("model_type", ["phi3_v", "phi4mm", "custom", None])
def test_code_that_comes_with_a_model_of_another_type_is_refused(model_type: object) -> None:
    said = {**PUBLISHED["Phi-4-mini-instruct"], "model_type": model_type}
    with pytest.raises(ModelError, match="needs code of its own"):
        read_checkpoint_config(said, "tiny")


def test_no_model_may_run_its_own_code() -> None:
    sources = [path.read_text() for path in Path(p2pnode.__file__).parent.rglob("*.py")]
    words = [line for text in sources for line in text.splitlines() if "trust_remote_code" in line]
    assert words
    assert all("trust_remote_code=False" in line for line in words)
