"""Looks every few seconds whether the model's file is still the one that was hashed.

A file of the user's own may be overwritten at any time. What was loaded of it stays right, but what
is read next would be of another model.
"""

from collections.abc import Callable
from typing import Final

import trio

from p2pnode.errors import ModelChangedError, ModelError
from p2pnode.node.core import NodeCore
from p2pnode.node.model_file import ModelFile
from p2pnode.node.stamp import Stamp

INTERVAL: Final = 3.0
"""Seconds between two looks; a look is one call of the file system. Whatever is loaded meanwhile
is checked anyway."""

Call = Callable[[Callable[[NodeCore, float], None]], None]


class ModelWatch:
    """Tells a core when the file changes, and when it is what it was again.

    Attributes:
        file: The file, with its newest stamp.
        changed: What the file holds now, in words; empty while it is what was hashed.
    """

    def __init__(self, file: ModelFile, call: Call) -> None:
        self.file = file
        self.changed = ""
        self._seen = file.stamp
        self._call = call

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await trio.sleep(INTERVAL)
            await trio.to_thread.run_sync(self.look, abandon_on_cancel=True)

    def look(self) -> None:
        """Look once; reads the whole file where its stamp is another, and was so before.

        A file that is being written has a new stamp at each look: to read it then is in vain.
        """
        try:
            before, self._seen = self._seen, Stamp.of(self.file.path)
            if self._seen == before:
                self.file = self.file.check(self._seen)
                self._note("")
        except ModelError as error:
            words = (
                str(error) if isinstance(error, ModelChangedError) else f"the file changed: {error}"
            )
            self._note(f"{words}; {error.hint}" if error.hint else words)

    def _note(self, changed: str) -> None:
        before, self.changed = self.changed, changed
        if changed and not before:
            self._call(lambda core, now: core.model_changed(changed, now))
        elif before and not changed:
            self._call(lambda core, now: core.model_restored(now))
