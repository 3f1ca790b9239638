"""What ``--version`` says: the program's version, the protocol's, and how the cores run."""

from p2pnode import CORES, __version__
from p2pnode.interfaces.cli.output import say, say_json

PROGRAM = "p2pnode"


def protocol_versions() -> dict[str, int]:
    """Return the versions of what peers say to each other, by part.

    ``protocol`` is the one that two peers agree on in a Sync; the others stand in the bytes of what
    they are called after. ``ad`` is the newest that is read: all older ones are too.
    """
    from p2pnode.membership.records import SIGNED_VERSION
    from p2pnode.transport.packets import VERSION as TRANSPORT
    from p2pnode.wire.ad import NEWEST
    from p2pnode.wire.capability import PROTOCOL
    from p2pnode.wire.vframe import VERSION as FRAME

    return {
        "protocol": PROTOCOL,
        "frame": FRAME,
        "transport": TRANSPORT,
        "membership": SIGNED_VERSION,
        "ad": NEWEST,
    }


def say_version(*, as_json: bool) -> None:
    """Print it in one line, or as JSON."""
    versions = protocol_versions()
    if as_json:
        say_json({"version": __version__, **versions, "cores": CORES.in_words()})
        return
    number = versions.pop("protocol")
    parts = ", ".join(f"{part} {version}" for part, version in versions.items())
    words = CORES.in_words()
    say(f"{PROGRAM}, version {__version__}, protocol {number} ({parts}), {words}")
