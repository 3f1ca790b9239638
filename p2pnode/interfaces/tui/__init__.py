"""The terminal UI, a process of its own; :func:`p2pnode.interfaces.tui.app.run_top` starts it.

It holds no state of the node: ``fetch`` brings a :class:`~p2pnode.node.snapshot.NodeSnapshot`, the
pure modules (``rates``, ``formats``, ``layer_bars``) turn it into numbers and text, and one widget
a file puts the text on the screen.
"""
