"""A llama of random weights on one device: whole, and then as three stages."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from p2pnode.engine.base import Engine

N_LAYERS: Final = 16
D_MODEL: Final = 2048
N_HEADS: Final = 32
N_KV_HEADS: Final = 8
D_FF: Final = 8192
VOCAB: Final = 32_000
PARAMETERS: Final = 1.04e9
"""Of the shape above, which is that of Llama 3.2 1B with fewer tokens."""

_PROMPT: Final = 512
_CHUNK: Final = 64
_STAGES: Final = 3
_SESSION: Final = b"bench"


def measure(
    *, engine: str, device: str, tokens: int, rounds: int, tell: Callable[[float], None]
) -> dict[str, Any]:
    """Write the model, load it whole and then in three runs of layers, and let both answer.

    One is shut before the other is loaded: the device need not hold the model twice.
    """
    from p2pnode.engine.gguf_file import GgufFile
    from p2pnode.engine.hash_tree import hash_file
    from p2pnode.engine.registry import EngineOptions, check_device, load_engine
    from p2pnode.node.model_cache import cache_dir

    options = EngineOptions(engine, device, cache=cache_dir())
    check_device(options)  # before a gigabyte is written
    with TemporaryDirectory() as folder:
        path = Path(folder) / "random.gguf"
        write_random_llama(path)
        with GgufFile(path) as file:
            tree = hash_file(file)
        tell(0.3)
        answers = {}
        for name, count in (("whole", 1), ("stages", _STAGES)):
            cuts = [N_LAYERS * number // count for number in range(count + 1)]
            with ExitStack() as loaded:
                began = time.perf_counter()
                chain = []
                for first, stop in itertools.pairwise(cuts):
                    chain.append(load_engine(path, range(first, stop), options, tree=tree))
                    loaded.callback(chain[-1].shut)
                answers[name] = _Answers(chain, time.perf_counter() - began, tokens, rounds)
            tell(0.3 + 0.35 * len(answers))
    whole = answers["whole"]
    return {
        "engine": whole.numerics,
        "device": whole.device,
        "parameters": PARAMETERS,
        "load_s": round(whole.load_s, 3),
        **{name: one.figures for name, one in answers.items()},
        "identical": len(set().union(*(one.tokens for one in answers.values()))) == 1,
    }


class _Answers:
    """What a chain of engines answered, again and again.

    Attributes:
        numerics: Of its first engine.
        device: Likewise.
        load_s: Seconds that loading took.
        figures: Tokens a second.
        tokens: The answers that differ.
    """

    def __init__(self, chain: Sequence[Engine], load_s: float, tokens: int, rounds: int) -> None:
        self.numerics, self.device, self.load_s = chain[0].numerics, chain[0].device, load_s
        runs = [_Run(chain, tokens) for _ in range(rounds + 1)]
        warm = runs[1:]  # the first compiles, and asks for memory
        self.figures = {
            "decode_tok_s": round(1 / median(step for run in warm for step in run.steps), 2),
            "prefill512_tok_s": round(_PROMPT / median(run.prefill for run in warm), 1),
        }
        self.tokens = {tuple(run.tokens) for run in runs}


class _Run:
    """One answer over a chain of engines in this process.

    Attributes:
        tokens: What was drawn, greedily.
        steps: Seconds of each decoded token.
        prefill: Seconds of the prompt.
    """

    def __init__(self, chain: Sequence[Engine], count: int) -> None:
        import numpy as np

        prompt = np.random.default_rng(0).integers(0, VOCAB, _PROMPT)  # [positions]
        for stage in chain:
            stage.reserve(_SESSION, stage.layers, _PROMPT + count)
        began = time.perf_counter()
        for start in range(0, _PROMPT, _CHUNK):
            hidden = _forward(chain, prompt[start : start + _CHUNK], start)
        self.tokens = [int(chain[-1].logits(hidden[-1:])[0].argmax())]
        self.prefill = time.perf_counter() - began
        self.steps: list[float] = []
        for position in range(_PROMPT, _PROMPT + count - 1):
            began = time.perf_counter()
            hidden = _forward(chain, np.array(self.tokens[-1:], np.int64), position)
            self.tokens.append(int(chain[-1].logits(hidden[-1:])[0].argmax()))
            self.steps.append(time.perf_counter() - began)
        for stage in chain:
            stage.close(_SESSION)


def _forward(chain: Sequence[Engine], rows: Any, start: int) -> Any:  # noqa: ANN401, ids or states
    for stage in chain:
        (rows,) = stage.forward(_SESSION, stage.layers, [rows], start)
    return rows


def write_random_llama(path: Path) -> None:
    """Write a GGUF of about 1.1 GB: Q8_0 matrices of random numbers, and norms of ones."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    rng = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_name("random 1B")
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(4096)
    writer.add_embedding_length(D_MODEL)
    writer.add_feed_forward_length(D_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_rope_freq_base(500_000.0)
    writer.add_layer_norm_rms_eps(1e-5)

    def matrix(name: str, out: int, width: int) -> None:
        blocks = rng.integers(0, 256, (out, width // 32, 34), np.uint8)  # int8, uniform
        scale = np.float16(1.7 / (73.9 * width**0.5))  # 73.9: the deviation of such a number
        blocks[:, :, :2] = np.frombuffer(scale.tobytes(), np.uint8)
        rows = blocks.reshape(out, -1)
        writer.add_tensor(name, rows, raw_dtype=GGMLQuantizationType.Q8_0)

    kv = N_KV_HEADS * D_MODEL // N_HEADS
    shapes = {
        "attn_q": (D_MODEL, D_MODEL),
        "attn_k": (kv, D_MODEL),
        "attn_v": (kv, D_MODEL),
        "attn_output": (D_MODEL, D_MODEL),
        "ffn_gate": (D_FF, D_MODEL),
        "ffn_up": (D_FF, D_MODEL),
        "ffn_down": (D_MODEL, D_FF),
    }
    matrix("token_embd.weight", VOCAB, D_MODEL)
    for index in range(N_LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{index}.{name}.weight", np.ones(D_MODEL, np.float32))
        for name, (out, width) in shapes.items():
            matrix(f"blk.{index}.{name}.weight", out, width)
    writer.add_tensor("output_norm.weight", np.ones(D_MODEL, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
