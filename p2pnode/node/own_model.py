"""A model that a node asks for answers of: its file, what of it fits, who reads its texts."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

import trio

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.model_paths import paths_by_name
from p2pnode.node.catalogue import known_model
from p2pnode.node.hashing_notes import HashingNotes
from p2pnode.node.memory_budget import MemoryBudget, Room
from p2pnode.node.model_file import ModelFile
from p2pnode.node.model_names import ModelName
from p2pnode.node.model_report import model_report
from p2pnode.node.model_use import held
from p2pnode.node.model_watch import Call, ModelWatch
from p2pnode.node.models import open_model, usable_calibrations
from p2pnode.node.settings import ModelChoice
from p2pnode.node.stamp import Stamp
from p2pnode.node.text_worker import TextWorker
from p2pnode.wire.calibration import CalibrationSet


class OwnModel:
    """One of a node's.

    Attributes:
        choice: As it was chosen.
        file: As it was hashed at the start.
        calibrations: Of its hidden states; None if there are none.
        room: What there is memory for of it; None for a node that takes on no layers.
        texts: Turns prompts into tokens, and says how tokens are written.
        name: What it is called.
        watching: Ends the looks at its file, once it is watched.
        is_taken_up: Whether the core knows it.
        gone: Set once nothing of it is used any more.
    """

    def __init__(
        self,
        choice: ModelChoice,
        file: ModelFile,
        calibrations: CalibrationSet | None,
        room: Room | None,
    ) -> None:
        self.choice = choice
        self.file = file
        self.calibrations = calibrations
        self.room = room
        self.texts = TextWorker(choice.path, file.info.name, file.info.context_length, self._stamp)
        self.name = ModelName(file.info.name, file.info.data_sig, _also(choice))
        self.watching = trio.CancelScope()
        self.is_taken_up = False
        self.gone = trio.Event()
        self._watch: ModelWatch | None = None
        self._report: dict[str, Any] | None = None
        self._in_use = ExitStack()

    @classmethod
    async def open(
        cls,
        choice: ModelChoice,
        budget: MemoryBudget | None,
        pinned: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Hash it, and look what of it fits beside the bytes ``pinned`` of others.

        From here on other processes see that it is in use, until it is closed.

        Args:
            choice: The model.
            budget: Where layers of it go; None for a node that takes on none.
            pinned: Bytes of the layers chosen of others.
            progress: Hears which part from 0 to 1 is hashed; left out, the log does.

        Raises:
            UserError: It cannot be run, or layers were chosen that never fit.
        """
        path = choice.path
        with ExitStack() as in_use:
            in_use.enter_context(held({path, *paths_by_name(path)}))
            file = await trio.to_thread.run_sync(
                open_model, path, progress or HashingNotes(), abandon_on_cancel=True
            )
            calibrations = await trio.to_thread.run_sync(
                usable_calibrations, file.info.space_hash32, abandon_on_cancel=True
            )
            room = None
            if budget is not None:
                room = await trio.to_thread.run_sync(
                    budget.room, choice, pinned, abandon_on_cancel=True
                )
            one = cls(choice, file, calibrations, room)
            one._in_use = in_use.pop_all()
        return one

    @property
    def info(self) -> ModelInfo:
        """What model it is."""
        return self.file.info

    @property
    def space(self) -> int:
        """The embedding space, by which the core and the engines know it."""
        return self.file.info.space_hash32

    def watched(self, call: Call, told: Callable[[ModelFile], None]) -> ModelWatch:
        """Return what looks whether the file changes; from here on its word counts for prompts."""
        self._watch = ModelWatch(self.file, call, told)
        return self._watch

    async def report(self) -> dict[str, Any]:
        """Return what faces are told of it.

        Raises:
            ModelError: Its file is broken by now.
        """
        if self._report is None:
            self._report = await trio.to_thread.run_sync(model_report, self.file)
        return self._report

    async def close(self) -> None:
        """Look at its file no more, and end the process that reads its texts."""
        self.watching.cancel()
        self._in_use.close()
        self.gone.set()
        await self.texts.close()

    def _stamp(self) -> Stamp:
        """Return the newest stamp under which the file is the model that was hashed."""
        return (self.file if self._watch is None else self._watch.file).stamp


def _also(choice: ModelChoice) -> tuple[str, ...]:
    """Return what a model is called beside its name: as it was chosen, as the catalogue has it."""
    known = known_model(choice.called)
    named = (known.name, *known.aliases) if known else ()
    return tuple(dict.fromkeys(filter(None, (choice.called, *named, str(choice.path)))))
