"""How many threads BLAS may use.

One by default: BLAS's threads wait for each other by spinning, so on a busy machine a second
thread makes things slower, not faster. Measured while other programs kept both cores of a machine
busy, a layer took 1.3 ms a token with one thread and 12 to 50 ms with two; with the machine idle,
1.1 and 0.9 ms.

The limit is set through ``threadpoolctl``: at any time, and for whichever BLAS numpy was built
with. The alternative, environment variables, must be set before anybody first imports numpy.
"""

from functools import cache
from importlib import import_module
from typing import Any

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


def blas_threads() -> int:
    """Return how many threads the BLAS that numpy uses may take now; 0 where it does not say."""
    return int(_pool().get("num_threads", 0))


def blas_name() -> str:
    """Return what decides the bits of BLAS's results: which one, for which CPU, and its threads.

    For example ``x1 openblas 0.3.31 zen``; ``x0 blas`` where it does not say. Two threads share
    the columns of a product out otherwise than one does: measured on OpenBLAS, the results of
    products 576 wide differ by 1e-5. Printable ASCII.
    """
    pool = _pool()
    words = (pool.get(key) for key in ("internal_api", "version", "architecture"))
    said = " ".join(str(word).lower() for word in words if word)
    plain = "".join(letter for letter in said if " " <= letter <= "~" and letter != "/")
    return f"x{blas_threads()} {plain or 'blas'}"


@cache
def has_blas() -> bool:
    """Whether numpy multiplies with a BLAS; by itself it is ten times slower."""
    if _pool():
        return True
    config: Any = import_module("numpy").show_config(mode="dicts")  # Accelerate is no pool
    return bool(config.get("Build Dependencies", {}).get("blas", {}).get("found"))


def _pool() -> dict[str, Any]:
    import_module("numpy")
    pools = import_module("threadpoolctl").threadpool_info()
    return next((pool for pool in pools if pool["user_api"] == "blas"), {})
