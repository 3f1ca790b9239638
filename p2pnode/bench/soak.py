"""Minutes of answers while peers are killed, leave and join: what breaks, and what piles up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import psutil

from p2pnode.bench.figures import spread
from p2pnode.errors import UserError
from p2pnode.testing.processes import LocalSwarm, NodeProcess, local_swarm

MOST_GROWTH = 5.0
"""Percent by which the requester's memory may grow once it has settled."""

_TOKENS = 40
_STARTING = 90.0  # seconds until all have loaded their layers
_GLANCE = 0.2
_PATIENCE = 60.0  # seconds without a word of the node, after which an answer has failed
_SETTLING = 180.0  # seconds until caches are warm and logs full: memory counts from then on
_HOLDERS = 2  # of each third of the layers, when all are there
_CALM = (2.0, 9.0)  # seconds between two disturbances: about 76 kills in nine minutes
_ABSENCE = (0.0, 4.0)  # seconds until somebody joins in the place of one who has gone
_KILLED = 0.75  # share of the disturbances that are kills; the others leave properly
_WINDOW = 15.0  # seconds of samples that one figure of memory is the median of
_LAST_WORDS = 1000  # letters of the requester's log, where it ended
_CLOSING = 10.0  # seconds for descriptors of the last client to close

_QUESTIONS: tuple[dict[str, Any], ...] = (
    {"prompt": "Explain how a bicycle stays upright."},
    {"prompt": "Name the planets, the nearest to the sun first."},
    {"prompt": "Explain how a bicycle stays upright.", "temperature": 0.8, "seed": 3},
    {"prompt": "Write two lines about the sea.", "temperature": 1.0, "top_p": 0.9, "seed": 11},
)


@dataclass(slots=True)
class Tally:
    """What happened.

    Attributes:
        answers: Asked while peers came and went.
        wrong: Answers with other tokens than the undisturbed ones.
        failures: Why answers failed.
        events: Kills, departures and joins.
        repairs: Seconds from noticing a loss to the mended chain.
        resumed: Seconds from a kill to the next token, where the killed peer was in the chain.
        memory: Samples of the requester's memory: seconds since the beginning, bytes.
        late: Lateness of the requester's loop, p99 of a minute each, milliseconds.
        ended: Why it was over before its time, with the requester's last words; empty if it was
            not.
        seconds: How long it went on.
    """

    answers: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    repairs: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    ended: str = ""
    seconds: float = 0.0


def measure(
    path: Path, *, minutes: float, seed: int, tell: Callable[[float], None]
) -> dict[str, Any]:
    """Ask for ``minutes`` while peers are killed, leave and join, as ``seed`` draws it."""
    ours = psutil.Process()
    before = {child.pid for child in ours.children(recursive=True)}
    open_before = ours.num_fds()
    with local_swarm() as swarm:
        soak = _Soak(swarm, path, seed, minutes * 60)
        soak.start()
        soak.run(tell)
        figures = soak.figures()
    left = [child.pid for child in ours.children(recursive=True) if child.pid not in before]
    left += [pid for pid in soak.pids if pid not in left and _is_node(pid)]
    figures["processes_left"] = left
    figures["own_descriptors"] = {"start": open_before, "end": ours.num_fds()}
    figures["broken"] = faults(figures)
    return figures


def faults(figures: dict[str, Any]) -> list[str]:
    """Return what a soak must not show, in words; empty for a clean one."""
    found = [figures["ended"]] if figures.get("ended") else []
    if figures["wrong"]:
        found.append(f"{figures['wrong']} answers had other tokens than undisturbed ones")
    if figures["failures"]:
        found.append(f"{len(figures['failures'])} answers failed: {figures['failures'][0]}")
    growth = figures["memory_growth_percent"]
    if growth > MOST_GROWTH:
        found.append(f"the requester's memory grew by {growth} %")
    for whose in ("descriptors", "own_descriptors"):
        start, end = figures[whose]["start"], figures[whose]["end"]
        if end is not None and end > start:
            found.append(f"{whose}: {start} at the start, {end} at the end")
    if figures["processes_left"]:
        found.append(f"processes left: {figures['processes_left']}")
    return found


