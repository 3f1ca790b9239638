"""The words of advice to install something beside p2pnode: with which pip, and from where.

Several pythons of a machine have a pip each, and p2pnode itself may come from a folder that no
package index knows. Paths are whole: who reads the advice may stand in another folder.
"""

import json
import shlex
import sys
from pathlib import Path


def pip_install(*words: str) -> str:
    """Return the command that installs packages into the environment that p2pnode runs in."""
    return shlex.join([sys.executable or "python", "-m", "pip", "install", *words])


def install_extra(extra: str) -> str:
    """Return the command that installs an extra of p2pnode, from where p2pnode itself came."""
    *option, source = _source()
    return pip_install(*option, f"{source}[{extra}]")


def upgrade() -> str:
    """Return the command that installs p2pnode anew, with what it needs."""
    return pip_install("--upgrade", *_source())


def _source() -> tuple[str, ...]:
    """Return what pip calls p2pnode: its folder, editable as it is; its name where none is told."""
    # Seldom asked for, and they take a twentieth of a node's start.
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        said = json.loads(distribution("p2pnode").read_text("direct_url.json") or "{}")
        parts, is_editable = urlsplit(said["url"]), bool(said["dir_info"].get("editable"))
    except (PackageNotFoundError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return ("p2pnode",)
    folder = Path(url2pathname(parts.path))
    if parts.scheme != "file" or not folder.is_dir():
        return ("p2pnode",)
    return ("-e", str(folder)) if is_editable else (str(folder),)
