"""A next turn begins where the last one ended; whatever is lost meanwhile changes no token."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from p2pnode import CORES
from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.config import InferenceConfig, ReuseConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.events import (
    ChainRepaired,
    GenerationPlanned,
)
from p2pnode.inference.messages import Close, Control, Open, Opened, Resume, from_body_untrusted
from p2pnode.inference.prefix_body import Names
from p2pnode.inference.request import GenerationRequest
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import FrameNetwork, node_id
from p2pnode.wire.messages import parse_sync_untrusted
from p2pnode.wire.vframe import Frame, MessageType

A, B, C, SPARE, TAIL, OTHER = (node_id(name) for name in ("a", "b", "c", "spare", "tail", "other"))
QUESTION = tuple(range(3, 43))
MORE = (200, 201, 202, 203, 204)
TOKENS = 10
CHUNK = 16
WARM = Sampling(temperature=0.9, top_k=40, top_p=0.95, seed=7)
END = 255
CONFIG = InferenceConfig(prefill_chunk=CHUNK)


@dataclass
class Chat:
    """A conversation over a network, and what its stages were told and said."""

    network: FrameNetwork
    asker: NodeId = A

    def __post_init__(self) -> None:
        self.said: tuple[int, ...] = QUESTION
        self.number = 0
        self.control: list[tuple[NodeId, Control]] = []
        self.states: dict[tuple[NodeId, int], set[bytes]] = {}
        self.rows = 0
        self.network.on_frame = self._see

    def ask(self, max_tokens: int = TOKENS, seconds: float = 20.0, **given: Any) -> list[int]:
        """Ask the next turn; the one after that goes on from its answer."""
        asked = GenerationRequest(self.said, max_tokens, WARM, frozenset())
        self.number = self.network.generate(self.asker, replace(asked, **given))
        self.network.run(seconds)
        tokens = self.network.tokens(self.asker, self.number)
        self.said = (*self.said, *tokens, *MORE)
        return tokens

    @property
    def reused(self) -> int:
        generation = self.network.cores[self.asker].generation(self.number)
        assert generation is not None
        return generation.reused

    def kept(self, peer: NodeId) -> int:
        return len(self.network.cores[peer].kept)

    def _see(self, frame: Frame, destination: NodeId) -> None:
        if frame.type is MessageType.SYNC:
            message = from_body_untrusted(parse_sync_untrusted(frame))
            assert message is not None
            self.control.append((destination, message))
        else:
            self.rows += 1
            seen = self.states.setdefault((destination, frame.frame_seq), set())
            seen.add(bytes(frame.slices[0].payload))


def three(seed: int = 0, config: InferenceConfig = CONFIG, **more: range) -> FrameNetwork:
    holders = {A: range(2), B: range(2, 4), C: range(4, 6)}
    holders |= {node_id(name): held for name, held in more.items()}
    engines = {peer: random_model(5, n_layers=6, layers=held) for peer, held in holders.items()}
    network = FrameNetwork(seed, engines, config)
    network.roster.numerics = 7
    return network


@cache
def undisturbed() -> tuple[tuple[int, ...], ...]:
    chat = Chat(three())
    return tuple(tuple(chat.ask()) for _ in range(3))


def test_each_turn_begins_where_the_last_one_ended() -> None:
    chat = Chat(three())
    chat.ask()
    assert (chat.reused, [chat.kept(peer) for peer in (A, B, C)]) == (0, [1, 1, 1])
    for turn in (1, 2):
        before = len(chat.said) - len(MORE) - 1  # the last token was shown, and not computed
        chat.states.clear()
        chat.ask()
        assert chat.reused == before
        assert min(at for peer, at in chat.states if peer == B) == before + 1
        assert [chat.kept(peer) for peer in (A, B, C)] == [1, 1, 1], turn
    assert all(core.kv_used == 0 and not core.stages() for core in chat.network.cores.values())


def test_nothing_is_reused_of_what_is_not_common() -> None:
    chat = Chat(three())
    chat.ask()
    chat.said = (QUESTION[0] + 1, *QUESTION[1:])
    chat.ask()
    assert chat.reused == 0


def test_a_beginning_in_common_ends_with_a_whole_batch_and_leaves_a_token_to_compute() -> None:
    network = three()
    first = Chat(network)
    first.ask()
    for said, reused in (
        ((*QUESTION[:35], 77, 78), 32),
        (QUESTION[:33], 32),
        (QUESTION[:32], 16),
        (QUESTION[:16], 0),
        (QUESTION, 32),  # the same question once more
    ):
        chat = Chat(network)
        chat.said = said
        chat.ask()
        assert chat.reused == reused, said


def test_a_prompt_asked_again_with_another_seed_shares_the_prompt_alone() -> None:
    chat = Chat(three())
    chat.ask()
    chat.said = QUESTION
    other = replace(WARM, seed=8)
    tokens = chat.ask(sampling=other)
    fresh = Chat(three())
    assert chat.reused == 32
    assert tokens == fresh.ask(sampling=other)  # cut alike, so the same bits


@pytest.mark.parametrize("victim", [B, C])
@pytest.mark.parametrize("token", range(TOKENS))
def test_a_kill_at_any_token_of_a_reused_answer_changes_nothing(victim: NodeId, token: int) -> None:
    calm, chat = Chat(three()), Chat(three(token, spare=range(2, 4), tail=range(4, 6)))
    calm.ask()
    chat.ask()
    calm.states.clear()
    chat.states.clear()
    at = len(chat.said) + token
    chat.network.on_token = lambda event: (
        chat.network.kill(victim) if event.position == at else None
    )
    assert tuple(chat.ask()) == undisturbed()[1] == tuple(calm.ask())
    assert calm.reused == chat.reused > 0
    repairs = [one for _, _, one in chat.network.events if isinstance(one, ChainRepaired)]
    assert len(repairs) == (token < TOKENS - 1)
    known = {(B, SPARE): range(2, 4), (C, TAIL): range(4, 6)}
    for pair in known:  # whoever took over was sent the same bits, those of the first turn too
        for (peer, position), sent in chat.states.items():
            if peer in pair and (calm_sent := calm.states.get((pair[0], position))):
                assert sent == calm_sent
    assert all(len(sent) == 1 for sent in chat.states.values())
    chat.network.on_token = lambda event: None
    assert tuple(chat.ask()) == undisturbed()[2]
    if repairs:  # else who was killed held it alone
        assert chat.reused == at - token + TOKENS - 1


@pytest.mark.parametrize("step", range(40))
def test_a_kill_at_any_moment_of_a_reused_answer_changes_no_token(step: int) -> None:
    chat = Chat(three(step, spare=range(2, 4), tail=range(4, 6)))
    chat.ask()
    number = chat.network.generate(A, GenerationRequest(chat.said, TOKENS, WARM, frozenset()))
    chat.network.run(seconds=step * 0.0015)
    chat.network.kill(B if step % 2 else C)
    chat.network.run(seconds=30)
    assert tuple(chat.network.tokens(A, number)) == undisturbed()[1]
    # And the turn after it goes on from whoever holds what by then.
    chat.said = (*chat.said, *undisturbed()[1], *MORE)
    assert tuple(chat.ask()) == undisturbed()[2]


@pytest.mark.parametrize("loser", [A, B, C])
def test_a_stage_that_lost_its_cache_is_fed_alone(loser: NodeId) -> None:
    chat = Chat(three())
    chat.ask()
    evict(chat.network, loser)
    chat.states.clear()
    chat.control.clear()
    assert tuple(chat.ask()) == undisturbed()[1]
    assert chat.reused == 0  # one stage had to compute it all
    opened = {one.leg: one.next_position for _, one in chat.control if isinstance(one, Opened)}
    held = len(QUESTION) + TOKENS - 1
    assert opened == {leg: 0 if leg == (A, B, C).index(loser) + 1 else held for leg in (1, 2, 3)}
    for index, peer in enumerate((A, B, C)):
        first = min(at for one, at in chat.states if one == peer)
        assert first == 1 if peer == loser else first == held + 1, index


def evict(network: FrameNetwork, peer: NodeId) -> None:
    core = network.cores[peer]
    core.give_up("for a test")
    network.run(seconds=0.01)
    assert not len(core.kept)


def test_where_nobody_holds_anything_the_prompt_is_cut_anew() -> None:
    chat = Chat(three())
    chat.ask()
    for peer in (A, B, C):
        evict(chat.network, peer)
    chat.states.clear()
    chat.ask()
    begins = sorted(at - 1 for peer, at in chat.states if peer == B and at <= len(chat.said))
    prompt = len(QUESTION) + TOKENS + len(MORE)
    assert begins[: -(-prompt // CHUNK)] == list(range(0, prompt, CHUNK))
    fresh = Chat(three())
    fresh.said = (*QUESTION, *undisturbed()[0], *MORE)
    assert fresh.ask() == list(chat.said[prompt : prompt + TOKENS])


def test_reuse_costs_no_round_trip_and_its_absence_no_message() -> None:
    chat = Chat(three())
    chat.ask()
    assert not [one for _, one in chat.control if isinstance(one, Resume)]
    assert not [one for _, one in chat.control if isinstance(one, Open) and one.prefix]
    chat.control.clear()
    chat.ask()
    kinds = [type(one) for _, one in chat.control]
    assert kinds == [Open] * 3 + [Opened] * 3 + [Resume] * 3 + [Close] * 3


def test_another_requester_finds_nothing_and_is_told_nothing() -> None:
    network = three(other=range(6))
    network.roster.holders[OTHER] = range(0)
    chat = Chat(network)
    chat.ask()
    spy = Chat(network, OTHER)
    spy.said = (*QUESTION, *undisturbed()[0], *MORE)
    spy.ask()
    assert spy.reused == 0
    assert {one.next_position for _, one in spy.control if isinstance(one, Opened)} == {0}
    # Not even with the names that the other gave.
    [order] = [one for peer, one in chat.control if isinstance(one, Close) and peer == B][:1]
    stolen = dict(order.keep)[2]
    spy.control.clear()
    say(network, OTHER, B, opening(spy, stolen))
    assert [one.next_position for _, one in spy.control if isinstance(one, Opened)] == [0]


def opening(spy: Chat, names: Names | None) -> Open:
    """Return an order like the one that ``spy`` gave the middle stage, for what has names."""
    chain = Chat(three())
    chain.ask()
    order = next(one for peer, one in chain.control if isinstance(one, Open) and peer == B)
    return replace(order, session=order.session ^ 1, prefix=names)


def say(network: FrameNetwork, source: NodeId, peer: NodeId, message: Control) -> None:
    core = network.cores[peer]
    core.receive_frame_untrusted(control_frame(message, network.space), source, network.now)
    network._collect(peer)
    network.run(seconds=0.05)


def test_who_agreed_finds_what_others_left() -> None:
    from p2pnode.inference.core import Inference
    from p2pnode.inference.prefix_names import Scope

    network = three(other=range(6))
    network.roster.holders[OTHER] = range(0)
    for peer in (A, OTHER):
        core: Inference = network.cores[peer]
        core._scope = Scope(b"agreed", is_shared=True)
    chat, friend = Chat(network), Chat(network, OTHER)
    chat.ask()
    friend.said = (*QUESTION, 77, 78)
    friend.ask()
    assert friend.reused == 32
    network.cores[OTHER]._prefixes = None
    network.cores[OTHER]._scope = Scope(b"otherwise", is_shared=True)
    friend.ask()
    assert friend.reused == 0


def test_an_answer_that_is_cancelled_is_kept_as_far_as_it_came() -> None:
    chat = Chat(three())
    network = chat.network
    number = network.generate(A, GenerationRequest(QUESTION, TOKENS, WARM, frozenset()))
    network.on_token = lambda event: (
        network.cores[A].cancel(number, network.now)
        if event.position == len(QUESTION) + 4
        else None
    )
    network.run(seconds=10)
    shown = network.tokens(A, number)
    assert len(shown) == 5
    chat.said = (*QUESTION, *shown, *MORE)
    network.on_token = lambda event: None
    chat.ask()
    assert chat.reused == len(QUESTION) + 4
    assert not any(core.stages() for core in network.cores.values())


def test_a_session_that_still_runs_is_not_begun_from() -> None:
    chat = Chat(three())
    chat.ask()
    network, said = chat.network, chat.said
    asked = GenerationRequest(said, TOKENS, WARM, frozenset())
    both = [network.generate(A, asked)]
    network.run(seconds=0.01)
    both.append(network.generate(A, asked))
    network.run(seconds=20)
    first, second = (network.cores[A].generation(number) for number in both)
    assert first is not None
    assert second is not None
    assert (first.reused, second.reused) == (len(said) - len(MORE) - 1, 0)
    assert tuple(network.tokens(A, both[0])) == undisturbed()[1]
    assert len(network.tokens(A, both[1])) == TOKENS


@pytest.mark.parametrize("seed", range(8))
def test_two_that_go_on_from_one_answer_at_once_are_both_right(seed: int) -> None:
    """Each stage gives its cache to whoever is there first; the other is fed from the start."""
    chat = Chat(three(seed))
    chat.ask()
    asked = GenerationRequest(chat.said, TOKENS, WARM, frozenset())
    both = [chat.network.generate(A, asked) for _ in range(2)]
    chat.network.run(seconds=20)
    tokens = [tuple(chat.network.tokens(A, number)) for number in both]
    assert undisturbed()[1] in tokens
    assert [len(one) for one in tokens] == [TOKENS] * 2
    assert not any(core.stages() for core in chat.network.cores.values())


def test_who_remembers_nothing_has_nothing_kept() -> None:
    config = replace(CONFIG, reuse=ReuseConfig(most_records=0))
    chat = Chat(three(0, config))
    chat.ask()
    chat.ask()
    assert (chat.reused, chat.kept(B)) == (0, 0)


def test_what_is_kept_is_let_go_of_in_time() -> None:
    config = replace(CONFIG, reuse=ReuseConfig(keep_for=60.0))
    chat = Chat(three(0, config))
    chat.ask()
    chat.network.run(seconds=30)
    assert chat.kept(B) == 1
    chat.network.run(seconds=40)
    assert [chat.kept(peer) for peer in (A, B, C)] == [0, 0, 0]
    chat.ask()
    assert chat.reused == 0


@pytest.mark.parametrize("given", [{"sampling": Sampling(mean=True)}, {"activations": "q4"}])
def test_what_is_not_computed_the_same_way_again_is_not_kept(given: dict[str, Any]) -> None:
    chat = Chat(three())
    chat.ask(1, **given)
    assert chat.kept(B) == 0


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
def test_a_stage_of_old_passes_over_what_it_does_not_know() -> None:
    """It holds nothing, says 0 and sends at once what it computes: its next drops what it has."""
    chat = Chat(three())
    chat.ask()
    evict(chat.network, B)
    core = chat.network.cores[B]
    known = core.receive_frame_untrusted

    def of_old(frame: Frame, source: NodeId, now: float) -> object:
        if frame.type is MessageType.SYNC:
            message = from_body_untrusted(parse_sync_untrusted(frame))
            if isinstance(message, Open):
                frame = control_frame(replace(message, prefix=None), chat.network.space)
            elif isinstance(message, Close):
                frame = control_frame(replace(message, keep=()), chat.network.space)
        return known(frame, source, now)

    core.receive_frame_untrusted = of_old  # type: ignore[assignment, method-assign]
    assert tuple(chat.ask()) == undisturbed()[1]
    assert chat.kept(B) == 0
    assert chat.kept(C) == 1


def test_the_plan_says_how_much_is_reused() -> None:
    chat = Chat(three())
    chat.ask()
    chat.ask()
    planned = [one for _, _, one in chat.network.events if isinstance(one, GenerationPlanned)]
    assert [one.reused for one in planned] == [0, len(QUESTION) + TOKENS - 1]
    counters = chat.network.cores[B].all_counters()
    assert counters["positions reused"] == len(QUESTION) + TOKENS - 1
    assert counters["cache kept"] == 2
