"""Which of two handshakes between the same two processes stays, when both are under way at once.

Each end keeps one connection to a peer. Where both keep another, both believe that they are
connected and nothing arrives. So both must come to the same choice, though neither sees all that
the other sees, and nothing may be said of it on the wire. With two addresses each, or two dials at
once, that takes three rules:

* *One end dialled twice.* It confirms one dial only (``Establishing`` gives up the others). Nodes
  of before confirm both: then the answerer decides, for it makes its connection first. It keeps
  the first that was finished, and the dialler follows whatever it hears on.
* *Both ends dialled.* The dial of the lower node id stays, if it was answered already when the
  other's is finished. If it was not, it gives way, and is not finished later.
* Both hold only while the handshakes overlap: whoever dials later has lost the connection, whatever
  this end believes. Whether the connection acknowledges does not count where both dialled: the
  other end may be asking a former process of ours for a sign of life before it confirms.
"""

from p2pnode.sansio import NodeId
from p2pnode.transport.connection import Connection
from p2pnode.transport.handshake import Dial, Established, Local


def gives_way(made: Established, us: NodeId, answered: Dial | None) -> bool:
    """Whether a dial of the peer gives way to ``answered``, a dial of ours that the peer answered.

    Where both dialled one address, the crossing INITs have decided already.
    """
    return answered is not None and not made.is_dialler and us < made.hello.node_id


def stays(existing: Connection, made: Established, local: Local, now: float) -> bool:
    """Whether the connection there is stays, and ``made`` makes none."""
    if existing.instance != made.hello.instance:
        return False
    if existing.is_dialler != made.is_dialler:
        is_young = now - existing.began < local.config.dial_timeout
        return is_young and existing.is_dialler == (local.identity.node_id < existing.peer)
    return not made.is_dialler and made.began < existing.began and existing.is_responsive
