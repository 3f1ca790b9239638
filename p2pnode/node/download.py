"""One file from a server: resumed where it was cut, bounded, and checked before anybody uses it.

What has come lies in a part file with a note beside it, which says of what it is the beginning. It
stays when a transfer ends early, for whatever reason, and goes when it turns out to be wrong.
"""

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from http.client import responses
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

from p2pnode.engine.other_formats import foreign
from p2pnode.errors import UserError
from p2pnode.node.disk import free_bytes, is_full, no_space, refuse_full, size_in_words
from p2pnode.node.entries import MOST_BYTES
from p2pnode.node.fetching import ROOM_HINT
from p2pnode.node.part_note import PartNote, Wanted, note_path
from p2pnode.node.web import Answer, InterruptedTransferError, Web

if TYPE_CHECKING:
    from hashlib import _Hash

_SPARE: Final = 2**30
"""Bytes of the disk that a file of unknown length may not take."""

_MAGIC_BYTES: Final = 4

Heard: TypeAlias = Callable[[int, int], None]
"""Hears how many bytes are here, and of how many; 0 where nobody knows."""


class RefusedError(UserError):
    """The server will not give the file.

    Attributes:
        status: Its answer.
        reason: What it adds, in the words of a hub's ``X-Error-Code``.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message, hint="check the address")
        self.status = status
        self.reason = reason


class Download:
    """Fetches one file into a part file.

    Args:
        web: Whom to ask.
        wanted: What to fetch.
        part: Where to; the note lies beside it.
        heard: Hears how far it is.
        tell: Hears why nothing happens for a while.
        sleep: Waits some seconds; tests do not.
        clock: Seconds of a steady clock.
    """

    def __init__(
        self,
        web: Web,
        wanted: Wanted,
        part: Path,
        heard: Heard,
        tell: Callable[[str], None],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._web = web
        self.wanted = wanted
        self._has_given_hash = bool(wanted.sha256)
        self._part = part
        self._heard = heard
        self._tell = tell
        self._sleep = sleep
        self._clock = clock
        self._done = 0
        self._digest: _Hash = sha256()
        self._etag = ""

    def run(self) -> str:
        """Fetch and check; return the file's SHA-256 in hex.

        Raises:
            RefusedError: The server will not give it.
            UserError: It cannot be fetched, or what came is wrong and was removed.
        """
        self._take_up()
        idle = 0
        for _ in range(self._web.limits.tries):
            before = self._done
            try:
                self._attempt()
            except InterruptedTransferError as why:
                idle = 0 if self._done > before else idle + 1
                if idle >= self._web.limits.idle_tries:
                    raise self._given_up(str(why)) from why
                self._wait(why, idle)
            else:
                return self._checked()
        raise self._given_up("the connection breaks again and again")

    def forget(self) -> None:
        """Remove what has come."""
        self._part.unlink(missing_ok=True)
        note_path(self._part).unlink(missing_ok=True)

    # Inside

    def _take_up(self) -> None:
        """Go on with what an earlier run left, if it is the beginning of this very file."""
        note = PartNote.of(self._part)
        if note is None or not note.is_of(self.wanted):
            self.forget()
            return
        self._etag = note.etag
        if not self._has_given_hash:
            self.wanted = replace(self.wanted, sha256=note.sha256, said_by="the server")
        with suppress(FileNotFoundError), self._part.open("rb") as file:
            while piece := file.read(2**20):
                self._digest.update(piece)
                self._done += len(piece)

    def _attempt(self) -> None:
        size = self.wanted.size
        if size is not None and self._done > size:
            self._restart()
        if size is not None and self._done == size and size:
            return
        headers = {}
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            if self._etag:
                headers["If-Range"] = self._etag
        with self._web.get(self.wanted.url, headers) as answer:
            if self._is_all_here(answer):
                self._heard(self._done, self._done)
                return
            self._refuse_failed(answer)
            total = self._agreed(answer)
            refuse_full(self._part.parent, (total or self._done) - self._done, ROOM_HINT)
            self._receive(answer, total)

    def _is_all_here(self, answer: Answer) -> bool:
        """Tell whether a server has no byte beyond those that are here, of this very file.

        Raises:
            InterruptedTransferError: It has another file there by now; from the start.
        """
        if answer.status != 416 or not self._done:
            return False
        self._hear_hash(answer)
        _, total = _content_range(answer.header("Content-Range"))
        etag = _strong(answer.header("ETag"))
        is_same = not etag or not self._etag or etag == self._etag
        lengths = {total, self.wanted.size or total, answer.linked_size or total}
        return is_same and lengths == {self._done}

    def _hear_hash(self, answer: Answer) -> None:
        """Take the hash that a server says, where nobody said one beforehand.

        Raises:
            InterruptedTransferError: What is here is of another file; from the start.
        """
        if self._has_given_hash:
            return
        said, goes_on = answer.linked_sha256, answer.status != 200
        if goes_on and said and self.wanted.sha256 and said != self.wanted.sha256:
            self._restart()
            raise InterruptedTransferError(f"{answer.host} has another file there by now", 0.0)
        if said or not goes_on:
            self.wanted = replace(self.wanted, sha256=said, said_by=answer.host)

    def _refuse_failed(self, answer: Answer) -> None:
        """Take an answer's status; go on only where a body of the file follows."""
        answer.refuse_busy(self._web.limits.longest_wait)
        status = answer.status
        if status == 416 and self._done:
            self._restart()
            raise InterruptedTransferError(f"{answer.host} has less of it than is here", 0.0)
        if status not in (200, 206):
            raise RefusedError(
                f"{answer.host} does not give {self.wanted.name}: {_status(status)}",
                status,
                answer.header("X-Error-Code"),
            )

    def _agreed(self, answer: Answer) -> int | None:
        """Find out where the body begins and how long the file is; None where nobody says.

        Raises:
            InterruptedTransferError: It begins elsewhere; from the start the next time.
            UserError: It is not as long as it was said to be.
        """
        length, is_coded = answer.number("Content-Length"), bool(_coding(answer))
        if answer.status == 206:
            begin, total = _content_range(answer.header("Content-Range"))
            if begin != self._done or is_coded:
                self._restart()
                raise InterruptedTransferError(f"{answer.host} goes on at another place", 0.0)
        else:
            total = None if is_coded else length
        self._hear_hash(answer)
        expected = self.wanted.size if self.wanted.size is not None else answer.linked_size
        if expected is not None and total is not None and total != expected:
            raise UserError(
                f"{answer.host} announces {total} bytes of {self.wanted.name}, not {expected}",
                hint="the file changed while it was asked for, or a page came in its place: "
                "try again",
            )
        found = expected if expected is not None else total
        if found is not None and found > MOST_BYTES:
            raise UserError(f"{self.wanted.name} has {found} bytes: more than any model")
        return found

    def _receive(self, answer: Answer, total: int | None) -> None:
        pieces = _decoded(answer)
        if answer.status == 200:  # from its start; what is here goes when a model comes indeed
            first = next(pieces, b"")
            self._refuse_foreign(first)
            self._restart()
            pieces = chain((first,), pieces)
        self._etag = _strong(answer.header("ETag"))
        self._write_note()
        self._append(answer, pieces, total)
        if total is not None and self._done < total:
            raise InterruptedTransferError(
                f"{answer.host} broke off after {size_in_words(self._done)} "
                f"of {size_in_words(total)}"
            )

    def _append(self, answer: Answer, pieces: Iterable[bytes], total: int | None) -> None:
        most = self._most() if total is None else total
        window, at = self._clock(), self._done
        with self._part.open("ab") as file:
            for piece in pieces:
                if self._done + len(piece) > most:
                    self.forget()
                    raise UserError(
                        f"{answer.host} sends more of {self.wanted.name} than "
                        + (f"its {total} bytes" if total is not None else "this disk holds"),
                        hint="what came was removed; fetch the file from another place",
                    )
                self._keep(file, piece)
                self._heard(self._done, total or 0)
                if self._clock() - window >= self._web.limits.window:
                    if self._done - at < self._web.limits.pace:
                        raise InterruptedTransferError(f"{answer.host} sends next to nothing")
                    window, at = self._clock(), self._done
            file.flush()
            os.fsync(file.fileno())

    def _keep(self, file: BinaryIO, piece: bytes) -> None:
        try:
            file.write(piece)
            file.flush()
        except OSError as error:
            folder = self._part.parent
            if is_full(error):
                raise no_space(folder, len(piece), ROOM_HINT) from error
            raise UserError(
                f"cannot write {self._part}: {error.strerror or error}", hint=ROOM_HINT
            ) from error
        self._digest.update(piece)
        self._done += len(piece)

    def _refuse_foreign(self, begin: bytes) -> None:
        """Refuse what begins as no model does, before gigabytes of it come."""
        if begin and begin[:_MAGIC_BYTES] != b"GGUF"[: len(begin)]:
            raise foreign(begin, self.wanted.name)

    def _checked(self) -> str:
        found = self._digest.hexdigest()
        if self.wanted.sha256 and found != self.wanted.sha256:
            self.forget()
            raise UserError(
                f"what came is not {self.wanted.name}: its SHA-256 is {found}, "
                f"not {self.wanted.sha256} as {self.wanted.said_by} said; it was removed",
                hint="try again; if it stays so, something between here and there changes files",
            )
        if not self._done:
            self.forget()
            raise UserError(f"{self.wanted.name} is empty", hint="check the address")
        return found

    def _restart(self) -> None:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._part.write_bytes(b"")
        self._done, self._digest, self._etag = 0, sha256(), ""

    def _wait(self, why: InterruptedTransferError, idle: int) -> None:
        seconds = why.wait if why.wait is not None else float(2 ** max(0, idle - 1))
        if seconds:
            self._tell(f"{why}: going on in {seconds:g} s")
            self._sleep(seconds)

    def _given_up(self, why: str) -> UserError:
        here = f"; {size_in_words(self._done)} are here" if self._done else ""
        goes_on = ": it goes on where it stopped" if self._done else ""
        return UserError(
            f"{self.wanted.name} cannot be fetched now: {why}{here}",
            hint=f"check the network, and run the same command again{goes_on}",
        )

    def _most(self) -> int:
        """Return how long a file may become that nobody announced the length of."""
        free = free_bytes(self._part.parent)
        return MOST_BYTES if free is None else min(MOST_BYTES, self._done + free - _SPARE)

    def _write_note(self) -> None:
        PartNote(self.wanted.url, self.wanted.sha256, self._etag).write(self._part)


