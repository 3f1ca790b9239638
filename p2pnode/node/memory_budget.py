"""The one memory that all models of a node are held in: what of each would fit.

Who gets how much of it is the core's to say (:mod:`p2pnode.node.memory_shares`).
"""

from dataclasses import dataclass

from p2pnode.engine.held import bytes_per_weight
from p2pnode.engine.registry import engine_for
from p2pnode.errors import CapacityError
from p2pnode.node.capacity import Capacity, capacity_in, megabytes
from p2pnode.node.machine_memory import memory_now, refuse_beyond, refuse_impossible, room_for
from p2pnode.node.model_facts import facts_of
from p2pnode.node.settings import ModelChoice, NodeSettings


@dataclass(frozen=True, slots=True)
class Room:
    """What a node has for one model.

    Attributes:
        capacity: How many layers would fit without the other models.
        pinned: Bytes that the layers take which its owner chose; 0 where the node chooses.
    """

    capacity: Capacity
    pinned: int = 0


class MemoryBudget:
    """One node's; KV caches have their bytes once, whatever model they are of.

    Of what an engine maps from a file, a system says that it is free; of what it expands, that it
    is taken. So room is what there was before anything was loaded.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._before: dict[str, int] = {}  # bytes for weights, by engine

    def room(self, choice: ModelChoice, pinned: int = 0) -> Room:
        """Say what there is for a model beside ``pinned`` bytes of others; reads its header.

        Raises:
            UserError: Layers were chosen that do not fit, or nothing here can run the model.
        """
        config, options = self._settings.config, self._settings.engine
        chosen, most = choice.layers or config.holdings.layers, config.max_memory
        if chosen is not None:
            refuse_impossible(choice.path, chosen, options)
            if most is not None:
                refuse_beyond(choice.path, chosen, options, config.kv_bytes, most, taken=pinned)
        engine = engine_for(choice.path, options)
        there = memory_now(engine, options).within(most)
        free = self._before.setdefault(engine, room_for(engine, config.kv_bytes, there))
        facts = facts_of(choice.path, with_words=False).beside(there.gpu)
        sizes, end = facts.held(bytes_per_weight(engine, options))
        capacity = capacity_in(sizes, end, free)
        if chosen is None:
            return Room(capacity)
        weights = sum(sizes[chosen.start : chosen.stop]) + end * (chosen.stop == len(sizes))
        if pinned and weights + pinned > free:
            raise CapacityError(
                f"layers {chosen.start}:{chosen.stop} of {choice.called or choice.path.name} take "
                f"{megabytes(weights)}, {megabytes(max(0, free - pinned))} are free for weights "
                "beside the layers pinned of other models",
                hint="Hold fewer layers, or unload a model: p2pnode models unload NAME.",
            )
        return Room(capacity, weights)
