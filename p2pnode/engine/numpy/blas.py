"""How many threads BLAS may use.

One by default: BLAS's threads wait for each other by spinning, so on a busy machine a second
thread makes things slower, not faster. Measured while other programs kept both cores of a machine
busy, a layer took 1.3 ms a token with one thread and 12 to 50 ms with two; with the machine idle,
1.1 and 0.9 ms.

The limit is set through ``threadpoolctl``: at any time, and for whichever BLAS numpy was built
with. The alternative, environment variables, must be set before anybody first imports numpy.
"""

from importlib import import_module

from p2pnode.errors import ConfigError


def limit_blas_threads(count: int) -> int:
    """Let every BLAS in this process use at most ``count`` threads.

    Returns:
        How many threads the BLAS in use may take now; 0 where none can be controlled (Apple's
        Accelerate decides by itself).

    Raises:
        ConfigError: ``count`` is below 1.
    """
    if count < 1:
        raise ConfigError(f"BLAS needs at least one thread, not {count}")
    import_module("numpy")  # a BLAS that is not loaded yet cannot be limited
    threadpoolctl = import_module("threadpoolctl")  # by name: it has no type hints
    threadpoolctl.threadpool_limits(limits=count, user_api="blas")
    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=0)


def blas_name() -> str:
    """Return which BLAS numpy uses and for which CPU, which decides the bits of its results.

    For example ``openblas 0.3.31 zen``; ``blas`` where it does not say.
    """
    import_module("numpy")
    for pool in import_module("threadpoolctl").threadpool_info():
        if pool["user_api"] == "blas":
            words = (pool.get(key) for key in ("internal_api", "version", "architecture"))
            return " ".join(str(word).lower() for word in words if word)
    return "blas"
