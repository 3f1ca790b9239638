"""The library that the tests of this room compute with."""

import pytest

from p2pnode.engine.ggml.binding import Ggml, load
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.probe import Candidate


@pytest.fixture(scope="session")
def library() -> Candidate:
    """The one that this machine would compute with, tried."""
    chosen = find_library(None).chosen
    if chosen is None:
        pytest.skip("no ggml library loads here: pip install libggml-python")
    return chosen


@pytest.fixture(scope="session")
def ggml(library: Candidate) -> Ggml:
    return load(library.provider, gpus=False)
