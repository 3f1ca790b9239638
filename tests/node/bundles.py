"""The one model of a node that has no other."""

from p2pnode.node.bundle import Bundle
from p2pnode.node.core import NodeCore
from p2pnode.scheduler.directory import Offer


def only(node: NodeCore) -> Bundle:
    """Return it."""
    [bundle] = node.serving.bundles.values()
    return bundle


def offers_seen(node: NodeCore) -> list[Offer]:
    """Return what every node offers of it, as ``node`` sees it."""
    return node.planner.offers(only(node).space)
