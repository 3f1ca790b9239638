"""What a person may name to pull a model: a known name, a hub's file, an address, a path."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias
from urllib.parse import unquote, urlsplit

from p2pnode.engine.gguf_split import whole_name
from p2pnode.engine.other_formats import AS_GGUF
from p2pnode.errors import ModelError, UserError
from p2pnode.node.catalogue import HubFile, KnownModel, known_model
from p2pnode.node.places import expanded
from p2pnode.node.url import split_url

_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
"""Endings of checkpoints that are Python's pickles."""

HUBS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_PREFIXES: Final = ("hf:", "hf.co/", "huggingface.co/")
_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE: Final = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?(:(?P<file>.+))?"
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""What Windows takes for a device, whatever follows the first dot."""
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")
_SHAPE: Final = "hf:OWNER/REPO, or hf:OWNER/REPO:FILE.gguf"


@dataclass(frozen=True, slots=True)
class WebFile:
    """A file at an address; ``sha256`` in hex, or empty."""

    url: str
    sha256: str = ""

    @property
    def origin(self) -> str:
        """What to pull to have it again."""
        return f"{self.url}#sha256={self.sha256}" if self.sha256 else self.url


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine."""

    path: Path


Named: TypeAlias = KnownModel | HubFile | WebFile | LocalFile


def parse_source(text: str) -> Named:
    """Understand what a person named. A :class:`HubFile` may have an empty file, or say Q4_K_M.

    Raises:
        UserError: It is none of these.
    """
    model = known_model(text)
    if model is not None:
        return model
    for prefix in _PREFIXES:
        if text.lower().startswith(prefix):
            return parse_hub(text[len(prefix) :])
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return _parse_url(text)
    return LocalFile(expanded(Path(text or ".")))


def parse_hub(text: str) -> HubFile:
    """Understand ``owner/repo``, with ``@revision`` and ``:file`` or ``:quantisation``.

    Raises:
        UserError: It is none of these.
    """
    found = _REFERENCE.fullmatch(text.rstrip("/"))
    if found is None or ".." in text:
        raise UserError(f"not a repository of the hub: {text[:200]!r}", hint=f"give {_SHAPE}")
    file = found["file"] or ""
    path = PurePosixPath(file)
    if file and (path.is_absolute() or "\\" in file or not file.isprintable()):
        raise UserError(f"not a file of a repository: {file[:200]!r}", hint=f"give {_SHAPE}")
    refuse_other_formats(file)
    return HubFile(found["repo"], file, found["revision"] or "main")


def refuse_other_formats(name: str) -> None:
    """Refuse a file elsewhere by its ending, where that says that it is no GGUF.

    What is here is looked into instead.

    Raises:
        ModelError: It is a pickle, or safetensors.
    """
    ending = PurePosixPath(name).suffix.lower()
    if ending in _PICKLES:
        raise ModelError(
            f"{PurePosixPath(name).name} is by its ending a checkpoint of pickled Python, or of a "
            "format before GGUF: neither is read",
            hint=AS_GGUF,
        )
    if ending == ".safetensors":
        raise ModelError(
            f"{PurePosixPath(name).name} holds safetensors, which this engine does not read",
            hint="name a GGUF file of this model, or the folder of its checkpoint",
        )


def cache_name(file: str) -> str:
    """Return what to call a model of which a person gave no name: after its file.

    Raises:
        UserError: No name can be made of it.
    """
    stem = whole_name(PurePosixPath(file).name)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100]
    return checked_name(name)


def checked_name(name: str) -> str:
    """Take a name that a person chose.

    Raises:
        UserError: It cannot be one.
    """
    is_part = whole_name(f"{name}.gguf") != name  # its file would be another model's part
    is_other = name.lower().endswith(".gguf") or _DEVICE.fullmatch(name) is not None or is_part
    if not _NAME.fullmatch(name) or is_other:
        raise UserError(
            f"not a name for a model: {name[:200]!r}",
            hint="choose one of letters, digits, dots and dashes with --name",
        )
    return name


def _parse_url(text: str) -> HubFile | WebFile:
    address, _, fragment = text.partition("#")
    parts = split_url(address)
    if parts.username or parts.password:
        raise UserError(
            "an address with a password in it would be kept in a file: it is not taken",
            hint="give the address without it",
        )
    if parts.hostname in HUBS and not fragment:
        return _hub_page(address)
    refuse_other_formats(unquote(parts.path))
    if not fragment:
        return WebFile(address)
    key, _, digest = fragment.partition("=")
    if key.lower() != "sha256" or not _HASH.fullmatch(digest):
        raise UserError(
            f"not a hash: #{fragment[:100]}", hint="write #sha256= and 64 hexadecimal digits"
        )
    return WebFile(address, digest.lower())


def _hub_page(address: str) -> HubFile | WebFile:
    """Return the file that a page of the hub shows, or that a link there fetches."""
    words = unquote(urlsplit(address).path).strip("/").split("/")
    if len(words) == 2:
        return parse_hub("/".join(words))
    if len(words) >= 5 and words[2] in ("blob", "resolve"):
        return parse_hub(f"{words[0]}/{words[1]}@{words[3]}:{'/'.join(words[4:])}")
    raise UserError(f"no file of the hub is at {address}", hint=f"give {_SHAPE}")
