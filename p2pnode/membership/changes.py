"""Which members changed since when, so that whoever derives something from the table keeps up."""

from p2pnode.sansio import NodeId


class ChangeLog:
    """The latest change of each node, in order.

    A reader remembers the version it has read up to and asks what changed since: the answer is as
    long as what changed, not as the table. Nodes that left the table are kept in the log too, up
    to ``room`` nodes in all; a reader too far behind is told to read everything.

    Attributes:
        version: Grows with every change.
    """

    def __init__(self, room: int) -> None:
        self.version = 0
        self._room = room
        self._latest: dict[NodeId, int] = {}
        self._dropped = 0  # the latest change that is no longer in the log

    def note(self, node_id: NodeId) -> None:
        """Note that what is believed of a node changed."""
        self.version += 1
        self._latest.pop(node_id, None)
        self._latest[node_id] = self.version
        if len(self._latest) > self._room:
            self._dropped = self._latest.pop(next(iter(self._latest)))

    def since(self, version: int) -> list[NodeId] | None:
        """Return who changed after ``version``, each once, the earliest first.

        None means that the log does not reach back so far: read the whole table.
        """
        if version < self._dropped:
            return None
        changed: list[NodeId] = []
        for node_id, at in reversed(self._latest.items()):
            if at <= version:
                break
            changed.append(node_id)
        changed.reverse()
        return changed
