"""Says in plain lines what a node does: answers, repairs, work for others, what is still missing.

Lines about the node's own answers are as many as its owner asks for. Lines about sessions of others
have an allowance (:mod:`p2pnode.node.peer_lines`), and those about layers that come and go one of
their own, which others cannot use up.
"""

from collections.abc import Callable, Iterable
from typing import Final

from p2pnode.engine.base import EngineProfile, ModelInfo
from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationFailed,
    GenerationFinished,
    InferenceEvent,
    LayersAwaited,
    SessionRefused,
    StageEnded,
)
from p2pnode.inference.generation import Generation
from p2pnode.inference.stage import Stage
from p2pnode.membership.limits import Rate, TokenBucket
from p2pnode.node.capacity import Capacity
from p2pnode.node.peer_lines import PeerLines
from p2pnode.node.planner import DirectoryPlanner
from p2pnode.phrases import holding, listed, plural, runs_text
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import StageRun
from p2pnode.scheduler.directory import runs_of
from p2pnode.terminal import label

LEAVING: Final = "leaving the swarm"

_ASK = 'ask with p2pnode generate "..." or p2pnode chat'
_COVERAGE = Rate(4, 0.1)
"""Lines on which layers are served: what changes faster is told as it is then. A guess."""

_COVERAGE_PAUSE = 1.0  # seconds between two looks at which layers are served; a guess


