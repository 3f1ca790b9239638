"""Many people at once: what each of them has of a chain of three, and what all have together."""