def _strong(etag: str) -> str:
    """Return an entity tag that stands for the very bytes; empty for a weak one."""
    return etag if len(etag) < 1024 and etag.startswith('"') and etag.endswith('"') else ""


def _content_range(text: str) -> tuple[int | None, int | None]:
    """Read ``bytes 5-9/10`` or ``bytes */10``: where it begins, of how many; None for unknown."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    if unit != "bytes":
        return None, None
    return _number(span.partition("-")[0]), _number(total)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def _coding(answer: Answer) -> str:
    coding = answer.header("Content-Encoding").lower()
    return "" if coding == "identity" else coding


def _decoded(answer: Answer) -> Iterator[bytes]:
    """Yield the body, unpacked where a server packs it unasked; in pieces of bounded size."""
    coding = _coding(answer)
    if not coding:
        while piece := answer.read():
            yield piece
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise UserError(f"{answer.host} packs what it sends in a way not known here: {coding!r}")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        while packed := answer.read():
            while packed and not unpacker.eof:
                yield from _some(unpacker.decompress(packed, 2**20))
                packed = unpacker.unconsumed_tail
        yield from _some(unpacker.flush())
        if not unpacker.eof:
            raise InterruptedTransferError(f"{answer.host} broke off")
    except zlib.error as error:
        raise InterruptedTransferError(f"{answer.host} sends what cannot be unpacked") from error


def _some(piece: bytes) -> Iterator[bytes]:
    if piece:
        yield piece


def _status(status: int) -> str:
    return f"{status} {responses.get(status, '')}".strip()
