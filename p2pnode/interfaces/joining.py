"""A node that changes its swarm before it starts: for ``p2pnode join``, and for programs."""

from p2pnode.net.udp import open_udp
from p2pnode.node.identity import StateDirectory
from p2pnode.node.models import describe_model
from p2pnode.node.settings import NodeSettings


def change_swarm(settings: NodeSettings, secret: bytes) -> None:
    """Belong to the swarm of ``secret`` from here on, unless this node could not start at all.

    Raises:
        UserError: The model, the port or the state cannot be used; the state is as it was.
    """
    for one in settings.models:
        describe_model(one.path)
    state = StateDirectory(settings.state)
    with state.lock():  # first: a node that runs here has the port too
        open_udp(settings.host, settings.port).close()
        state.identity_seed()
        if state.swarm_secret() != secret:
            state.remember_peers(())  # those of another swarm
        state.set_swarm_secret(secret)
