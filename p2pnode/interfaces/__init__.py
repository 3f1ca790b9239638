"""Faces: they read the snapshot, send commands, and nothing else."""
