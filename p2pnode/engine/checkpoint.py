"""A Hugging Face checkpoint in a folder: its configuration, its shards, its tensors as stored."""

import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from p2pnode.engine.checkpoint_config import (
    CheckpointModel,
    ids_in,
    read_checkpoint_config,
    tensor_shapes,
)
from p2pnode.engine.model_paths import CONFIG, SHARDS_NOTE
from p2pnode.engine.safetensors_file import (
    ITEM_BYTES,
    Json,
    SafetensorsFile,
    StoredTensor,
    open_to_read,
    parse_json,
)
from p2pnode.engine.word_files import (
    GENERATION,
    MOST_BYTES,
    TEMPLATE,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WordFiles,
)
from p2pnode.errors import ModelError
from p2pnode.terminal import label

if TYPE_CHECKING:
    from p2pnode.engine.base import ModelInfo

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"

MOST_SHARDS: Final = 4096

_MOST_CONFIG: Final = 2**20
_MOST_INDEX: Final = 64 * 2**20
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_LAYER: Final = re.compile(r"model\.layers\.(\d{1,5})\.")
_WITHOUT_EFFECT: Final = (".rotary_emb.inv_freq", ".masked_bias", ".attn.bias")
_ONLY: Final = "only safetensors and GGUF are read: pickles run code"


