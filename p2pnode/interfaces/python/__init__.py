"""For programs in Python: a node in their own process, and a client of one that runs beside them.

What is here is exported by :mod:`p2pnode` itself, as ``p2pnode.Node`` and ``p2pnode.Client``.
"""
