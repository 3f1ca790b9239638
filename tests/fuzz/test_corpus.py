"""Every input in the corpus through every target: what was found once stays mended."""

import tracemalloc

import pytest

from tests.fuzz.target import PEER_ONLY, Target
from tests.fuzz.targets import CORPUS, TARGETS, inputs


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_read_or_refused(name: str) -> None:
    target = TARGETS[name]
    accepted = [target.feed(data) for data in inputs(target)]
    assert any(accepted)


@pytest.mark.parametrize("name", TARGETS)
def test_no_seed_takes_more_memory_than_its_bound(name: str) -> None:
    target = TARGETS[name]
    seeds = [*target.seeds()]
    for data in seeds:
        target.feed(data)  # what is loaded or cached once is no part of the bound
    tracemalloc.start()
    try:
        for data in seeds:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            target.feed(data)
            assert tracemalloc.get_traced_memory()[1] - before <= target.memory
    finally:
        tracemalloc.stop()


def test_every_corpus_has_its_target() -> None:
    assert {path.stem for path in CORPUS.glob("*")} <= set(TARGETS)


def test_whatever_is_no_refusal_is_a_finding() -> None:
    def run(data: bytes) -> None:
        raise KeyError(data)

    target = Target("broken", run, seeds=lambda: (b"",), refusals=PEER_ONLY)
    with pytest.raises(KeyError):
        target.feed(b"")
