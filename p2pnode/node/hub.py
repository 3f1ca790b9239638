"""A model hub: what a repository has, which file is meant, and why the hub refuses it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

from p2pnode.engine.gguf_split import part_paths, whole_name
from p2pnode.errors import UserError
from p2pnode.node.catalogue import HubFile
from p2pnode.node.download import RefusedError
from p2pnode.node.entries import MOST_BYTES
from p2pnode.node.part_note import Wanted
from p2pnode.node.url import joined, split_url
from p2pnode.node.web import InterruptedTransferError, Limits, Token, Web

ENDPOINT: Final = "https://huggingface.co"
ENDPOINT_VARIABLE: Final = "HF_ENDPOINT"
TOKEN_VARIABLE: Final = "HF_TOKEN"  # noqa: S105 - the name of a variable
DEFAULT_QUANTISATION: Final = "Q4_K_M"
"""The usual choice: a quarter of f16's bytes, and next to nothing lost."""

_MOST_LISTING: Final = 8 * 2**20  # bytes; a repository of a thousand files takes 0.5 MB
_MOST_PATH: Final = 500  # letters
_MOST_SHOWN: Final = 20
_MOST_PAGES: Final = 10  # of a thousand files each
_NEXT: Final = re.compile(r'<([^<>]{1,2000})>\s*;\s*rel="next"')
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HubEntry:
    """A file of a repository; ``sha256`` is empty where the hub says none."""

    path: str
    size: int | None
    sha256: str


class Hub:
    """A hub at one endpoint, asked with the user's token if there is one."""

    def __init__(self, web: Web, endpoint: str) -> None:
        self._web = web
        self.endpoint = endpoint.rstrip("/")

    def choose(self, wanted: HubFile) -> list[HubEntry]:
        """Find the file that is meant; all the parts of a split model, in order.

        Raises:
            UserError: There is none, or not exactly one; the hint lists what there is.
            InterruptedTransferError: The hub cannot be asked now.
        """
        is_file = wanted.file.lower().endswith(".gguf")
        try:
            entries = self._files(wanted)
        except RefusedError as error:
            if not is_file or error.status != 404:
                raise self.explained(error, wanted) from error
            return [self._headers_of(wanted)]
        if is_file:
            return _parts(wanted, entries)
        return _parts(_guessed(wanted, entries), entries)

    def wanted(self, source: HubFile, entry: HubEntry) -> Wanted:
        """Return what to download for a file."""
        name = PurePosixPath(entry.path).name
        return Wanted(self._file_url(source, entry.path), name, entry.size, entry.sha256)

    def explained(self, error: RefusedError, source: HubFile) -> UserError:
        """Say in a person's words why the hub refuses, and what to do."""
        page, sent = f"{self.endpoint}/{source.repo}", self._web.sends_token(self.endpoint)
        if error.status in (401, 403) and self._web.has_token and not sent:
            return UserError(
                f"{self.endpoint} asks for a token, which is not sent over plain HTTP",
                hint=f"set {ENDPOINT_VARIABLE} to an address that begins with https://",
            )
        if error.status == 401 and sent:
            return UserError(
                f"the hub does not accept your token for {source.repo} (401)",
                hint=f"make another one in your settings there, and set {TOKEN_VARIABLE} to it",
            )
        if error.status == 403 and sent:
            return UserError(
                f"your account may not fetch {source.repo} yet (403)",
                hint=f"open {page}, accept the licence, wait until it is granted, and try again",
            )
        if error.status in (401, 403):
            return UserError(
                f"{source.repo} is only for people who accepted its licence, or is private, or "
                f"is not there ({error.status})",
                hint=f"open {page} and accept the licence, make a token in your settings there, "
                f"and set {TOKEN_VARIABLE} to it",
            )
        if error.status == 404:
            what = f"{source.file} in {source.repo}" if source.file else source.repo
            return UserError(
                f"the hub has no {what} at {source.revision} (404)", hint=self._offer(source)
            )
        return error

    def _offer(self, source: HubFile) -> str:
        """Say what a repository has, where one file of it is not there."""
        try:
            return _listing(source.repo, self._files(source))
        except (UserError, InterruptedTransferError):
            return f"check the name on {self.endpoint}"

    def _files(self, wanted: HubFile) -> list[HubEntry]:
        """List a repository, with its folders."""
        revision = quote(wanted.revision, safe="")
        address = f"{self.endpoint}/api/models/{wanted.repo}/tree/{revision}"
        try:
            return self._pages(f"{address}?recursive=true", wanted)
        except RefusedError as error:
            if error.status != 404:
                raise
        return self._pages(address, wanted)  # a mirror may know the plain address alone

    def _pages(self, address: str, wanted: HubFile) -> list[HubEntry]:
        """Read a listing, which a hub gives in pages where it is long."""
        entries, following = list[HubEntry](), address
        for _ in range(_MOST_PAGES):
            with self._web.get(following) as answer:
                answer.refuse_busy(self._web.limits.longest_wait)
                if answer.status != 200:
                    raise RefusedError(
                        f"{answer.host} does not list {wanted.repo} ({answer.status})",
                        answer.status,
                        answer.header("X-Error-Code"),
                    )
                entries += _read_listing(answer.read_all(_MOST_LISTING), answer.host)
                found = _NEXT.search(answer.header("Link"))
            if found is None:
                break
            following = joined(following, found[1])
        return entries

    def _headers_of(self, wanted: HubFile) -> HubEntry:
        """Ask for one file alone, of a hub that lists nothing."""
        with self._web.get(self._file_url(wanted, wanted.file), how="HEAD") as answer:
            if answer.status in (401, 403, 404):
                error = RefusedError("refused", answer.status, answer.header("X-Error-Code"))
                raise self.explained(error, wanted)
            return HubEntry(wanted.file, answer.linked_size, answer.linked_sha256)

    def _file_url(self, source: HubFile, path: str) -> str:
        revision = quote(source.revision, safe="")
        return f"{self.endpoint}/{source.repo}/resolve/{revision}/{quote(path)}"


