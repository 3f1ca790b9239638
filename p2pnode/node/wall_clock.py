"""What the clock on the wall shows."""

import time


def seconds_of_day() -> float:
    """Return the seconds of the local day."""
    here = time.localtime()
    return 3600.0 * here.tm_hour + 60 * here.tm_min + here.tm_sec


def minute_of_day() -> int:
    """Return the minute of the local day, 0 to 1439."""
    return int(seconds_of_day() // 60)
