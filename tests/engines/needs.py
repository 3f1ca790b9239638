"""What the tests of this room need beyond the project's own extras."""

import importlib.util
from typing import Final

import pytest

PACKAGES: Final = ("torch", "transformers", "xllamacpp")
"""Heavy. ``make test-engines`` brings them, ``make test`` never does."""


def require_references(*engines: str) -> None:
    """Skip the calling module, by name, where a reference or an engine's package is missing."""
    missing = [name for name in (*PACKAGES, *engines) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: make test-engines", allow_module_level=True)
