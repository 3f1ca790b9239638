"""A checkpoint served by real nodes: the tokens that transformers itself generates."""

from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.testing.processes import local_swarm
from tests.engines.needs import require_references

require_references()

import torch  # noqa: E402  after the skip
import transformers  # noqa: E402

from tests.engines.served_checkpoints import save  # noqa: E402

CHAT = [{"role": "user", "content": "the weather in <|im_end|>\n?"}]
TOKENS = 12
pytestmark = pytest.mark.timeout(240)


def generated(model: Any, folder: Path) -> tuple[list[int], list[int]]:
    """Return a prompt's ids and those of the answer, by transformers alone."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    # What a person says never becomes control here, and does there: so it is told apart.
    ids = []
    for text, is_data in (
        ("<|im_start|>user\n", False),
        (CHAT[0]["content"], True),
        ("<|im_end|>\n<|im_start|>assistant\n", False),
    ):
        ids += words(text, add_special_tokens=False, split_special_tokens=is_data).input_ids
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False)
    return ids, out[0, len(ids) :].tolist()


@pytest.mark.parametrize("name", ["llama-grouped", "qwen3"])
def test_two_nodes_answer_as_transformers_does(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    prompt, expected = generated(save(name, folder), folder)
    options = ("--model", str(folder), "--engine", "torch", "--no-mdns", "--device", "cpu")
    with local_swarm() as swarm:
        low = swarm.start("low", "--layers", "0:2", "--threads", "1", *options)
        low.wait_until_up()
        more = ("--threads", "1", "--peer", low.address)
        high = swarm.start("high", "--layers", "2:4", *more, *options)
        high.wait_until_up()
        swarm.wait_until_serving(limit=150)
        with low.client(timeout=60) as client:
            answer = client.call("generate", {"messages": CHAT, "max_tokens": TOKENS})
    assert answer["prompt_ids"] == prompt
    end = expected.index(2) if 2 in expected else len(expected)
    assert answer["token_ids"][:end] == expected[:end]


@pytest.mark.parametrize("engine", ["ggml", "numpy", "jax"])
def test_another_engine_does_not_read_it(engine: str, tmp_path: Path) -> None:
    save("llama-grouped", tmp_path / "model")
    with local_swarm() as swarm:
        node = swarm.start("one", "--model", str(tmp_path / "model"), "--engine", engine)
        with pytest.raises(UserError, match="is a checkpoint of safetensors") as caught:
            node.wait_until_up()
    assert "--engine torch" in str(caught.value)
    assert "Traceback" not in str(caught.value)
