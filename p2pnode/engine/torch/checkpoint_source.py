"""A Hugging Face checkpoint as transformers' modules want it: just as it is."""

from collections.abc import Mapping
from typing import Final

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from p2pnode.engine.checkpoint import Checkpoint
from p2pnode.engine.checkpoint_tree import CheckpointTree
from p2pnode.engine.finite import check_weights
from p2pnode.engine.torch.build import rotary_of, settings_of
from p2pnode.engine.torch.rotary import Turning
from p2pnode.errors import ModelError

_DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BY_LAYER: Final = ("mistral", "qwen2", "qwen3", "gemma3_text")
"""Where ``layer_types`` counts: of others transformers passes it over, and of llama any window.

A mistral that has it is what transformers calls a ministral: the same but for these windows.
"""


class CheckpointSource:
    """An open checkpoint; see :class:`p2pnode.engine.torch.build.Source`.

    Every tensor that is read is checked against ``tree``.

    Raises:
        ModelError: transformers takes no such settings.
    """

    def __init__(self, checkpoint: Checkpoint, tree: CheckpointTree) -> None:
        model = checkpoint.model
        self.config = model.config
        self.settings = settings_of(model.model_type, {"pad_token_id": None, **model.settings})
        self._checkpoint = checkpoint
        self._tree = tree
        self._turnings: dict[str, Turning] = {}
        self._agree()

    def window_of(self, layer: int) -> int:
        kind = self.settings.model_type
        if kind == "llama":
            return 0
        kinds = getattr(self.settings, "layer_types", None) if kind in _BY_LAYER else None
        if kinds is not None and kinds[layer] != "sliding_attention":
            return 0
        if kinds is not None and not self.settings.sliding_window:
            raise ModelError(
                f"{self._checkpoint.name} has layers of a sliding window, and says no window",
                hint="Take the config.json that came with the checkpoint.",
            )
        return self.settings.sliding_window or 0

    def turning_of(self, layer: int) -> Turning:
        kind = self.settings.layer_types[layer] if self.config.arch == "gemma3" else ""
        if kind not in self._turnings:
            self._turnings[kind] = self._turning(kind)
        return self._turnings[kind]

    def layer(self, index: int) -> Mapping[str, torch.Tensor]:
        names = self._checkpoint.layer_names(index)
        return {name: self._read(whole) for name, whole in names.items()}

    def embedding(self) -> torch.Tensor:
        return self._read("model.embed_tokens.weight")

    def norm(self) -> torch.Tensor:
        return self._read("model.norm.weight")

    def head(self) -> torch.Tensor:
        return self.embedding() if self.config.is_tied else self._read("lm_head.weight")

    def _read(self, name: str) -> torch.Tensor:
        file, stored = self._checkpoint.find(name)
        data = file.read(stored)
        self._tree.check(stored, data)
        check_weights(name, stored.dtype, data)
        return torch.frombuffer(data, dtype=_DTYPES[stored.dtype]).view(stored.shape)

    def _turning(self, kind: str) -> Turning:
        made = rotary_of(self.settings)
        prefix = f"{kind}_" if kind else ""
        short = getattr(made, f"{prefix}inv_freq").float()
        scale = float(getattr(made, f"{prefix}attention_scaling"))
        rope = self.settings.rope_parameters[kind] if kind else self.settings.rope_parameters
        if rope["rope_type"] != "longrope":
            return Turning(short, short, scale)
        beyond = int(rope["original_max_position_embeddings"]) + 1
        long, _ = ROPE_INIT_FUNCTIONS["longrope"](self.settings, seq_len=beyond)
        return Turning(short, long.float(), scale)

    def _agree(self) -> None:
        """Refuse settings that transformers reads otherwise than we do."""
        config, settings = self.config, self.settings
        width = getattr(settings, "head_dim", None) or config.d_model // config.n_heads
        if (settings.num_key_value_heads, width) != (config.n_kv_heads, config.head_dim):
            raise ModelError(
                f"{self._checkpoint.name} has heads that transformers reads otherwise: "
                f"{settings.num_key_value_heads} of {width}"
            )
