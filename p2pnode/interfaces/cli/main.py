"""Where ``p2pnode`` begins."""

import sys


def main() -> None:
    """Run the command line; a Ctrl-C ends it quietly, even while it is still being imported."""
    try:
        from p2pnode.interfaces.cli.commands import run

        status = run()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
