"""Looks every few seconds whether the model's file is still the one that was hashed.

A file of the user's own may be overwritten at any time. What was loaded of it stays right, but what
is read next would be of another model.
"""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import trio

from p2pnode.errors import ModelChangedError, ModelError
from p2pnode.node.core import NodeCore
from p2pnode.node.model_file import ModelFile
from p2pnode.node.stamp import Stamp

INTERVAL: Final = 3.0
"""Seconds between two looks; a look is one call of the file system. Whatever is loaded meanwhile
is checked anyway."""

T = TypeVar("T")


class Call(Protocol):
    """Runs a command on a core, under its lock, and returns what it returns; in the loop alone."""

    def __call__(self, command: Callable[[NodeCore, float], T]) -> T: ...


class ModelWatch:
    """Tells a core when the file changes, and when it is what it was again.

    Attributes:
        file: The file, with the newest stamp under which it is what was hashed.
        is_paused: Whether it does not look, since its own node adds to the files.
    """

    def __init__(self, file: ModelFile, call: Call, told: Callable[[ModelFile], None]) -> None:
        """``told`` hears of the file whenever it was read again, and holds what it did."""
        self.file = file
        self._told = told
        self.is_paused = False
        self._seen = file.stamp
        self._read: Stamp | None = None  # of the content that was read here last
        self._call = call

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await trio.sleep(INTERVAL)
            if not self.is_paused:
                await self.look()

    def take(self, file: ModelFile) -> None:
        """Take the model as it was just read."""
        self.file, self._seen, self._read = file, file.stamp, file.stamp
        self._told(file)

    async def look(self) -> None:
        """Look once; read the whole file where there is a reason to, and once for each stamp.

        A reason is another stamp, and that a stage could not be loaded: then a tensor was not what
        it had been, whatever the stamp says. A file that is being written has a new stamp at each
        look, and is read when it rests. The disk is asked in a thread, since it may hang.
        """
        try:
            await self._look()
        except ModelChangedError as error:
            self._tell(error)
        except ModelError as error:  # it cannot be looked at: whatever comes is read anew
            self._read = None
            self._tell(ModelChangedError(f"the file changed: {error}", hint=error.hint))

    async def _look(self) -> None:
        stamp = await trio.to_thread.run_sync(Stamp.of, self.file.path, abandon_on_cancel=True)
        before, self._seen = self._seen, stamp
        if stamp != before or stamp == self._read or not self._has_reason():
            return
        self._read = stamp
        self.file = await trio.to_thread.run_sync(
            self.file.read_again, stamp, abandon_on_cancel=True
        )
        self._told(self.file)
        self._call(lambda core, now: core.model_restored(self._space, now))

    @property
    def _space(self) -> int:
        return self.file.info.space_hash32

    def _has_reason(self) -> bool:
        return self._seen != self.file.stamp or self._call(
            lambda core, now: core.is_lost(self._space)
        )

    def _tell(self, error: ModelChangedError) -> None:
        changed = f"{error}; {error.hint}" if error.hint else str(error)
        self._call(lambda core, now: core.model_changed(self._space, changed, now))
