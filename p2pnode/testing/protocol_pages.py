"""What the code writes into the protocol's pages: byte diagrams, tables, the test vectors.

``python -m p2pnode.testing.protocol_pages`` rewrites them in a checkout. A page marks the place
with ``<!-- generated: NAME -->`` and ``<!-- end -->``.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from p2pnode.testing.diagram import draw
from p2pnode.testing.wire_vectors import wire_vectors_text
from p2pnode.wire.dtypes import REGISTRY, dtype_label
from p2pnode.wire.layout import HEAD, HEADER, NONCE, SLICE, TAIL, Layout

PAGES = Path(__file__).parents[2] / "docs/protocol"
VECTORS = "vectors.json"


def generated_text(name: str) -> str:
    """Return what stands between the marks of ``name``.

    Raises:
        LookupError: Nothing makes it.
    """
    return _WRITERS[name]()


def regenerated(page: str) -> str:
    """Return a page's text with every generated part made anew."""
    return _PLACE.sub(lambda place: f"{place[1]}{generated_text(place[2])}{place[4]}", page)


def write_pages(folder: Path = PAGES) -> list[Path]:
    """Rewrite what is out of date; return what was."""
    wanted = {path: regenerated(path.read_text("utf-8")) for path in folder.glob("*.md")}
    vectors = folder / VECTORS
    wanted[vectors] = wire_vectors_text()
    stale = [
        path
        for path, text in wanted.items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    for path in stale:
        path.write_text(wanted[path], "utf-8")
    return stale


def _diagram(layout: Layout) -> Callable[[], str]:
    return lambda: f"```text\n{draw(layout)}\n```\n"


def _dtypes_table() -> str:
    lines = [
        "<!-- table: dtypes -->",
        "| code | type | bits | name | extension | payload |",
        "|---|---|---|---|---|---|",
    ]
    for code, info in REGISTRY.items():
        extension = "yes" if info.extension else "no"
        cells = (f"0x{code:02x}", dtype_label(code), str(info.bits), info.name, extension)
        lines.append(f"| {' | '.join((*cells, info.layout))} |")
    return "\n".join(lines) + "\n"


_PLACE = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_WRITERS: Mapping[str, Callable[[], str]] = {
    "header-diagram": _diagram(HEADER),
    "slice-diagram": _diagram(SLICE),
    "head-diagram": _diagram(HEAD),
    "tail-diagram": _diagram(TAIL),
    "nonce-diagram": _diagram(NONCE),
    "dtypes-table": _dtypes_table,
}

if __name__ == "__main__":
    for written in write_pages():
        sys.stdout.write(f"{written}\n")
