"""The model that a node asks for answers of: its file, what of it fits, who reads its texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import trio

from p2pnode.engine.base import ModelInfo
from p2pnode.node.capacity import Capacity
from p2pnode.node.hashing_notes import HashingNotes
from p2pnode.node.machine_memory import capacity_of, refuse_beyond, refuse_impossible
from p2pnode.node.model_file import ModelFile
from p2pnode.node.model_report import model_report
from p2pnode.node.model_watch import Call, ModelWatch
from p2pnode.node.models import open_model, usable_calibrations
from p2pnode.node.settings import NodeSettings
from p2pnode.node.stamp import Stamp
from p2pnode.node.text_worker import TextWorker
from p2pnode.wire.calibration import CalibrationSet


class OwnModel:
    """One node's.

    Attributes:
        file: As it was hashed at the start.
        calibrations: Of its hidden states; None if there are none.
        capacity: What of it there is memory for; None for a node that takes on no layers.
        texts: Turns prompts into tokens, and says how tokens are written.
    """

    def __init__(
        self,
        path: Path,
        file: ModelFile,
        calibrations: CalibrationSet | None,
        capacity: Capacity | None,
    ) -> None:
        self.file = file
        self.calibrations = calibrations
        self.capacity = capacity
        self.texts = TextWorker(path, file.info.name, file.info.context_length, self._stamp)
        self._watch: ModelWatch | None = None
        self._report: dict[str, Any] | None = None

    @classmethod
    async def open(cls, path: Path, settings: NodeSettings) -> Self:
        """Hash it, and look what of it fits.

        Raises:
            UserError: It cannot be run, or layers were chosen that never fit.
        """
        file = await trio.to_thread.run_sync(
            open_model, path, HashingNotes(), abandon_on_cancel=True
        )
        calibrations = await trio.to_thread.run_sync(
            usable_calibrations, file.info.space_hash32, abandon_on_cancel=True
        )
        capacity = None
        if settings.hold:
            capacity = await trio.to_thread.run_sync(
                _capacity, path, settings, abandon_on_cancel=True
            )
        return cls(path, file, calibrations, capacity)

    @property
    def info(self) -> ModelInfo:
        """What model it is."""
        return self.file.info

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

    def _stamp(self) -> Stamp:
        """Return the newest stamp under which the file is the model that was hashed."""
        return (self.file if self._watch is None else self._watch.file).stamp


def _capacity(path: Path, settings: NodeSettings) -> Capacity:
    """Say how many layers fit.

    Raises:
        UserError: Those that were chosen never will, or nothing here can run the model.
    """
    config, engine = settings.config, settings.engine
    chosen, most = config.holdings.layers, config.max_memory
    if chosen is not None:
        refuse_impossible(path, chosen, engine)
        if most is not None:
            refuse_beyond(path, chosen, engine, config.kv_bytes, most)
    return capacity_of(path, engine, config.kv_bytes, most=most)
