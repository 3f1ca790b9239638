"""What a node says while it hashes a large file."""

import logging
import time

from p2pnode.node.log_file import NOTICE

logger = logging.getLogger(__name__)  # not the node's: its lines wait for its greeting

_FIRST_NOTE = 2.0  # seconds until it is said that a file is hashed
_NEXT_NOTE = 10.0  # seconds from then on


class HashingNotes:
    """Says every few seconds how much of a large file is hashed, which is done once for a file."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _FIRST_NOTE

    def __call__(self, part: float) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _NEXT_NOTE
            logger.log(NOTICE, "hashes the model's file, once for each file: %.0f %%", 100 * part)
