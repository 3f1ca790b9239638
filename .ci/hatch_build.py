"""Puts the compiled cores into a wheel where ``P2PNODE_COMPILE=1`` asks for it; off by default.

P2PNODE_COMPILE=1 pip wheel --no-deps .    # needs a C compiler; without the variable, none
"""

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "P2PNODE_COMPILE"
MYPY = "mypy==2.4.1"  # as in pyproject.toml: another may break what this one compiles


class CompiledCores(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles before a wheel is filled."""

    def dependencies(self) -> list[str]:
        """Return what compiling needs: mypy reads the types of the packages that the cores use."""
        if not _is_asked_for():
            return []
        return [MYPY, "setuptools>=75", *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not _is_asked_for() or version == "editable":
            return
        sys.path.insert(0, str(Path(self.root, ".ci")))
        import compile_cores

        package = Path(self.root, "p2pnode")
        folder = Path(self.directory, "compiled")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            library = compile_cores.compile_into(
                folder, jobs=os.cpu_count() or 1, is_checkout=False
            )
        except compile_cores.CannotCompileError as error:
            sys.exit(f"error: {error}")
        inside = f"{package.name}/_compiled/{library.parent.name}"
        for file in library.parent.iterdir():
            build_data["force_include"][str(file)] = f"{inside}/{file.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _is_asked_for() -> bool:
    return os.environ.get(VARIABLE, "0") not in {"", "0"}
