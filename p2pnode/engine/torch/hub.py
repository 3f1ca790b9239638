"""Checkpoints by their Hugging Face id: only the shards of the layers asked for, resumed, checked.

The library of the hub itself fetches: it resumes, asks for large files in its own way, and knows
the user's token. What it may fetch is decided here.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from p2pnode.engine.checkpoint import (
    INDEX,
    SINGLE,
    Checkpoint,
    is_held,
    refuse_pickles,
    shard_names,
)
from p2pnode.engine.checkpoint_config import read_checkpoint_config
from p2pnode.engine.checkpoint_tree import read_note, write_note
from p2pnode.engine.model_paths import CONFIG
from p2pnode.engine.safetensors_file import open_to_read, parse_json
from p2pnode.engine.word_files import GENERATION, MOST_BYTES, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG
from p2pnode.errors import EngineError, ModelError, UsageError
from p2pnode.installing import install_extra
from p2pnode.replacing import replace_file
from p2pnode.terminal import label

PREFIX: Final = "hf:"

_ID: Final = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,100}))?"
)
_SOURCE: Final = "p2pnode-source.json"
"""Beside a checkpoint that was fetched: what it was asked for as, and which commit that was."""

_STAGING: Final = ".fetching"
_MOST: Final[Mapping[str, int]] = {CONFIG: 2**20, INDEX: 64 * 2**20, **MOST_BYTES}
_WORDS: Final = (TOKENIZER, TOKENIZER_CONFIG, TEMPLATE, GENERATION)
NO_LAYERS: Final = range(0)
"""What is asked for where the small files are wanted alone."""
_MOST_SHARD: Final = 2**40  # bytes
_MOST_NAME: Final = 90


def fetch_checkpoint(
    name: str,
    folder: Path,
    layers: range | None = None,
    *,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Fetch what ``layers`` need, all of it where they are left out; return ``folder``.

    What is there already is not fetched again, and what was cut short goes on where it ended. What
    comes later is of the commit that was noted: a branch may have moved, under a node that serves.

    Args:
        name: ``hf:owner/repo``, or with a branch, tag or commit: ``hf:owner/repo@revision``.
        folder: Where the checkpoint is to lie.
        layers: Which layers will be held; :data:`NO_LAYERS` for the small files alone.
        progress: Hears which part from 0 to 1 of the shards is here.

    Raises:
        UsageError: It is no such name.
        ModelError: There is no such model, or it cannot be had, or not be computed.
        EngineError: The package huggingface_hub is missing.
    """
    found = _parsed(name)
    if importlib.util.find_spec("huggingface_hub") is None:
        raise EngineError(
            "ids of Hugging Face need the package huggingface_hub, which is not here",
            hint=install_extra("torch"),
        )
    hear = progress or (lambda _: None)
    said, revision = _said(folder), found["revision"] or "main"
    if said.get("asked") == name:
        if not missing_shards(folder, layers):
            hear(1.0)
            return folder
        revision = said["commit"]
    repository = _Repository(found["repo"], revision, folder)
    return repository.fetch(name, layers, hear)


def fetch_missing(
    folder: Path, layers: range, *, progress: Callable[[float], None] | None = None
) -> None:
    """Fetch those shards of ``layers`` that are not here.

    Of the very commit that the rest is of. Without a word of where it came from, nothing is
    fetched: whoever loads says what is missing.

    Raises:
        ModelError, EngineError: As :func:`fetch_checkpoint`.
    """
    said = _said(folder)
    if not said or not missing_shards(folder, layers):
        return
    found = _parsed(said["asked"])
    repository = _Repository(found["repo"], said["commit"], folder)
    repository.fetch(said["asked"], layers, progress or (lambda _: None))


def is_id(name: str) -> bool:
    """Whether a name is meant as a checkpoint's of a hub; a file of a hub has a colon more."""
    return name.lower().startswith(PREFIX) and ":" not in name[len(PREFIX) :]


def cache_name_of(name: str) -> str:
    """Return what to call the checkpoint of an id on this machine.

    Raises:
        UsageError: It is no such id.
    """
    found = _parsed(name)
    parts = [*found["repo"].split("/"), *(found["revision"] or "").split("/")]
    plain = "--".join(part for part in parts if part)
    if len(plain) <= _MOST_NAME:
        return plain
    return f"{plain[: _MOST_NAME - 9]}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def missing_shards(folder: Path, layers: range | None) -> list[str]:
    """Return those shards of ``layers`` that are not in a folder; all that are not, for None.

    Raises:
        ModelError: It holds no model.
    """
    with Checkpoint(folder) as checkpoint:
        return checkpoint.missing(layers)


def _parsed(name: str) -> re.Match[str]:
    found = _ID.fullmatch(name)
    if found is None or ".." in name:
        raise UsageError(f"{label(name)[:100]!r} is no id of a model", hint="Write hf:owner/repo.")
    return found


