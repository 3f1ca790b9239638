"""How long something lasts, in words; it imports nothing, for commands that only print."""


def span(seconds: float) -> str:
    """Return a duration in its two largest units: ``4s``, ``3m 20s``, ``2d 4h``."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes % 60}m"
    if minutes:
        return f"{minutes}m {whole % 60}s"
    return f"{whole}s"