def hub_from(environ: Mapping[str, str], limits: Limits | None = None) -> tuple[Hub, Web]:
    """Return the hub that the environment names, and who asks it.

    Raises:
        UserError: The environment names no address of the web.
    """
    endpoint = environ.get(ENDPOINT_VARIABLE, "").strip() or ENDPOINT
    try:
        split_url(endpoint)
    except UserError as error:
        raise UserError(
            f"{ENDPOINT_VARIABLE} is no address of the web: {endpoint[:200]!r}",
            hint=f"set it to one that begins with https://, or unset it: {ENDPOINT} is used then",
        ) from error
    secret = environ.get(TOKEN_VARIABLE, "").strip()
    if not (secret.isascii() and secret.isprintable()):
        raise UserError(f"{TOKEN_VARIABLE} is no token", hint="set it to one of the hub's")
    web = Web(limits, Token(secret, endpoint) if secret else None)
    return Hub(web, endpoint), web


def _read_listing(body: bytes, host: str) -> list[HubEntry]:
    """Take what a hub says it has; whatever is no file of a usual kind is passed over."""
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{host} does not answer as a model hub does",
            hint=f"check {ENDPOINT_VARIABLE}, and whether this network asks for a login first",
        ) from error
    found = [_entry(row) for row in rows] if isinstance(rows, list) else []
    return [entry for entry in found if entry is not None]


def _entry(row: object) -> HubEntry | None:
    if not isinstance(row, dict) or row.get("type", "file") != "file":
        return None
    lfs = row.get("lfs")
    lfs = lfs if isinstance(lfs, dict) else {}
    path, size, digest = (
        row.get("path"),
        lfs.get("size", row.get("size")),
        lfs.get("oid") or lfs.get("sha256"),
    )
    if not isinstance(path, str) or not path.isprintable() or len(path) > _MOST_PATH:
        return None
    if ".." in path.split("/"):
        return None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MOST_BYTES:
        size = None
    text = digest.removeprefix("sha256:").lower() if isinstance(digest, str) else ""
    return HubEntry(path, size, text if _HEX.fullmatch(text) else "")


def _parts(wanted: HubFile, entries: Sequence[HubEntry]) -> list[HubEntry]:
    """Return a file and, where its name says that it is one of several, all of them."""
    by_path = {entry.path: entry for entry in entries}
    if wanted.file not in by_path:
        raise UserError(
            f"{wanted.repo} has no file {wanted.file}", hint=_listing(wanted.repo, entries)
        )
    paths = [str(path) for path in part_paths(PurePosixPath(wanted.file))]
    missing = [path for path in paths if path not in by_path]
    if missing:
        raise UserError(
            f"{wanted.repo} lacks {len(missing)} of the {len(paths)} parts of "
            f"{whole_name(PurePosixPath(wanted.file).name)}: {', '.join(missing[:3])}",
            hint=_listing(wanted.repo, entries),
        )
    return [by_path[path] for path in paths]


def _guessed(wanted: HubFile, entries: Sequence[HubEntry]) -> HubFile:
    """Choose by quantisation, where exactly one file fits."""
    quantisation = wanted.file or DEFAULT_QUANTISATION
    models = _models(entries)
    pattern = re.compile(rf"(^|[-._/]){re.escape(quantisation)}(?=[-._/]|$)", re.IGNORECASE)
    fitting = [path for path in models if pattern.search(path.removesuffix(".gguf"))]
    if not fitting and len(models) == 1 and not wanted.file:
        fitting = models
    if len(fitting) == 1:
        return HubFile(wanted.repo, fitting[0], wanted.revision)
    if not models:
        raise UserError(
            f"{wanted.repo} has no GGUF file",
            hint="look for a repository with GGUF in its name; or serve its safetensors: "
            f"p2pnode up --model hf:{wanted.repo}",
        )
    raise UserError(
        f"{wanted.repo} has {len(fitting) or 'no'} files that are {quantisation}",
        hint=_listing(wanted.repo, entries),
    )


def _models(entries: Sequence[HubEntry]) -> list[str]:
    """Return the models among the files, a split one by its first part."""
    paths = [entry.path for entry in entries if entry.path.lower().endswith(".gguf")]
    names = {path: PurePosixPath(path).name.lower() for path in paths}
    return [
        path
        for path in paths
        if "mmproj" not in names[path]  # what sees pictures, beside the model
        and "imatrix" not in names[path]
        and str(part_paths(PurePosixPath(path))[0]) == path
    ]


def _listing(repo: str, entries: Sequence[HubEntry]) -> str:
    models = _models(entries)
    if not models:
        return f"{repo} has no GGUF file: look for another repository"
    shown = ", ".join(models[:_MOST_SHOWN])
    more = f" and {len(models) - _MOST_SHOWN} more" if len(models) > _MOST_SHOWN else ""
    return f"name one of its files, as hf:{repo}:FILE: {shown}{more}"
