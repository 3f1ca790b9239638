import subprocess
import sys

import pytest

from p2pnode.engine.numpy.blas import limit_blas_threads
from p2pnode.errors import ConfigError


def test_the_limit_can_be_lowered_and_raised() -> None:
    try:
        assert limit_blas_threads(2) in {0, 1, 2}
    finally:
        assert limit_blas_threads(1) in {0, 1}
    with pytest.raises(ConfigError):
        limit_blas_threads(0)


def test_the_limit_holds_for_a_numpy_not_yet_imported() -> None:
    """Limiting before numpy was loaded limited nothing, and cost a busy machine thirtyfold."""
    script = """
from p2pnode.engine.numpy.blas import limit_blas_threads
limit_blas_threads(1)
import numpy, threadpoolctl
print([pool["num_threads"] for pool in threadpoolctl.threadpool_info()])
"""
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(said.stdout.strip("[] \n").split(", ")) <= {"1", ""}
