"""The engine that computes with PyTorch: any device that torch knows, in f32, bf16 or f16."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from p2pnode.engine.base import Array, Floats, ModelInfo, short_numerics
from p2pnode.engine.kv_slots import KvSlots
from p2pnode.engine.model_config import ModelConfig, RopeKind
from p2pnode.engine.slotted import SlottedEngine
from p2pnode.engine.torch.attention import StepCache, mask_of, seen_by
from p2pnode.engine.torch.finding import DTYPES, Place
from p2pnode.engine.torch.rotary import Rotary
from p2pnode.engine.torch.slot import TorchSlot
from p2pnode.engine.torch.trouble import device_errors, give_back
from p2pnode.errors import LocalProtocolError


@dataclass(frozen=True, slots=True, eq=False)
class TorchLayer:
    """One layer: transformers' module, and what it is given.

    Attributes:
        module: A decoder layer, on the device.
        window: Positions that it sees at the most; 0 for all.
        rotary: Turns its queries and keys; layers of one kind share it.
    """

    module: torch.nn.Module
    window: int
    rotary: Rotary


@dataclass(frozen=True, slots=True, eq=False)
class TorchWeights:
    """What an engine holds.

    Attributes:
        layers: One for each held.
        embedding: [vocab, d_model] in the engine's type, in the host's memory; with layer 0.
        embedding_scale: What its rows are multiplied by.
        norm: The last norm's module, with the last layer.
        head: The output matrix [vocab, d_model], on the device, with the last layer.
    """

    layers: tuple[TorchLayer, ...]
    embedding: torch.Tensor | None = None
    embedding_scale: float = 1.0
    norm: torch.nn.Module | None = None
    head: torch.Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory that they take, the host's and the device's."""
        modules = [layer.module for layer in self.layers]
        modules += [] if self.norm is None else [self.norm]
        tensors = [tensor for module in modules for tensor in module.parameters()]
        tensors += [tensor for tensor in (self.embedding, self.head) if tensor is not None]
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


class TorchEngine(SlottedEngine[TorchSlot]):
    """Runs layers with transformers' modules; see :class:`p2pnode.engine.base.Engine`.

    Sessions of one step are computed one after the other: a matrix product rounds a row by how
    many stand beside it.

    Args:
        info: What the model is.
        config: Its shape.
        layers: Which of its layers are held.
        weights: What they are made of.
        place: Where to compute.
        kv_budget_bytes: The most memory that all sessions' KV caches may take.
    """

    def __init__(
        self,
        info: ModelInfo,
        config: ModelConfig,
        layers: range,
        weights: TorchWeights,
        place: Place,
        *,
        kv_budget_bytes: int,
    ) -> None:
        dtype = getattr(torch, DTYPES[place.dtype])
        width = config.n_kv_heads * config.head_dim
        make = partial(
            TorchSlot,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            dtype=dtype,
            device=place.device,
            is_long=config.is_long if config.rope.kind is RopeKind.LONGROPE else lambda _: False,
        )
        slots = KvSlots(
            make,
            width=width,
            dtype=np.float16 if dtype == torch.float16 else np.float32,
            max_positions=config.context_length,
            budget_bytes=kv_budget_bytes,
            stored_bytes=dtype.itemsize,
        )
        super().__init__(
            info,
            layers,
            slots,
            numerics=short_numerics(place.numerics),
            device=place.name,
            weight_bytes=weights.bytes,
        )
        self._place = place
        self._dtype = dtype
        self._weights: TorchWeights | None = weights
        self._cache_word = _cache_word(weights.layers[0].module)

    def shut(self) -> None:
        super().shut()
        self._weights = None
        give_back(self._place.device)

    def _embed(self, ids: Array) -> Floats:
        weights = self._held()
        if weights.embedding is None:
            raise LocalProtocolError("the first layer is held without the embedding")
        rows = weights.embedding[torch.from_numpy(ids.copy())]  # [tokens, d_model]
        if weights.embedding_scale != 1:
            rows = rows * torch.tensor(weights.embedding_scale).to(rows.dtype)
        found: Floats = rows.float().numpy()
        return found

    def _run(self, slot: TorchSlot, layers: range, states: list[Floats]) -> list[Floats]:
        found, start = [], slot.length
        with device_errors(self._place.device, "compute a step"):
            for state in states:
                found.append(self._step(slot, layers, state, start))
                start += len(state)
        slot.length = start
        return found

    def _run_together(
        self, slots: Sequence[TorchSlot], layers: range, states: Sequence[Floats]
    ) -> list[Floats]:
        with device_errors(self._place.device, "compute a step"):
            found = [
                self._step(slot, layers, state, slot.length)
                for slot, state in zip(slots, states, strict=True)
            ]
        for slot, state in zip(slots, states, strict=True):
            slot.length += len(state)
        return found

    def _step(self, slot: TorchSlot, layers: range, state: Floats, start: int) -> Floats:
        """Run rows [tokens, d_model] that follow ``start`` positions; the length stays."""
        weights = self._held()
        positions = range(start, start + len(state))
        masks: dict[int, torch.Tensor | None] = {}
        turns: dict[Rotary, tuple[torch.Tensor, torch.Tensor]] = {}
        with torch.inference_mode():
            x = torch.from_numpy(state).to(self._place.device, self._dtype, copy=True)[None]
            for index in layers:
                layer = weights.layers[index - self.layers.start]
                if layer.window not in masks:
                    masks[layer.window] = mask_of(positions, layer.window, self._place.device)
                if layer.rotary not in turns:
                    turns[layer.rotary] = layer.rotary.rows(positions, is_long=slot.is_long)
                seen = seen_by(positions, layer.window)
                given = {self._cache_word: StepCache(slot, index, start, seen)}
                x = layer.module(
                    x,
                    attention_mask=masks[layer.window],
                    position_embeddings=turns[layer.rotary],
                    **given,
                )  # [1, tokens, d_model]
            out: Floats = x[0].float().cpu().numpy()
        return out

    def _fill_logits(self, hidden: Floats, logits: Floats) -> None:
        weights = self._held()
        if weights.head is None or weights.norm is None:
            raise LocalProtocolError("the last layer is held without the head")
        with device_errors(self._place.device, "compute logits"), torch.inference_mode():
            rows = torch.from_numpy(np.array(hidden, order="C"))
            rows = rows.to(self._place.device, self._dtype)  # [n, d_model]
            for number in range(len(rows)):
                row = weights.norm(rows[None, number : number + 1])  # [1, 1, d_model]
                found = torch.nn.functional.linear(row, weights.head)  # [1, 1, vocab]
                logits[number] = found[0, 0].float().cpu().numpy()

    def _fill_normed(self, hidden: Floats, rows: Floats) -> None:
        norm = self._held().norm
        if norm is None:
            raise LocalProtocolError("the last layer is held without the head")
        with device_errors(self._place.device, "compute a norm"), torch.inference_mode():
            given = torch.from_numpy(np.array(hidden, order="C"))
            given = given.to(self._place.device, self._dtype)  # [n, d_model]
            for number in range(len(given)):
                row = norm(given[None, number : number + 1])  # [1, 1, d_model]
                rows[number] = row[0, 0].float().cpu().numpy()

    def _held(self) -> TorchWeights:
        if self._weights is None:
            raise LocalProtocolError("the engine is shut")
        return self._weights


def _cache_word(module: torch.nn.Module) -> str:
    """Return what a layer calls its cache; versions of transformers differ."""
    names = inspect.signature(type(module).forward).parameters
    return "cache" if "cache" in names else "past_key_values"
