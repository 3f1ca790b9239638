"""Makes a model's layers out of transformers' own classes, empty at first, and fills them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
import transformers

from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.torch.engine import TorchLayer
from p2pnode.engine.torch.rotary import Rotary, Turning
from p2pnode.errors import ModelError

MODEL_TYPES: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3")
"""Of transformers, those whose layers are known to be computed as a whole model computes them."""


class Source(Protocol):
    """A model's description and its tensors, by transformers' names.

    Attributes:
        config: The model's shape.
        settings: Transformers' configuration of the whole model.
    """

    config: ModelConfig
    settings: transformers.PreTrainedConfig

    def window_of(self, layer: int) -> int:
        """Return how many positions a layer sees at the most; 0 for all."""

    def turning_of(self, layer: int) -> Turning:
        """Return how a layer's queries and keys turn; the same object for layers of one kind."""

    def layer(self, index: int) -> Mapping[str, torch.Tensor]:
        """Read a layer's tensors, on the host, by their names in the layer."""

    def embedding(self) -> torch.Tensor:
        """Read the embedding, on the host: [vocab, d_model]."""

    def norm(self) -> torch.Tensor:
        """Read the last norm, on the host: [d_model]."""

    def head(self) -> torch.Tensor:
        """Read the output matrix, on the host: [vocab, d_model]; maybe the embedding."""


@dataclass(frozen=True, slots=True, eq=False)
class Empty:
    """Modules without numbers: one for each layer held, and the last norm."""

    layers: Sequence[torch.nn.Module]
    norm: torch.nn.Module


def settings_of(model_type: str, options: Mapping[str, Any]) -> transformers.PreTrainedConfig:
    """Return transformers' configuration.

    Raises:
        ModelError: It does not take these options.
    """
    kind = transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type]
    try:
        return kind(**copy.deepcopy(dict(options)))
    except Exception as error:  # of many types, also from a library of checks below it
        said = " ".join(str(error).split())
        raise ModelError(f"transformers takes no such {model_type}: {said[:200]}") from error


def empty_modules(
    settings: transformers.PreTrainedConfig, layers: range, dtype: torch.dtype
) -> Empty:
    """Make the modules of ``layers``, numbered from 0, and of the last norm."""
    model = _empty_model(settings, layers, dtype)
    return Empty(list(model.layers), model.norm)


def rotary_of(settings: transformers.PreTrainedConfig) -> torch.nn.Module:
    """Make transformers' rotary embedding of the whole model, with its numbers, on the host."""
    model = _empty_model(settings, range(1), torch.float32)
    made: torch.nn.Module = type(model.rotary_emb)(settings)
    return made


def _empty_model(
    settings: transformers.PreTrainedConfig, layers: range, dtype: torch.dtype
) -> torch.nn.Module:
    part = copy.deepcopy(settings)
    part.num_hidden_layers = len(layers)
    if getattr(part, "layer_types", None) is not None:
        part.layer_types = settings.layer_types[layers.start : layers.stop]
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(
            part, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
        )
    model.eval()
    made: torch.nn.Module = model.requires_grad_(requires_grad=False)
    return made


def fill(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, device: str
) -> torch.nn.Module:
    """Give a module its numbers, all of them; return it.

    They are copied into torch's memory: a product of matrices may round by how they are aligned.
    """
    state = {name: tensor.to(device, dtype, copy=True) for name, tensor in tensors.items()}
    module.load_state_dict(state, strict=True, assign=True)
    return module.requires_grad_(requires_grad=False)


class LayerMaker:
    """Makes layers that share what layers of one kind have in common."""

    def __init__(self, source: Source, dtype: torch.dtype, device: str) -> None:
        self._source = source
        self._dtype = dtype
        self._device = device
        self._rotaries: dict[Turning, Rotary] = {}

    def layer(self, index: int, module: torch.nn.Module) -> TorchLayer:
        """Fill the module of a layer with what the source has."""
        turning = self._source.turning_of(index)
        if turning not in self._rotaries:
            self._rotaries[turning] = Rotary(turning, self._dtype, self._device)
        fill(module, self._source.layer(index), self._dtype, self._device)
        return TorchLayer(module, self._source.window_of(index), self._rotaries[turning])
