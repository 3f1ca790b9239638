"""A peer-to-peer node that lets ordinary machines run language models together."""

__version__ = "0.1.0"

from p2pnode.compiled import begin

CORES = begin()
"""How the cores run, compiled or pure: decided before any of them is imported."""
