"""Checkpoints by their Hugging Face id: only the shards of the layers asked for, resumed, checked.

The library of the hub itself fetches: it resumes, asks for large files in its own way, and knows
the user's token. What it may fetch is decided here.
"""

import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from p2pnode.engine.checkpoint import INDEX, SINGLE, refuse_pickles, shard_names
from p2pnode.engine.checkpoint_config import read_checkpoint_config
from p2pnode.engine.checkpoint_tree import write_note
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.model_paths import CONFIG
from p2pnode.engine.safetensors_file import parse_json
from p2pnode.errors import EngineError, ModelError, UsageError
from p2pnode.terminal import label

PREFIX: Final = "hf:"

_ID: Final = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,100}))?"
)
_MOST: Final[Mapping[str, int]] = {CONFIG: 2**20, INDEX: 64 * 2**20}
_MOST_SHARD: Final = 2**40  # bytes
_LAYER: Final = re.compile(r"model\.layers\.(\d{1,5})\.")


def fetch_checkpoint(
    name: str,
    folder: Path,
    layers: range | None = None,
    *,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Fetch what ``layers`` need, all of it where they are left out; return ``folder``.

    What is there already is not fetched again, and what was cut short goes on where it ended.

    Args:
        name: ``hf:owner/repo``, or with a branch, tag or commit: ``hf:owner/repo@revision``.
        folder: Where the checkpoint is to lie.
        layers: Which layers will be held.
        progress: Hears which part from 0 to 1 of the shards is here.

    Raises:
        UsageError: It is no such name.
        ModelError: There is no such model, or it cannot be had, or not be computed.
        EngineError: The package huggingface_hub is missing.
    """
    found = _ID.fullmatch(name)
    if found is None or ".." in name:
        raise UsageError(f"{label(name)[:100]!r} is no id of a model", hint="Write hf:owner/repo.")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise EngineError(
            "ids of Hugging Face need the package huggingface_hub, which is not here",
            hint="Install it: pip install 'p2pnode[torch]'.",
        )
    repository = _Repository(found["repo"], found["revision"] or "main", folder)
    return repository.fetch(layers, progress or (lambda _: None))


class _Repository:
    """One repository at one commit."""

    def __init__(self, repo: str, revision: str, folder: Path) -> None:
        import huggingface_hub

        self._repo = repo
        self._folder = folder
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._hub = huggingface_hub
        with _explained(repo):
            said = huggingface_hub.HfApi(endpoint=self._endpoint).model_info(
                repo, revision=revision, files_metadata=True
            )
        self._commit: str = said.sha
        self._sizes = {one.rfilename: one.size or 0 for one in said.siblings or ()}
        self._hashes = {
            one.rfilename: one.lfs.sha256 for one in said.siblings or () if one.lfs is not None
        }

    def fetch(self, layers: range | None, progress: Callable[[float], None]) -> Path:
        if INDEX not in self._sizes and SINGLE not in self._sizes:
            refuse_pickles(self._sizes, self._repo)
            raise ModelError(f"{self._repo} holds no {SINGLE}, nor {INDEX}")
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, *([INDEX] if INDEX in self._sizes else [])):
            self._small(name)
        body = parse_json((self._folder / CONFIG).read_bytes(), CONFIG)
        config = read_checkpoint_config(body, self._repo).config
        shards, table = ([SINGLE], {}) if INDEX not in self._sizes else shard_names(self._folder)
        write_note(
            self._folder, {name: self._hashes[name] for name in shards if name in self._hashes}
        )
        needed = shards
        if layers is not None and table:
            needed = sorted({table[name] for name in table if _is_held(name, layers, config)})
        total, done = sum(self._sizes.get(name, 0) for name in needed) or 1, 0
        for name in needed:
            if not 0 < self._sizes.get(name, 0) <= _MOST_SHARD:
                raise ModelError(f"{self._repo} has no file {label(name)} of a usable size")
            self._download(name, _after(done, total, progress))
            done += self._sizes[name]
            progress(done / total)
        return self._folder

    def _small(self, name: str) -> None:
        if self._sizes.get(name, 0) > _MOST[name]:
            raise ModelError(f"the {name} of {self._repo} is larger than {_MOST[name] >> 20} MiB")
        self._download(name, lambda _: None)

    def _download(self, name: str, heard: Callable[[int], None]) -> None:
        with _explained(self._repo):
            self._hub.hf_hub_download(
                self._repo,
                name,
                revision=self._commit,
                local_dir=self._folder,
                endpoint=self._endpoint,
                tqdm_class=_bar(heard),
            )


def _is_held(tensor: str, layers: range, config: ModelConfig) -> bool:
    """Whether a stage of these layers needs a tensor; a tied embedding is the head as well."""
    found = _LAYER.match(tensor)
    if found is not None:
        return int(found[1]) in layers
    is_first, is_last = layers.start == 0, layers.stop == config.n_layers
    if tensor == "model.embed_tokens.weight":
        return is_first or (is_last and config.is_tied)
    return is_last


def _after(before: int, total: int, progress: Callable[[float], None]) -> Callable[[int], None]:
    """Return what hears the bytes of one file after ``before`` of others, and says the share."""
    return lambda size: progress((before + size) / total)


def _bar(heard: Callable[[int], None]) -> type:
    """Return a bar of progress that shows nothing and says how many bytes are there."""
    from huggingface_hub.utils import tqdm

    def begin(self: Any, *arguments: object, **options: Any) -> None:  # noqa: ANN401  tqdm's own
        tqdm.__init__(self, *arguments, **{**options, "disable": True})
        self.bytes_here = options.get("initial") or 0

    def update(self: Any, count: float | None = 1) -> None:  # noqa: ANN401
        self.bytes_here += int(count or 0)
        heard(self.bytes_here)

    return type("HeardProgress", (tqdm,), {"__init__": begin, "update": update})


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Say in a person's words why the hub does not give what was asked for."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repo}"
    try:
        yield
    except errors.GatedRepoError:
        raise ModelError(
            f"{repo} is given to those alone who accepted its licence",
            hint=f"Open {page}, accept it, and set HF_TOKEN to a token of yours.",
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"the hub has no {repo}, or shows it to others alone",
            hint="Check the name; for a private one set HF_TOKEN.",
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{repo} has no such revision", hint="Check what follows the @.") from None
    except (errors.EntryNotFoundError, json.JSONDecodeError, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{repo} cannot be fetched now: {said}",
            hint="Try again: what is here already is not fetched again.",
        ) from error