class Checkpoint:
    """An open checkpoint, to be used in a ``with`` block.

    Shards that are not here are passed over: a stage needs those of its layers alone.

    Attributes:
        path: The folder.
        name: What it is called.
        model: What its configuration says.
        shards: Every shard's name in order, and the file where it is here.
        tensors: Those of the shards that are here, by their names in a model of text alone: the
            shard's name and the place.
        eos_ids: Tokens that end an answer, by config.json and generation_config.json.

    Raises:
        ModelError: It is no checkpoint, is broken, or of a kind that is not computed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = label(path.resolve().name)
        if not path.is_dir():
            raise ModelError(f"{path} is no folder", hint="Give the folder of config.json.")
        self.model: CheckpointModel = read_checkpoint_config(
            _json(path / CONFIG, _MOST_CONFIG), self.name
        )
        self.eos_ids = self._eos_ids()
        self._layer, self._shared = tensor_shapes(self.model)
        names, index = shard_names(path)
        plain = ((self.model.own_name(name), shard) for name, shard in index.items())
        self._index = {name: shard for name, shard in plain if name is not None}
        with ExitStack() as opening:
            self.shards: dict[str, SafetensorsFile | None] = {}
            for name in names:
                is_here = (path / name).exists()
                opened = opening.enter_context(SafetensorsFile(path / name)) if is_here else None
                self.shards[name] = opened
            self.tensors: Mapping[str, tuple[str, StoredTensor]] = self._tensors()
            self._opened = opening.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def info(self, root: str) -> "ModelInfo":
        """Say what model it is; ``root`` is that of its tree of hashes."""
        from p2pnode.engine.gguf import model_info  # with numpy, which its words need not

        config = self.model.config
        name = self.name[:64] or "model"
        return model_info(
            config,
            name=name,
            space_id=f"{name[:48]}-{config.n_layers}x{config.d_model}-safetensors",
            data_sig=root,
            eos_ids=self.eos_ids,
        )

    def words(self) -> WordFiles:
        """Read the files that say how text becomes tokens; those that are missing are empty.

        Raises:
            ModelError: One cannot be read, or is too large.
        """
        config = self.model.config
        return WordFiles(
            self.name,
            tokenizer=self._small(TOKENIZER),
            config=self._small(TOKENIZER_CONFIG),
            template=self._small(TEMPLATE),
            vocab_size=config.vocab_size,
            bos=self.model.bos_id,
            ends=self.eos_ids,
        )

    def tensor_bytes(self) -> tuple[list[int], int, dict[str, int]]:
        """Return what the tensors of each layer take, those of none, and those of each type.

        Of a shard that is not here, tensors count as of the type that config.json names.
        """
        layers, kinds = [0] * self.model.config.n_layers, dict[str, int]()
        other = self._count(self._shared, kinds)
        for index in range(len(layers)):
            names = self.layer_names(index)
            shapes = {names[key]: shape for key, shape in self._layer.items()}
            layers[index] = self._count(shapes, kinds)
        return layers, other, kinds

    @property
    def numbers(self) -> tuple[int, int]:
        """Weights of each layer, and of none."""
        layer = sum(math.prod(shape) for shape in self._layer.values())
        return layer, sum(map(math.prod, self._shared.values()))

    def _count(self, shapes: Mapping[str, tuple[int, ...]], kinds: dict[str, int]) -> int:
        total = 0
        for name, shape in shapes.items():
            found = self.tensors.get(name)
            dtype = self.model.dtype if found is None else found[1].dtype
            size = math.prod(shape) * ITEM_BYTES[dtype]
            kinds[dtype] = kinds.get(dtype, 0) + size
            total += size
        return total

    def _eos_ids(self) -> tuple[int, ...]:
        said = parse_json(self._small(GENERATION) or b"{}", GENERATION)
        more = said.get("eos_token_id") if isinstance(said, dict) else None
        rows = self.model.config.vocab_size
        return tuple(sorted({*self.model.eos_ids, *ids_in(more, rows)}))

    def _small(self, name: str) -> bytes:
        if not (self.path / name).exists():
            return b""
        return _bytes(self.path / name, MOST_BYTES[name])

    def missing(self, layers: range | None) -> list[str]:
        """Return the shards that ``layers`` need, or all layers, and that are not here."""
        if layers is not None and not layers:
            return []
        if not self._index:
            return [name for name, file in self.shards.items() if file is None]
        return sorted(
            {
                shard
                for name, shard in self._index.items()
                if self.shards.get(shard) is None
                and (layers is None or is_held(name, layers, self.model))
            }
        )

    def layer_names(self, index: int) -> dict[str, str]:
        """Return the tensors of a layer: their names in it, and in :attr:`tensors`."""
        return {name: f"model.layers.{index}.{name}" for name in self._layer}

    def find(self, name: str) -> tuple[SafetensorsFile, StoredTensor]:
        """Return where a tensor is.

        Raises:
            ModelError: Its shard is not here.
        """
        found = self.tensors.get(name)
        file = None if found is None else self.shards[found[0]]
        if found is None or file is None:
            shard = self._index.get(name, "")
            raise ModelError(
                f"{self.name} has no tensor {name} here"
                + (f": its shard {shard} is missing" if shard else ""),
                hint="Fetch it, and put it beside the others." if shard else "",
            )
        return file, found[1]

    def _tensors(self) -> Mapping[str, tuple[str, StoredTensor]]:
        expected = dict(self._shared)
        for index in range(self.model.config.n_layers):
            expected |= {name: self._layer[key] for key, name in self.layer_names(index).items()}
        found: dict[str, tuple[str, StoredTensor]] = {}
        for shard, file in self.shards.items():
            for stored, tensor in (file.tensors if file is not None else {}).items():
                name = self.model.own_name(stored)
                if name is None or not self._is_used(name, expected):
                    continue
                self._check(name, tensor, expected[name], shard)
                if name in found:
                    raise ModelError(f"{self.name} has {name} twice: in {found[name][0]}, {shard}")
                found[name] = (shard, tensor)
        is_whole = all(file is not None for file in self.shards.values())
        for name in expected:
            if name not in found and (is_whole or (self._index and name not in self._index)):
                raise ModelError(f"{self.name} has no tensor {name}")
        return found

    def _is_used(self, name: str, expected: Mapping[str, Any]) -> bool:
        if name in expected:
            return True
        is_spare = name == "lm_head.weight" or name.endswith(_WITHOUT_EFFECT)
        if not is_spare:  # a tied head is the embedding, whatever else the file has
            raise ModelError(
                f"{self.name} has a tensor {label(name)!r}, which nobody here computes",
                hint="Use a plain model of this architecture.",
            )
        return False

    def _check(self, name: str, tensor: StoredTensor, shape: tuple[int, ...], shard: str) -> None:
        if tensor.shape != shape:
            raise ModelError(
                f"{shard}: {name} has shape {tensor.shape}, its config.json expects {shape}"
            )
        if tensor.dtype not in ITEM_BYTES:
            raise ModelError(
                f"{shard}: {name} is stored as {label(tensor.dtype)[:20]}, which is not read",
                hint=f"Use a checkpoint in one of {', '.join(ITEM_BYTES)}.",
            )
        said = self._index.get(name, shard)
        if said != shard:
            raise ModelError(f"{self.name}: {name} is in {shard}, and {INDEX} says {said}")


def is_held(stored: str, layers: range, model: CheckpointModel) -> bool:
    """Whether a stage of these layers needs a tensor; a tied embedding is the head as well."""
    tensor, config = model.own_name(stored), model.config
    if tensor is None:
        return False
    found = _LAYER.match(tensor)
    if found is not None:
        return int(found[1]) in layers
    is_first, is_last = layers.start == 0, layers.stop == config.n_layers
    if tensor == "model.embed_tokens.weight":
        return is_first or (is_last and config.is_tied)
    return is_last


def shard_names(path: Path) -> tuple[list[str], Mapping[str, str]]:
    """Return the names of a checkpoint's shards, sorted, and the shard of each tensor if said.

    Raises:
        ModelError: There are none, or they are of a kind that is not read.
    """
    if (path / INDEX).exists():
        return _from_index(_json(path / INDEX, _MOST_INDEX), label(path.name))
    if (path / SINGLE).exists() or (path / SHARDS_NOTE).exists():  # it may be fetched later
        return [SINGLE], {}
    refuse_pickles([one.name for one in path.iterdir()], str(path))
    raise ModelError(f"{path} holds no {SINGLE}, nor {INDEX}", hint="Fetch the whole checkpoint.")


def refuse_pickles(names: Iterable[str], holder: str) -> None:
    """Refuse a model whose weights are pickles; ``names`` are of its files.

    Raises:
        ModelError: One of them is.
    """
    pickles = [one for one in names if one.endswith((*_PICKLES, ".bin.index.json"))]
    if pickles:
        raise ModelError(
            f"{holder} holds {label(min(pickles))}: {_ONLY}",
            hint="Convert it to safetensors, or use another copy of the model.",
        )


def _from_index(body: object, folder: str) -> tuple[list[str], Mapping[str, str]]:
    table = body.get("weight_map") if isinstance(body, dict) else None
    if not isinstance(table, dict) or not table:
        raise ModelError(f"the {INDEX} of {folder} names no tensors")
    for name, shard in table.items():
        if not isinstance(shard, str) or not shard.isprintable() or len(shard) > 200:
            raise ModelError(f"the {INDEX} of {folder} names no file for {label(name)[:80]!r}")
        if shard.endswith(_PICKLES):
            raise ModelError(f"the {INDEX} of {folder} names {label(shard)}: {_ONLY}")
        is_plain = shard == os.path.basename(shard) and "\\" not in shard  # noqa: PTH119
        if not is_plain or shard.startswith(".") or not shard.endswith(".safetensors"):
            raise ModelError(
                f"the {INDEX} of {folder} names {label(shard)!r}: a shard's name is "
                "NAME.safetensors, in the same folder"
            )
    shards = sorted({*table.values()})
    if len(shards) > MOST_SHARDS:
        raise ModelError(f"{folder} has {len(shards)} shards, more than {MOST_SHARDS}")
    return shards, table


def _json(path: Path, most: int) -> Json:
    """Read a small file of JSON."""
    return parse_json(_bytes(path, most), label(path.name))


def _bytes(path: Path, most: int) -> bytes:
    descriptor = open_to_read(path)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ModelError(f"{path} is larger than {most >> 20} MiB")
    return data
