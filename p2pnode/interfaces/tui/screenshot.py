"""Pictures of the screen: an SVG of any snapshot, without a terminal.

``python -m p2pnode.interfaces.tui.screenshot docs/images/top.svg`` draws the docs' picture.
"""

import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from p2pnode.interfaces.tui.app import TopApp
from p2pnode.interfaces.tui.example import minute
from p2pnode.interfaces.tui.rates import History
from p2pnode.node.snapshot import NodeSnapshot


def render_svg(
    snapshots: Sequence[NodeSnapshot],
    *,
    size: tuple[int, int] = (144, 44),
    keys: Sequence[str] = (),
) -> str:
    """Return the screen as an SVG that loads nothing from elsewhere.

    Args:
        snapshots: One or more, oldest first; the last is shown, the others tell the rates.
        size: Columns and lines of the imagined terminal.
        keys: Pressed before the picture is taken.
    """
    return asyncio.run(_render(snapshots, size, keys))


async def _render(
    snapshots: Sequence[NodeSnapshot], size: tuple[int, int], keys: Sequence[str]
) -> str:
    history = History()
    for snapshot in snapshots:
        history.add(snapshot)
    app = TopApp(lambda: snapshots[-1], interval=None, history=history)
    async with app.run_test(size=size) as pilot:
        await app.poll()
        await pilot.press(*keys)
        await pilot.pause()
        return _FONT_FACES.sub("", app.export_screenshot(title=app.title))


_FONT_FACES = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_svg(list(minute())), encoding="utf-8")
