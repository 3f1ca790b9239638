"""A peer-to-peer node that lets ordinary machines run language models together."""

__version__ = "0.1.0"
