"""TOML that people write: read within bounds, with the line of each key."""
