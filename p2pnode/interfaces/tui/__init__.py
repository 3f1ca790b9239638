"""The terminal UI, a process of its own.

It holds no state of the node: ``fetch`` brings a :class:`~p2pnode.node.snapshot.NodeSnapshot`, the
pure modules (``rates``, ``formats``, ``layer_bars``) turn it into numbers and text, and one widget
a file puts the text on the screen.
"""

from collections.abc import Callable

from p2pnode.node.snapshot import NodeSnapshot


def run_top(fetch: Callable[[], NodeSnapshot], *, interval: float = 0.5) -> None:
    """Show a node's life until the user quits.

    Args:
        fetch: Brings the newest snapshot, or raises. It is called in a thread, never twice at
            once, and should give up by itself within seconds: quitting waits for it.
        interval: Seconds between an answer and the next call.
    """
    from p2pnode.interfaces.tui.app import TopApp  # the import takes longer than most commands

    TopApp(fetch, interval=interval).run()
