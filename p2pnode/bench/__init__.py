"""Measurements as commands: real processes, the real model, figures side by side in one run."""
