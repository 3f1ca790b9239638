"""The workers that carry out runs: a Ctrl-C of the terminal is their parent's alone."""

import multiprocessing
import signal

from p2pnode.testing.runs import _pool


def test_workers_hear_no_interrupt_from_their_first_moment_on() -> None:
    context = multiprocessing.get_context("spawn")
    with _pool(context, 1) as pool:
        assert signal.SIGINT in pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, []))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
