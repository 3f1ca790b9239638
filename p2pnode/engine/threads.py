"""How many threads BLAS may use.

One by default: with several peers on a machine, two threads each were measured two to three
times slower than one. The limit is set through ``threadpoolctl``, at any time and for whichever
BLAS numpy was built with; environment variables would have to be set before numpy is first
imported, by whoever imports it first.
"""

from importlib import import_module


def limit_blas_threads(count: int) -> int:
    """Let every BLAS in this process use at most ``count`` threads.

    Returns:
        How many threads the BLAS in use may take now; 0 where none can be controlled (Apple's
        Accelerate decides by itself).
    """
    threadpoolctl = import_module("threadpoolctl")  # it has no type hints
    threadpoolctl.threadpool_limits(limits=count, user_api="blas")
    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=0)