def _said(folder: Path) -> dict[str, str]:
    """Return what was noted when a folder was fetched: ``asked`` and ``commit``, or nothing."""
    if not (folder / _SOURCE).exists():
        return {}
    with os.fdopen(open_to_read(folder / _SOURCE), "rb") as file:
        body = parse_json(file.read(2**16), _SOURCE)
    match body:
        case {"asked": str(asked), "commit": str(commit)} if _ID.fullmatch(asked):
            return {"asked": asked, "commit": commit}
    raise ModelError(f"{folder / _SOURCE} is broken", hint="Delete it, and fetch the model again.")


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

    def fetch(self, asked: str, layers: range | None, progress: Callable[[float], None]) -> Path:
        if INDEX not in self._sizes and SINGLE not in self._sizes:
            refuse_pickles(self._sizes, self._repo)
            raise ModelError(
                f"{self._repo} holds no {SINGLE}, nor {INDEX}",
                hint=f"Where it has GGUF files: p2pnode models pull hf:{self._repo}",
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, INDEX, *_WORDS):
            if name in self._sizes:
                self._small(name)
        body = parse_json((self._folder / CONFIG).read_bytes(), CONFIG)
        model = read_checkpoint_config(body, self._repo)
        shards, table = ([SINGLE], {}) if INDEX not in self._sizes else shard_names(self._folder)
        self._forget_others(shards)
        write_note(
            self._folder, {name: self._hashes[name] for name in shards if name in self._hashes}
        )
        needed = [] if layers == NO_LAYERS else shards
        if layers and table:
            needed = sorted({table[name] for name in table if is_held(name, layers, model)})
        if any(name not in self._hashes for name in shards):
            needed = shards  # a model of which a part is not here must be known by hashes
        said = {"asked": asked, "commit": self._commit}
        replace_file(self._folder / _SOURCE, json.dumps(said).encode(), 0o644)
        self._shards([name for name in needed if not self._is_here(name)], progress)
        return self._folder

    def _forget_others(self, shards: Iterable[str]) -> None:
        """Remove shards of another commit."""
        known = read_note(self._folder)
        for name in shards:
            said = self._hashes.get(name)
            if said is None or known.get(name, bytes.fromhex(said)).hex() != said:
                (self._folder / name).unlink(missing_ok=True)

    def _is_here(self, name: str) -> bool:
        """Whether a shard is whole; its hash is taken when the model is opened."""
        path = self._folder / name
        return path.exists() and path.stat().st_size == self._sizes.get(name)

    def _shards(self, names: Iterable[str], progress: Callable[[float], None]) -> None:
        """Fetch shards beside the folder's files, and put them there when all have come.

        So a node that works with the folder meanwhile sees it change once.
        """
        names = [*names]
        total, done = sum(self._sizes.get(name, 0) for name in names) or 1, 0
        for name in names:
            if not 0 < self._sizes.get(name, 0) <= _MOST_SHARD:
                raise ModelError(f"{self._repo} has no file {label(name)} of a usable size")
            self._shard(name, _after(done, total, progress))
            done += self._sizes[name]
        for name in names:
            (self._folder / _STAGING / name).replace(self._folder / name)
        progress(1.0)

    def _shard(self, name: str, heard: Callable[[int], None]) -> None:
        """Fetch a shard into the staging folder, going on with a part that an earlier try left.

        The library's own way to a file does not: it begins anew in every process. A part is called
        after the hash of the whole, so it is never gone on with as another file's.
        """
        staging, said = self._folder / _STAGING, self._hashes.get(name)
        if said is None or (staging / name).exists():
            self._download(name, heard, staging)
            return
        from huggingface_hub.file_download import hf_hub_url, http_get
        from huggingface_hub.utils import build_hf_headers

        staging.mkdir(exist_ok=True)
        part = staging / f"{said}.part"
        part.touch()
        url = hf_hub_url(self._repo, name, revision=self._commit, endpoint=self._endpoint)
        with _explained(self._repo), part.open("r+b") as file:
            here = file.seek(0, os.SEEK_END)
            if here > self._sizes[name]:
                here = file.truncate(0)
                file.seek(0)
            http_get(
                url,
                file,
                resume_size=here,
                headers=build_hf_headers(),
                expected_size=self._sizes[name],
                tqdm_class=_bar(heard),
            )
        part.replace(staging / name)

    def _small(self, name: str) -> None:
        if self._sizes.get(name, 0) > _MOST[name]:
            raise ModelError(f"the {name} of {self._repo} is larger than {_MOST[name] >> 20} MiB")
        self._download(name, lambda _: None, self._folder)

    def _download(self, name: str, heard: Callable[[int], None], folder: Path) -> None:
        with _explained(self._repo):
            self._hub.hf_hub_download(
                self._repo,
                name,
                revision=self._commit,
                local_dir=folder,
                endpoint=self._endpoint,
                tqdm_class=_bar(heard),
            )


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
