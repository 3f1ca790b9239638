"""The terminal UI, a process of its own."""
