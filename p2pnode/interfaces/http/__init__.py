"""HTTP: a server in a process of its own, beside a node."""
