"""A whole node, still without I/O."""