class Narration:
    """Turns events into lines, and notices when layers come to be served or are lost."""

    def __init__(
        self,
        node_id: NodeId,
        planner: DirectoryPlanner,
        generation: Callable[[int], Generation | None],
        say: Callable[[str], None],
        peer_lines: PeerLines,
    ) -> None:
        """``say`` takes a line about this node's own doings, ``peer_lines`` what others cause."""
        self._node_id = node_id
        self._planner = planner
        self._generation = generation
        self._say = say
        self._peer_lines = peer_lines
        self._missing: dict[int, tuple[range, ...]] = {}  # of each model, as it was said last
        self._has_changed = False
        self._look_at = 0.0
        self._coverage = TokenBucket(_COVERAGE)

    # Events

    def tell(self, event: InferenceEvent, now: float) -> None:
        """Say what happened to an answer of ours, or to a session of another's."""
        match event:
            case ChainBroken(generation=number, reason=reason, seconds=seconds):
                lost = listed(map(holding, event.names, event.layers)) or "a stage"
                others = f"looks for others for {seconds:.0f} s at most"
                self._say(f"answer {number} lost {lost} ({reason}); {others}")
            case ChainRepaired(generation=number, instead=instead, seconds=seconds):
                took = f": {listed(map(_run, instead))} took over" if instead else ""
                self._say(f"answer {number} goes on after {1e3 * seconds:.0f} ms{took}")
                if event.changed:
                    self._say(f"answer {number} is no longer bit-reproducible: {event.changed}")
            case LayersAwaited(generation=number, layers=awaited, seconds=seconds):
                named = runs_text(awaited)
                self._say(f"answer {number} waits {seconds:.0f} s at most for layers {named}")
            case GenerationFinished(generation=number, reason=reason):
                self._tell_end(number, reason)
            case GenerationFailed(generation=number, reason=reason):
                self._say(f"answer {number} failed: {reason}")
            case StageEnded() if event.requester != self._node_id:
                line = _stage_line(event, self._name(event.requester))
                self._peer_lines.say(event.requester, line, now)
            case SessionRefused() if event.requester != self._node_id:
                name, layers = self._name(event.requester), runs_text((event.layers,))
                line = f"refused {name} layers {layers}: {event.reason}"
                self._peer_lines.say(event.requester, line, now)
            case _:
                pass

    def _tell_end(self, number: int, reason: str) -> None:
        one = self._generation(number)
        if one is None:
            return
        if reason == "cancelled":
            self._say(f"answer {number} was cancelled after {plural(len(one.tokens), 'token')}")
            return
        spent = (one.last_token_at or 0.0) - (one.first_token_at or 0.0)
        speed = f" at {(len(one.tokens) - 1) / spent:.1f} a second" if spent > 0 else ""
        by = listed(_run(leg.run) for leg in one.legs)
        mended = f", {plural(one.repairs, 'repair')}" if one.repairs else ""
        if one.request.sampling.mean:
            read = plural(len(one.request.prompt), "token")
            self._say(f"answer {number}, asked here: the mean of {read} by {by}{mended}")
            return
        cut = ", cut at its limit" if reason == "length" else ""
        tokens = plural(len(one.tokens), "token")
        self._say(f"answer {number}, asked here: {tokens}{speed} by {by}{mended}{cut}")

    def _name(self, peer: NodeId) -> str:
        return self._planner.label_of(peer)

    def farewell(self, stages: Iterable[Stage], seconds: float) -> str:
        """Return what is said on leaving: for whom it waits, and how long."""
        others = {stage.requester for stage in stages} - {self._node_id}
        if not others or seconds <= 0:
            return LEAVING
        names = ", ".join(sorted(map(self._planner.name_of, others)))
        return f"{LEAVING}; answers of {names} may finish, for {seconds:.0f} s at most"

    def alone(self, held: Iterable[tuple[ModelInfo, range]]) -> str:
        """Return which of the layers ``held`` nobody else serves, to go on after a reason."""
        alone: list[tuple[str, tuple[range, ...]]] = []
        for model, layers in held:
            missing = self._planner.missing(model, without_us=True)
            runs = runs_of(layer for run in missing for layer in run if layer in layers)
            if runs:
                alone.append((model.name, runs))
        if not alone:
            return ""
        if len(alone) == 1:
            return f"; nobody else holds {runs_text(alone[0][1])}: answers wait"
        named = listed(f"{runs_text(runs)} of {name}" for name, runs in alone)
        return f"; nobody else holds {named}: answers wait"

    # Layers

    def capacity(self, model: ModelInfo, capacity: Capacity, chosen: range | None) -> None:
        """Say so where less of a model fits than it has, or than its owner has ``chosen``."""
        fits = capacity.layers
        if chosen is not None:
            if len(chosen) > fits:
                self._say(
                    f"memory is short for the {len(chosen)} layers that were chosen: {fits} fit "
                    f"({capacity.why_none}); it may be slow, or be ended by the system"
                )
        elif not fits:
            self._say(f"serves no layers of {model.name}: {capacity.why_none}")
        elif fits < model.n_layers:
            self._say(f"has memory for {fits} of the {model.n_layers} layers of {model.name}")

    def serves(self, model: ModelInfo, layers: range, engine: EngineProfile, why: str) -> None:
        """Say what this node serves from now on, what computes it, and what the swarm lacks."""
        missing = self._planner.missing(model)
        self._missing[model.space_hash32] = missing
        by = f"with {label(engine.numerics.split('/')[0])} on {label(engine.device)}"
        held = f"serves layers {runs_text((layers,))} of {model.name} {by} ({why})"
        rest = f"still missing: {runs_text(missing)}" if missing else f"complete: {_ASK}"
        self._say(f"{held}; {rest}")

    def changed(self) -> None:
        """Somebody came or went, or said something new: what is served may be another."""
        self._has_changed = True

    def look(self, models: Iterable[ModelInfo], now: float) -> None:
        """Say if layers came to be served, or are served no longer; seldom, for it costs a walk."""
        self._peer_lines.tell_left_out(now)
        if not self._has_changed or now < self._look_at:
            return
        self._has_changed, self._look_at = False, now + _COVERAGE_PAUSE
        for model in models:
            self._look_at_model(model, now)

    def _look_at_model(self, model: ModelInfo, now: float) -> None:
        missing, space = self._planner.missing(model), model.space_hash32
        before = self._missing.get(space)
        if missing == before:
            return
        if before is not None:
            if not self._coverage.take(now):
                self._has_changed, self._look_at = True, now + self._coverage.wait(now)
                return
            line = f"is complete: {_ASK}"
            if missing:
                line = f"is not complete; still missing: {runs_text(missing)}"
            self._say(f"{model.name} {line}")
        self._missing[space] = missing

    def forget(self, space: int) -> None:
        """A model is this node's no more."""
        self._missing.pop(space, None)


def _stage_line(event: StageEnded, name: str) -> str:
    work = f"{plural(event.positions, 'position')} of layers {runs_text((event.layers,))}"
    ended = f" ({event.reason})" if event.reason else ""
    return f"computed {work} for {name} in {event.seconds:.1f} s{ended}"


def _run(run: StageRun) -> str:
    return holding(run.name, run.layers)
