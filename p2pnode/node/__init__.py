"""The composition root: every core in one node."""