def growth(samples: Sequence[tuple[float, int]], seconds: float) -> dict[str, Any]:
    """Return how the requester's memory grew from when it had settled to the end.

    It has settled at minute 3, or after a third of a shorter soak. Each of the two figures is the
    median of some seconds, since one sample may fall on an answer's peak.
    """
    settled = min(_SETTLING, seconds / 3)
    first = [size for at, size in samples if settled <= at < settled + _WINDOW]
    last = [size for at, size in samples if at >= seconds - _WINDOW]
    start, end = median(first or last or [0]), median(last or first or [0])
    return {
        "memory_mib": {
            "from_s": round(settled, 1),
            "start": round(start / 2**20, 1),
            "end": round(end / 2**20, 1),
        },
        "memory_growth_percent": round(100 * (end / start - 1), 2) if start else 0.0,
    }


class _Soak:
    """One soak under way; single-threaded, so whatever happens does so between two events."""

    def __init__(self, swarm: LocalSwarm, path: Path, seed: int, seconds: float) -> None:
        self.pids: list[int] = []
        self._swarm = swarm
        self._path = path
        self._rng = Random(seed)
        self._seconds = seconds
        self._tally = Tally()
        self._thirds: tuple[range, ...] = ()
        self._holders: dict[str, tuple[NodeProcess, range]] = {}
        self._going: dict[str, NodeProcess] = {}
        self._vacant: list[tuple[float, range]] = []
        self._number = 0
        self._serving: set[str] = set()
        self._chain: set[str] = set()
        self._began = self._next_at = time.monotonic()
        self._struck: float | None = None
        self._expected: list[list[int]] = []
        self._descriptors = 0

    def start(self) -> None:
        """Start everybody and take down what undisturbed answers are."""
        from p2pnode.node.models import describe_model

        total = describe_model(self._path).n_layers
        cuts = [0, -(-total // 3), -(-2 * total // 3), total]
        self._thirds = tuple(map(range, cuts, cuts[1:]))
        self._requester = self._launch("requester", "none")
        self._requester.wait_until_up()
        for third in self._thirds:
            for _ in range(_HOLDERS):
                self._join(third)
        for node, _ in self._holders.values():
            node.wait_until_up()
        self._wait_until_all_serve()
        self._expected = [self._ask(question, lambda event: None) for question in _QUESTIONS]
        self._descriptors = self._process.num_fds()
        self._began = time.monotonic()
        self._tally = Tally()

    def _wait_until_all_serve(self) -> None:
        """Wait until the requester, which holds nothing itself, sees everybody serve."""
        began = time.monotonic()
        while self._serving < set(self._holders):
            if time.monotonic() - began > _STARTING:
                missing = sorted(set(self._holders) - self._serving)
                raise UserError(f"not serving after {_STARTING:.0f} s: {', '.join(missing)}")
            time.sleep(_GLANCE)
            self._look_around()

    def run(self, tell: Callable[[float], None]) -> None:
        """Ask one answer after another until the time is up, or the requester is no more."""
        self._next_at = self._elapsed() + self._rng.uniform(*_CALM)
        while (elapsed := self._elapsed()) < self._seconds and not self._tally.ended:
            tell(elapsed / self._seconds)
            self._answer()
            try:
                self._look_around()
            except (UserError, psutil.Error) as error:
                self._tally.ended = self._ending(error)
        self._tally.seconds = min(self._elapsed(), self._seconds)
        tell(1.0)

    def _answer(self) -> None:
        number = self._tally.answers % len(_QUESTIONS)
        self._tally.answers += 1
        self._chain = set()
        self._struck = None
        try:
            tokens = self._ask(_QUESTIONS[number], self._hear)
        except UserError as error:
            self._tally.failures.append(str(error)[:300])
        else:
            self._tally.wrong += tokens != self._expected[number]

    def _ending(self, error: Exception) -> str:
        """Say why nothing can be asked any more; nobody else keeps the requester's log."""
        when = f"after {self._elapsed():.0f} s"
        if not self._requester.has_ended():
            return f"the requester did not answer {when}: {error}"
        words = self._requester.last_words()[-_LAST_WORDS:] or "it said nothing"
        return f"the requester ended {when}: {words}"

    def figures(self) -> dict[str, Any]:
        """Return what was measured, before the requester is stopped."""
        tally = self._tally
        return {
            "minutes": round(tally.seconds / 60, 3),
            "ended": tally.ended,
            "answers": tally.answers,
            "wrong": tally.wrong,
            "failures": tally.failures,
            "kills": tally.events["killed"],
            "kills_in_an_answer": tally.events["killed in an answer"],
            "departures": tally.events["left"],
            "joins": tally.events["joined"],
            "repairs": len(tally.repairs),
            "repair_ms": spread([1e3 * seconds for seconds in tally.repairs], 1),
            "resumed_ms": spread([1e3 * seconds for seconds in tally.resumed], 1),
            **growth(tally.memory, tally.seconds),
            "descriptors": {"start": self._descriptors, "end": self._descriptors_now()},
            "loop_late_p99_ms": round(max(tally.late, default=0.0), 3),
        }

    # Answers

    def _ask(self, question: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> list[int]:
        params = {**question, "max_tokens": _TOKENS, "ignore_eos": True}
        with self._requester.client(timeout=_PATIENCE) as client:
            result: dict[str, Any] = client.call("generate", params, hear)
        tokens: list[int] = result["token_ids"]
        return tokens

    def _hear(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "plan":
            self._chain = {stage["name"] for stage in event["plan"]["stages"]}
        elif kind == "repaired":
            self._tally.repairs.append(event["seconds"])
            self._chain = {stage["name"] for stage in event["stages"]}
        elif kind == "token" and self._struck is not None:
            self._tally.resumed.append(time.monotonic() - self._struck)
            self._struck = None
        self._disturb()

    # Coming and going

    def _disturb(self) -> None:
        """Let somebody go or come, if it is time."""
        now = self._elapsed()
        for due, third in [vacancy for vacancy in self._vacant if vacancy[0] <= now]:
            self._vacant.remove((due, third))
            self._join(third)
        if now < self._next_at:
            return
        self._next_at = now + self._rng.uniform(*_CALM)
        spared = Counter(
            third for name, (_, third) in self._holders.items() if name in self._serving
        )
        victims = sorted(
            name
            for name, (_, third) in self._holders.items()
            if name in self._serving and spared[third] >= _HOLDERS
        )
        if not victims:
            return  # the others are still loading: all layers must stay held
        used = [name for name in victims if name in self._chain]
        name = self._rng.choice(used or victims)
        node, third = self._holders.pop(name)
        self._serving.discard(name)
        self._going[name] = node
        self._vacant.append((now + self._rng.uniform(*_ABSENCE), third))
        if self._rng.random() < _KILLED:
            node.kill()
            self._tally.events["killed"] += 1
            if name in self._chain:
                self._tally.events["killed in an answer"] += 1
                self._struck = time.monotonic()
        else:
            node.leave()
            self._tally.events["left"] += 1

    def _look_around(self) -> None:
        """Between two answers: who serves by now, who has ended, and what the requester takes."""
        picture = self._requester.snapshot()
        present = {
            peer.name for peer in picture.peers if peer.connected and peer.state == "serving"
        }
        self._serving = {name for name in self._holders if name in present}
        for name in [name for name, node in self._going.items() if node.has_ended()]:
            self._swarm.forget(self._going.pop(name))
        self._tally.memory.append((self._elapsed(), self._process.memory_info().rss))
        self._tally.late.append(picture.loop_late_ms[1])

    def _join(self, third: range) -> None:
        self._number += 1
        name = f"stage-{self._number}"
        options = ("--peer", self._requester.address)
        node = self._launch(name, f"{third.start}:{third.stop}", *options)
        self._holders[name] = (node, third)
        self._tally.events["joined"] += 1

    def _launch(self, name: str, layers: str, *options: str) -> NodeProcess:
        node = self._swarm.start(
            name,
            "--model",
            str(self._path),
            "--layers",
            layers,
            "--no-mdns",
            "--threads",
            "1",
            *options,
        )
        self.pids.append(node.pid)
        return node

    # The requester

    @property
    def _process(self) -> psutil.Process:
        return psutil.Process(self._requester.pid)

    def _descriptors_now(self) -> int | None:
        """Return how many descriptors it has open, once those of the last client are closed.

        None where it has ended.
        """
        began = time.monotonic()
        try:
            while (count := self._process.num_fds()) > self._descriptors:
                if time.monotonic() - began > _CLOSING:
                    break
                time.sleep(0.1)
        except psutil.Error:
            return None
        return count

    def _elapsed(self) -> float:
        return time.monotonic() - self._began


def _is_node(pid: int) -> bool:
    """Whether ``pid`` is still one of ours, and not somebody else's by now."""
    try:
        return "p2pnode" in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
