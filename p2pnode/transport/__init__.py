"""Sealed, FEC-protected datagrams between two peers; ignorant of swarms."""
