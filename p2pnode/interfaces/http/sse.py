"""Server-sent events (WHATWG HTML, 9.2)."""

import json


def server_sent(data: object, event: str | None = None) -> bytes:
    """Return an event; what is no text already is written as JSON."""
    head = f"event: {event}\n" if event else ""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return f"{head}data: {text}\n\n".encode()
