"""Settings that the whole suite shares."""

import gc
import os

from hypothesis import HealthCheck, settings

# A failure must be the same for everyone, and a slow machine must not be a failure.
# Each property is tried 60 times unless it says otherwise; `make fuzz` looks for what that misses.
settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
# `make test-fast` runs the same properties again, compiled, with fewer examples.
settings.register_profile("again", settings.get_profile("suite"), max_examples=30)
settings.load_profile("again" if os.environ.get("P2PNODE_PURE") == "0" else "suite")

# What is compiled may be older than what is edited, and is no source to measure coverage of:
# `make test-fast` alone asks for it.
os.environ.setdefault("P2PNODE_PURE", "1")

# What whoever runs the suite keeps as settings is no part of what is tested.
os.environ["P2PNODE_CONFIG"] = os.devnull


# Whatever collecting makes lives to the end: to look through it again and again costs a seventh of
# the time that collecting takes.
def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()
