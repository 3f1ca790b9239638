"""Brings the files of a model from a hub or an address into a folder: whole, checked, in place."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_split import part_name, part_paths
from p2pnode.errors import ModelError, UserError
from p2pnode.node.catalogue import HubFile
from p2pnode.node.disk import refuse_full
from p2pnode.node.download import Download, RefusedError
from p2pnode.node.entries import PARTS, Entry, outdated_files, write_entry
from p2pnode.node.fetching import ROOM_HINT, Progress
from p2pnode.node.hub import ENDPOINT_VARIABLE, Hub
from p2pnode.node.part_note import Wanted
from p2pnode.node.sources import WebFile
from p2pnode.node.web import InterruptedTransferError, Web

T = TypeVar("T")


@dataclass(frozen=True)
class Pull:
    """One pull: where to, and who hears of it.

    Attributes:
        folder: Where the cache keeps models.
        name: What to call the model.
        report: Hears which part from 0 to 1 is here.
        tell: Hears why nothing happens for a while, and what could not be checked.
        file: What to call its file, if it has one; after ``name`` where this is empty.
        sleep: Waits some seconds; tests do not.
    """

    folder: Path
    name: str
    report: Progress
    tell: Callable[[str], None]
    file: str = ""
    sleep: Callable[[float], None] = field(default=time.sleep)

    def from_hub(self, hub: Hub, web: Web, source: HubFile, origin: str) -> Entry:
        """Fetch a file of a hub, with all its parts; return what is noted of it.

        Raises:
            UserError: It cannot be had; what came so far is kept.
        """
        entries = self._persistently(web, partial(hub.choose, source))
        wanted = [hub.wanted(source, entry) for entry in entries]
        try:
            return self._fetch(web, wanted, origin, "hub")
        except RefusedError as error:
            raise hub.explained(error, source) from error

    def from_web(self, web: Web, source: WebFile) -> Entry:
        """Fetch a file at an address, and its other parts where it is one of several.

        Raises:
            UserError: As :meth:`from_hub`.
        """
        parts = urlsplit(source.url)
        path = PurePosixPath(unquote(parts.path))
        siblings = part_paths(path)
        if len(siblings) == 1:
            wanted = [Wanted(source.url, path.name or parts.netloc, None, source.sha256, "you")]
        else:
            stem, query = source.url.rpartition("/")[0], f"?{parts.query}" if parts.query else ""
            wanted = [
                Wanted(f"{stem}/{one.name}{query}", one.name, None, self._given(source, one), "you")
                for one in siblings
            ]
        return self._fetch(web, wanted, source.origin, "given" if source.sha256 else "none")

    def _given(self, source: WebFile, part: PurePosixPath) -> str:
        """A hash that was given with the address of a part is that part's."""
        return source.sha256 if unquote(source.url).rpartition("/")[2] == part.name else ""

    def _fetch(self, web: Web, wanted: Sequence[Wanted], origin: str, hash_from: str) -> Entry:
        files = self._names(len(wanted))
        sizes = [one.size or 0 for one in wanted]
        refuse_full(self.folder, sum(sizes) - self._here(files), ROOM_HINT)
        downloads = [
            Download(
                web,
                one,
                self.folder / PARTS / file,
                partial(self._heard, sum(sizes), sum(sizes[:index])),
                self.tell,
                sleep=self.sleep,
            )
            for index, (one, file) in enumerate(zip(wanted, files, strict=True))
        ]
        self.report(0.0)
        digests = [download.run() for download in downloads]
        if not all(one.wanted.sha256 for one in downloads):
            hash_from = "none"
        elif hash_from == "none":  # the server said one, though nobody had asked
            hash_from = "server"
        licence = self._check(files, downloads)
        parts = [self.folder / PARTS / file for file in files]
        entry = Entry(
            name=self.name,
            files=tuple(files),
            sizes=tuple(part.stat().st_size for part in parts),
            sha256=tuple(digests),
            source=origin,
            hash_from=hash_from,
            licence=licence,
        )
        outdated = outdated_files(self.folder, entry)
        write_entry(self.folder, entry)
        for part, target in zip(parts, entry.paths(self.folder), strict=True):
            part.chmod(0o444)  # nodes map it, and one that changes under them is refused
            part.replace(target)
        for download in downloads:
            download.forget()
        for path in outdated:
            path.unlink(missing_ok=True)
        if hash_from == "none":
            self.tell(
                f"not checked: {urlsplit(wanted[0].url).netloc} gives no hash of {self.name}, so "
                "what came could be compared with nothing"
            )
        return entry

    def _check(self, files: Sequence[str], downloads: Sequence[Download]) -> str:
        """Read the header of what came, before it takes the place of anything.

        Raises:
            ModelError: It is no model; what came is removed.
        """
        try:
            return self._licence(files)
        except ModelError:
            for download in downloads:
                download.forget()
            raise

    def _licence(self, files: Sequence[str]) -> str:
        """Return what the file says of its licence, once it is known to be a model at all."""
        with GgufFile(self.folder / PARTS / files[0]) as file:
            if len(file.paths) != len(files):
                raise ModelError(
                    f"{self.name} came in {len(files)} files, and has {len(file.paths)}",
                    hint="fetch it from another place",
                )
            licence = file.metadata.get("general.license")
        return licence[:100] if isinstance(licence, str) else ""

    def _names(self, count: int) -> list[str]:
        """Return what the files are called in the cache, whatever the server calls them."""
        if count == 1:
            return [self.file or f"{self.name}.gguf"]
        return [part_name(self.name, number, count) for number in range(1, count + 1)]

    def _here(self, files: Sequence[str]) -> int:
        found = 0
        for file in files:
            part = self.folder / PARTS / file
            found += part.stat().st_size if part.is_file() else 0
        return found

    def _heard(self, total: int, before: int, done: int, of: int) -> None:
        """Report what is here of all the files, or of this one where their sizes are unknown."""
        if total:
            self.report(min(1.0, (before + done) / total))
        elif of:
            self.report(min(1.0, done / of))

    def _persistently(self, web: Web, ask: Callable[[], T]) -> T:
        """Ask until there is an answer, a few times.

        Raises:
            UserError: There is none.
        """
        for attempt in range(web.limits.idle_tries):
            try:
                return ask()
            except InterruptedTransferError as error:
                why, wait = str(error), error.wait
            if attempt + 1 < web.limits.idle_tries:
                seconds = float(2**attempt) if wait is None else wait
                self.tell(f"{why}: going on in {seconds:g} s")
                self.sleep(seconds)
        raise UserError(
            f"{self.name} cannot be fetched: {why}",
            hint=f"get online (or set {ENDPOINT_VARIABLE} to a mirror), or name a GGUF file that "
            "is on this machine",
        )
