"""Settings that the whole suite shares."""

from hypothesis import HealthCheck, settings

# A failure must be the same for everyone, and a slow machine must not be a failure.
settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
