"""How people name a device of torch or JAX: a kind, and a number where there are several."""

import re
from typing import Final

DEVICE_NAME: Final = re.compile(r"([a-z]+)(?::([0-9]{1,18}))?")
"""Matches ``cuda`` and ``cuda:0``; which kinds and numbers there are is each engine's to say."""
