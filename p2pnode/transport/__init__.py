"""Sealed, loss-repaired messages between nodes over UDP; ignorant of swarms and of sockets."""
